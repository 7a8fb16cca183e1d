"""MIME in both directions: anything in, clean mail out, and nothing slow."""

from __future__ import annotations

import email
import gc
import hashlib
import io
import multiprocessing
import re
import resource
import time
from collections.abc import Callable, Iterator
from email.message import Message
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamson import address, decoding, encoding, header
from lamson.encoding import EncodingError, MailBase
from lamson.errors import AddressError
from lamson.mail import MailRequest
from tests.cost import fastest


def read(text: str | bytes) -> MailBase:
    return encoding.from_string(text.replace("\n", "\r\n").encode() if isinstance(text, str) else text)


# -- the names of 1.x, types


def test_the_names_of_1_x() -> None:
    assert encoding.properly_decode_header("=?utf-8?q?=C3=A9?=") == "é"
    assert encoding.header_from_mime_encoding(["=?utf-8?q?=C3=A9?=", "a"]) == ["é", "a"]
    assert encoding.header_from_mime_encoding(b"=?utf-8?q?=C3=A9?=") == "é"
    assert encoding.header_from_mime_encoding(None) is None
    assert encoding.guess_encoding_and_decode("x", "é".encode()) == "é"
    assert encoding.attempt_decoding("iso-8859-1", b"\xe9") == "é"
    assert encoding.attempt_decoding("iso-8859-1", "é") == "é"
    assert "Content-Type" in encoding.CONTENT_ENCODING_KEYS
    assert "boundary" in encoding.CONTENT_ENCODING_REMOVED_PARAMS


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("TEXT/HTML; x=y", "text/html"),
        ("text", "text/plain"),
        ("", "text/plain"),
        ("text/html charset=x", "text/html"),
        ("a/b/c", "text/plain"),
    ],
)
def test_content_types(header: str, expected: str) -> None:
    assert read(f"Content-Type: {header}\n\n").content_type == expected


# -- bodies and parts


MULTIPART = """\
Content-Type: multipart/mixed; boundary="b"

preamble
--b
Content-Type: text/plain

one
--bx
--b\x20\x20
Content-Type: multipart/alternative; boundary=bb

--bb
Content-Type: text/html

<p>two</p>
--bb--
--b

no headers
--b--
epilogue
--b
"""


def test_a_multipart_is_cut_at_its_own_boundary_lines_only() -> None:
    mail = read(MULTIPART)
    assert [part.content_type for part in mail.walk()] == ["text/plain", "multipart/alternative", "text/html", "text/plain"]
    assert [part.body for part in mail.walk()] == ["one\n--bx", None, "<p>two</p>", "no headers"]
    assert mail.body is None
    assert mail.reading.defects == []


@pytest.mark.parametrize("newline", ["\r\n", "\n", "\r"])
def test_parts_with_any_line_end(newline: str) -> None:
    mail = read(MULTIPART.replace("\n", newline).encode())
    assert [part.body for part in mail.parts] == ["one\n--bx", None, "no headers"]


def test_a_multipart_without_its_end_is_read_to_its_end() -> None:
    mail = read("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo")
    assert [part.body for part in mail.parts] == ["one", "two"]
    assert "a multipart without its end" in mail.reading.defects


@pytest.mark.parametrize("header", ["multipart/mixed", "multipart/mixed; boundary=x", 'multipart/mixed; boundary=""'])
def test_a_multipart_without_its_boundary_is_text(header: str) -> None:
    mail = read(f"Content-Type: {header}\n\n--b\n\none\n")
    assert mail.parts == []
    assert mail.body == "--b\n\none\n"
    assert mail.reading.defects


def test_an_enclosed_message_is_a_part_and_its_parts_are_below() -> None:
    inner = "Subject: inner\n\nhello\n"
    mail = read(f"Content-Type: multipart/digest; boundary=b\n\n--b\n\n{inner}\n--b\nContent-Type: message/rfc822\n\n{inner}--b--\n")
    assert [part.content_type for part in mail.parts] == ["message/rfc822", "message/rfc822"]
    assert [part.parts[0]["Subject"] for part in mail.parts] == ["inner", "inner"]
    assert [part.parts[0].body for part in mail.parts] == ["hello\n", "hello"]


def test_an_enclosed_message_that_is_encoded_against_the_rules_is_read() -> None:
    mail = read("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogaQoKYm9keQ==\n")
    assert mail.parts[0]["Subject"] == "i"
    assert mail.parts[0].body == "body"


# -- writing


def written(items: list[tuple[str, object]], body: str | bytes | None = None) -> bytes:
    mail = MailBase(items)
    mail.body = body
    return encoding.to_bytes(mail)


def assert_canonical(data: bytes) -> None:
    lines = data.split(b"\r\n")
    assert max(map(len, lines)) <= header.LONGEST_LINE
    assert not any(b"\r" in line or b"\n" in line or b"\x00" in line for line in lines)


def test_plain_ascii_is_written_as_it_is() -> None:
    assert written([("To", "joe@example.com"), ("Subject", "Hi")], "Hello\nJoe") == (
        b"To: joe@example.com\r\nSubject: Hi\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n\r\nHello\r\nJoe\r\n"
    )


@pytest.mark.parametrize("where", ["Subject", "To", "body"])
def test_what_is_neither_ascii_nor_unicode_is_refused(where: str) -> None:
    mail = MailBase([] if where == "body" else [(where, "a\udce9 <x@example.com>")])
    mail.body = "\udce9" if where == "body" else ""
    with pytest.raises(EncodingError):
        encoding.to_bytes(mail)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "a\n",
        "é\n",
        "日本語\n" * 50,
        "a" * 5000 + "\n",
        "é" + "x" * 5000 + "\n",
        "nul \x00\n",
        "lone \r here\n",
        " leading\ntrailing \n.\n..\nFrom here\n--\n-- \n",
        "tab\t\n=3D =\n",
        "\n\n\n",
        "a \u2028 b\x85\x0b\x0c\n",
    ],
)
def test_a_body_is_read_back_equal(body: str) -> None:
    data = written([("Subject", "x")], body)
    assert_canonical(data)
    assert data.isascii()
    assert read(data).body == body


def test_a_tree_is_written_and_read_back() -> None:
    mail = MailBase([("Subject", "tree")])
    mail.content_encoding["Content-Type"] = ("multipart/mixed", {})
    mail.attach_text("text é", "text/plain")
    mail.attach_text("<p>html</p>", "text/html")
    mail.attach_file("naïve file; \"x\".bin", bytes(range(256)), "application/octet-stream", "attachment")
    mail.attach_file("x" * 300 + ".txt", "text", "text/plain", "inline")
    data = encoding.to_bytes(mail)
    assert_canonical(data)
    again = read(data)
    assert [part.body for part in again.parts] == ["text é", "<p>html</p>", bytes(range(256)), "text"]
    assert [part.filename for part in again.parts] == [None, None, "naïve file; \"x\".bin", "x" * 300 + ".txt"]
    assert [part.disposition for part in again.parts] == ["", "", "attachment", "inline"]
    assert encoding.to_bytes(again) == data
    assert again.reading.defects == []
    stdlib = email.message_from_bytes(data)
    payloads = [part.get_payload(decode=True) for part in stdlib.get_payload()]
    assert payloads == ["text é".encode(), b"<p>html</p>", bytes(range(256)), b"text"]
    assert stdlib.get_payload(2).get_filename() == "naïve file; \"x\".bin"
    assert stdlib.defects == []


def test_the_octets_of_a_part_are_digested_once_however_deep_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the boundaries, which are made of the content: each is another, and none is in what it parts."""
    digested: list[int] = []

    class Digest:
        def __init__(self, digest_size: int) -> None:
            self.real = hashlib.blake2b(digest_size=digest_size)

        def update(self, data: bytes) -> None:
            digested.append(len(data))
            self.real.update(data)

        def hexdigest(self) -> str:
            return self.real.hexdigest()

    monkeypatch.setattr(encoding, "hashlib", SimpleNamespace(blake2b=Digest))
    data = encoding.to_bytes(read(nested(20) + b"x\r\n" * 10_000))
    assert sum(digested) < 40_000
    boundaries = re.findall(rb'boundary="(.*)"', data)
    assert len(set(boundaries)) == 20
    assert all(data.count(b"--" + each) == 2 for each in boundaries)
    assert encoding.to_bytes(read(data)) == data


@pytest.mark.parametrize(
    "line",
    [
        "Content-Type: a/" + "b" * 1100,
        "Content-Type: " + "a" * 1100 + "/b",
        "Content-Type: text/" + "b" * 1100,
        "Content-Type: multipart/" + "b" * 1100 + "; boundary=b",
        "Content-Type: message/" + "b" * 1100,
        "Content-Type: a/b; " + "n" * 1100 + "=x",
        "Content-Type: a/b; " + "n" * 700 + '="' + "\\\\" * 190 + '"',
        "Content-Type: a/b; " + "n" * 700 + '="' + "x" * 1000 + '"',
        "Content-Disposition: " + "d" * 1100,
    ],
    ids=lambda line: line[:30],
)
def test_words_that_no_line_holds_are_not_written(line: str) -> None:
    """RFC 6838 §4.2 for types: one that is longer is none, and so it is text/plain."""
    mail = read(f"{line}\n\n--b\n\nx\n--b--\n")
    data = encoding.to_bytes(mail)
    assert_canonical(data)
    assert shape(read(data)) == shape(mail)


def test_an_enclosed_message_keeps_the_name_of_its_file() -> None:
    mail = read('Content-Type: message/rfc822\nContent-Disposition: attachment; filename="mail.eml"\n\nSubject: inner\n\nhello\n')
    again = read(encoding.to_bytes(mail))
    assert (again.disposition, again.filename, again.parts[0]["Subject"]) == ("attachment", "mail.eml", "inner")


@pytest.mark.parametrize(
    ("enclosed", "expected"),
    [
        (b"SUBJECT:  a\r\n\tb\r\n\r\nhello  \r\n", b"SUBJECT:  a\r\n\tb\r\n\r\nhello  \r\n"),
        (b"Subject: a\n\n\xff\n", b"Subject: a\r\n\r\n\xff\r\n"),
        (b"Subject: a\r\n\r\n" + b"x" * 2000, None),
        (b"Subject: a\r\n\r\nlone \r here", None),
        (b"Subject: a\r\n\r\nnul \x00 here", None),
    ],
    ids=["as it is", "8-bit", "long line", "lone cr", "nul"],
)
def test_a_message_that_is_attached_is_a_message(enclosed: bytes, expected: bytes | None) -> None:
    """Its octets are kept where a mail can hold them; else it is written in canonical form, and reads the same."""
    mail = MailBase()
    mail.attach_text("see below")
    mail.attach_file("mail.eml", enclosed, "message/rfc822")
    data = encoding.to_bytes(mail)
    part = read(data).parts[1]
    assert (part.content_type, part.filename, part.disposition) == ("message/rfc822", "mail.eml", "attachment")
    inner = encoding.from_string(enclosed)
    assert (part.parts[0]["Subject"], part.parts[0].body.rstrip("\n")) == (inner["Subject"], inner.body.rstrip("\n"))
    if expected is not None:
        assert part.data == expected
    assert_canonical(data)
    theirs = email.message_from_bytes(data).get_payload(1)
    assert theirs.get_content_type() == "message/rfc822"
    assert theirs.get_payload(0)["Subject"] is not None


SIGNED = """\
Subject: =?iso-8859-1?q?caf=E9?=
Content-Type: multipart/signed; micalg=pgp-sha256; protocol="application/pgp-signature"; boundary="sig"

preamble
--sig
Content-type:  text/plain;   CHARSET=us-ascii

Hello\x20\x20
--sig
Content-Type: application/pgp-signature; name="signature.asc"

-----BEGIN PGP SIGNATURE-----
iQ==
--sig--
"""


def test_what_was_signed_is_written_as_it_came() -> None:
    """RFC 1847 §2.1: headers around it are written anew, it itself is not; nor where it is a part of another message."""
    signed = SIGNED.partition("\n\n")[2].replace("\n", "\r\n").encode()
    mail = read(SIGNED)
    data = encoding.to_bytes(mail)
    assert b"utf-8" in data.partition(b"\r\n\r\n")[0]
    assert data.endswith(b"\r\n\r\n" + signed)
    other = MailBase()
    other.attach_part(read(SIGNED))
    assert signed in encoding.to_bytes(other)
    assert email.message_from_bytes(data).get_payload(0).get_payload() == "Hello  "


@pytest.mark.parametrize("how", ["body", "header", "parameter", "part", "8-bit", "long line", "line ends", "cut off"])
def test_what_was_signed_and_changed_or_cannot_stay_is_written_anew(how: str) -> None:
    text = {"8-bit": SIGNED.replace("Hello", "Grüße"), "long line": SIGNED.replace("Hello", "x" * 999)}.get(how, SIGNED)
    text = text.replace("\n--sig--\n", "\n--") if how == "cut off" else text
    mail = encoding.from_string(text.encode()) if how == "line ends" else read(text)
    if how == "body":
        mail.parts[0].body = "Good-bye"
    if how == "header":
        mail.parts[0]["X-New"] = "x"
    if how == "parameter":
        mail.parts[1].content_encoding["Content-Type"][1]["name"] = "other.asc"
    if how == "part":
        mail.attach_text("one more")
    data = encoding.to_bytes(mail)
    assert b"--sig" not in data
    assert_canonical(data)
    assert shape(read(data)) == shape(mail)


def test_a_content_type_that_is_none_is_refused() -> None:
    with pytest.raises(EncodingError):
        MailBase().attach_text("x", "plain")


# -- to and from the standard library, text, files


def test_messages_strings_and_files() -> None:
    data = written([("From", "joe@example.com"), ("Subject", "é")], "body é\n")
    text = encoding.to_string(encoding.from_string(data))
    assert text == data.decode().replace("\r\n", "\n")
    assert encoding.to_string(read(data), envelope_header=True).startswith("From joe@example.com ")
    message = encoding.to_message(read(data))
    assert isinstance(message, encoding.MIMEPart)
    assert message.get_payload(decode=True) == "body é\r\n".encode()
    assert encoding.from_message(message)["Subject"] == "é"
    binary, texty = io.BytesIO(), io.StringIO()
    encoding.to_file(read(data), binary)
    encoding.to_file(read(data), texty)
    assert binary.getvalue() == data
    assert texty.getvalue() == text
    assert encoding.from_file(io.BytesIO(data))["Subject"] == encoding.from_file(io.StringIO(text))["Subject"] == "é"


def test_mime_part_takes_text_and_payloads() -> None:
    part = encoding.MIMEPart()
    part.add_text("é")
    assert part.get_payload(decode=True) == "é".encode()
    other = encoding.MIMEPart()
    other.extract_payload(encoding.from_string("Content-Type: text/html\n\n<p>é</p>"))
    assert other.get_content_type() == "text/html"
    assert other.get_payload(decode=True) == "<p>é</p>".encode()


# -- properties


@given(st.binary(max_size=400))
def test_any_bytes_are_read_written_and_read_back(data: bytes) -> None:
    look_at_everything(data)


SCRAPS = [b"--b", b"--b--", b"\r\n", b"\n", b"\r", b"From ", b"To: ", b"Cc: ", b"Subject: ", b"a@b", b"=?utf-8?q?=0A?=", b"=?x?b?", b"?="]
SCRAPS += [b" ", b"\t", b'"']
SCRAPS += [b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\n", b"Content-Type: text/html; charset=utf-7\n"]
SCRAPS += [b"Content-Transfer-Encoding: base64\n", b"Content-Transfer-Encoding: quoted-printable\n"]
SCRAPS += [b"\xff", b"\xc3\xa9", b"\x00", b"=E9", b"x", b";", b",", b"(", b")", b"<", b">", b"\\", b"@", b":"]
SCRAPS += [b"=?utf-8?q?=29?=", b"=?utf-8?q?c=40d,?=", b"=?utf-8?q?=22?=", b"=?utf-8?b?XA==?=", b"=?utf-8?q??="]


@given(st.lists(st.sampled_from(SCRAPS), max_size=40).map(b"".join))
@example(b"To: a@bFrom =?x?b?To: ")  # a group's name, which its colon in an encoded word made a mailbox
@example(b"To: a@b=?utf-8?q?=0A?=")
@example(b"To: a@ =?utf-8?q?b?=")
@example(b'Return-Path:<t@">C<Y><\xd1')
@example(b"To: a@b/" + b"\xcf\xd9\xf5\xd6\xd1" * 120)  # 900 characters, and more octets
@example(b'From:""<=?8?q??=t><""')
@example(b"Cc: y@e.\xdf, S@\xb3")
@example(b"To: (=?utf-8?q?=29?= a@b)")
@example("To: é <a@é\\".encode())  # a backslash before the bracket that ends it
@example(b"To: =?utf-8?q?=C3=A9?= <a@b\\")  # the same, where decoding adds the bracket
def test_any_mixture_of_scraps_is_read_written_and_read_back(data: bytes) -> None:
    look_at_everything(data)


LINES = [b"A: b", b"Subject:c", b" d ", b"\te", b"F:", b"G : h", b"i", b"J: k\tl", b"M: \x0bn", b"O: \xe9", b"", b" ", b"P:  q  r "]
LINES += [b"Q: r\t", b"S: t\ru", b"\t", b"Content-Type: text/html; charset=utf-8", b"content-TYPE: a/b ", b"Content-Disposition: inline"]


ENDS = st.sampled_from([b"\n", b"\r\n"])


@given(st.lists(st.tuples(st.sampled_from([b"A: b", b" c", b"D:"]), ENDS), min_size=1, max_size=5), ENDS, st.lists(ENDS, max_size=3))
def test_the_first_blank_line_ends_the_headers_however_lines_end(lines: list[tuple[bytes, bytes]], blank: bytes, rest: list[bytes]) -> None:
    head = b"X: y\n" + b"".join(line + end for line, end in lines)
    mail = encoding.from_string(head + blank + b"".join([b"body" + end for end in rest]) + b"end")
    assert mail.data == b"".join([b"body" + end for end in rest]) + b"end"


def test_what_a_part_says_of_itself_can_be_changed_for_it_alone() -> None:
    raw = b"Content-Type: text/plain; charset=utf-8\n\nx"
    first, second = encoding.from_string(raw), encoding.from_string(raw)
    first.content_encoding["Content-Type"][1]["charset"] = "latin-1"
    assert second.charset == "utf-8"


@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from([b"\n", b"\r\n"])), max_size=12))
def test_plain_headers_are_read_the_same_at_one_go_and_one_by_one(lines: list[tuple[bytes, bytes]]) -> None:
    """The quick way through a head of plain ASCII gives what its fields give, or leaves it to them."""
    data = b"".join(line + end for line, end in lines)
    quick, slow = encoding.from_string(data), encoding.from_string(data)
    slow.headers.fields()
    assert quick.items() == slow.items()
    assert list(quick) == list(slow)
    assert len(quick) == len(slow)
    for name in ("a", "SUBJECT", "f", "none"):
        assert quick.get_all(name) == slow.get_all(name)
        assert quick[name] == slow[name]
        assert quick.headers.raw_texts(name) == slow.headers.raw_texts(name)
        assert quick.headers.raw_text(name) == slow.headers.raw_text(name)
        assert (name in quick) == (name in slow)
    assert encoding.from_string(data).content_encoding == slow.content_encoding
    assert encoding.to_bytes(quick) == encoding.to_bytes(slow)


@pytest.mark.parametrize("first", [b"A: b", b"A: \xe9", b"A: b\r\n c"], ids=["plain", "8-bit", "folded"])
def test_header_lines_beyond_the_cap_are_body(first: bytes) -> None:
    lines = [first, *[b"X: y"] * (header.FIELDS + 2)]
    mail = encoding.from_string(b"\r\n".join([*lines, b"", b"body"]))
    assert len(mail.items()) == len(mail.headers.fields()) == header.FIELDS
    assert mail.body == "X: y\nX: y\nX: y\n\nbody"
    assert "too many header lines" in mail.reading.defects


def test_what_follows_as_many_header_lines_as_the_cap_allows_is_read_as_ever() -> None:
    lines = b"X: y\r\n" * header.FIELDS
    for rest, defects in ((b"\r\nbody", []), (b"body", ["no blank line after the headers"])):
        mail = encoding.from_string(lines + rest)
        assert (len(mail.items()), mail.body, mail.reading.defects) == (header.FIELDS, "body", defects)


def look_at_everything(data: bytes) -> None:
    mail = encoding.from_string(data)
    for part in (mail, *mail.walk()):
        assert not any(set(value) & set("\r\n\x00\u2028") for value in part.values())
        assert part.content_type
        assert part.filename is None or not set(part.filename) & set("\r\n\x00")
        assert_decoding_changes_no_address(part)
    canonical = encoding.to_bytes(mail)
    assert_canonical(canonical)
    again = encoding.from_string(canonical)
    assert shape(again) == shape(mail)
    assert shape(encoding.from_string(encoding.to_bytes(again))) == shape(mail)
    assert encoding.standard_message(mail).get_content_type()


def assert_decoding_changes_no_address(part: MailBase) -> None:
    for name in header.ADDRESS_HEADERS:
        for raw, value in zip(part.headers.raw_texts(name), part.get_all(name), strict=True):
            assert mailboxes(value) == mailboxes(raw)


def mailboxes(text: str) -> list[str]:
    return [box.bare for box in address.parse(text) if box.bare]


def shape(mail: MailBase) -> object:
    """What must survive writing: other headers than the content's, bodies but for the last line end, the tree."""
    content = {"content-type", "content-transfer-encoding", "content-disposition", "mime-version"}
    headers: list[Any] = [(name, words(value)) for name, value in mail.items() if name.lower() not in content | header.ADDRESS_HEADERS]
    headers = [(name, value) for name, value in headers if len(name) <= header.LONG_WORD]  # longer names are left out
    texts = [text for name in sorted(header.ADDRESS_HEADERS) for text in mail.headers.raw_texts(name)]
    headers += sorted({as_written(bare) for bare in address.bare_addresses(texts) if "@" in bare and "=?" not in bare})
    body = mail.body.rstrip("\n").encode() if isinstance(mail.body, str) else mail.body
    return headers, body, [shape(part) for part in mail.parts]


def as_written(bare: str) -> str:
    """Addresses are written with their domain in ASCII where it has such a form."""
    try:
        return address.normalise(address.to_ascii_domain(bare))
    except AddressError:
        return bare


def words(value: str) -> str:
    return "".join(value.replace('"', "").replace("\\", "").split())


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=300))
@example("\ufeff\ufeffa")
def test_a_text_that_was_written_is_read_back_equal(text: str) -> None:
    data = written([], text)
    assert_canonical(data)
    expected = encoding._with_lf(text).lstrip("\ufeff")
    body = read(data).body
    assert body in (expected, expected + "\n")


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=300))
def test_a_file_name_is_read_back_equal(name: str) -> None:
    mail = MailBase()
    mail.attach_file(name, b"x", "application/x")
    assert read(encoding.to_bytes(mail)).parts[0].filename == (header.clean(name) or None)


# -- hostile mail


def nested(times: int, kind: bytes = b"mixed") -> bytes:
    head = b"".join(b"Content-Type: multipart/%s; boundary=b%d\r\n\r\n--b%d\r\n" % (kind, at, at) for at in range(times))
    return head + b"\r\nhi\r\n"


MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"

HOSTILE: dict[str, Callable[[], bytes]] = {
    "nested a thousandfold": lambda: nested(1000),
    "rfc822 nested": lambda: b"Content-Type: message/rfc822\r\n\r\n" * 3000,
    "50,000 parts": lambda: MIXED + b"--b\r\n\r\nx\r\n" * 50_000 + b"--b--\r\n",
    "a 10 MB header": lambda: b"X: " + b"a" * 10_000_000 + b"\r\n\r\n",
    "a 10 MB folded header": lambda: b"Subject:" + b" ab\r\n" * 2_000_000 + b"\r\n",
    "a million commas": lambda: b"To: " + b"," * 1_000_000 + b"\r\n\r\n",
    "50,001 quotes": lambda: b"To: " + b'"' * 50_001 + b"\r\n\r\n",
    "50,000 commas": lambda: b"To: " + b"a," * 50_000 + b"\r\n\r\n",
    "20,000 encoded words": lambda: b"Subject: " + b"=?utf-8?q?=C3=A9?= " * 20_000 + b"\r\n\r\n",
    "20,000 words of unknown charsets": lambda: b"Subject: " + b"".join(b"=?x%d?q?=E9=E8?= " % at for at in range(20_000)) + b"\r\n\r\n",
    "unfinished encoded words": lambda: b"Subject: " + b"=?utf-8?q?" * 100_000 + b"\r\n\r\n",
    "50,000 parameters": lambda: b"Content-Type: text/plain" + b"; a=b" * 50_000 + b"\r\n\r\n",
    "50,000 sections": lambda: b"Content-Type: text/plain" + b"".join(b"; a*%d*=%%41" % at for at in range(50_000)) + b"\r\n\r\n",
    "100,000 header lines": lambda: b"X: y\r\n" * 100_000 + b"\r\n",
    "300,000 header lines": lambda: b"X: y\r\n" * 300_000 + b"\r\n",
    "60,000 header lines in no charset": lambda: b"X: \xe9\r\n" * 60_000 + b"\r\n",
    "100,000 header names": lambda: b"".join(b"X%d: y\r\n" % at for at in range(100_000)) + b"\r\n",
    "20 MB of soft line breaks": lambda: b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"a=\r\n" * 5_000_000,
    "false boundaries": lambda: MIXED + b"--bx\r\n" * 1_000_000,
    "false boundaries on one line": lambda: MIXED + b"--b" * 1_000_000,
    "nested false boundaries": lambda: nested(40) + b"--b1x\r\n" * 500_000,
    "a long boundary of dashes": lambda: b"Content-Type: multipart/mixed; boundary=" + b"-" * 69 + b"x\r\n\r\n" + b"-" * 5_000_000,
    "not base64": lambda: b"Content-Transfer-Encoding: base64\r\n\r\n" + b"!" * 5_000_000 + b"a",
    "5 MB of octets in no charset": lambda: b"\r\n" + bytes(range(128, 256)) * 40_000,
    "many texts in no charset": lambda: MIXED + (b"--b\r\n\r\n" + bytes(range(128, 256)) * 8 + b"\r\n") * 900,
    "values with CR, LF and NUL": lambda: b"Subject: a\rBcc: x\x00\r\n \r\nFrom: a@b\x00\nTo: \r\r\r\n\r\n" + b"A: \r\x00" * 100_000,
    "words that hide a line end": lambda: b"Subject: " + b"=?utf-8?q?a=0D=0ABcc:_x?= =?utf-8?b?DQpCY2M6IHg=?= " * 10_000 + b"\r\n\r\n",
    "names that hide a mailbox": lambda: b"To: " + b"(=?utf-8?q?=29?= a@b) =?utf-8?q?c=40d=2C?= <e@f>, " * 4_000 + b"\r\n\r\n",
    "RFC 2231 tricks": lambda: b"Content-Disposition: x; f*0*=u''%; f*0=a; f*00=b; f**=d; f*1*=%0d%0a" + b"; f*1" * 50_000 + b"\r\n\r\n",
    "many From": lambda: b"From: a@b\r\n" * 20_000 + b"\r\n",
    "a charset that does not exist": lambda: b"Content-Type: text/plain; charset=" + b"x" * 100_000 + b"\r\n\r\n" + b"\xe9" * 100_000,
    "a name without a colon": lambda: b"a" * 5_000_000,
    "carriage returns": lambda: b"\r" * 2_000_000,
    "carriage returns and a line": lambda: b"A: b\n\n" + b"\r" * 5_000_000,
    "spaces": lambda: b"A:" + b" " * 5_000_000 + b"\r\n\r\n",
    "folded spaces": lambda: b"A: b" + b"\r\n " * 1_000_000 + b"\r\n\r\n",
    "nuls": lambda: b"\x00" * 5_000_000,
    "an unfinished uuencoding": lambda: b"Content-Transfer-Encoding: uuencode\r\n\r\n" + b"\xff\r\n" * 300_000,
    "utf-7 surrogates": lambda: b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+2AA-" * 500_000,
    "many attachments": lambda: MIXED + b"--b\r\nContent-Type: a/b; name=\"" + b"x" * 5_000_000 + b"\"\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 900,
    "a million answers": lambda: b"From: a@b\r\nSubject: " + b"Re: [x] " * 1_000_000 + b"\r\n\r\n",
    "a million message ids": lambda: b"From: a@b\r\nMessage-ID: <a@b>\r\nReferences:" + b" <a@b>" * 1_000_000 + b"\r\n\r\n",
    "a date of digits": lambda: b"Date: " + b"1" * 1_000_000 + b"\r\n\r\n",
    "a date of parentheses": lambda: b"Date: Mon, 1 Jan 2024 10:00:00 +0000 " + b"(" * 1_000_000 + b"\r\n\r\n",
    "signed in signed": lambda: nested(45, b"signed") + (b"x" * 900 + b"\r\n") * 5_000,
    "eight times signed": lambda: nested(7, b"signed") + (b"x" * 900 + b"\r\n") * 5_000,
    "many signed header lines": lambda: b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n" + b"X: y\r\n" * 90_000 + b"\r\n",
    "a header in EBCDIC": lambda: b"Content-Type: text/plain; charset=cp037\r\n\r\n" + b"\x25" * 1_000_000,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_mail_costs_little(make: Callable[[], bytes]) -> None:
    """Every question that can be asked of it, and its canonical form: a second of CPU time and 200 MB, in a process of its own."""
    tries: list[tuple[float, float, bool]] = []

    def seconds() -> float:
        tries.append(in_a_process(make))
        return tries[-1][0]

    assert fastest(seconds, 1.0) < 1.0
    assert all(megabytes < 200 and canonical for _, megabytes, canonical in tries)


def in_a_process(make: Callable[[], bytes]) -> tuple[float, float, bool]:
    """CPU seconds, megabytes by which the peak of memory grew, and whether the canonical form was as it must be."""
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=measure, args=(make(), send))
    process.start()
    send.close()
    with receive:
        found: tuple[float, float, bool] = receive.recv()
    process.join()
    process.close()
    return found


def measure(data: bytes, send: Any) -> None:
    gc.freeze()  # what the tests before made is no part of it
    began, before = time.process_time(), peak_of_memory()
    message = MailRequest("peer", None, None, data)
    ask_everything(message)
    canonical = encoding.to_bytes(message.base)
    seconds, megabytes = time.process_time() - began, (peak_of_memory() - before) / 1024
    try:
        assert_canonical(canonical)
    except AssertionError:
        canonical = b""
    send.send((seconds, megabytes, bool(canonical)))


def peak_of_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ask_everything(message: MailRequest) -> None:
    message.items()
    for part in message.walk():
        part.items()
        assert part.body is not None or part.parts
    assert message.base.body is not None or message.base.parts
    message.body(), message.text, message.html, message.attachments, message.reply_text
    message.route_to, message.route_from, message.recipient, message.reply_to, message.unanswerable()
    message.is_bounce(), message.bounce.error_for_humans()
    message.is_automatic(), message.date, message.reply("x", From="app@example.net")
    [each.safe_name for each in message.attachments]


def test_beyond_the_caps_the_rest_is_one_opaque_part() -> None:
    mail = encoding.from_string(HOSTILE["50,000 parts"]())
    assert len(mail.parts) == decoding.PARTS + 1
    assert isinstance(mail.parts[-1].body, bytes)
    assert mail.parts[-1].body.count(b"--b\r\n") == 50_000 - decoding.PARTS - 1
    deep = encoding.from_string(nested(1000))
    assert sum(1 for _ in deep.walk()) == encoding.DEPTH
    assert isinstance(list(deep.walk())[-1].body, bytes)
    assert any("deep" in defect for defect in deep.reading.defects)


def standard_texts(message: Message) -> Iterator[bytes]:
    for part in message.walk():
        if not part.is_multipart():
            yield part.get_payload(decode=True)


def test_the_standard_librarys_message_of_a_received_one_is_the_same_as_its_own_parsers() -> None:
    data = MULTIPART.replace("\n", "\r\n").encode()
    assert list(standard_texts(encoding.standard_message(read(data)))) == list(standard_texts(email.message_from_bytes(data)))
