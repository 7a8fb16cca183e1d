"""MIME in both directions: bytes to a tree of `MailBase` as it is read, and a `MailBase` to canonical bytes.

Reading is total and lazy. Header lines are cut once and kept as they came; a value is decoded when somebody asks, a body when somebody
looks. Every text is decoded by the charset it declares, else UTF-8, else what detection says, else with replacement characters; what had
to be repaired is noted in `Reading.defects`. Nothing here takes more than linear time, and the caps below bound what a hostile message can
make us build: beyond them the rest is one opaque part.

Writing is canonical: CRLF, ASCII where that suffices and UTF-8 in RFC 2047 words, RFC 2231 parameters and encoded bodies where not, no line
over 998 octets. Nobody's text can start a header line: control characters become spaces.

Knows no envelope, no routes, no files but those handed in. `lamson.mail` puts `MailRequest` and `MailResponse` on top.
"""

from __future__ import annotations

import base64
import binascii
import email.message
import hashlib
import io
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from encodings import normalize_encoding
from encodings.aliases import aliases
from itertools import islice, pairwise
from typing import IO, Any

import charset_normalizer

from lamson import address
from lamson.errors import AddressError, EncodingError

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

#: Caps on what is read: levels of nesting, parts of a message, header lines of a part, parameters of a header.
DEPTH, PARTS, FIELDS, PARAMETERS = 50, 1_000, 100_000, 1_000

#: Lines that look like a boundary and are none, before a multipart's rest is taken as one part.
FALSE_BOUNDARIES = 10_000

#: RFC 5322 §2.1.1: characters in a line, wanted and allowed. A header's word longer than LONG_WORD is written as encoded words.
LINE, LONGEST_LINE, LONG_WORD = 78, 998, 900

#: Texts of one message whose charset is detected (milliseconds each); later ones are read as the last was. Octets that detection looks at.
DETECTIONS, DETECTION_OCTETS = 4, 8_192

#: Headers whose value is a list of addresses (RFC 5322 §3.6.2, §3.6.3, §3.6.6).
ADDRESS_HEADERS = {"from", "sender", "reply-to", "to", "cc", "bcc"}
ADDRESS_HEADERS |= {f"resent-{name}" for name in ADDRESS_HEADERS} | {"mail-followup-to", "disposition-notification-to", "return-path"}

_CONTENT_KEYS = {key.lower() for key in CONTENT_ENCODING_KEYS}
_NAME = re.compile(rb"([!-9;-~]++)[ \t]*+:")
_NAME_TEXT = re.compile(r"[!-9;-~]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LINE_END = re.compile(rb"\n(?![ \t])")
_FIELD = re.compile(rb"^(([!-9;-~]++)[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]+")
_TYPE = re.compile(r"[!#$%&'*+.^_`{|}~0-9a-z-]+/[!#$%&'*+.^_`{|}~0-9a-z-]+")


# -- what one reading of a message has met


class Reading:
    """What is common to all parts of one message while it is read.

    `defects`: what was repaired, each once, in the order it was met. `utf8_first`: the message came as str, so its 8-bit text is UTF-8
    whatever it declares.
    """

    __slots__ = ("defects", "detected", "parts", "utf8_first")

    def __init__(self, utf8_first: bool = False) -> None:
        self.defects: list[str] = []
        self.utf8_first = utf8_first
        self.parts = PARTS
        self.detected: dict[bytes, str] = {}

    def note(self, defect: str) -> None:
        """Adds to `defects`, unless it is there."""
        if len(self.defects) < 100 and defect not in self.defects:
            self.defects.append(defect)

    def detect(self, data: bytes) -> str:
        """The codec in which undeclared 8-bit text seems to be written; the same for the same text, whenever it is asked for."""
        sample = data[:DETECTION_OCTETS]
        if sample not in self.detected and len(self.detected) < DETECTIONS:
            self.detected[sample] = _detect(sample)
        return self.detected.get(sample) or next(reversed(self.detected.values()))


# -- charsets

_NO_CHARSETS = ("_codec", "rot_13", "mbcs", "oem", "idna", "punycode", "undefined", "escape")
_WITHOUT_ALIAS = ("cp720", "cp856", "cp874", "cp875", "cp1006", "koi8_u", "mac_arabic", "mac_croatian", "mac_romanian", "utf_8_sig")
_OTHER_NAMES = {"unicode_1_1_utf_7": "utf_7", "x_sjis": "cp932", "x_gbk": "gb18030", "iso_8859_8_i": "iso8859_8", "x_euc_jp": "euc_jp"}

#: Normalised charset name -> Python's codec. A closed table: what a message declares is never looked up or imported.
_CODECS: dict[str, str] = {
    name: codec
    for name, codec in {**aliases, **{codec: codec for codec in (*aliases.values(), *_WITHOUT_ALIAS)}, **_OTHER_NAMES}.items()
    if not codec.endswith(_NO_CHARSETS)
}

#: What mail calls by the name of a smaller charset; tried first (as the WHATWG Encoding standard has it).
_SUPERSETS = {"latin_1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "iso8859_9": "cp1254"}

#: Charsets in which text of octets below 128 is ASCII.
_ASCII_BELOW_128 = {"ascii", "utf_8", "latin_1", "iso8859_15", "iso8859_2", "cp1252", "cp1251", "cp1250", "koi8_r", "gb18030", "gb2312"}

#: What people wrote mail in without saying so. Detection chooses among these only.
_DETECTABLE = ["cp1251", "koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp1253", "cp1255", "cp1256", "cp1254", "cp874"]
_DETECTABLE += ["cp1250", "cp1252"]

_ODD_RUN = re.compile(rb"[\x80-\xff]{2,}")


def codec_of(charset: str | None) -> str | None:
    """Python's codec for a declared charset, None if there is none or it is no charset."""
    if not charset or len(charset) > 60:
        return None
    known = _CODECS.get(charset.lower().replace("-", "_"))  # most are spelt well, and normalising takes ten times as long
    words = charset.split()
    return known or (_CODECS.get(normalize_encoding(words[0]).lower()) if words else None)


def _detect(sample: bytes) -> str:
    """Lone octets between ASCII letters are a Western language's accents; anything denser is put to the detector."""
    if sum(map(len, _ODD_RUN.findall(sample))) * 10 < len(sample):
        return "cp1252"
    best = charset_normalizer.from_bytes(sample, cp_isolation=_DETECTABLE, language_threshold=0.1).best()
    return best.encoding if best else "cp1252"


def decode_text(data: bytes, charset: str | None, reading: Reading) -> str:
    """Text of any charset: declared, UTF-8, detected, with replacement characters; total."""
    codec = codec_of(charset)
    if charset and codec is None:
        reading.note(f"unknown charset {charset[:60]!r}")
    if data.isascii() and (codec is None or codec in _ASCII_BELOW_128):
        return data.decode("ascii")
    first = ("utf_8", codec) if reading.utf8_first else (codec, "utf_8")
    for candidate in dict.fromkeys(first):
        text = _attempt(data, candidate)
        if text is not None:
            if candidate != codec:
                reading.note("8-bit text that declares no charset, read as UTF-8" if not codec else f"text is not {codec} but UTF-8")
            return text
    return _decode_damaged(data, codec, reading)


def _attempt(data: bytes, codec: str | None) -> str | None:
    if codec is None:
        return None
    for candidate in (_SUPERSETS.get(codec), codec):
        try:
            if candidate:
                return _without_surrogates(data.decode(candidate), candidate)
        except UnicodeError:
            pass
    return None


def _without_surrogates(text: str, codec: str) -> str:
    """UTF-7 alone can bring forth lone surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if codec == "utf_7" else text


def _decode_damaged(data: bytes, codec: str | None, reading: Reading) -> str:
    """Text that is neither what it declares nor UTF-8. A few bad octets are replaced; with many the declaration is not believed."""
    for candidate in dict.fromkeys((codec, "utf_8")):
        if candidate and candidate != "ascii":
            text = _without_surrogates(data.decode(candidate, "replace"), candidate)
            if text.count("\ufffd") * 3 < len(text) - len(text.encode("ascii", "ignore")):
                reading.note(f"{candidate} text with bad octets, replaced")
                return text
    detected = reading.detect(data)
    reading.note(f"8-bit text that is neither what it declares nor UTF-8, read as {detected}")
    return data.decode(detected, "replace")


def guess_encoding_and_decode(original: object, data: bytes, errors: str = "strict") -> str:
    """Text whose charset nobody knows. `original` and `errors` are taken for 1.x's sake; nothing is raised."""
    return decode_text(data, None, Reading())


def attempt_decoding(charset: str | None, dec: bytes | str) -> str:
    """Text in the charset named, else as `guess_encoding_and_decode` reads it."""
    return dec if isinstance(dec, str) else decode_text(dec, charset, Reading())


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
    return _decode_value(raw, False, Reading(utf8_first=isinstance(header, str)))


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


def _decode_value(raw: bytes, is_addresses: bool, reading: Reading) -> str:
    text = _unfold(raw, reading)
    if "=?" in text:
        text = _decode_addresses(text, reading) if is_addresses else _decode_words(text, False, reading)
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
    return text.strip() if text.isprintable() else _CONTROLS.sub(" ", text).strip()


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
    return text.isascii() and "=?" not in text and (len(text) <= LONG_WORD or max(map(len, _lines(text))) <= LONG_WORD)


def _encode_address(box: address.Address) -> str:
    """A mailbox whose name, if that needs it, is encoded words. What no server takes for an address is encoded whole: a phrase, so that
    nobody reads another address out of it."""
    bare = box.bare
    if not bare.isascii() and box.domain:
        _utf8(bare)
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
    """The words that need it, from the first to the last, as encoded words."""
    words = text.split(" ")
    odd = [at for at, word in enumerate(words) if not _is_plain(word)] or [0, len(words) - 1]
    first, last = odd[0], odd[-1] + 1
    return " ".join([*words[:first], _encode_words(" ".join(words[first:last])), *words[last:]])


def _encode_words(text: str) -> str:
    """RFC 2047 §2: each word at most 75 characters, no character cut in two. Q for text that stays readable, B for the rest."""
    if len(_utf8(text)) - len(text) > len(text) // 3 or len(text) > LONG_WORD:
        return " ".join([f"=?utf-8?b?{piece}?=" for piece in _b_pieces(text)])
    return " ".join(f"=?utf-8?q?{piece}?=" for piece in _pieces(text, _q_encoded, 60))


def _b_pieces(text: str) -> Iterable[str]:
    """Each of 60 characters at most: 45 octets."""
    if not text.isascii():
        return _pieces(text, _b_encoded, 60)
    encoded = _b_encoded(text)
    return [encoded[at : at + 60] for at in range(0, len(encoded), 60)]


def _b_encoded(text: str) -> str:
    return base64.b64encode(_utf8(text)).decode("ascii")


def _q_encoded(text: str) -> str:
    return _NOT_Q.sub(_q_octets, text).replace(" ", "_")


_NOT_Q = re.compile(r"[^A-Za-z0-9 !*+/-]")  # RFC 2047 §5: what may stand in a phrase


def _q_octets(found: re.Match[str]) -> str:
    return "".join([f"={octet:02X}" for octet in _utf8(found[0])])


def _pieces(text: str, encode: Callable[[str], str], most: int) -> Iterator[str]:
    """The text encoded in pieces of at most `most` characters each."""
    at = 0
    while at < len(text):
        size = 45
        while len(piece := encode(text[at : at + size])) > most:
            size = size * 2 // 3
        yield piece
        at += size


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise EncodingError(f"Text that is neither ASCII nor Unicode cannot be sent: {text[:60]!a} holds lone surrogates.") from None


def header_line(name: str, text: str) -> str:
    """One header as it is written, without its last line end; folded at single spaces, so that unfolding gives the same text back."""
    if not text.isascii() or len(text) > LINE or "=?" in text:
        text = _encode_value(text, name.lower() in ADDRESS_HEADERS)
    line = f"{name}: {text}"
    return line if len(line) <= LINE else "\r\n ".join(_lines(line))


_SINGLE_SPACE = re.compile(r"(?<=[^ ]) (?=[^ ])")


def _lines(text: str) -> Iterator[str]:
    """Cut at single spaces between two characters that are none, into lines of less than `LINE` characters where that is possible."""
    at = 0
    while len(text) - at >= LINE and (cut := _last_single_space(text, at)):
        yield text[at:cut]
        at = cut + 1
    yield text[at:]


def _last_single_space(text: str, at: int) -> int:
    """The last one in a line that begins at `at`, else the first one after that; 0 when there is none."""
    cut = text.rfind(" ", at + 1, at + LINE)
    while cut > at and (text[cut - 1] == " " or text[cut + 1 : cut + 2] in ("", " ")):
        cut = text.rfind(" ", at + 1, cut)
    found = _SINGLE_SPACE.search(text, at + LINE) if cut <= at else None
    return found.start() if found else max(cut, 0)


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
                self.text = _decode_value(raw, self.key in ADDRESS_HEADERS, reading)
        return self.text

    def written(self, newline: bytes) -> bytes:
        """The line as it came, or the one that `text` gives, without its last LF; a lone CR as line end is written as LF."""
        if self.line is not None:
            return self.line
        line = _utf8(header_line(self.name, self.text or "") + "\r\n")
        return (line if newline == b"\r\n" else line.replace(b"\r\n", b"\n"))[:-1]


class Headers:
    """Headers in order, with duplicates, by name in any case.

    A missing one is None; setting one replaces all of that name, in the place of the first.
    """

    __slots__ = ("_fields", "_index", "_plain", "reading", "touched")

    def __init__(self, reading: Reading | None = None, head: Head | None = None) -> None:
        self._plain = head if head is not None and head.plain else None  # where all is read from until a field is asked for
        self._fields = list(head.fields) if head is not None and not head.plain else []
        self._index: dict[str, list[Field]] | None = None
        self.reading = reading or Reading()
        self.touched = False

    def fields(self, name: str | None = None) -> list[Field]:
        """The fields of that name, or all."""
        if self._plain is not None:
            self._fields, self._plain = list(self._plain.fields), None
        if name is None:
            return self._fields
        if self._index is None:
            self._index = {}
            for field in self._fields:
                self._index.setdefault(field.name.lower(), []).append(field)
        return self._index.get(name.lower(), [])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.fields(name) if self._plain is None else self._plain.values(name))

    def __getitem__(self, name: str) -> str | None:
        values = self._plain.values(name) if self._plain is not None else [field.value(self.reading) for field in self.fields(name)[:1]]
        return values[0] if values else None

    def get_all(self, name: str) -> list[str]:
        """All values of that name, in order."""
        return list(self._plain.values(name)) if self._plain is not None else [field.value(self.reading) for field in self.fields(name)]

    def raw_texts(self, name: str) -> list[str]:
        """All values of that name unfolded, their encoded words as they are: what addresses and parameters must be read from."""
        return self.get_all(name) if self._plain is not None else [self._unfolded(field) for field in self.fields(name)]

    def raw_text(self, name: str) -> str | None:
        """The first of them."""
        if self._plain is not None:
            return self[name]
        fields = self.fields(name)
        return self._unfolded(fields[0]) if fields else None

    def _unfolded(self, field: Field) -> str:
        return _unfold(field.raw, self.reading).strip()

    def __setitem__(self, name: str, value: object) -> None:
        new = self._new(name, value)
        old = self.fields(name)
        if old:
            new.name = old[0].name
            self._fields = [new if field is old[0] else field for field in self._fields if field is old[0] or field.key != new.key]
        else:
            self._fields.append(new)
        self._changed()

    def __delitem__(self, name: str) -> None:
        if name in self:
            key = name.lower()
            self._fields = [field for field in self.fields() if field.key != key]
            self._changed()

    def append(self, name: str, value: object) -> None:
        """Adds one more of that name, behind all others."""
        self.fields().append(self._new(name, value))
        self._changed()

    def _new(self, name: str, value: object) -> Field:
        if not isinstance(name, str) or not _NAME_TEXT.fullmatch(name):
            raise EncodingError(f"{name!r} is no header name: it takes printable ASCII without a colon or a space (RFC 5322 §2.2).")
        return Field(name, text=clean(value_text(value)))

    def _changed(self) -> None:
        self._index = None
        self.touched = True

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._plain.plain] if self._plain is not None else [field.name for field in self._fields])

    def __len__(self) -> int:
        return len(self._fields if self._plain is None else self._plain.plain)

    def items(self) -> list[tuple[str, str]]:
        """(name, value) of each, in order."""
        if self._plain is not None:
            return list(self._plain.plain)
        reading = self.reading
        return [(field.name, field.value(reading)) for field in self._fields]


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
    value, more, _ = text.partition(";")
    if not more:
        return clean(value), {}
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[bool, str]]] = {}
    for found in islice(_PARAMETER.finditer(text), PARAMETERS):
        given = found[2].strip()
        if given.startswith('"'):
            given = re.sub(r"\\(.)", r"\1", given[1:].removesuffix('"'), flags=re.DOTALL)
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


def _write_parameters(name: str, value: str, parameters: dict[str, str]) -> str:
    """The header, each parameter on a line of its own when one line does not hold them."""
    pieces = [value, *(piece for key, text in parameters.items() for piece in _write_parameter(key, clean(text)))]
    line = f"{name}: " + "; ".join(pieces)
    return line if len(line) <= LINE else f"{name}: " + ";\r\n ".join(pieces)


def _write_parameter(name: str, text: str) -> list[str]:
    """RFC 2045 §5.1 where that suffices, else RFC 2231 §3 and §4."""
    if not _TOKEN.fullmatch(name):
        return []
    if text.isascii() and len(text) <= 200:
        if _TOKEN.fullmatch(text):
            return [f"{name}={text}"]
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return [f'{name}="{escaped}"']
    pieces = list(_pieces(text, _percent, 50))
    if len(pieces) == 1:
        return [f"{name}*=utf-8''{pieces[0]}"]
    pieces[0] = f"utf-8''{pieces[0]}"
    return [f"{name}*{at}*={piece}" for at, piece in enumerate(pieces)]


def _percent(text: str) -> str:
    return urllib.parse.quote_from_bytes(_utf8(text), safe="")


# -- bodies: transfer encodings

_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def decode_base64(data: bytes, reading: Reading) -> bytes:
    """Base64 as it comes: line ends and strangers are skipped, missing padding is added, half an octet is dropped."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        reading.note("damaged base64")
    octets = _NOT_BASE64.sub(b"", data)
    octets = octets[: len(octets) - (len(octets) % 4 == 1)]
    return binascii.a2b_base64(octets + b"=" * (-len(octets) % 4))


def _decode_uu(data: bytes, reading: Reading) -> bytes:
    out = []
    for line in data.splitlines():
        if line.startswith((b"begin ", b"end")) or not line.strip():
            continue
        try:
            out.append(binascii.a2b_uu(line))
        except binascii.Error:
            reading.note("damaged uuencoding")
    return b"".join(out)


_IDENTITY = ("", "7bit", "8bit", "binary")


def _decode_transfer(data: bytes, encoding: str, reading: Reading) -> bytes:
    if encoding in _IDENTITY:
        return data
    if encoding == "quoted-printable":
        return binascii.a2b_qp(data)
    if encoding == "base64":
        return decode_base64(data, reading)
    if encoding in ("x-uuencode", "uuencode", "x-uue", "uue"):
        return _decode_uu(data, reading)
    reading.note(f"unknown transfer encoding {encoding[:60]!r}")
    return data


# -- the tree


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
        self._index: dict[str, list[str]] | None = None

    @property
    def fields(self) -> list[Field]:
        """Each header line."""
        if not self._fields and self.plain:
            self._fields = _plain_fields(self.lines)
        return self._fields

    def values(self, name: str) -> list[str]:
        """The values of that name, out of `plain`."""
        if self._index is None:
            index: dict[str, list[str]] = {}
            for each, value in self.plain:
                index.setdefault(each.lower(), []).append(value)
            self._index = index
        return self._index.get(name.lower(), [])


_FOLD = re.compile(r"\n ++")
_PLAIN_LINES = re.compile(r"(?:[!-9;-~]++:[ -~]*+\n)*+[!-9;-~]++:[ -~]*+")


def plain_headers(lines: bytes) -> list[tuple[str, str]]:
    """(name, value) of each header line at one go; empty when one of them asks for more than that: 8-bit text, encoded words, controls."""
    if not lines.isascii() or b"=?" in lines or lines.count(b"\n") > FIELDS:
        return []
    text = lines.decode("ascii").replace("\r\n", "\n").replace("\n\t", "\n ").removesuffix("\n")
    if " \n" in text:
        return []
    text = _FOLD.sub(" ", text)
    if not _PLAIN_LINES.fullmatch(text):
        return []
    return [(name, value.strip()) for name, _, value in [line.partition(":") for line in text.split("\n")]]


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
    head = Head(prefix, [], stop, body, data[start:stop])
    if head.plain:
        return head
    fields = _plain_fields(head.lines)
    if fields:
        return Head(prefix, fields, stop, body)
    lines = _header_lines(head.lines)
    for line in lines:
        found = _NAME.match(line)
        if not found or len(fields) == FIELDS:
            reading.note("too many header lines" if found else "no blank line after the headers")
            rest = start + sum(map(len, lines[: len(fields)])) + len(fields)
            return Head(prefix, fields, rest, rest)
        fields.append(Field(found[1].decode("ascii"), line))
    return Head(prefix, fields, stop, body)


def _plain_fields(head: bytes) -> list[Field]:
    """All fields at one go, the quick way; none when something stands between them, or there are too many."""
    if head.count(b"\n") > FIELDS:
        return []
    found = _FIELD.findall(head)
    octets = sum([len(line) + 1 for line, _ in found])
    return [Field(name.decode("ascii"), line) for line, name in found] if octets - len(head) in (0, 1) else []


def _blank_line(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the header lines end and where the body begins."""
    at = data.find(b"\n\r\n", start, end)
    lone = data.find(b"\n\n", start, end if at < 0 else at + 1)
    if lone >= 0:
        return lone + 1, lone + 2
    return (at + 1, at + 3) if at >= 0 else (end, end)


def _header_lines(head: bytes) -> list[bytes]:
    """Each with its continuations, without its last newline."""
    if head.endswith(b"\n"):
        head = head[:-1]
    if not head:
        return []
    folded = b"\n " in head or b"\n\t" in head
    return _LINE_END.split(head, FIELDS) if folded else head.split(b"\n", FIELDS)


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
            keys = ("Content-Type", "Content-Transfer-Encoding", "Content-Disposition")
            self._content = {key: parse_parameter_header(self, key) for key in keys}
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
            return _utf8(self._body) if isinstance(self._body, str) else self._body or b""
        data, _, end = self._source
        return _decode_transfer(data[self._read_head().body : end], self._transfer_encoding(), self.reading)

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
            return _with_lf(decode_text(self.data, self.charset, self.reading))
        return self.data

    @property
    def parts(self) -> list[MailBase]:
        """The parts of a multipart; of a message/rfc822, the message. Empty for anything else."""
        if self._parts is None:
            self._parts = self._read_parts() if self._source is not None else []
        return self._parts

    def _read_parts(self) -> list[MailBase]:
        kind = self.content_type
        is_message = kind in ("message/rfc822", "message/global")
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
        if self._transfer_encoding() in _IDENTITY:
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


_CRS_LF = re.compile(r"(?<!\r)\r++\n")


def _with_lf(text: str) -> str:
    """CRLF becomes LF, and so does CR CR LF, which careless gateways make of it."""
    text = text.replace("\r\n", "\n")
    return _CRS_LF.sub("\n", text) if "\r\n" in text else text


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
    content, payload = _write_content(mail)
    lines = _written_headers(mail, _CONTENT_KEYS | {name.lower() for name in leave_out})
    end = b"" if not payload or payload.endswith(b"\r\n") else b"\r\n"
    return _utf8("\r\n".join([*lines, "MIME-Version: 1.0", *content, "", ""])) + payload + end


def _written_headers(mail: MailBase, leave_out: set[str]) -> list[str]:
    """A name that no line holds is left out as well: such names are made to break software."""
    headers, longest = mail.headers, LONG_WORD
    fields = [field for field in headers.fields() if field.key not in leave_out and len(field.name) <= longest]
    return [header_line(field.name, field.value(headers.reading)) for field in fields]


def _write_part(mail: MailBase) -> bytes:
    content, payload = _write_content(mail)
    return _utf8("\r\n".join([*_written_headers(mail, _CONTENT_KEYS), *content, "", ""])) + payload


def _write_content(mail: MailBase) -> tuple[list[str], bytes]:
    """The lines of the content headers, and what follows them."""
    body = mail.body
    if mail.parts:
        lines, payload = _write_parts(mail)
    else:
        lines, payload = _write_octets(mail, body) if isinstance(body, bytes) else _write_text(mail, body or "")
    disposition, parameters = mail.content_encoding["Content-Disposition"]
    if disposition:
        lines.append(_write_parameters("Content-Disposition", _token(disposition, "attachment"), parameters))
    return lines, payload


def _token(text: str, otherwise: str) -> str:
    return text if _TOKEN.fullmatch(text) else otherwise


def _parameters_of(mail: MailBase, *without: str) -> dict[str, str]:
    removed = (*CONTENT_ENCODING_REMOVED_PARAMS, *without)
    return {name: text for name, text in mail.content_encoding["Content-Type"][1].items() if name not in removed}


def _write_parts(mail: MailBase) -> tuple[list[str], bytes]:
    kind = mail.content_type
    written = [_write_part(part) for part in mail.parts]
    if kind.startswith("message/") and len(written) == 1:
        return [_write_parameters("Content-Type", kind, _parameters_of(mail))], written[0]
    if not kind.startswith("multipart/"):
        kind = "multipart/mixed"
    digest = hashlib.blake2b(digest_size=15)
    for part in written:
        digest.update(part)
    boundary = f"=_{digest.hexdigest()}"  # made of the content, so it is not in the content, and the same each time
    mark = f"--{boundary}".encode("ascii")
    payload = b"".join(piece for part in written for piece in (mark, b"\r\n", part, b"\r\n"))
    return [_write_parameters("Content-Type", kind, {**_parameters_of(mail), "boundary": boundary})], payload + mark + b"--\r\n"


def _write_text(mail: MailBase, body: str) -> tuple[list[str], bytes]:
    """7bit where RFC 2045 §2.7 allows it, else quoted-printable or base64, whichever is shorter."""
    kind = mail.content_type
    if not (kind.startswith("text/") or kind in _TEXT_TYPES):
        kind = "text/plain" if kind.startswith("multipart/") else kind
    if "\r" in body:
        body = _with_lf(body)
    ascii_only = body.isascii()
    charset = "us-ascii" if ascii_only else "utf-8"
    parameters = {**_parameters_of(mail, "charset"), "charset": charset} if kind.startswith("text/") else _parameters_of(mail)
    if ascii_only and _is_7bit(body):
        encoding, payload = "7bit", body.replace("\n", "\r\n").encode("ascii")
    else:
        encoding, payload = _encode_body(_utf8(body))
    return [_write_parameters("Content-Type", kind, parameters), f"Content-Transfer-Encoding: {encoding}"], payload


def _is_7bit(body: str) -> bool:
    """RFC 2045 §2.7. What CR is left stands alone, which no line may hold."""
    return "\0" not in body and "\r" not in body and (len(body) <= LONGEST_LINE or not _LONG_LINE.search(f"\n{body}"))


_LONG_LINE = re.compile(rf"\n[^\n]{{{LONGEST_LINE + 1}}}")


def _encode_body(data: bytes) -> tuple[str, bytes]:
    odd = len(data) - len(data.decode("ascii", "ignore"))
    if odd * 6 > len(data) or b"\r" in data:
        return "base64", _base64_lines(data.replace(b"\n", b"\r\n"))
    return "quoted-printable", binascii.b2a_qp(data).replace(b"\n", b"\r\n")


def _base64_lines(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def _write_octets(mail: MailBase, body: bytes) -> tuple[list[str], bytes]:
    kind = mail.content_type if not mail.content_type.startswith(("multipart/", "message/")) else "application/octet-stream"
    lines = [_write_parameters("Content-Type", kind, _parameters_of(mail)), "Content-Transfer-Encoding: base64"]
    return lines, _base64_lines(body)


# -- to and from the standard library, strings and files


class MIMEPart(email.message.Message):
    """The standard library's message, as `to_message` gives it."""

    def add_text(self, content: str) -> None:
        """Makes this a part of text, ASCII where that suffices, else UTF-8."""
        self.set_payload(content, None if content.isascii() else "utf-8")

    def extract_payload(self, mail: MailBase) -> None:
        """Takes over the content of a part that has no parts."""
        lines, payload = _write_content(mail)
        for line in lines:
            name, _, value = line.partition(": ")
            del self[name]
            self[name] = value
        self.set_payload(payload.decode("ascii", "surrogateescape"))


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
