"""Octets to text: transfer encodings undone, charsets decoded, whatever a message declares.

All of it is total and linear. Every text is decoded by the charset it declares, else UTF-8, else what detection says, else with replacement
characters; what had to be repaired is noted in `Reading.defects`. Knows no headers and no parts: `lamson.header` and `lamson.encoding` hand
in octets and what was declared for them.
"""

from __future__ import annotations

import binascii
import codecs
import io
import re
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache

import charset_normalizer

#: Parts that are read of one message.
PARTS = 1_000

#: Texts of one message whose charset is detected (milliseconds each); later ones are read as the last was. Octets that detection looks at.
DETECTIONS, DETECTION_OCTETS = 4, 8_192


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
        known = self.detected.get(sample)
        if known is None and len(self.detected) < DETECTIONS:
            known = self.detected[sample] = _detect(sample)
        return known or next(reversed(self.detected.values()))


# -- charsets

_NO_CHARSETS = ("_codec", "rot_13", "mbcs", "oem", "idna", "punycode", "undefined", "escape")
_WITHOUT_ALIAS = ("cp720", "cp856", "cp874", "cp875", "cp1006", "koi8_u", "mac_arabic", "mac_croatian", "mac_romanian", "utf_8_sig")

#: Python's codec -> what mail programs call it besides (many of them as the WHATWG Encoding standard has it).
_OTHER_NAMES = {
    "utf_7": "unicode_1_1_utf_7",
    "utf_8": "unicode_1_1_utf_8 utf8mb4",
    "utf_16": "unicode",
    "latin_1": "8859_1 iso_latin_1",
    "iso8859_6": "iso_8859_6_e iso_8859_6_i",
    "iso8859_8": "iso_8859_8_e iso_8859_8_i",
    "cp866": "dos_866",
    "cp874": "windows_874 dos_874",
    "cp932": "windows_31j x_sjis",
    "cp949": "windows_949 x_windows_949",
    "euc_jp": "x_euc_jp",
    "iso2022_jp_ext": "iso_2022_jp_ms cp50220",
    "gb18030": "x_gbk",
    "gb2312": "x_gb2312 cn_gb csgb2312",
    "big5": "cn_big5 x_x_big5",
    "koi8_u": "koi8_ru",
    "mac_roman": "mac x_mac_roman",
    "mac_cyrillic": "x_mac_cyrillic x_mac_ukrainian",
    **{f"cp{page}": f"win_{page} win{page} windows{page} x_cp{page} cp_{page}" for page in range(1250, 1259)},
}

_NAMES = {**aliases, **{codec: codec for codec in (*aliases.values(), *_WITHOUT_ALIAS)}}
_NAMES |= {name: codec for codec, names in _OTHER_NAMES.items() for name in names.split()}

#: Normalised charset name -> Python's codec. A closed table: what a message declares is never looked up or imported.
_CODECS = {name: codec for name, codec in _NAMES.items() if not codec.endswith(_NO_CHARSETS)}

#: The same with dashes, as most are spelt.
_AS_SPELT = {name.replace("_", "-"): codec for name, codec in _CODECS.items()}

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
    known = _AS_SPELT.get(charset) or _CODECS.get(charset.lower().replace("-", "_"))  # normalising takes ten times as long
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
    declared = None if codec == "utf_8" else codec
    if declared and not reading.utf8_first and (text := _attempt(data, declared)) is not None:
        return text
    utf8 = data.decode("utf_8", "replace")
    if "\ufffd" not in utf8 or utf8.count("\ufffd") == data.count(_REPLACEMENT):
        if codec != "utf_8":
            reading.note("8-bit text that declares no charset, read as UTF-8" if not codec else f"text is not {codec} but UTF-8")
        return utf8
    if declared and reading.utf8_first and (text := _attempt(data, declared)) is not None:
        return text
    return _decode_damaged(data, declared, utf8, reading)


#: The replacement character itself in UTF-8: where it does not stand for an octet that is none.
_REPLACEMENT = "\ufffd".encode()


def _attempt(data: bytes, codec: str) -> str | None:
    for candidate in (_SUPERSETS[codec], codec) if codec in _SUPERSETS else (codec,):
        try:
            text = data.decode(candidate)
        except UnicodeError:
            continue
        return _without_surrogates(text) if codec == "utf_7" else text
    return None


def _without_surrogates(text: str) -> str:
    """UTF-7 alone can bring forth lone surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _decode_damaged(data: bytes, codec: str | None, utf8: str, reading: Reading) -> str:
    """Text that is neither what it declares nor UTF-8. A few bad octets are replaced; with many the declaration is not believed."""
    for candidate in ("utf_8",) if codec in (None, "ascii") else (codec, "utf_8"):
        text = utf8 if candidate == "utf_8" else data.decode(candidate, "replace")
        text = _without_surrogates(text) if candidate == "utf_7" else text
        if text.count("\ufffd") * 3 < len(text) - len(text.encode("ascii", "ignore")):
            reading.note(f"{candidate} text with bad octets, replaced")
            return text
    detected = reading.detect(data)
    reading.note(f"8-bit text that is neither what it declares nor UTF-8, read as {detected}")
    return _decoder(detected)(data, "replace")[0]


#: `bytes.decode` looks for the codec each time, for longer than a header takes.
_decoder = lru_cache(maxsize=None)(codecs.getdecoder)


def guess_encoding_and_decode(original: object, data: bytes, errors: str = "strict") -> str:
    """Text whose charset nobody knows. `original` and `errors` are taken for 1.x's sake; nothing is raised."""
    return decode_text(data, None, Reading())


def attempt_decoding(charset: str | None, dec: bytes | str) -> str:
    """Text in the charset named, else as `guess_encoding_and_decode` reads it."""
    return dec if isinstance(dec, str) else decode_text(dec, charset, Reading())


# -- line ends

_LONE_CR = re.compile(r"\r(?!\n)")


def with_lf(text: str) -> str:
    """Each CRLF an LF; a CR that stands alone stays. `str.replace` does it too, in four times the time."""
    if "\r" not in text:
        return text
    if _LONE_CR.search(text):
        return text.replace("\r\n", "\n")
    return io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True)


# -- bodies: transfer encodings

_BLANK_LINE = re.compile(rb"\n[ \t\r]*+\n")
_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/=\s]")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def decode_base64(data: bytes, reading: Reading) -> bytes:
    """Base64 as it comes: line ends and strangers are skipped, missing padding is added, half an octet is dropped.

    Plain text below a blank line is no part of it: some lists put their footer there.
    """
    above = _BLANK_LINE.search(data, len(data) - len(data.lstrip()))
    if above and _NO_BASE64.search(data, above.end()):
        reading.note("plain text below base64, left out")
        data = data[: above.end()]
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        reading.note("damaged base64")
    octets = _NOT_BASE64.sub(b"", data)
    octets = octets[: len(octets) - (len(octets) % 4 == 1)]
    return binascii.a2b_base64(octets + b"=" * (-len(octets) % 4))


_UU_LINE = re.compile(rb"(?<![^\r\n])(?!begin |end)[ \t\x0b\x0c]*+[^\s][^\r\n]*+")


def _decode_uu(data: bytes, reading: Reading) -> bytes:
    return b"".join([_decode_uu_line(line, reading) for line in _UU_LINE.findall(data)])


def _decode_uu_line(line: bytes, reading: Reading) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        reading.note("damaged uuencoding")
        return b""


IDENTITY = ("", "7bit", "8bit", "binary")


def decode_transfer(data: bytes, encoding: str, reading: Reading) -> bytes:
    if encoding in IDENTITY:
        return data
    if encoding == "quoted-printable":
        return binascii.a2b_qp(data)
    if encoding == "base64":
        return decode_base64(data, reading)
    if encoding in ("x-uuencode", "uuencode", "x-uue", "uue"):
        return _decode_uu(data, reading)
    reading.note(f"unknown transfer encoding {encoding[:60]!r}")
    return data
