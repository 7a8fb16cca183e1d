"""MIME in both directions: bytes to a tree of `MailBase` as it is read, and a `MailBase` to canonical bytes.

Reading is total and lazy: a part is looked at when somebody asks for it, its body when somebody asks for that. The caps below bound what
a hostile message can make us build: beyond them the rest is one opaque part. `lamson.header` reads and writes headers, `lamson.decoding`
makes octets text; what applications call of them is in `__all__` here.

Writing is canonical: CRLF, ASCII where that suffices and UTF-8 in RFC 2047 words, RFC 2231 parameters and encoded bodies where not, no line
over 998 octets.

Knows no envelope, no routes, no files but those handed in. `lamson.mail` puts `MailRequest` and `MailResponse` on top.
"""

from __future__ import annotations

import binascii
import email.message
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice, pairwise
from typing import IO, Any, NamedTuple

from lamson import address
from lamson.decoding import IDENTITY, PARTS, Reading, attempt_decoding, decode_text, decode_transfer, guess_encoding_and_decode, with_lf
from lamson.errors import EncodingError
from lamson.header import (
    LONG_WORD,
    LONGEST_LINE,
    TOKEN,
    Head,
    HeaderMapping,
    Headers,
    Parameters,
    header_from_mime_encoding,
    header_line,
    header_to_mime_encoding,
    parameters_line,
    parse_parameter_header,
    parse_parameters,
    properly_decode_header,
    read_head,
    utf8,
)

__all__ = [
    "CONTENT_ENCODING_KEYS",
    "CONTENT_ENCODING_REMOVED_PARAMS",
    "EncodingError",
    "Headers",
    "MIMEPart",
    "MailBase",
    "attempt_decoding",
    "from_file",
    "from_message",
    "from_string",
    "guess_encoding_and_decode",
    "header_from_mime_encoding",
    "header_to_mime_encoding",
    "parse_parameter_header",
    "properly_decode_header",
    "to_bytes",
    "to_file",
    "to_message",
    "to_string",
]

#: The headers that say how a part is written. Writing makes them anew.
CONTENT_ENCODING_KEYS = {"Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Mime-Version"}

#: Parameters of those that writing makes anew.
CONTENT_ENCODING_REMOVED_PARAMS = ["boundary"]

#: Levels of nesting that are read.
DEPTH = 50

#: A multipart/signed is looked for at so many levels when mail is written, and has so many of its own: it is read a second time.
SIGNED_DEPTH, SIGNED_LEVELS = 2, 8

#: Lines that look like a boundary and are none, before a multipart's rest is taken as one part.
FALSE_BOUNDARIES = 10_000

#: Types that are a message (RFC 2046 §5.2.1, RFC 6532 §3.7).
_MESSAGES = ("message/rfc822", "message/global")

_CONTENT_HEADERS = ("Content-Type", "Content-Transfer-Encoding", "Content-Disposition")
_CONTENT_HEADERS_IN_LOWER_CASE = tuple(map(str.lower, _CONTENT_HEADERS))
_CONTENT_KEYS = {key.lower() for key in CONTENT_ENCODING_KEYS}
_TYPE = re.compile(r"[!#$%&'*+.^_`{|}~0-9a-z-]{1,127}/[!#$%&'*+.^_`{|}~0-9a-z-]{1,127}")  # RFC 6838 §4.2


# -- the tree


class MailBase(HeaderMapping):
    """One message or part: decoded headers, how it is written (`content_encoding`), and either a `body` or `parts`.

    `body`: str for text, bytes for the rest, None for what has parts. Made by hand it is empty; `from_string` and `from_message` read one,
    part by part as they are looked at.
    """

    __slots__ = ("_body", "_content", "_depth", "_headers", "_parts", "_source", "default_type", "head", "reading")

    def __init__(
        self, items: Iterable[tuple[str, object]] = (), reading: Reading | None = None, headers: Headers | None = None
    ) -> None:
        self.reading = reading or Reading()
        self.default_type = "text/plain"
        self.head: Head | None = None
        self._headers = headers
        self._source: tuple[bytes, int, int] | None = None  # where it is read from; None once made by hand
        self._depth = 0
        self._content: dict[str, Parameters] | None = None
        self._body: str | bytes | None = None
        self._parts: list[MailBase] | None = None
        for name, value in items:
            self.headers.append(name, value)

    @classmethod
    def read(cls, data: bytes, start: int = 0, end: int | None = None, reading: Reading | None = None, depth: int = 0) -> MailBase:
        """A part over these octets, which must not use a lone CR as line end. Nothing is looked at yet."""
        self = cls(reading=reading)
        self._source = (data, start, len(data) if end is None else end)
        self._depth = depth
        return self

    def _read_head(self) -> Head:
        if self.head is None:
            data, start, end = self._source or (b"", 0, 0)
            self.head = read_head(data, start, end, self.reading)
        return self.head

    @property
    def headers(self) -> Headers:
        """The headers, decoded when asked for."""
        if self._headers is None:
            self._headers = Headers(self.reading, self._read_head())
        return self._headers

    def fresh(self) -> MailBase:
        """The same message as it was read, without changes since. The octets and the cut header lines are shared."""
        data, start, end = self._source or (b"", 0, 0)
        other = MailBase.read(data, start, end, Reading(self.reading.utf8_first), self._depth)
        other.head = self.head
        other.reading.defects.extend(self.reading.defects)
        return other

    def rebuilt(self, raw: bytes) -> bytes:
        """`raw`, the octets that this was read from, with the header lines as they are now; all that were not set are as they came."""
        head, newline = self._read_head(), _newline_of(raw)
        lines = [field.written(newline) for field in self.headers.fields()]
        if head.fields and head.rest == len(raw) and not raw.endswith((b"\n", b"\r")) and head.fields[-1].line in lines:
            lines[lines.index(head.fields[-1].line)] += newline[:-1]  # its line had no end, as nothing followed
        text = head.prefix + b"".join([line + b"\n" for line in lines])
        return (text.replace(b"\n", b"\r") if newline == b"\r" else text) + raw[head.rest :]

    def append_header(self, name: str, value: object) -> None:
        """Adds one more header of that name."""
        self.headers.append(name, value)

    @property
    def content_encoding(self) -> dict[str, Parameters]:
        """Content-Type, Content-Transfer-Encoding and Content-Disposition, each (value, parameters); (None, {}) when it is missing."""
        if self._content is None:
            headers = self.headers
            given = zip(_CONTENT_HEADERS, headers.raw_texts_of(_CONTENT_HEADERS_IN_LOWER_CASE), strict=True)
            self._content = {name: (None, {}) if text is None else parse_parameters(text, headers.reading) for name, text in given}
        return self._content

    @property
    def content_type(self) -> str:
        """`type/subtype` in lower case; what is no such thing is `text/plain` (RFC 2045 §5.2)."""
        given = (self.content_encoding["Content-Type"][0] or self.default_type).lower()
        return given if _TYPE.fullmatch(given) else _near_type(given)

    @property
    def charset(self) -> str | None:
        """The declared charset."""
        return self.content_encoding["Content-Type"][1].get("charset")

    @property
    def disposition(self) -> str:
        """`attachment`, `inline`, or "" when nothing is said."""
        return (self.content_encoding["Content-Disposition"][0] or "").lower()

    @property
    def filename(self) -> str | None:
        """The name that the sender gave the part: untrusted text, perhaps with slashes."""
        name = self.content_encoding["Content-Disposition"][1].get("filename")
        return name or self.content_encoding["Content-Type"][1].get("name")

    @property
    def data(self) -> bytes:
        """The octets of the body without their transfer encoding; of a part made by hand, the body in UTF-8."""
        if self._source is None:
            return utf8(self._body) if isinstance(self._body, str) else self._body or b""
        data, _, end = self._source
        return decode_transfer(data[self._read_head().body : end], self._transfer_encoding(), self.reading)

    def _transfer_encoding(self) -> str:
        words = (self.content_encoding["Content-Transfer-Encoding"][0] or "").lower().split()
        return words[0] if words else ""

    @property
    def body(self) -> str | bytes | None:
        """Text, with LF line ends, as str; anything else as bytes; None when there are parts."""
        if self._body is None and self._source is not None and not self.parts:
            self._body = self._read_body()
        return self._body

    @body.setter
    def body(self, body: str | bytes | None) -> None:
        self._body = body

    def _read_body(self) -> str | bytes:
        kind = self.content_type
        if kind.startswith("text/") or kind in _TEXT_TYPES or (kind.startswith("multipart/") and self._depth < DEPTH):
            data = self.data
            charset = self.charset or (_meta_charset(data) if kind == "text/html" and not data.isascii() else None)
            return _with_lf(decode_text(data, charset, self.reading)).lstrip("\ufeff")  # some editors put that mark before UTF-8
        return self.data

    @property
    def parts(self) -> list[MailBase]:
        """The parts of a multipart; of a message/rfc822, the message. Empty for anything else."""
        if self._parts is None:
            self._parts = self._read_parts() if self._source is not None else []
        return self._parts

    def _read_parts(self) -> list[MailBase]:
        kind = self.content_type
        is_message = kind in _MESSAGES
        if not is_message and not kind.startswith("multipart/"):
            return []
        if self._depth >= DEPTH:
            self.reading.note(f"parts nested more than {DEPTH} deep, the rest is opaque")
            return []
        if is_message:
            return [self._part(*self._nested())]
        data = self._source[0] if self._source else b""
        return [self._part(data, start, end) for start, end in self._spans()]

    def _nested(self) -> tuple[bytes, int, int]:
        """Where the message of a message/rfc822 lies: in our own octets unless, against RFC 2046 §5.2.1, it is encoded."""
        data, _, end = self._source or (b"", 0, 0)
        if self._transfer_encoding() in IDENTITY:
            return data, self._read_head().body, end
        octets = _with_newlines(self.data)
        return octets, 0, len(octets)

    def _part(self, data: bytes, start: int, end: int) -> MailBase:
        part = MailBase.read(data, start, end, self.reading, self._depth + 1)
        part.default_type = "message/rfc822" if self.content_type == "multipart/digest" else "text/plain"
        self.reading.parts -= 1
        if self.reading.parts < 0:
            part._make_opaque()
        return part

    def _make_opaque(self) -> None:
        data, start, end = self._source or (b"", 0, 0)
        self._source, self._headers, self._parts, self._body = None, Headers(), [], data[start:end]
        self.content_encoding["Content-Type"] = ("application/octet-stream", {})

    def _spans(self) -> list[tuple[int, int]]:
        """Where the parts of a multipart lie (RFC 2046 §5.1.1). Without its boundary there are none, and the body is text."""
        boundary = self.content_encoding["Content-Type"][1].get("boundary", "")
        data, _, end = self._source or (b"", 0, 0)
        most = max(self.reading.parts, 0)
        mark = b"--" + boundary.encode("utf-8", "surrogateescape")
        marks = list(islice(_boundaries(data, mark, self._read_head().body, end), most + 2)) if boundary else []
        spans: list[tuple[int, int]] = []
        for (_, start, last), (stop, _, _) in pairwise([*marks, (end, end, True)]):
            if last:
                break
            spans.append((start, max(start, stop)))
        else:
            self.reading.note("a multipart without its end" if spans else "a multipart without its boundary")
        if len(spans) > most:
            self.reading.note(f"more than {PARTS} parts, the rest is opaque")
            spans[most:] = [(spans[most][0], end)]
        return spans

    def walk(self) -> Iterator[MailBase]:
        """All parts below this one, each before its own parts."""
        for part in self.parts:
            yield part
            yield from part.walk()

    def attach_text(self, data: str, ctype: str = "text/plain") -> MailBase:
        """Adds a part of text."""
        return self.attach_part(made(data, ctype))

    def attach_file(self, filename: str, data: str | bytes, ctype: str, disposition: str | None = "attachment") -> MailBase:
        """Adds a part that is a file."""
        return self.attach_part(made(data, ctype, disposition, filename))

    def attach_part(self, part: MailBase) -> MailBase:
        """Adds a part, and returns it."""
        self.parts.append(part)
        return part


_META_CHARSET = re.compile(rb"<meta\b[^<>]{0,200}\bcharset=[\"']?([A-Za-z0-9_-]{1,60})", re.IGNORECASE)


def _meta_charset(data: bytes) -> str | None:
    """What HTML says of itself, where its header says nothing."""
    found = _META_CHARSET.search(data, 0, 4096)
    return found[1].decode("ascii") if found else None


_CRS_LF = re.compile(r"(?<!\r)\r++\n")


def _with_lf(text: str) -> str:
    """CRLF becomes LF, and so does CR CR LF, which careless gateways make of it."""
    text = with_lf(text)
    return _CRS_LF.sub("\n", text) if "\r" in text and "\r\n" in text else text


#: Types besides text/* whose body is text: reports are headers in plain characters (RFC 3464 §2.1, RFC 8098 §3).
_TEXT_TYPES = {"message/delivery-status", "message/disposition-notification", "message/global-headers", "message/feedback-report"}


def _near_type(given: str) -> str:
    """A type that is written wrongly: without subtype, with a space, with words behind it."""
    word = given.split()[0] if given.strip() else ""
    return word if _TYPE.fullmatch(word) else "text/plain"


def made(body: str | bytes, ctype: str, disposition: str | None = None, filename: str | None = None) -> MailBase:
    """A part made by hand. Raises `EncodingError` for what is no content type."""
    kind, parameters = parse_parameters(ctype, Reading())
    if not _TYPE.fullmatch((kind or "").lower()):
        raise EncodingError(f"{ctype!r} is no content type; one looks like text/plain.")
    part = MailBase()
    part.content_encoding["Content-Type"] = (kind, parameters)
    part.content_encoding["Content-Disposition"] = (disposition, {"filename": filename} if filename else {})
    part.body = body
    return part


_AFTER_BOUNDARY = re.compile(rb"(--)?[ \t]*+\r*+(?:\n|\Z)")


def _boundaries(data: bytes, mark: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """For each delimiter line: where the part before it ends, where the next begins, whether it is the last."""
    at, false = start, 0
    while (at := data.find(mark, at, end)) >= 0 and false < FALSE_BOUNDARIES:
        found = _AFTER_BOUNDARY.match(data, at + len(mark), end) if at == start or data[at - 1] == 10 else None
        if found:
            before = at - 1 if at > start else at
            yield (before - 1 if before > start and data[before - 1] == 13 else before), found.end(), bool(found[1])
        else:
            false += 1
        at = found.end() if found else at + 1


def _newline_of(raw: bytes) -> bytes:
    """The line end that a message uses: that of its first line, CRLF if it has none."""
    at = raw.find(b"\n")
    if at < 0:
        return b"\r" if b"\r" in raw else b"\r\n"
    return b"\r\n" if at and raw[at - 1] == 13 else b"\n"


def parse(data: bytes, reading: Reading | None = None) -> MailBase:
    """Reads a message out of bytes, which may use a lone CR as line end throughout."""
    return MailBase.read(_with_newlines(data), reading=reading)


def _with_newlines(data: bytes) -> bytes:
    """The same number of octets, each CR an LF where CR is the only line end."""
    return data if b"\n" in data else data.replace(b"\r", b"\n")


# -- writing


def to_bytes(mail: MailBase, leave_out: Iterable[str] = ()) -> bytes:
    """The canonical form with CRLF, without the headers named. Raises `EncodingError` for text that is neither ASCII nor Unicode."""
    content = _write_content(mail)
    lines = _written_headers(mail, _CONTENT_KEYS.union(map(str.lower, leave_out)))
    payload = b"".join(content.pieces)
    end = b"" if not payload or payload.endswith(b"\r\n") else b"\r\n"
    return _head([*lines, "MIME-Version: 1.0", *content.lines]) + payload + end


def _written_headers(mail: MailBase, leave_out: set[str]) -> list[str]:
    """A name that no line holds is left out as well: such names are made to break software."""
    items = mail.headers.items()
    return [header_line(name, value) for name, value in items if name.lower() not in leave_out and len(name) <= LONG_WORD]


class _Written(NamedTuple):
    """A content as it is written.

    `pieces`: its octets, joined once in the end, however deep it lies. `seal`: the same, but for a multipart nothing: the boundary in its
    `lines` is made of its content already.
    """

    lines: list[str]
    pieces: list[bytes]
    seal: list[bytes]

    @classmethod
    def whole(cls, lines: list[str], payload: bytes) -> _Written:
        """What holds no multipart."""
        return cls(lines, [payload], [payload])


def _head(lines: list[str]) -> bytes:
    return utf8("\r\n".join([*lines, "", ""]))


def _write_part(mail: MailBase) -> _Written:
    """A part with its header lines, which are its first piece."""
    content = _write_content(mail)
    head = _head([*_written_headers(mail, _CONTENT_KEYS), *content.lines])
    return _Written([], [head, *content.pieces], [head, *content.seal])


def _write_content(mail: MailBase) -> _Written:
    """The lines of the content headers, and what follows them."""
    body = mail.body
    if mail.parts:
        content = _write_parts(mail)
    else:
        content = _Written.whole(*(_write_octets(mail, body) if isinstance(body, bytes) else _write_text(mail, body or "")))
    disposition, parameters = mail.content_encoding["Content-Disposition"]
    if disposition:
        content.lines.append(parameters_line("Content-Disposition", _token(disposition, "attachment"), parameters))
    return content


def _token(text: str, otherwise: str) -> str:
    return text if TOKEN.fullmatch(text) and len(text) <= LONG_WORD else otherwise


def _parameters_of(mail: MailBase, *without: str) -> dict[str, str]:
    removed = (*CONTENT_ENCODING_REMOVED_PARAMS, *without)
    return {name: text for name, text in mail.content_encoding["Content-Type"][1].items() if name not in removed}


def _write_parts(mail: MailBase) -> _Written:
    kind = mail.content_type
    if kind == "multipart/signed" and (signed := _as_it_was_signed(mail)):
        return _Written.whole(*signed)
    written = [_write_part(part) for part in mail.parts]
    if kind.startswith("message/") and len(written) == 1:
        return written[0]._replace(lines=[parameters_line("Content-Type", kind, _parameters_of(mail))])
    if not kind.startswith("multipart/"):
        kind = "multipart/mixed"
    boundary = _boundary_of(written)
    mark = f"--{boundary}".encode("ascii")
    pieces = [piece for part in written for piece in (mark, b"\r\n", *part.pieces, b"\r\n")]
    line = parameters_line("Content-Type", kind, {**_parameters_of(mail), "boundary": boundary})
    return _Written([line], [*pieces, mark, b"--\r\n"], [])


def _boundary_of(parts: list[_Written]) -> str:
    """Made of the content, so it is not in the content, and the same each time."""
    digest = hashlib.blake2b(digest_size=15)
    for part in parts:
        for piece in part.seal:
            digest.update(piece)
    return f"=_{digest.hexdigest()}"


def _write_text(mail: MailBase, body: str) -> tuple[list[str], bytes]:
    """7bit where RFC 2045 §2.7 allows it, else quoted-printable or base64, whichever is shorter."""
    kind = mail.content_type
    if not (kind.startswith("text/") or kind in _TEXT_TYPES):
        kind = "text/plain" if kind.startswith("multipart/") else kind
    if "\r" in body:
        body = _with_lf(body)
    ascii_only = body.isascii()
    charset = "us-ascii" if ascii_only else "utf-8"
    if ascii_only and _is_7bit(body):
        encoding, payload = "7bit", body.replace("\n", "\r\n").encode("ascii")
    else:
        encoding, payload = _encode_body(utf8(body))
    return [_type_line(mail, kind, charset), f"Content-Transfer-Encoding: {encoding}"], payload


def _type_line(mail: MailBase, kind: str, charset: str) -> str:
    if not kind.startswith("text/"):
        return parameters_line("Content-Type", kind, _parameters_of(mail))
    if not mail.content_encoding["Content-Type"][1]:
        return _text_line(kind, charset)
    return parameters_line("Content-Type", kind, {**_parameters_of(mail, "charset"), "charset": charset})


@lru_cache(maxsize=100)
def _text_line(kind: str, charset: str) -> str:
    """Where nothing else was said: nearly all text is of the same two or three."""
    return parameters_line("Content-Type", kind, {"charset": charset})


def _is_7bit(body: str) -> bool:
    """RFC 2045 §2.7. What CR is left stands alone, which no line may hold."""
    return "\0" not in body and "\r" not in body and (len(body) <= LONGEST_LINE or not _LONG_LINE.search(f"\n{body}"))


_LONG_OCTETS = re.compile(rb"\n[^\n]{%d}" % (LONGEST_LINE + 1))
_LONG_LINE = re.compile(rf"\n[^\n]{{{LONGEST_LINE + 1}}}")


def _encode_body(data: bytes) -> tuple[str, bytes]:
    odd = len(data) - len(data.decode("ascii", "ignore"))
    if odd * 6 > len(data) or b"\r" in data:
        return "base64", _base64_lines(data.replace(b"\n", b"\r\n"))
    return "quoted-printable", binascii.b2a_qp(data).replace(b"\n", b"\r\n")


def _base64_lines(data: bytes) -> bytes:
    """Of 76 characters each (RFC 2045 §6.8). The standard library's `encodebytes` takes five times as long."""
    encoded = binascii.b2a_base64(data, newline=False)
    return b"".join([encoded[at : at + 76] + b"\r\n" for at in range(0, len(encoded), 76)])


def _write_octets(mail: MailBase, body: bytes) -> tuple[list[str], bytes]:
    if mail.content_type in _MESSAGES:
        return _write_message(mail, body)
    kind = mail.content_type if not mail.content_type.startswith(("multipart/", "message/")) else "application/octet-stream"
    lines = [parameters_line("Content-Type", kind, _parameters_of(mail)), "Content-Transfer-Encoding: base64"]
    return lines, _base64_lines(body)


def _write_message(mail: MailBase, body: bytes) -> tuple[list[str], bytes]:
    """A message in a message: its octets as they came where mail can hold them, so that its signature holds; else its canonical form.

    It is never encoded (RFC 2046 §5.2.1).
    """
    payload = _as_lines(body)
    if payload is None:
        payload = b"".join(_write_part(parse(body)).pieces)
    encoding = "7bit" if payload.isascii() else "8bit"
    return [parameters_line("Content-Type", mail.content_type, _parameters_of(mail)), f"Content-Transfer-Encoding: {encoding}"], payload


def _as_lines(data: bytes) -> bytes | None:
    """The same with CRLF line ends; None for what no mail can hold: a bare CR, a NUL, a line over 998 octets."""
    data = data.replace(b"\r\n", b"\n")
    return None if b"\r" in data or b"\0" in data or _LONG_OCTETS.search(b"\n" + data) else data.replace(b"\n", b"\r\n")


def _as_it_was_signed(mail: MailBase) -> tuple[list[str], bytes] | None:
    """A multipart/signed as it came: its parts may not be changed in any way (RFC 1847 §2.1). None when they were, or cannot stay."""
    if mail._source is None or mail._depth > SIGNED_DEPTH or _levels(mail) > SIGNED_LEVELS:
        return None
    payload = _as_lines(raw_body(mail))
    if payload is None or not payload.isascii():
        return None
    payload += b"" if payload.endswith(b"\r\n") else b"\r\n"  # as a message ends; one that was cut off is another for it
    line = parameters_line("Content-Type", mail.content_type, mail.content_encoding["Content-Type"][1])
    again = parse(utf8(f"{line}\r\n\r\n") + payload)
    return ([line], payload) if _have_same_parts(again, mail) else None


def _levels(mail: MailBase) -> int:
    return 1 + max(map(_levels, mail.parts), default=0)


def _have_same_parts(one: MailBase, other: MailBase) -> bool:
    return len(one.parts) == len(other.parts) and all(_are_same(*pair) for pair in zip(one.parts, other.parts, strict=True))


def _are_same(one: MailBase, other: MailBase) -> bool:
    is_same = one.headers.items() == other.headers.items() and one.content_encoding == other.content_encoding
    return is_same and one.body == other.body and _have_same_parts(one, other)


# -- to and from the standard library, strings and files


class MIMEPart(email.message.Message):
    """The standard library's message, as `to_message` gives it."""

    def add_text(self, content: str) -> None:
        """Makes this a part of text, ASCII where that suffices, else UTF-8."""
        self.set_payload(content, None if content.isascii() else "utf-8")

    def extract_payload(self, mail: MailBase) -> None:
        """Takes over the content of a part that has no parts."""
        content = _write_content(mail)
        for line in content.lines:
            name, _, value = line.partition(": ")
            del self[name]
            self[name] = value
        self.set_payload(b"".join(content.pieces).decode("ascii", "surrogateescape"))


def from_message(message: email.message.Message) -> MailBase:
    """A `MailBase` of the standard library's message."""
    return from_string(message.as_bytes())


def from_string(data: str | bytes) -> MailBase:
    """Reads a message out of text or bytes. Never raises."""
    return parse(as_bytes(data), Reading(utf8_first=isinstance(data, str)))


def from_file(fileobj: IO[Any]) -> MailBase:
    """Reads a message out of an open file, text or binary."""
    return from_string(fileobj.read())


def as_bytes(data: str | bytes) -> bytes:
    """Text came from bytes by UTF-8 and surrogate escapes, and goes back the same way; other lone surrogates become `?`."""
    if isinstance(data, bytes):
        return data
    try:
        return data.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return data.encode("utf-8", "replace")


_LONE_CR = re.compile(rb"\r(?!\n)")


def to_message(mail: MailBase) -> MIMEPart:
    """The canonical form as the standard library's message."""
    return standard_message(parse(to_bytes(mail)))


def standard_message(mail: MailBase) -> MIMEPart:
    """A part as it was read, as the standard library's message (policy compat32). Total: its parser, which is not, has no hand in it."""
    message = MIMEPart()
    message.set_default_type(mail.default_type)
    for field in mail.headers.fields():
        message[field.name] = _LONE_CR.sub(b" ", field.raw.strip()).decode("ascii", "surrogateescape")
    if mail.parts:
        message.set_payload([standard_message(part) for part in mail.parts])
    else:
        message.set_payload(raw_body(mail).decode("ascii", "surrogateescape"))
    return message


def raw_body(mail: MailBase) -> bytes:
    """The octets of the body as they came, in their transfer encoding."""
    if mail._source is None:
        return mail.data
    data, _, end = mail._source
    return data[mail._read_head().body : end]


def to_string(mail: MailBase, envelope_header: bool = False) -> str:
    """The canonical form as text with LF line ends; with `envelope_header` after an mbox From line."""
    text = to_bytes(mail).decode("utf-8").replace("\r\n", "\n")
    sender = address.bare_address(mail.headers.raw_text("From")) or "MAILER-DAEMON"
    return f"From {sender} Thu Jan  1 00:00:00 1970\n{text}" if envelope_header else text


def to_file(mail: MailBase, fileobj: IO[Any]) -> None:
    """Writes the canonical form into an open file: text as `to_string` gives it, or bytes."""
    fileobj.write(to_string(mail) if isinstance(fileobj, io.TextIOBase) else to_bytes(mail))
