"""Octets become text and bytes, whatever they declare."""

from __future__ import annotations

import pytest

from lamson import encoding
from tests.test_encoding import read


@pytest.mark.parametrize(
    ("charset", "data", "expected", "defect"),
    [
        ("utf-8", "é".encode(), "é", ""),
        ("iso-8859-1", b"\xe9 \x93quoted\x94", "é “quoted”", ""),
        ("ISO_8859-1:1987", b"caf\xe9", "café", ""),
        ("us-ascii", "café".encode(), "café", "UTF-8"),
        ("us-ascii", b"caf\xe9 au lait", "café au lait", "cp1252"),
        ("gb2312", "镕".encode("gbk"), "镕", ""),
        ("shift_jis", "日本語①".encode("cp932"), "日本語①", ""),
        ("x-unknown", "Привет, как твои дела сегодня?".encode("cp1251"), "Привет, как твои дела сегодня?", "cp1251"),
        ("utf-8", "éàü ".encode() * 20 + b"\xff", "éàü " * 20 + "\ufffd", "replaced"),
        ("base64", b"aGk=", "aGk=", "unknown charset"),
        ("rot13", b"uryyb", "uryyb", "unknown charset"),
        ("unicode_escape", b"\\x41\\d", "\\x41\\d", "unknown charset"),
        ("idna", b"xn--a", "xn--a", "unknown charset"),
        ("../../etc/passwd", b"x", "x", "unknown charset"),
        ("utf-16", "hé".encode("utf-16"), "hé", ""),
        ("iso-2022-jp", "日本".encode("iso-2022-jp"), "日本", ""),
        ("utf-8 (plain)", "é".encode(), "é", ""),
        ("a" * 5000, b"x", "x", "unknown charset"),
        ("utf\x00-8", "é".encode(), "é", ""),
        ("\x00", "é".encode(), "é", "UTF-8"),
        ("ks_c_5601-1987", "한국어 똠".encode("cp949"), "한국어 똠", ""),
        ("Win-1251", "Привет".encode("cp1251"), "Привет", ""),
        ("x-cp1250", "Žluťoučký".encode("cp1250"), "Žluťoučký", ""),
        ("windows-31j", "①".encode("cp932"), "①", ""),
        ("windows-874", "ไทย".encode("cp874"), "ไทย", ""),
        ("macintosh", "é".encode("mac_roman"), "é", ""),
        ("unknown-8bit", "é".encode(), "é", "unknown charset"),
        ("utf-8", "\ufffd?".encode(), "\ufffd?", ""),
        ("utf-8", ("\ufffd" + "é" * 9).encode() + b"\xe9", "\ufffd" + "é" * 9 + "\ufffd", "bad octets"),
    ],
)
def test_text_of_any_charset_becomes_str(charset: str, data: bytes, expected: str, defect: str) -> None:
    mail = read(f'Content-Type: text/plain; charset="{charset}"\r\n\r\n'.encode() + data)
    assert mail.body == expected
    assert defect in " ".join(mail.reading.defects)
    assert bool(mail.reading.defects) == bool(defect)


@pytest.mark.parametrize(
    "meta",
    ['<meta charset="windows-1251">', '<META http-equiv=x content="text/html; charset=windows-1251">', "<meta charset=cp1251 />"],
)
def test_html_may_say_its_charset_itself(meta: str) -> None:
    html = f"<html><head>{meta}</head><body>Да</body></html>"
    assert read(b"Content-Type: text/html\r\n\r\n" + html.encode("cp1251")).body == html
    utf8 = html.replace("windows-1251", "utf-8").replace("cp1251", "utf-8")
    assert read(b"Content-Type: text/html\r\n\r\n" + utf8.encode()).body == utf8
    assert read(b"Content-Type: text/html; charset=utf-8\r\n\r\n" + html.encode()).body == html


def test_a_byte_order_mark_is_no_text() -> None:
    assert read(b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xef\xbb\xbfclose\r\n").body == "close\n"
    assert read(b"\r\n\xef\xbb\xbfclose").body == "close"


def test_text_given_as_str_is_utf8_whatever_it_declares() -> None:
    assert encoding.from_string("Content-Type: text/plain; charset=iso-8859-1\n\ncafé").body == "café"


@pytest.mark.parametrize(
    ("name", "body", "expected", "defects"),
    [
        ("7bit", b"a\r\nb\r\n", b"a\r\nb\r\n", 0),
        ("quoted-printable", b"a=3Db=\r\nc=E9", b"a=bc\xe9", 0),
        ("Quoted-Printable (really)", b"=41", b"A", 0),
        ("quoted-printable", b"broken = x =G1 =", b"broken = x =G1 ", 0),
        ("base64", b"aGVsbG8=", b"hello", 0),
        ("base64", b"aGVs\r\nbG8", b"hello", 1),
        ("base64", b"a!G?Vs bG8=", b"hello", 0),
        ("base64", b"aGVsbG8gQ", b"hello ", 1),
        ("base64", b"aGVs\r\nbG9v\r\n\r\n-- \r\nA list's footer\r\n", b"helloo", 1),
        ("base64", b"\r\n\r\naGVs\r\nbG9v\r\n\r\n", b"helloo", 0),
        ("base64", b"\xff\xfe", b"", 0),
        ("x-uuencode", b"begin 644 f\r\n%:&5L;&\\\r\n`\r\nend\r\n", b"hello", 0),
        ("x-uuencode", b"begin 644 f\r\n%:&5L;&\\\r\n\xff\xff\r\nend\r\n", b"hello", 1),
        ("nonsense", b"as it is", b"as it is", 1),
    ],
)
def test_transfer_encodings(name: str, body: bytes, expected: bytes, defects: int) -> None:
    mail = read(f"Content-Type: application/x\r\nContent-Transfer-Encoding: {name}\r\n\r\n".encode() + body)
    assert mail.body == expected
    assert len(mail.reading.defects) == defects
