"""One command line: verb, path, parameters.

The line comes without its CRLF, as bytes; what leaves here are names and values whose syntax was checked. Whether a command may come now,
and whether what it asks for is granted, is the session's to say (`smtp.session`). This module is pure: it keeps nothing and knows no
connection. What is no command raises an `SMTPError` that carries the client's reply.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from lamson import address
from lamson.errors import AddressError, SMTPError

#: The longest command line, with its CRLF: 512 (RFC 5321 §4.5.3.1.4), and for MAIL what the extensions add to it:
#: 26 for SIZE (RFC 1870 §3), 17 for BODY (RFC 6152 §2), 10 for SMTPUTF8 (RFC 6531 §3.1), 500 for AUTH (RFC 4954 §3).
LINE_OCTETS = 512 + 26 + 17 + 10 + 500

#: The longest AUTH command and the longest answer to a challenge, with the CRLF (RFC 4954 §4).
AUTH_LINE_OCTETS = 12288

#: What is said most often, as it is said.
_ALONE = frozenset({b"DATA", b"RSET", b"NOOP", b"QUIT"})

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# A path in its angle brackets; inside quotes stands any character, outside neither a space nor a bracket (RFC 5321 §4.1.2).
_PATH = r'(<(?:[^<>"\s]++|"(?:[^"\\]|\\.)*+")*+>)'
# No space belongs about the colon (RFC 5321 §3.3); so many clients put one behind it that refusing them would refuse good mail.
_FROM = re.compile(rf"FROM: *+{_PATH}(?: +(.*))?", re.IGNORECASE)
_TO = re.compile(rf"TO: *+{_PATH}(?: +(.*))?", re.IGNORECASE)

_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*")  # RFC 5321 §4.1.2: esmtp-keyword
_VALUE = re.compile(r"[!-<>-~]+")  # and esmtp-value
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 §4
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")  # RFC 3461 §4
_CHUNK = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE)  # RFC 3030 §2
# A domain or an address literal (RFC 5321 §4.1.1.1), and the underscores that machines have in their names all the same. What else a
# client would like to be called could do harm in a Received line.
_HELLO = re.compile(r"[A-Za-z0-9_.-]{1,255}|\[[A-Za-z0-9:.-]{1,255}\]")

# What nearly every client says, and nothing else: the plainest addresses, and the parameters that need no thought.
_PLAIN_PATH = rf"<({address.PLAIN.pattern})>"
_PLAIN_MAIL = re.compile(
    rf"(?:MAIL|mail) FROM:(?:<>|{_PLAIN_PATH})(?: (?:SIZE|size)=([0-9]{{1,9}}))?(?: BODY=(7BIT|8BITMIME))?\r\n".encode(), re.ASCII
)
_PLAIN_RCPT = re.compile(rf"(?:RCPT|rcpt) TO:{_PLAIN_PATH}\r\n".encode(), re.ASCII)

Parameters = dict[str, str | None]


class Mail(NamedTuple):
    """What `MAIL FROM:` asks for. `size` 0 means that none was given; `auth` None likewise, it is kept as it was written."""

    mail_from: str
    size: int
    body: str
    utf8: bool
    auth: str | None


def parse(line: bytes) -> tuple[str, str]:
    """The verb in capitals, and all that follows it, "" when nothing does. Space at the line's end means nothing (RFC 5321 §4.1.1)."""
    if line in _ALONE:
        return line.decode(), ""
    try:
        text = line.decode().rstrip(" \t")
    except UnicodeDecodeError:
        raise SMTPError(500, "This is neither ASCII nor UTF-8", "5.5.2") from None
    if not text.isprintable() and _CONTROL.search(text):
        raise SMTPError(500, "A control character has no place in a command", "5.5.2")
    verb, _, argument = text.partition(" ")
    return verb.upper(), argument.lstrip(" ")


def mail(argument: str) -> Mail:
    """What stands behind `MAIL` (RFC 5321 §4.1.1.2)."""
    path, parameters = _path_and_parameters(_FROM, argument, "MAIL FROM:<address>")
    if not parameters:
        return Mail(_reverse_path(path, False), 0, "7BIT", False, None)
    wanted = {name: read(parameters[name]) for name, read in _MAIL_PARAMETERS.items() if name in parameters}
    _refuse_unknown(parameters.keys() - wanted.keys())
    utf8 = "SMTPUTF8" in wanted
    return Mail(_reverse_path(path, utf8), int(wanted.get("SIZE", 0)), wanted.get("BODY", "7BIT"), utf8, wanted.get("AUTH"))


@lru_cache(maxsize=256)  # an application's recipients are few, and come again and again
def rcpt(argument: str, utf8: bool) -> str:
    """The recipient that stands behind `RCPT` (RFC 5321 §4.1.1.3). `utf8`: MAIL said SMTPUTF8. No parameter is known."""
    path, parameters = _path_and_parameters(_TO, argument, "RCPT TO:<address>")
    _refuse_unknown(parameters)
    recipient = _mailbox(path, utf8, "5.1.3")
    if recipient == address.NULL:
        raise SMTPError(501, "A recipient is never null", "5.1.3")
    return recipient


def plain_mail(line: bytes) -> Mail | None:
    """What `mail` makes of a whole line with its CRLF, where that is as plain as nearly all are; None for any other."""
    found = _PLAIN_MAIL.fullmatch(line)
    if found is None:
        return None
    sender, size, body = found.groups(b"")
    return Mail(sender.decode(), int(size or 0), body.decode() or "7BIT", False, None) if len(sender) <= address.PLAIN_OCTETS else None


@lru_cache(maxsize=256)  # as `rcpt`
def plain_rcpt(line: bytes) -> str | None:
    """What `rcpt` makes of a whole line with its CRLF, where that is as plain as nearly all are; None for any other."""
    found = _PLAIN_RCPT.fullmatch(line)
    return found[1].decode() if found and len(found[1]) <= address.PLAIN_OCTETS else None


def is_host(argument: str) -> bool:
    """Whether a client may call itself that, behind EHLO, HELO or LHLO (RFC 5321 §4.1.1.1)."""
    return _HELLO.fullmatch(argument) is not None


def bdat(argument: str) -> tuple[int, bool]:
    """Octets of the chunk that follows, and whether it is the last one (RFC 3030 §2)."""
    found = _CHUNK.fullmatch(argument)
    if not found:
        raise SMTPError(501, "BDAT needs a number of octets, and LAST or nothing", "5.5.4")
    return int(found[1]), found[2] is not None


def auth(argument: str) -> tuple[str, str | None]:
    """The mechanism in capitals and the initial response: None when there is none, "" for the `=` that means an empty one (RFC 4954 §4)."""
    words = argument.split()
    if len(words) not in (1, 2):
        raise SMTPError(501, "AUTH needs a mechanism, and an initial response or nothing", "5.5.4")
    initial = words[1] if len(words) == 2 else None
    return words[0].upper(), "" if initial == "=" else initial


def response(text: str) -> str:
    """One base64 line of an AUTH exchange, decoded. `*` gives the exchange up (RFC 4954 §4)."""
    if text == "*":
        raise SMTPError(501, "The authentication was cancelled", "5.7.0")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise SMTPError(501, "This is not base64", "5.5.2") from None


def nothing(argument: str) -> None:
    """For the commands that take no argument."""
    if argument:
        raise SMTPError(501, "This command takes no argument", "5.5.4")


def _path_and_parameters(form: re.Pattern[str], argument: str, example: str) -> tuple[str, Parameters]:
    found = form.fullmatch(argument)
    if not found:
        raise SMTPError(501, f"Write {example}", "5.5.4")
    return found[1], _parameters(found[2]) if found[2] else {}


def _parameters(text: str) -> Parameters:
    """`SIZE=1000 SMTPUTF8` as a dictionary with the keywords in capitals (RFC 5321 §4.1.1.11)."""
    parameters: Parameters = {}
    for word in text.split():
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        if not _KEYWORD.fullmatch(keyword) or (equals and not _VALUE.fullmatch(value)):
            raise SMTPError(501, "A parameter is KEYWORD or KEYWORD=value", "5.5.4")
        if keyword in parameters:
            raise SMTPError(501, f"{keyword} was given twice", "5.5.4")
        parameters[keyword] = value if equals else None
    return parameters


def _refuse_unknown(keywords: set[str] | Parameters) -> None:
    if keywords:  # RFC 5321 §4.1.1.11: what is not known is not skipped
        raise SMTPError(555, f"Parameters not known here: {', '.join(sorted(keywords))}", "5.5.4")


def _reverse_path(path: str, utf8: bool) -> str:
    mail_from = _mailbox(path, utf8, "5.1.7")
    if mail_from and "@" not in mail_from:  # RFC 5321 §4.1.1.2: only a forward-path may be a bare postmaster
        raise SMTPError(501, "A sender has a domain", "5.1.7")
    return mail_from


def _mailbox(path: str, utf8: bool, status: str) -> str:
    """The bare address. Its route, if it has one, is dropped (RFC 5321 §4.1.1.3); one of over 254 octets gets no further than this."""
    if not utf8 and not path.isascii():
        raise SMTPError(553, "This address needs SMTPUTF8", "5.6.7")  # RFC 6531 §3.5
    try:
        return address.check(path, utf8=utf8)
    except AddressError as wrong:
        raise SMTPError(501, str(wrong), status) from wrong


def _size(value: str | None) -> str:
    if value is None or not _SIZE.fullmatch(value):
        raise SMTPError(501, "SIZE needs a number of octets", "5.5.4")
    return value


def _body(value: str | None) -> str:
    body = (value or "").upper()
    if body == "BINARYMIME":  # RFC 3030 §3: its data may hold bare CR and LF, which are refused here, so it is not offered
        raise SMTPError(555, "BINARYMIME is not offered", "5.5.4")
    if body not in ("7BIT", "8BITMIME"):
        raise SMTPError(501, "BODY is 7BIT or 8BITMIME", "5.5.4")  # RFC 6152 §2
    return body


def _utf8(value: str | None) -> str:
    if value is not None:
        raise SMTPError(501, "SMTPUTF8 takes no value", "5.5.4")  # RFC 6531 §3.1
    return ""


def _auth(value: str | None) -> str:
    if value is None or not _XTEXT.fullmatch(value):
        raise SMTPError(501, "AUTH needs an address in xtext, or <>", "5.5.4")  # RFC 4954 §5
    return value


_MAIL_PARAMETERS: dict[str, Callable[[str | None], str]] = {"SIZE": _size, "BODY": _body, "SMTPUTF8": _utf8, "AUTH": _auth}
