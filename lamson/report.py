"""Writing delivery reports: a message came to its end, and its sender is told (RFC 3461 §6, RFC 3464, RFC 6522).

`bounce` only writes; whoever calls it has kept the message safe and sends the report with the null reverse-path, so that no report is
ever answered by another. Used by the outbox, for mail that will never be sent, and by the server, for a recipient that a handler refused
after others were taken. Reading reports is for `bounce`.
"""

from __future__ import annotations

import email.utils
import os
import re
from collections.abc import Mapping

from lamson import address
from lamson.status import Reply, default_status

#: Octets of an original that is sent back whole. Of a longer one only the headers are (RFC 6522 §4), and of these no more than this.
RETURNED = 64 * 1024

_MESSAGE_ID = re.compile(rb"(?im)^message-id:[ \t]*(?:\r\n[ \t]+)?(<[\x21-\x7e]{1,250}>)[ \t]*\r?$")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")

_TEXT = """\
This is the mail system at {host}.

Your message could not be delivered to one or more of its recipients.
It is not tried any more.

{failures}

{returned}
"""


def bounce(original: bytes, mail_from: str, failures: Mapping[str, Reply], reporting_mta: str) -> bytes | None:
    """The report on a message that these recipients will never get, as bytes ready to be sent with the null sender.

    `original`: the message as it was to be sent. `mail_from`: its reverse-path, whom the report is for; "" or "<>", the null sender, gets
    none: None (RFC 5321 §4.5.5). `failures`: each recipient with the last reply. `reporting_mta`: this machine's name.
    """
    sender = address.bare_address(mail_from)
    if not sender or not failures:
        return None
    host = reporting_mta if _HOST.fullmatch(reporting_mta) else "localhost"
    boundary = f"=_{os.urandom(16).hex()}"
    returned, whole = _returned(original)
    parts = [
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + _text(host, failures, whole),
        b"Content-Type: message/delivery-status\r\n\r\n" + _status(host, failures),
        b"Content-Type: " + (b"message/rfc822" if whole else b"text/rfc822-headers") + _encoding(returned) + b"\r\n\r\n" + returned,
    ]
    mark = f"\r\n--{boundary}".encode("ascii")
    body = b"".join(mark + b"\r\n" + part for part in parts)
    return _head(host, mail_from, boundary, _message_id(original)) + body + mark + b"--\r\n"


def _head(host: str, mail_from: str, boundary: str, answers: str | None) -> bytes:
    to = next(iter(address.parse(mail_from))).bare
    headers = {
        "Date": email.utils.formatdate(localtime=True),
        "From": f"Mail Delivery System <mailer-daemon@{host}>",
        "To": f"<{to}>",
        "Subject": "Undelivered mail returned to its sender",
        "Message-ID": f"<{os.urandom(12).hex()}@{host}>",
        "In-Reply-To": answers,
        "References": answers,
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
        "Content-Type": f'multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
    }
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value).encode("utf-8")


def _text(host: str, failures: Mapping[str, Reply], whole: bool) -> bytes:
    """What a person reads."""
    said = "\n\n".join(f"<{_folded(_one_line(rcpt))}>:\n    {_folded(_one_line(str(failed)))}" for rcpt, failed in failures.items())
    returned = "Your message follows." if whole else "The headers of your message follow."
    return _TEXT.format(host=host, failures=said, returned=returned).replace("\n", "\r\n").encode("utf-8", "replace")


def _status(host: str, failures: Mapping[str, Reply]) -> bytes:
    """What a program reads (RFC 3464 §2): a block for the message, one for each recipient."""
    blocks = [f"Reporting-MTA: dns; {host}\n"]
    for rcpt, failed in failures.items():
        status = failed.status or default_status(failed.code) or "5.0.0"
        diagnosis = _folded(_UNPRINTABLE.sub("?", _one_line(str(failed))))
        words = [f"Final-Recipient: {_recipient(rcpt)}", "Action: failed", f"Status: {status}", f"Diagnostic-Code: smtp; {diagnosis}"]
        blocks.append("\n".join([*words, ""]))
    return "\n".join(blocks).replace("\n", "\r\n").encode("ascii")


def _recipient(rcpt: str) -> str:
    """An address with its type; what is not ASCII goes as `\\x{E9}` (RFC 6533 §3)."""
    rcpt = _one_line(rcpt)
    if rcpt.isascii():
        return f"rfc822; {rcpt}"
    escaped = "".join(char if char.isascii() and char not in "\\+=" else f"\\x{{{ord(char):X}}}" for char in rcpt)
    return f"utf-8; {escaped}"


def _folded(text: str) -> str:
    """On lines of fewer than 998 octets (RFC 5322 §2.1.1): a character has four of them at most."""
    return "\n    ".join(text[at : at + 240] for at in range(0, len(text), 240))


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _returned(original: bytes) -> tuple[bytes, bool]:
    """What is sent back: the message and True, or its headers and False. Line ends that no mail has become CRLF."""
    ends = original.count(b"\r\n")
    clean = original.count(b"\n") == ends == original.count(b"\r")
    if clean and len(original) <= RETURNED:
        return original, True
    head = re.split(rb"\r?\n\r?\n", original[: RETURNED + 1], maxsplit=1)[0][:RETURNED]
    return b"\r\n".join(line for line in re.split(rb"\r\n|\r|\n", head) if line) + b"\r\n", False


def _encoding(returned: bytes) -> bytes:
    """Said where it is not 7bit; a message/rfc822 is never encoded otherwise (RFC 2046 §5.2.1)."""
    return b"" if returned.isascii() else b"\r\nContent-Transfer-Encoding: 8bit"


def _message_id(original: bytes) -> str | None:
    found = _MESSAGE_ID.search(re.split(rb"\r?\n\r?\n", original[:RETURNED], maxsplit=1)[0])
    return found[1].decode("ascii") if found else None

