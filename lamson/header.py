"""Header lines in both directions: cut out of a message once, decoded when somebody asks, written in canonical form.

Lines are kept as they came, in order and with duplicates. Values are decoded by RFC 2047 and RFC 2231, and written by them where they are
not ASCII; parameters likewise. No value can start a header line: control characters become spaces, when reading and when writing. Nothing
here takes more than linear time.

Knows no bodies and no parts: `lamson.encoding` builds the tree of a message on top.
"""

from __future__ import annotations

import binascii
import io
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, KeysView
from contextlib import suppress
from functools import lru_cache
from itertools import islice

from lamson import address
from lamson.decoding import Reading, decode_base64, decode_text, with_lf
from lamson.errors import AddressError, EncodingError

#: Caps on what is read: header lines of a part, parameters of a header.
FIELDS, PARAMETERS = 100_000, 1_000

#: RFC 5322 §2.1.1: characters in a line, wanted and allowed. A header's word longer than LONG_WORD is written as encoded words.
LINE, LONGEST_LINE, LONG_WORD = 78, 998, 900

#: Headers whose value is a list of addresses (RFC 5322 §3.6.2, §3.6.3, §3.6.6).
ADDRESS_HEADERS = {"from", "sender", "reply-to", "to", "cc", "bcc"}
ADDRESS_HEADERS |= {f"resent-{name}" for name in ADDRESS_HEADERS} | {"mail-followup-to", "disposition-notification-to", "return-path"}

TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]+")
_NAME = re.compile(rb"([!-9;-~]++)[ \t]*+:")
_NAME_TEXT = re.compile(r"[!-9;-~]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LINE_END = re.compile(rb"\n(?![ \t])")
_FIELD = re.compile(rb"^(([!-9;-~]++)[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE)


# -- header values: decoding

_WORD = re.compile(r"=\?([^?\s]{1,80}+)\?([bBqQ])\?((?:[^?=]++|=(?!\?(?!=))|\?(?!=))*+)\?=")
_SPECIALS = re.compile(r'[()<>\[\]:;@\\,."]')


def header_from_mime_encoding(header: str | bytes | list[str] | None) -> str | list[str] | None:
    """A header's value with its encoded words decoded; a list of values gives a list, None is None."""
    if header is None:
        return None
    if isinstance(header, list):
        return [properly_decode_header(value) for value in header]
    return properly_decode_header(header)


def properly_decode_header(header: str | bytes) -> str:
    """A header's value as text: unfolded, encoded words decoded (RFC 2047), 8-bit text decoded, nothing in it that could start a line."""
    raw = header.encode("utf-8", "surrogateescape") if isinstance(header, str) else header
    return _decode_value(raw, "", Reading(utf8_first=isinstance(header, str)))


def _on_one_line(raw: bytes) -> bytes:
    if b"\n" not in raw:
        return raw
    if len(raw) < 64 * 1024:
        return b" ".join(map(bytes.strip, raw.split(b"\n")))
    lines = map(bytes.strip, io.BytesIO(raw))  # of millions of them join() would make an array of eighty octets each
    return b" ".join([b" ".join(some) for some in iter(lambda: list(islice(lines, 10_000)), [])])


def _unfold(raw: bytes, reading: Reading) -> str:
    raw = _on_one_line(raw)
    return raw.decode("ascii") if raw.isascii() else decode_text(raw, "utf-8", reading)  # RFC 6532 §3.2


def _decode_value(raw: bytes, name: str, reading: Reading) -> str:
    text = _unfold(raw, reading)
    if "=?" in text:
        text = _decode_addresses(text, reading) if name.lower() in ADDRESS_HEADERS else _decode_words(text, False, reading)
    return clean(text)


def _decode_addresses(text: str, reading: Reading) -> str:
    """The words of the names decoded, and the same mailboxes as before (RFC 2047 §5): a word may not hide one, nor the end of a comment.

    Where plain decoding would change them the mailboxes are written out one by one, and what holds none becomes one quoted phrase.
    """
    decoded = _decode_words(text, True, reading)
    boxes = [box for box in address.parse(text) if box.bare]
    if [box.bare for box in address.parse(clean(decoded)) if box.bare] == [box.bare for box in boxes]:
        return decoded
    reading.note("encoded words where an address has none, left as they are")
    return ", ".join([_decode_mailbox(box, reading) for box in boxes]) or _quoted(decoded)


def _decode_mailbox(box: address.Address, reading: Reading) -> str:
    return f"{_quoted(_decode_words(box.display, False, reading))} <{box.bare}>" if box.display else box.bare


def clean(text: str) -> str:
    """No control character, no line end of any kind: each run of them is a space. Outer space is removed."""
    text = text.strip()  # of what came with CRLF the CR is left
    return text if text.isprintable() else _CONTROLS.sub(" ", text).strip()


def _decode_words(text: str, is_addresses: bool, reading: Reading) -> str:
    """RFC 2047 §6.2. Space between two encoded words is none; words of one charset are decoded together, for some cut a character in two.

    Among addresses a decoded phrase with specials is quoted: else a name that holds a comma would become two mailboxes when the text is
    read again.
    """
    out: list[str] = []
    run: list[bytes] = []
    charset, at, quoted = "", 0, False

    def end_run() -> None:
        if run:
            decoded = clean_word(decode_text(b"".join(run), charset, reading))
            out.append(_quoted_phrase(decoded, quoted) if is_addresses else decoded)
            run.clear()

    for found in _WORD.finditer(text):
        between, declared = text[at : found.start()], found[1].partition("*")[0].lower()
        if not run or between.strip() or declared != charset:
            end_run()
            out.append(between if at == 0 or between.strip() else "")
            quoted ^= is_addresses and between.count('"') % 2 == 1
        run.append(_word_octets(found[2], found[3], reading))
        charset, at = declared, found.end()
    end_run()
    return "".join(out) + text[at:]


def clean_word(text: str) -> str:
    """Decoded text without control characters: an encoded word cannot hide a line end."""
    return text if text.isprintable() else _CONTROLS.sub(" ", text)


def _quoted_phrase(text: str, inside_quotes: bool) -> str:
    if not _SPECIALS.search(text):
        return text
    return _quoted(text)[1:-1] if inside_quotes else _quoted(text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _word_octets(kind: str, payload: str, reading: Reading) -> bytes:
    raw = payload.encode("utf-8", "replace")
    return binascii.a2b_qp(raw, header=True) if kind in "qQ" else decode_base64(raw, reading)


# -- header values: encoding


def header_to_mime_encoding(value: str | Iterable[str], not_email: bool = False) -> str:
    """A value as it stands in a header, on one line: ASCII where that suffices, else with encoded words (RFC 2047).

    Text with an @ is taken for addresses, of which only the names are encoded, unless `not_email`. Raises `EncodingError` for lone
    surrogates, which are neither ASCII nor UTF-8.
    """
    text = clean(value_text(value))
    return _encode_value(text, "@" in text and not not_email)


def value_text(value: object) -> str:
    """What was given for a header, as text; several are joined by commas. `TypeError` for None: leave such a header out."""
    if isinstance(value, str):
        return value
    if value is None:
        raise TypeError("A header's value cannot be None: give text, or leave the header out.")
    if isinstance(value, bytes):
        return properly_decode_header(value)
    return ", ".join(map(value_text, value)) if isinstance(value, (list, tuple, set, frozenset)) else str(value)


def _encode_value(text: str, is_addresses: bool) -> str:
    if _is_plain(text):
        return text
    if is_addresses:
        return ", ".join(map(_encode_address, address.parse(text))) or _encode_words(text)
    return _encode_text(text)


def _is_plain(text: str) -> bool:
    """ASCII that nobody would take for an encoded word, and that can be folded."""
    return text.isascii() and "=?" not in text and _can_be_folded(text)


def _can_be_folded(text: str) -> bool:
    return len(text) <= LONG_WORD or max(map(len, _lines(text))) <= LONG_WORD


def _encode_address(box: address.Address) -> str:
    """A mailbox whose name, if that needs it, is encoded words. What no server takes for an address is encoded whole: a phrase, so that
    nobody reads another address out of it."""
    bare = box.bare
    if not bare.isascii() and box.domain:
        utf8(bare)
        with suppress(AddressError):  # as it is, in UTF-8, if it has no such form: a message for servers with SMTPUTF8
            bare = address.to_ascii_domain(bare)
    if "=?" in bare or not (box.domain or bare.isascii()):
        return _encode_words(f"{box.display} {bare}".strip())
    if not box.display:
        return bare or "<>"
    if not _is_plain(box.display):
        return f"{_encode_words(box.display)} <{bare}>"
    return f"{_quoted_phrase(box.display, False)} <{bare}>"


def _encode_text(text: str) -> str:
    """The words that need it, from the first to the last, as encoded words; all of them where the others could not be folded."""
    if " " not in text:
        return _encode_words(text)
    words = text.split(" ")
    odd = [at for at, word in enumerate(words) if not _is_plain(word)] or [0, len(words) - 1]
    first, last = odd[0], odd[-1] + 1
    if last - first == len(words):
        return _encode_words(text)
    encoded = " ".join([*words[:first], _encode_words(" ".join(words[first:last])), *words[last:]])
    return encoded if _can_be_folded(encoded) else _encode_words(text)


def _encode_words(text: str) -> str:
    """RFC 2047 §2: each word at most 75 characters, no character cut in two. Q for text that stays readable, B for the rest."""
    if len(utf8(text)) - len(text) > len(text) // 3 or len(text) > LONG_WORD:
        return f"=?utf-8?b?{'?= =?utf-8?b?'.join(_b_pieces(text))}?="
    return " ".join(f"=?utf-8?q?{piece}?=" for piece in _pieces(text, _q_encoded, 60))


def _b_pieces(text: str) -> list[str]:
    """Each of 60 characters at most: 45 octets."""
    if not text.isascii():
        return _pieces(text, _b_encoded, 60)
    return _cut(_b_encoded(text), 60)


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _b_encoded(text: str) -> str:
    return binascii.b2a_base64(utf8(text), newline=False).decode("ascii")


def _q_encoded(text: str) -> str:
    return _NOT_Q.sub(_q_octets, text).replace(" ", "_")


_NOT_Q = re.compile(r"[^A-Za-z0-9 !*+/-]")  # RFC 2047 §5: what may stand in a phrase


def _q_octets(found: re.Match[str]) -> str:
    return "".join([f"={octet:02X}" for octet in utf8(found[0])])


def _pieces(text: str, encode: Callable[[str], str], most: int) -> list[str]:
    """The text encoded in pieces of at most `most` characters each."""
    pieces, at = [], 0
    while at < len(text):
        size = 45
        while len(piece := encode(text[at : at + size])) > most:
            size = size * 2 // 3
        pieces.append(piece)
        at += size
    return pieces


def utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise EncodingError(f"Text that is neither ASCII nor Unicode cannot be sent: {text[:60]!a} holds lone surrogates.") from None


def header_line(name: str, text: str) -> str:
    """One header as it is written, without its last line end; folded at single spaces, so that unfolding gives the same text back."""
    line = f"{name}: {text}"
    if len(line) <= LINE and text.isascii() and "=?" not in text:
        return line
    line = f"{name}: {_encode_value(text, name.lower() in ADDRESS_HEADERS)}"
    return line if len(line) <= LINE else "\r\n ".join(_lines(line))


_LINES = re.compile(
    rf"""
      (?: \A | [ ] )             # the space at which the line before was cut
      ( (?= .{{{LINE}}} )         # what is left does not fit
        (?: .{{0,{LINE - 2}}} [^ ]                             # as much as fits, up to a single space;
          | .{{{LINE - 1}}} [ ]*+ [^ ]*+ (?: [ ]{{2,}}+ [^ ]++ )*+ )  # where there is none, up to the first beyond
        (?= [ ][^ ] )
      | .*+ )
    """,
    re.VERBOSE | re.DOTALL,
)


def _lines(text: str) -> list[str]:
    """Cut at single spaces between two characters that are none, into lines of less than `LINE` characters where that is possible."""
    return _LINES.findall(text)


# -- header fields


class Field:
    """One header: as it came (`line`, without its last newline) or as it was set (`text`)."""

    __slots__ = ("line", "name", "text")

    def __init__(self, name: str, line: bytes | None = None, text: str | None = None) -> None:
        self.name = name
        self.line = line
        self.text = text

    @property
    def key(self) -> str:
        """The name in lower case."""
        return self.name.lower()

    @property
    def raw(self) -> bytes:
        """What stood behind the colon, undecoded."""
        return self.line.partition(b":")[2] if self.line is not None else (self.text or "").encode("utf-8", "surrogateescape")

    def value(self, reading: Reading) -> str:
        """The decoded value. Nearly all of them are plain ASCII, and it is most of the work of reading mail: that way is short."""
        if self.text is None:
            raw = self.line.partition(b":")[2] if self.line is not None else b""
            if b"\n" in raw:
                raw = _on_one_line(raw)
            if raw.isascii() and b"=?" not in raw:
                text = raw.decode("ascii").strip()
                self.text = text if text.isprintable() else clean(text)
            else:
                self.text = _decode_value(raw, self.name, reading)
        return self.text

    def written(self, newline: bytes) -> bytes:
        """The line as it came, or the one that `text` gives, without its last LF; a lone CR as line end is written as LF."""
        if self.line is not None:
            return self.line
        line = utf8(header_line(self.name, self.text or "") + "\r\n")
        return (line if newline == b"\r\n" else line.replace(b"\r\n", b"\n"))[:-1]


class Headers:
    """Headers in order, with duplicates, by name in any case.

    A missing one is None; setting one replaces all of that name, in the place of the first.
    """

    __slots__ = ("_fields", "_index", "_plain", "reading", "touched")

    def __init__(self, reading: Reading | None = None, head: Head | None = None) -> None:
        self._plain = head if head is not None and head.plain else None  # where all is read from until a field is asked for
        self._fields: list[Field] = []
        self._index: dict[str, list[Field]] = {}  # name in lower case -> its fields
        if head is not None and not head.plain:
            self._keep(list(head.fields))
        self.reading = reading or Reading()
        self.touched = False

    def fields(self, name: str | None = None) -> list[Field]:
        """The fields of that name, or all."""
        plain = self._plain  # other threads may read the same message
        if plain is not None:
            self._keep(list(plain.fields))
            self._plain = None  # last
        return self._fields if name is None else self._index.get(name.lower(), [])

    def _keep(self, fields: list[Field]) -> None:
        index: dict[str, list[Field]] = {}
        for field in fields:
            index.setdefault(field.name.lower(), []).append(field)
        self._fields, self._index = fields, index

    def names(self) -> KeysView[str]:
        """The names that are there, in lower case."""
        return self._plain.names() if self._plain is not None else self._index.keys()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name.lower() in self._index if self._plain is None else self._plain.first(name) is not None)

    def __getitem__(self, name: str) -> str | None:
        if self._plain is not None:
            return self._plain.first(name)
        fields = self._index.get(name.lower())
        return fields[0].value(self.reading) if fields else None

    def get_all(self, name: str) -> list[str]:
        """All values of that name, in order."""
        if self._plain is not None:
            return self._plain.values(name)
        return [field.text or field.value(self.reading) for field in self._index.get(name.lower(), ())]

    def raw_texts(self, name: str) -> list[str]:
        """All values of that name unfolded, their encoded words as they are: what addresses and parameters must be read from."""
        if self._plain is not None:
            return self._plain.values(name)
        return [self._unfolded(field) for field in self._index.get(name.lower(), ())]

    def raw_text(self, name: str) -> str | None:
        """The first of them."""
        if self._plain is not None:
            return self[name]
        fields = self._index.get(name.lower())
        return self._unfolded(fields[0]) if fields else None

    def raw_texts_of(self, names: tuple[str, ...]) -> list[str | None]:
        """The `raw_text` of each of these names, in lower case; of few it is quicker so."""
        if self._plain is None:
            return [self._unfolded(self._index[name][0]) if name in self._index else None for name in names]
        sizes = set(map(len, names))
        found = {name.lower(): value for name, value in reversed(self._plain.plain) if len(name) in sizes}
        return [found.get(name) for name in names]

    def _unfolded(self, field: Field) -> str:
        return _unfold(field.raw, self.reading).strip()

    def __setitem__(self, name: str, value: object) -> None:
        new = self._new(name, value)
        old = self.fields(name)
        if old:
            new.name = old[0].name
            self._keep([new if field is old[0] else field for field in self._fields if field is old[0] or field.key != new.key])
            self.touched = True
        else:
            self._add(new)

    def __delitem__(self, name: str) -> None:
        if name in self:
            key = name.lower()
            self._keep([field for field in self.fields() if field.key != key])
            self.touched = True

    def append(self, name: str, value: object) -> None:
        """Adds one more of that name, behind all others."""
        new = self._new(name, value)
        self.fields()  # from here on they are read from the fields
        self._add(new)

    def _add(self, new: Field) -> None:
        self._index.setdefault(new.name.lower(), []).append(new)
        self._fields.append(new)
        self.touched = True

    def _new(self, name: str, value: object) -> Field:
        if not isinstance(name, str) or not _NAME_TEXT.fullmatch(name):
            raise EncodingError(f"{name!r} is no header name: it takes printable ASCII without a colon or a space (RFC 5322 §2.2).")
        return Field(name, text=clean(value if isinstance(value, str) else value_text(value)))

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._plain.plain] if self._plain is not None else [field.name for field in self._fields])

    def __len__(self) -> int:
        return len(self._fields if self._plain is None else self._plain.plain)

    def items(self) -> list[tuple[str, str]]:
        """(name, value) of each, in order."""
        if self._plain is not None:
            return list(self._plain.plain)
        reading = self.reading
        return [(field.name, field.text or field.value(reading)) for field in self._fields]


# -- where they lie


class Head:
    """Where the header lines of a message or part lie, and each of them."""

    __slots__ = ("_fields", "_index", "body", "lines", "plain", "prefix", "rest")

    def __init__(self, prefix: bytes, fields: list[Field], rest: int, body: int, lines: bytes = b"") -> None:
        self.prefix = prefix  # an mbox "From " line
        self.rest = rest  # where the last header line has ended
        self.body = body  # where the body begins, after the blank line
        self.lines = lines  # all of them, where `fields` are not made yet
        self.plain = plain_headers(lines)  # (name, value) of each, where all are plain ASCII: nearly all mail is read from this alone
        self._fields = fields
        self._index: dict[str, list[str]] | None = None  # name in lower case -> its values, out of `plain`

    @property
    def fields(self) -> list[Field]:
        """Each header line."""
        if not self._fields and self.plain:
            self._fields = _plain_fields(self.lines)
        return self._fields

    def first(self, name: str) -> str | None:
        """The first value of that name, out of `plain`."""
        values = (self._index or self._by_name()).get(name.lower())
        return values[0] if values else None

    def values(self, name: str) -> list[str]:
        """All values of that name, out of `plain`."""
        return list((self._index or self._by_name()).get(name.lower(), ()))

    def names(self) -> KeysView[str]:
        """The names out of `plain`, in lower case."""
        return (self._index or self._by_name()).keys()

    def _by_name(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for name, value in self.plain:
            index.setdefault(name.lower(), []).append(value)
        self._index = index  # whole: other threads may read the same message
        return index


_FOLD = re.compile(r"\n[ \t]++")
_PLAIN_LINE = re.compile(r"^([^:\n ]++): *+(.*+)$", re.MULTILINE)
# Searching for one octet and then looking around it takes a third of the time that searching for two takes.
_BLANK_AT_END = re.compile(r"\n(?<=[ \t]\n)")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_WORD_BEGINS = re.compile(rb"=\?")
#: What plain lines are made of.
_PLAIN_OCTETS = bytes(range(32, 127)) + b"\t\r\n"


def plain_headers(lines: bytes) -> list[tuple[str, str]]:
    """(name, value) of each header line at one go; empty when one of them asks for more than that: 8-bit text, encoded words, controls."""
    if lines.translate(None, _PLAIN_OCTETS) or _WORD_BEGINS.search(lines) or (len(lines) > FIELDS and lines.count(b"\n") > FIELDS):
        return []
    text = with_lf(lines.decode("ascii")).removesuffix("\n")
    if _BLANK_AT_END.search(text) or text.endswith((" ", "\t")):
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    text = _FOLD.sub(" ", text)
    found = _PLAIN_LINE.findall(text)
    return found if len(found) == text.count("\n") + 1 and "\t" not in text and "\r" not in text else []


def read_head(data: bytes, start: int, end: int, reading: Reading) -> Head:
    """Cuts the header lines of `data[start:end]`: up to the first blank line, or the first line that is none of a header."""
    if data.startswith((b"\n", b"\r\n"), start, end):
        return Head(b"", [], start, data.index(b"\n", start) + 1)
    stop, body = _blank_line(data, start, end)
    prefix = b""
    if data.startswith((b"From ", b">From "), start, stop):
        line_end = data.find(b"\n", start, stop) + 1 or stop
        prefix, start = data[start:line_end], line_end
        reading.note("an mbox From line")
    lines = data[start:stop]
    within = _within_the_cap(lines)
    if within < len(lines) and (head := Head(prefix, [], start + within, start + within, lines[:within])).plain:
        reading.note("too many header lines")
        return head
    head = Head(prefix, [], stop, body, lines)
    if head.plain:
        return head
    fields = _plain_fields(head.lines)
    if fields:
        return Head(prefix, fields, stop, body)
    cut = _header_lines(lines)
    for line in cut:
        found = _NAME.match(line if fields else line.lstrip())
        if not found or len(fields) == FIELDS:
            rest = start + sum(map(len, cut[: len(fields)])) + len(fields)
            if fields and not line.strip(b"\r"):  # a careless gateway's CR CR LF
                return Head(prefix, fields, rest, min(rest + len(line) + 1, end))
            reading.note("too many header lines" if found else "no blank line after the headers")
            return Head(prefix, fields, rest, rest)
        fields.append(Field(found[1].decode("ascii"), line))
    return Head(prefix, fields, stop, body)


def _within_the_cap(head: bytes) -> int:
    """How long the header lines are that the cap leaves, where one more follows and none is folded; else all of them."""
    if len(head) <= FIELDS or head.count(b"\n") <= FIELDS:
        return len(head)
    lines = _header_lines(head)
    return len(head) - len(lines[FIELDS]) - head.endswith(b"\n") if len(lines) > FIELDS and _NAME.match(lines[FIELDS]) else len(head)


def _plain_fields(head: bytes) -> list[Field]:
    """All fields at one go, the quick way; none when something stands between them, or there are too many."""
    if head.count(b"\n") > FIELDS:
        return []
    found = _FIELD.findall(head)
    octets = sum([len(line) + 1 for line, _ in found])
    return [Field(name.decode("ascii"), line) for line, name in found] if octets - len(head) in (0, 1) else []


def _blank_line(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the header lines end and where the body begins."""
    found = _BLANK_LINE.search(data, start, end)
    return (found.start() + 1, found.end()) if found else (end, end)


def _header_lines(head: bytes) -> list[bytes]:
    """Each with its continuations, without its last newline."""
    if head.endswith(b"\n"):
        head = head[:-1]
    if not head:
        return []
    folded = b"\n " in head or b"\n\t" in head
    return _LINE_END.split(head, FIELDS) if folded else head.split(b"\n", FIELDS)


# -- as a mapping


class HeaderMapping:
    """What every kind of message here has: its headers as a mapping. They are in `headers`."""

    __slots__ = ()

    @property
    def headers(self) -> Headers:
        """The headers, decoded when asked for."""
        raise NotImplementedError

    def __getitem__(self, name: str) -> str | None:
        return self.headers[name]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of that name, or the default."""
        value = self.headers[name]
        return default if value is None else value

    def get_all(self, name: str) -> list[str]:
        """All values of that name, in order; empty when there is none."""
        return self.headers.get_all(name)

    def __setitem__(self, name: str, value: object) -> None:
        self.headers[name] = value

    def __delitem__(self, name: str) -> None:
        del self.headers[name]

    def __contains__(self, name: object) -> bool:
        return name in self.headers

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

    def __bool__(self) -> bool:
        return True  # a message without headers is a message

    def keys(self) -> list[str]:
        """The names in order, as they are spelt, with duplicates."""
        return list(self.headers)

    def values(self) -> list[str]:
        """The values in the order of `keys`."""
        return [value for _, value in self.headers.items()]

    def items(self) -> list[tuple[str, str]]:
        """(name, value) of each, in order."""
        return self.headers.items()


# -- parameters of headers

_PARAMETER = re.compile(r';\s*+([^=;\s"]++)\s*+=\s*+("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)|[^;]*+)', re.DOTALL)
_SECTION = re.compile(r"([^*]+)(?:\*(\d{1,4}))?(\*)?")

#: A header's value and its parameters, names in lower case.
Parameters = tuple[str | None, dict[str, str]]


def parse_parameter_header(message: HeaderMapping, header: str) -> Parameters:
    """The value of that header of the message and its parameters; (None, {}) when it has none."""
    text = message.headers.raw_text(header)
    return (None, {}) if text is None else parse_parameters(text, message.headers.reading)


def parse_parameters(text: str, reading: Reading) -> Parameters:
    """`attachment; filename=x` (RFC 2045 §5.1), with RFC 2231's continuations and charsets and the encoded words that some put there."""
    if len(text) < 200 and "*" not in text and "=?" not in text:
        value, parameters = _plain_parameters(text)
        return value, parameters.copy()
    return _parse_parameters(text, reading)


@lru_cache(maxsize=1000)
def _plain_parameters(text: str) -> Parameters:
    """Where there is nothing to decode. Nearly all mail says the same few things of itself."""
    return _parse_parameters(text, Reading())


def _parse_parameters(text: str, reading: Reading) -> Parameters:
    value, more, _ = text.partition(";")
    if not more:
        return clean(value), {}
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[bool, str]]] = {}
    for found in islice(_PARAMETER.finditer(text), PARAMETERS):
        given = found[2].strip()
        if given.startswith('"'):
            given = given[1:].removesuffix('"')
            given = re.sub(r"\\(.)", r"\1", given, flags=re.DOTALL) if "\\" in given else given
        name = found[1].lower()
        if "*" not in name:
            plain.setdefault(name, clean(_decode_words(given, False, reading)) if "=?" in given else clean(given))
        elif section := _SECTION.fullmatch(name):
            sections.setdefault(section[1], {}).setdefault(int(section[2] or 0), (bool(section[3]), given))
    return clean(value), plain | {name: _join_sections(parts, reading) for name, parts in sections.items()}


def _join_sections(parts: dict[int, tuple[bool, str]], reading: Reading) -> str:
    """RFC 2231 §4.1. Sections count from 0; what comes after a gap is still taken."""
    charset, octets = None, []
    for at, (number, (encoded, text)) in enumerate(sorted(parts.items())):
        if number != at:
            reading.note("a parameter lacks a section (RFC 2231)")
        if encoded and at == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        raw = text.encode("utf-8", "surrogateescape")
        octets.append(urllib.parse.unquote_to_bytes(raw) if encoded else raw)
    return clean(decode_text(b"".join(octets), charset, reading))


def parameters_line(name: str, value: str, parameters: dict[str, str]) -> str:
    """The header, each parameter on a line of its own when one line does not hold them."""
    pieces = [value, *(piece for key, text in parameters.items() for piece in _write_parameter(key, clean(text)))]
    line = f"{name}: " + "; ".join(pieces)
    return line if len(line) <= LINE else f"{name}: " + ";\r\n ".join(pieces)


_NO_PERCENT = re.compile(r"[A-Za-z0-9_.~-]*+")


def _write_parameter(name: str, text: str) -> list[str]:
    """RFC 2045 §5.1 where that suffices, else RFC 2231 §3 and §4."""
    if not TOKEN.fullmatch(name) or len(name) > LONG_WORD // 2:  # its value takes the other half of a line
        return []
    if text.isascii() and len(text) <= 200:
        if TOKEN.fullmatch(text):
            return [f"{name}={text}"]
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return [f'{name}="{escaped}"']
    pieces = _cut(text, 45) if _NO_PERCENT.fullmatch(text) else _pieces(text, _percent, 50)
    if len(pieces) == 1:
        return [f"{name}*=utf-8''{pieces[0]}"]
    pieces[0] = f"utf-8''{pieces[0]}"
    return [f"{name}*{at}*={piece}" for at, piece in enumerate(pieces)]


def _percent(text: str) -> str:
    return urllib.parse.quote_from_bytes(utf8(text), safe="")
