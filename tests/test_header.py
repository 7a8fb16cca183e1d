"""Header lines: cut, decoded, and written so that they read the same again."""

from __future__ import annotations

import email
import email.header
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamson import address, encoding, header
from lamson.encoding import EncodingError, MailBase
from tests.test_encoding import assert_canonical, read, written

# -- read


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"plain", "plain"),
        (b"=?iso-8859-1?q?Andr=E9?=", "André"),
        (b"=?ISO-8859-1?Q?Andr=E9_Pirard?= x", "André Pirard x"),
        (b"=?utf-8?b?w6k=?= =?utf-8?b?w6g=?=", "éè"),
        (b"=?utf-8?b?w6k=?=\r\n =?utf-8?b?w6g=?=", "éè"),
        (b"=?utf-8?b?4pi?= =?utf-8?b?6Q==?=", "☺ยฉ"),
        (b"=?utf-8?q?=E2=98?= =?utf-8?q?=BA?=", "☺"),
        (b"=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        (b"=?utf-8?q?a?= =?iso-8859-1?q?=E9?=", "aé"),
        (b"a=?utf-8?q?b?=c", "abc"),
        (b"=?utf-8*en?q?=C3=A9?=", "é"),
        (b"=?utf-8?q?what?_yes?=", "what? yes"),
        (b"=?utf-8?q??=", ""),
        (b"=?nonsense?q?caf=C3=A9?=", "café"),
        (b"=?utf-8?b?not base64!?=", None),
        (b"=?utf-8?q?a=0D=0ABcc:_x?=", "a Bcc: x"),
        (b"=?utf-8?q?a=00b=E2=80=A8c?=", "a b c"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9 au lait", "café au lait"),
        (b"one\r\n\ttwo\r\n   three", "one two three"),
        (b"a\rb\x00c", "a b c"),
        (b"=?utf-8?x?y?=", "=?utf-8?x?y?="),
        (b"=?utf-7?q?+2AA-?=", None),
        (b"=?koi8-r?b?8NLJ18XU?=", "Привет"),
    ],
)
def test_a_header_is_decoded(raw: bytes, expected: str | None) -> None:
    value = read(b"Subject: " + raw + b"\r\n\r\n")["Subject"]
    assert value is not None
    if expected is not None and "ยฉ" not in expected:
        assert value == expected
    value.encode()
    assert not set(value) & set("\r\n\x00\u2028")


def test_a_decoded_name_with_a_comma_stays_one_mailbox() -> None:
    mail = read("From: =?utf-8?q?victim=40example=2Ecom=2C_x?= <joe@example.com>\n\n")
    assert mail["From"] == '"victim@example.com, x" <joe@example.com>'


def test_an_encoded_word_inside_quotes_gets_no_second_quotes() -> None:
    mail = read('To: "=?utf-8?q?Bl=C3=B8ggs=2C_=22Joe=22?=" <joe@example.com>, "x" =?utf-8?q?y=2C?= <y@example.com>\n\n')
    assert mail["To"] == '"Bløggs, \\"Joe\\"" <joe@example.com>, "x" "y," <y@example.com>'


def test_an_address_that_only_decoding_brings_forth_is_none() -> None:
    value = read("To: =?utf-8?q?victim=40example=2Ecom?=\n\n")["To"]
    assert value == '"victim@example.com"'
    assert address.parse(value) == []


def test_headers_keep_order_duplicates_and_spelling() -> None:
    mail = read("received: 1\nX-Y: a\nRECEIVED: 2\n\n")
    assert mail.keys() == ["received", "X-Y", "RECEIVED"]
    assert mail.items() == [("received", "1"), ("X-Y", "a"), ("RECEIVED", "2")]
    assert mail.get_all("Received") == ["1", "2"]
    assert mail["Received"] == "1"
    assert mail["absent"] is None
    assert mail.get("absent", "x") == "x"
    assert mail.get_all("absent") == []
    assert "x-y" in mail
    assert 5 not in mail
    assert len(mail) == 3
    assert list(mail) == mail.keys()
    assert mail.values() == ["1", "a", "2"]


@pytest.mark.parametrize(
    ("data", "headers", "body", "defect"),
    [
        (b"From joe@x Thu Jan 1\nA: b\n\nbody\n", ["b"], "body\n", "mbox"),
        (b"A: b\nthis is the body\nC: d\n", ["b"], "this is the body\nC: d\n", "blank line"),
        (b"A: b\r\n\r\nbody", ["b"], "body", ""),
        (b"A: b\n\r\nbody", ["b"], "body", ""),
        (b"A: b\r\n\nbody", ["b"], "body", ""),
        (b"A: b\r\rbody\rmore", ["b"], "body\nmore", ""),
        (b"\r\nbody", [], "body", ""),
        (b"A: b", ["b"], "", ""),
        (b"", [], "", ""),
        (b"\n", [], "", ""),
        (b"just text", [], "just text", "blank line"),
        (b"A : b\n\n", ["b"], "", ""),
        (b": b\n\nbody", [], ": b\n\nbody", "blank line"),
        (b" continued\nA: b\n\n", [], " continued\nA: b\n\n", "blank line"),
        (b"  A: b\nC: d\n\nbody", ["b"], "body", ""),
        (b"A: b\r\r\nC: d\r\r\n\r\r\nbody\r\r\n", ["b"], "body\n", ""),
        (b"A: b\r\r\n\r\r", ["b"], "", ""),
        (b"A:\x00b\n\n\x00", ["b"], "\x00", ""),
        (b"A: b\r\n \r\n\r\nbody", ["b"], "body", ""),
    ],
)
def test_damaged_messages_are_read(data: bytes, headers: list[str], body: str, defect: str) -> None:
    mail = encoding.from_string(data)
    assert mail.get_all("A") == headers
    assert mail.body == body
    assert defect in " ".join(mail.reading.defects)
    assert bool(mail.reading.defects) == bool(defect)


def test_a_header_in_no_charset_is_read_the_same_whenever_it_is_asked_for() -> None:
    mail = encoding.from_string(b"".join(b"X-%d: %s\n" % (at, bytes([at, at + 1, at + 2] * 9)) for at in range(160, 220)) + b"\n")
    first = mail.headers.raw_texts("X-160")
    values = mail.values()
    assert mail.headers.raw_texts("X-160") == first == values[:1]
    assert [mail.headers.raw_text(name) for name in mail] == values


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('attachment; filename="a b.txt"', {"filename": "a b.txt"}),
        ("attachment; filename=a b.txt; size=3", {"filename": "a b.txt", "size": "3"}),
        ("attachment;FileName=a.txt", {"filename": "a.txt"}),
        ("attachment; filename*=utf-8''na%C3%AFve.txt", {"filename": "naïve.txt"}),
        ("attachment; filename*0=a; filename*1=b.txt", {"filename": "ab.txt"}),
        ("attachment; filename*1*=%A9.txt; filename*0*=utf-8'en'caf%C3", {"filename": "café.txt"}),
        ("attachment; filename*0*=utf-8''a; filename*2=c", {"filename": "ac"}),
        ('attachment; filename="=?utf-8?q?caf=C3=A9?="', {"filename": "café"}),
        (r'attachment; filename="a\"b\\c"', {"filename": 'a"b\\c'}),
        ('attachment; filename="unterminated; x=y', {"filename": "unterminated; x=y"}),
        ("attachment; filename*=nonsense''caf%C3%A9", {"filename": "café"}),
        ("attachment; filename*=%C3%A9", {"filename": "é"}),
        ("attachment; filename*99999=a; filename**=b", {}),
        ("attachment; a=1; a=2; =3; b", {"a": "1"}),
        ("attachment", {}),
        ('attachment; filename="a\r\n b"', {"filename": "a b"}),
    ],
)
def test_parameters(header: str, expected: dict[str, str]) -> None:
    mail = read(f"Content-Disposition: {header}\r\n\r\n".encode())
    assert encoding.parse_parameter_header(mail, "Content-Disposition") == ("attachment", expected)


# -- written


NASTY = ["a\r\nBcc: x", "a\nBcc: x", "a\rBcc: x", "a\u2028Bcc: x", "a\u2029x", "a\x85x", "a\x00x", "a\x0bx", "a\x0cx", "a\tx"]


@pytest.mark.parametrize("nasty", NASTY)
def test_no_value_can_start_a_header_line(nasty: str) -> None:
    data = written([("Subject", nasty), ("To", nasty)])
    assert b"\r\nBcc" not in data
    assert read(data)["Subject"] == nasty.replace("\r\n", " ").translate(dict.fromkeys(map(ord, "\r\n\u2028\u2029\x85\x00\x0b\x0c\t"), " "))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "é", "a\x00", 5, None])
def test_a_header_name_that_is_none_is_refused(name: object) -> None:
    with pytest.raises(EncodingError):
        MailBase()[name] = "x"  # type: ignore[index]


def test_a_value_that_is_none_is_refused_and_lists_are_joined() -> None:
    mail = MailBase()
    with pytest.raises(TypeError):
        mail["X"] = None
    mail["To"] = ["a@x.org", "b@x.org"]
    mail["X-Count"] = 5
    mail["X-Bytes"] = "é".encode()
    assert mail.values() == ["a@x.org, b@x.org", "5", "é"]


@pytest.mark.parametrize(
    "subject",
    [
        "Grüße",
        "hello Grüße, everybody out there",
        "Ünï",
        "Привет, как дела? " * 10,
        "日本語の件名 " * 20,
        "😀" * 50,
        "a" * 2000,
        "word " * 400,
        "a" + " " * 2000 + "b",
        "=?utf-8?q?not_a_word?=",
        "is =?this one?= here",
        "x  double  spaces  " + "y" * 80 + "  é  z",
        "é" + " a" * 200,
        "é" + "  a" * 500,
        "a" * 890 + "  é  " + "a" * 890,
    ],
)
def test_a_subject_is_read_back_equal_by_us_and_by_the_standard_library(subject: str) -> None:
    data = written([("Subject", subject)])
    assert_canonical(data)
    assert data.isascii()
    assert max(map(len, data.split(b"\r\n"))) <= 78 or subject.startswith(("a", "x"))
    assert read(data)["Subject"] == subject.strip()
    theirs = str(email.header.make_header(email.header.decode_header(email.message_from_bytes(data)["Subject"].replace("\r\n", ""))))
    assert theirs == subject.strip()


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("a" * 75, ["X: " + "a" * 75]),
        ("a" * 76, ["X:", "a" * 76]),
        ("a" * 72 + " b c", ["X: " + "a" * 72 + " b", "c"]),
        ("a" * 74 + " b", ["X: " + "a" * 74, "b"]),
        ("a" * 77 + " b", ["X:", "a" * 77, "b"]),
        ("a" * 99 + " b c", ["X:", "a" * 99, "b c"]),
        ("a" * 99 + "  b c", ["X:", "a" * 99 + "  b", "c"]),
        ("a b" + "  c" * 40 + " d", ["X: a", "b" + "  c" * 40, "d"]),
        ("a" * 40 + " b" + " " * 40 + "c d", ["X: " + "a" * 40, "b" + " " * 40 + "c d"]),
        ("ab " * 52 + "ab", ["X: " + "ab " * 24 + "ab", "ab " * 25 + "ab", "ab ab"]),
    ],
    ids=range(10),
)
def test_lines_are_folded_at_single_spaces(value: str, lines: list[str]) -> None:
    assert header.header_line("X", value).split("\r\n ") == lines


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("José <jose@example.com>", b"To: =?utf-8?q?Jos=C3=A9?= <jose@example.com>\r\n"),
        ('"Müller, Jörg" <j@example.com>, x@example.com', b"To: =?utf-8?q?M=C3=BCller=2C_J=C3=B6rg?= <j@example.com>, x@example.com\r\n"),
        ("x@bücher.example", b"To: x@xn--bcher-kva.example\r\n"),
        ("josé@bücher.example", "To: josé@xn--bcher-kva.example\r\n".encode()),
        ("Jörg", b"To: =?utf-8?q?J=C3=B6rg?=\r\n"),
        ("undisclosed: ;", b"To: undisclosed: ;\r\n"),
    ],
)
def test_addresses_keep_their_form(value: str, expected: bytes) -> None:
    assert written([("To", value)]).startswith(expected)


def test_header_to_mime_encoding() -> None:
    assert encoding.header_to_mime_encoding("plain") == "plain"
    assert encoding.header_to_mime_encoding("é") == "=?utf-8?b?w6k=?="
    assert encoding.header_to_mime_encoding("José Ab <j@example.com>") == "=?utf-8?q?Jos=C3=A9_Ab?= <j@example.com>"
    assert "example" not in encoding.header_to_mime_encoding("é@example.com", not_email=True).replace("=", "").lower()[:8]
    assert encoding.header_to_mime_encoding(["a@x.org", "b@x.org"]) == "a@x.org, b@x.org"


VALUES = st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=200)


@given(VALUES)
def test_a_header_that_was_set_is_read_back_equal(value: str) -> None:
    mail = MailBase([("X-Value", value)])
    kept = mail["X-Value"]
    data = encoding.to_bytes(mail)
    assert_canonical(data)
    assert data.isascii()
    assert read(data).items()[:1] == [("X-Value", kept)]


def test_a_name_that_is_none_is_told_where_it_is_appended() -> None:
    with pytest.raises(EncodingError, match="is no header name"):
        header.Headers().append(5, "x")  # type: ignore[arg-type]


def test_the_index_of_names_is_seen_by_no_other_thread_before_it_is_whole() -> None:
    class Interrupted(list[tuple[str, str]]):
        def __iter__(self) -> Iterator[tuple[str, str]]:
            head.plain = self[:]
            seen.append(head.first("To"))
            return super().__iter__()

    seen: list[str | None] = []
    head = header.Head(b"", [], 34, 35, b"From: ann@ex.org\nTo: bob@ex.org\n")
    head.plain = Interrupted(head.plain)
    assert head.values("From") == ["ann@ex.org"]
    assert seen == ["bob@ex.org"]
