"""SMTP replies and enhanced status codes: the words of the wire.

A `Reply` is what one side of an SMTP conversation says. It knows nothing of sockets or of why it is said. Every reply that Lamson
writes or reads is one of these; only `smtp.session` turns them into bytes for a client.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The text for each reply code of RFC 5321 §4.2.3, RFC 4954 §6, RFC 3207 §4 and RFC 7504 §3.
REPLY_TEXTS: dict[int, str] = {
    211: "System status",
    214: "Help message",
    220: "Service ready",
    221: "Bye",
    235: "Authentication succeeded",
    250: "OK",
    251: "User not local; will forward",
    252: "Cannot verify, but will take the message and try",
    334: "Go on",
    354: "End data with <CR><LF>.<CR><LF>",
    421: "Service not available, closing the channel",
    432: "A password transition is needed",
    450: "Mailbox unavailable, try again later",
    451: "Local error, try again later",
    452: "Insufficient system storage, try again later",
    454: "Temporary authentication failure",
    455: "Cannot take the parameters now",
    500: "Command not recognised",
    501: "Syntax error in parameters or arguments",
    502: "Command not implemented",
    503: "Bad sequence of commands",
    504: "Parameter not implemented",
    521: "This host takes no mail",
    523: "Encryption is needed for this mechanism",
    530: "Authentication required",
    534: "The authentication mechanism is too weak",
    535: "Authentication failed",
    538: "Encryption required for this authentication mechanism",
    550: "Mailbox unavailable",
    551: "User not local",
    552: "Message is larger than what is taken here",
    553: "Mailbox name not allowed",
    554: "Transaction failed",
    555: "MAIL or RCPT parameters not recognised or not implemented",
    556: "Domain takes no mail",
}

#: What the first digit of an enhanced status says (RFC 3463 §2).
CLASSES: dict[str, str] = {"2": "Success", "4": "Persistent transient failure", "5": "Permanent failure"}

#: What the second digit says: the subject (RFC 3463 §3).
SUBJECTS: dict[str, str] = {
    "0": "Other or undefined status",
    "1": "Addressing status",
    "2": "Mailbox status",
    "3": "Mail system status",
    "4": "Network and routing status",
    "5": "Mail delivery protocol status",
    "6": "Message content or media status",
    "7": "Security or policy status",
}

#: Subject and detail, as registered by IANA's "SMTP Enhanced Status Codes" (RFC 5248; RFC 3463, 3886, 4468, 4954, 6531, 6710, 7372,
#: 7504, 7505, 8616).
DETAILS: dict[str, str] = {
    "0.0": "Other undefined status",
    "1.0": "Other address status",
    "1.1": "Bad destination mailbox address",
    "1.2": "Bad destination system address",
    "1.3": "Bad destination mailbox address syntax",
    "1.4": "Destination mailbox address ambiguous",
    "1.5": "Destination address valid",
    "1.6": "Destination mailbox has moved, no forwarding address",
    "1.7": "Bad sender's mailbox address syntax",
    "1.8": "Bad sender's system address",
    "1.9": "Message relayed to non-compliant mailer",
    "1.10": "Recipient address has null MX",
    "2.0": "Other or undefined mailbox status",
    "2.1": "Mailbox disabled, not accepting messages",
    "2.2": "Mailbox full",
    "2.3": "Message length exceeds administrative limit",
    "2.4": "Mailing list expansion problem",
    "3.0": "Other or undefined mail system status",
    "3.1": "Mail system full",
    "3.2": "System not accepting network messages",
    "3.3": "System not capable of selected features",
    "3.4": "Message too big for system",
    "3.5": "System incorrectly configured",
    "3.6": "Requested priority was changed",
    "4.0": "Other or undefined network or routing status",
    "4.1": "No answer from host",
    "4.2": "Bad connection",
    "4.3": "Directory server failure",
    "4.4": "Unable to route",
    "4.5": "Mail system congestion",
    "4.6": "Routing loop detected",
    "4.7": "Delivery time expired",
    "5.0": "Other or undefined protocol status",
    "5.1": "Invalid command",
    "5.2": "Syntax error",
    "5.3": "Too many recipients",
    "5.4": "Invalid command arguments",
    "5.5": "Wrong protocol version",
    "5.6": "Authentication exchange line is too long",
    "6.0": "Other or undefined media error",
    "6.1": "Media not supported",
    "6.2": "Conversion required and prohibited",
    "6.3": "Conversion required but not supported",
    "6.4": "Conversion with loss performed",
    "6.5": "Conversion failed",
    "6.6": "Message content not available",
    "6.7": "Non-ASCII addresses not permitted for that sender or recipient",
    "6.8": "UTF-8 string reply is required, but not permitted by the SMTP client",
    "6.9": "UTF-8 header message cannot be transferred to one or more recipients",
    "7.0": "Other or undefined security status",
    "7.1": "Delivery not authorized, message refused",
    "7.2": "Mailing list expansion prohibited",
    "7.3": "Security conversion required but not possible",
    "7.4": "Security features not supported",
    "7.5": "Cryptographic failure",
    "7.6": "Cryptographic algorithm not supported",
    "7.7": "Message integrity failure",
    "7.8": "Authentication credentials invalid",
    "7.9": "Authentication mechanism is too weak",
    "7.10": "Encryption needed",
    "7.11": "Encryption required for requested authentication mechanism",
    "7.12": "A password transition is needed",
    "7.13": "User account disabled",
    "7.14": "Trust relationship required",
    "7.15": "Priority level is too low",
    "7.16": "Message is too big for the specified priority",
    "7.17": "Mailbox owner has changed",
    "7.18": "Domain owner has changed",
    "7.19": "RRVS test cannot be completed",
    "7.20": "No passing DKIM signature found",
    "7.21": "No acceptable DKIM signature found",
    "7.22": "No valid author-matched DKIM signature found",
    "7.23": "SPF validation failed",
    "7.24": "SPF validation error",
    "7.25": "Reverse DNS validation failed",
    "7.26": "Multiple authentication checks failed",
    "7.27": "Sender address has null MX",
    "7.28": "Mail flood detected",
    "7.29": "ARC validation failure",
    "7.30": "REQUIRETLS support required",
}

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})", re.ASCII)
_UNSPEAKABLE = re.compile(r"[^\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply: code, text (lines parted by newlines), enhanced status.

    `status` None means that the reply has no enhanced status: greetings and the answers to EHLO and HELO (RFC 2034 §4).
    """

    code: int
    text: str = ""
    status: str | None = None

    @property
    def ok(self) -> bool:
        """The client may take its wish as granted: 2xx and 3xx (RFC 5321 §4.2.1)."""
        return self.code < 400

    @property
    def transient(self) -> bool:
        """The client shall try again: 4xx."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """The client shall not repeat this: 5xx."""
        return self.code >= 500

    def __bytes__(self) -> bytes:
        """The wire form, CRLF ended. What is not printable ASCII becomes `?` (RFC 5321 §4.2: textstring), so no text can start a line."""
        text = self.text or REPLY_TEXTS.get(self.code, "")
        lines = text.split("\n")
        if not (text.isascii() and "".join(lines).isprintable()):
            lines = [_UNSPEAKABLE.sub("?", line) for line in lines]
        prefix = f"{self.status} " if self.status else ""
        said = [f"{self.code}-{prefix}{line}\r\n" for line in lines[:-1]] if len(lines) > 1 else ()
        return f"{''.join(said)}{self.code} {prefix}{lines[-1]}\r\n".encode("ascii")

    def __str__(self) -> str:
        status = f" {self.status}" if self.status else ""
        return f"{self.code}{status} {self.text or REPLY_TEXTS.get(self.code, '')}".rstrip()


def reply(code: int, text: str | None = None, status: str | None = None) -> Reply:
    """A `Reply` with whatever was left out filled in: the code's own text, and an enhanced status of the same class ("4.0.0" for 451)."""
    return Reply(code, text or REPLY_TEXTS.get(code, ""), status or default_status(code))


def default_status(code: int) -> str | None:
    """The least that can be said of a reply code as an enhanced status (RFC 3463 §3.1); None for 3xx, which have none (RFC 2034 §4)."""
    first = str(code)[:1]
    return f"{first}.0.0" if first in CLASSES else None


def describe(code: object) -> str:
    """What a reply code or an enhanced status means, in words. Total: anything that is neither is said to be unknown."""
    text = str(code).strip()
    if text in map(str, REPLY_TEXTS):
        return REPLY_TEXTS[int(text)]
    found = _ENHANCED.fullmatch(text)
    if not found:
        return f"Unknown status {text!r}" if text else "Unknown status"
    klass, subject, detail = found.groups()
    subject, detail = str(int(subject)), str(int(detail))
    meaning = DETAILS.get(f"{subject}.{detail}") or SUBJECTS.get(subject) or f"unknown detail {subject}.{detail}"
    return f"{CLASSES[klass]}: {meaning}"
