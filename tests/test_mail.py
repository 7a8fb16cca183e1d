"""MailRequest gives back what came; MailResponse writes what any mail reader reads."""

from __future__ import annotations

import email
import email.policy
import email.utils
import re
import time
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lamson import encoding, header, mail
from lamson.errors import EncodingError
from lamson.mail import Attachment, MailRequest, MailResponse
from tests.cost import assert_costs_less

CORPUS = Path(__file__).parents[2] / "shared/corpus"

SIMPLE = b"""\
Received: from a.example by b.example;\r
\tMon, 1 Jan 2024 00:00:00 +0000\r
received: from c.example by a.example\r
DKIM-Signature: v=1; a=rsa-sha256;\r
   b=abc  def\r
From: =?utf-8?q?Jos=C3=A9?= <Jose@Example.com>\r
To: Team <team@example.com>, joe@example.com\r
SUBJECT:  Hello  there\r
Message-ID: <1@example.com>\r
\r
Hi,\r
how are you?\r
"""


def request(data: str | bytes = SIMPLE, **envelope: Any) -> MailRequest:
    return MailRequest(**{"Peer": "127.0.0.1", "From": None, "To": None, "Data": data, **envelope})


# -- MailRequest: the bytes


def test_untouched_it_gives_back_what_came() -> None:
    message = request()
    assert bytes(message) is SIMPLE
    assert message.original is SIMPLE
    assert message.raw is SIMPLE
    assert message["Subject"] == "Hello  there"
    assert message.body() == "Hi,\nhow are you?\n"
    assert bytes(message) is SIMPLE


def test_text_is_kept_as_given_and_encoded_losslessly() -> None:
    text = SIMPLE.decode() + "caf\udce9 é\n"
    message = request(text)
    assert message.original is text
    assert bytes(message) == SIMPLE + b"caf\xe9 \xc3\xa9\n"
    assert str(message) == text
    assert request(str(request(b"\xff\x00"))).raw == b"\xff\x00"
    assert request("\ud800").raw == b"?"


def test_data_that_is_no_text_and_no_bytes_is_refused() -> None:
    with pytest.raises(TypeError, match="str or bytes"):
        request(5)  # type: ignore[arg-type]
    assert bytes(MailRequest("peer", "a@x.org", "b@x.org", None)) == b""


def test_setting_a_header_changes_its_lines_and_nothing_else() -> None:
    message = request()
    message["subject"] = "Grüße"
    assert bytes(message) == SIMPLE.replace(b"SUBJECT:  Hello  there", b"SUBJECT: =?utf-8?b?R3LDvMOfZQ==?=")
    assert message["Subject"] == "Grüße"
    assert message.raw is SIMPLE


def test_deleting_a_header_removes_all_of_its_lines_and_nothing_else() -> None:
    message = request()
    del message["RECEIVED"]
    del message["absent"]
    assert bytes(message) == SIMPLE[SIMPLE.index(b"DKIM") :]
    assert "Received" not in message


def test_a_space_before_the_first_header_stays() -> None:
    message = request(b" From: joe@example.com\r\nTo: x@example.com\r\n\r\nhi")
    assert (message.route_from, message.text) == ("joe@example.com", "hi")
    message["Subject"] = "new"
    assert bytes(message) == b" From: joe@example.com\r\nTo: x@example.com\r\nSubject: new\r\n\r\nhi"


def test_a_new_header_stands_behind_the_others() -> None:
    message = request()
    message["X-New"] = "a\r\nBcc: victim@example.com"
    assert bytes(message) == SIMPLE.replace(b"\r\n\r\n", b"\r\nX-New: a Bcc: victim@example.com\r\n\r\n")


def test_setting_a_repeated_header_leaves_one_in_the_first_place() -> None:
    message = request(b"A: 1\nB: 2\na: 3\n\nbody")
    message["a"] = "4"
    assert bytes(message) == b"A: 4\nB: 2\n\nbody"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"A: b\r\n\r\nbody", b"A: b\r\nX: y\r\n\r\nbody"),
        (b"A: b\n\nbody", b"A: b\nX: y\n\nbody"),
        (b"A: b\r\rbody\r", b"A: b\rX: y\r\rbody\r"),
        (b"A: b\r\n", b"A: b\r\nX: y\r\n"),
        (b"A: b", b"A: b\r\nX: y\r\n"),
        (b"", b"X: y\r\n"),
        (b"\nbody", b"X: y\n\nbody"),
        (b"From a@b Mon\nA: b\n\nbody", b"From a@b Mon\nA: b\nX: y\n\nbody"),
        (b"A: b\nno blank line\n", b"A: b\nX: y\nno blank line\n"),
        (b"\xff: \xff\n\n", b"X: y\n\xff: \xff\n\n"),
        (b"A: b\n c\r\nD:e\n\r\nbody", b"A: b\n c\r\nD:e\nX: y\n\r\nbody"),
    ],
)
def test_a_header_is_added_in_the_messages_own_line_ends(data: bytes, expected: bytes) -> None:
    message = request(data)
    message["X"] = "y"
    assert bytes(message) == expected


def test_a_long_header_is_folded_in_the_messages_own_line_ends() -> None:
    message = request(b"A: b\n\nbody")
    message["X"] = "word " * 40
    assert b"\r" not in bytes(message)
    assert max(map(len, bytes(message).split(b"\n"))) <= 78
    assert request(bytes(message))["X"] == ("word " * 40).strip()


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_read_and_given_back(data: bytes) -> None:
    message = request(data)
    read_everything(message)
    assert bytes(message) == data


LINES = [b"A: b\r\n", b"a:c\n", b"B: d\r\n  e\r\n", b"X-Y: \xff\n", b"From x\n", b"\n", b"\r\n", b"body\n", b"body", b"=?\r", b":x\n"]


@given(st.lists(st.sampled_from(LINES), max_size=8).map(b"".join), st.sampled_from(["A", "B", "New"]), st.text(max_size=30))
@settings(max_examples=500)
def test_all_other_lines_stay_as_they_are(data: bytes, name: str, value: str) -> None:
    message, fields = request(data), request(data).base.headers.fields()
    others = [field.line.rstrip(b"\r") for field in fields if field.line and field.key != name.lower()]
    try:
        message[name] = value
        changed = bytes(message)
    except EncodingError:
        return  # lone surrogates
    again = request(changed)
    after = again.base.headers.fields()
    assert [field.line.rstrip(b"\r") for field in after if field.line and field.key != name.lower()] == others
    assert again[name] == message[name]
    assert len(again.get_all(name)) == 1


def read_everything(message: MailRequest) -> None:
    assert isinstance(message.text, str)
    assert message.html is None or isinstance(message.html, str)
    for attachment in message.attachments:
        assert isinstance(attachment.data, bytes)
    assert all(message.route_to)
    assert all(message.defects)
    assert message.recipient is None or message.recipient in message.route_to
    assert len(message.items()) == len(message)
    assert message.is_automatic() in (True, False)
    assert message.is_bounce() in (True, False)
    assert message.bounce.error_for_humans()
    assert message.to_message().get_content_type()
    assert repr(message)
    assert str(message).encode("utf-8", "surrogateescape") == bytes(message)


def test_the_corpus_is_read_and_given_back() -> None:
    if not CORPUS.exists():
        pytest.skip(f"the corpus is not here: {CORPUS}")
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) > 1000
    for path in files:
        data = path.read_bytes()
        message = request(data)
        read_everything(message)
        assert bytes(message) == data, path
        lines = encoding.to_bytes(message.base).split(b"\r\n")
        assert max(map(len, lines)) <= header.LONGEST_LINE, path
        assert not any(b"\n" in line or b"\r" in line for line in lines), path


# -- MailRequest: the envelope


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ["team@example.com", "joe@example.com"]),
        ("A@X.org, b@x.org, a@x.org", ["a@x.org", "b@x.org"]),
        (["Joe <A@x.org>", "b@x.org"], ["a@x.org", "b@x.org"]),
        ("", []),
        ([], []),
    ],
)
def test_route_to(given: Any, expected: list[str]) -> None:
    message = request(To=given)
    assert message.route_to == expected
    assert message.To is given
    assert message.recipient == (expected[0] if expected else None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, "jose@example.com"), ("", ""), ("<>", ""), ("Joe <A@x.org>", "a@x.org"), ("no address at all", None)],
)
def test_route_from(given: str | None, expected: str | None) -> None:
    message = request(From=given)
    assert message.route_from == expected
    assert message.From == given


def test_route_from_of_a_message_without_a_sender() -> None:
    assert request(b"A: b\n\n").route_from is None
    assert request(b"From:\n\n").route_from is None


def test_an_encoded_comma_adds_no_recipient() -> None:
    message = request(b"To: =?utf-8?q?victim=40example=2Ecom=2C?= <joe@example.com>\n\n")
    assert message.route_to == ["joe@example.com"]
    answer = MailResponse(To=message["To"])
    assert answer.recipients() == ["joe@example.com"]


def test_the_recipient_of_a_delivery() -> None:
    message = request(To="a@x.org, b@x.org")
    message.recipient = "b@x.org"
    assert message.recipient == "b@x.org"
    assert message.copy().recipient == "b@x.org"


def test_a_copy_is_fresh_and_shares_the_bytes() -> None:
    message = request()
    message["Subject"] = "changed"
    message.base.parts.append(encoding.MailBase())
    fresh = message.copy()
    assert fresh["Subject"] == "Hello  there"
    assert fresh.raw is message.raw
    assert bytes(fresh) is SIMPLE
    assert fresh.base.parts == []
    fresh["Subject"] = "other"
    assert message["Subject"] == "changed"
    assert (fresh.Peer, fresh.From, fresh.To) == (message.Peer, message.From, message.To)


def test_a_copy_has_the_recipient_and_nothing_that_was_found_out() -> None:
    message = request()
    message.recipient = "one@test.com"
    message.verdict = cast(Any, "spam")
    assert message.route_from is not None
    fresh = message.copy()
    assert (fresh.recipient, fresh.verdict, request().verdict) == ("one@test.com", None, None)
    fresh.From = "Other@test.com"
    assert (fresh.route_from, message.route_from, fresh.copy().route_from) == ("other@test.com", request().route_from, "other@test.com")


def test_a_copy_of_a_damaged_message_knows_its_defects() -> None:
    message = request(b"From x\nA: b\nbody")
    assert message["A"] == "b"
    assert message.copy().defects == message.defects
    assert request().copy().defects == []


def test_a_message_without_headers_is_true() -> None:
    assert request(b"")
    assert MailResponse()


# -- MailRequest: what a person reads

MANY = """\
Content-Type: multipart/mixed; boundary=m

--m
Content-Type: multipart/alternative; boundary=a

--a
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

caf=C3=A9
--a
Content-Type: text/html

<p>caf&eacute;</p>
--a--
--m
Content-Type: image/png; name="=?utf-8?q?caf=C3=A9.png?="
Content-Disposition: inline
Content-ID: <pic@x>
Content-Transfer-Encoding: base64

aGVsbG8=
--m
Content-Type: text/plain
Content-Disposition: attachment; filename=notes.txt

not the text
--m
Content-Type: message/rfc822

Subject: inner

inner text
--m--
"""


def test_text_html_and_attachments() -> None:
    message = request(MANY.replace("\n", "\r\n").encode())
    assert message.body() == message.text == "café"
    assert message.html == "<p>caf&eacute;</p>"
    names = [(one.name, one.type, one.inline, one.content_id) for one in message.attachments]
    assert names == [
        ("café.png", "image/png", True, "pic@x"),
        ("notes.txt", "text/plain", False, ""),
        (None, "message/rfc822", False, ""),
    ]
    assert message.attachments[0].data == b"hello"
    assert message.attachments[2].data == b"Subject: inner\r\n\r\ninner text"
    assert [part.content_type for part in message.all_parts()] == ["multipart/alternative", "image/png", "text/plain", "message/rfc822"]
    assert len(list(message.walk())) == 7


def tree(kind: str, *parts: str) -> str:
    """A multipart of these parts, each given with its headers."""
    boundary = f"b{abs(hash((kind, parts)))}"
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f"Content-Type: multipart/{kind}; boundary={boundary}\n\n{body}--{boundary}--"


PICTURE = "Content-Type: image/png; name=a.png\nContent-Transfer-Encoding: base64\n\naGVsbG8="
HTML = "Content-Type: text/html\n\n<p>rich</p>"
PLAIN = "Content-Type: text/plain\n\nplain"
CALENDAR = "Content-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR"
SIGNATURE = "Content-Type: application/pkcs7-signature; name=smime.p7s\nContent-Transfer-Encoding: base64\n\naGVsbG8="
TNEF = 'Content-Type: application/ms-tnef; name="winmail.dat"\nContent-Transfer-Encoding: base64\n\naGVsbG8='
LOG = "Content-Type: text/plain; name=server.log\n\nnot the text"
PGP = ("Content-Type: application/pgp-encrypted\n\nVersion: 1", "Content-Type: application/octet-stream\n\n-----BEGIN PGP MESSAGE-----")
FORWARDED = "Content-Type: message/rfc822\n\nSubject: inner\n\ninner"


@pytest.mark.parametrize(
    ("data", "text", "html", "attached"),
    [
        (tree("mixed", PLAIN, PICTURE, "\nbelow the picture\n"), "plain\nbelow the picture\n", None, ["image/png"]),
        (tree("alternative", PLAIN, tree("mixed", HTML, PICTURE, HTML)), "plain", "<p>rich</p>\n<p>rich</p>", ["image/png"]),
        (tree("alternative", PLAIN, HTML, CALENDAR), "plain", "<p>rich</p>", ["text/calendar"]),
        (tree("alternative", PLAIN, "\nthe same again", HTML), "plain", "<p>rich</p>", ["text/plain"]),
        (tree("alternative", "\n \n", HTML), "rich", "<p>rich</p>", []),
        (tree("signed", tree("alternative", PLAIN, HTML), SIGNATURE), "plain", "<p>rich</p>", ["application/pkcs7-signature"]),
        (tree("mixed", PLAIN, TNEF), "plain", None, ["application/ms-tnef"]),
        (tree("mixed", HTML, LOG), "rich", "<p>rich</p>", ["text/plain"]),
        (tree("mixed", PLAIN, "Content-Type: text/html; name=report.html\n\n<p>x</p>"), "plain", None, ["text/html"]),
        (tree("mixed", LOG, PICTURE), "not the text", None, ["image/png"]),
        (tree("mixed", PLAIN, "Content-Disposition: x-unheard-of\n\nnot the text"), "plain", None, ["text/plain"]),
        (tree("encrypted", *PGP), "", None, ["application/pgp-encrypted", "application/octet-stream"]),
        (tree("mixed", FORWARDED), "", None, ["message/rfc822"]),
        (tree("mixed", tree("related", HTML, PICTURE), FORWARDED), "rich", "<p>rich</p>", ["image/png", "message/rfc822"]),
    ],
    ids=[
        *("apple text", "apple html", "calendar", "two alternatives", "blank text", "s/mime", "winmail.dat", "log"),
        *("report", "named text", "disposition", "pgp", "forwarded alone", "forwarded html"),
    ],
)
def test_what_a_help_desk_gets(data: str, text: str, html: str | None, attached: list[str]) -> None:
    message = request(data.replace("\n", "\r\n").encode())
    assert (message.text, message.html, [one.type for one in message.attachments]) == (text, html, attached)
    assert message.defects == []


@pytest.mark.parametrize(
    ("name", "type", "safe"),
    [
        ("Bericht März.pdf", "application/pdf", "Bericht März.pdf"),
        ("../../etc/passwd", "text/plain", "passwd"),
        ("C:\\Windows\\a.exe", "text/plain", "a.exe"),
        ("..", "image/png", "attachment.png"),
        (".bashrc", "text/plain", "bashrc"),
        (" a .", "text/plain", "a"),
        (None, "message/rfc822", "attachment.eml"),
        (None, "application/x-unheard-of", "attachment"),
        ("dir/", "text/plain", "attachment.txt"),
        ('a:b*c?"<>|.txt', "text/plain", "a_b_c_.txt"),
        ("photo\u202egpj.exe", "image/jpeg", "photo_gpj.exe"),
        ("a\x00b\r\n.txt", "text/plain", "a_b_.txt"),
        ("x" * 300 + ".txt", "text/plain", "x" * 196 + ".txt"),
        ("é" * 300 + ".txt", "text/plain", "é" * 98 + ".txt"),
        ("a." + "b" * 300, "text/plain", "a." + "b" * 19),
        ("a." + "b" * 18 + " " + "c" * 9, "text/plain", "a." + "b" * 18),
        ("\udce9.txt", "text/plain", "txt"),
    ],
)
def test_the_name_to_keep_an_attachment_under(name: str | None, type: str, safe: str) -> None:
    assert Attachment(name, type, b"", False, "").safe_name == safe


@given(st.text(max_size=400))
def test_any_name_is_one_component_of_a_path(name: str) -> None:
    safe = Attachment(name, "image/png", b"", False, "").safe_name
    assert safe == Path(safe).name
    assert not safe.startswith(".")
    assert 0 < len(safe.encode()) <= 200


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Mon, 1 Jan 2024 10:00:00 +0200", "2024-01-01T10:00:00+02:00"),
        ("1 Jan 2024 10:00", "2024-01-01T10:00:00+00:00"),
        ("Mon, 1 Jan 2024 10:00:00 -0000", "2024-01-01T10:00:00+00:00"),
        ("Mon, 1 Jan 2024 10:00:00 GMT (really)", "2024-01-01T10:00:00+00:00"),
        ("Mon, 1 Jan 24 10:00:00 EST", "2024-01-01T10:00:00-05:00"),
        ("yesterday", None),
        ("Mon, 31 Feb 2024 10:00:00 +0000", None),
        ("Mon, 1 Jan 2024 10:00:00 +9999999999", None),
        ("", None),
        ("Mon,", None),
    ],
)
def test_the_date(date: str, expected: str | None) -> None:
    found = request(f"Date: {date}\r\n\r\n".encode()).date
    assert (found.isoformat() if found else None) == expected


SCRAPS_OF_DATES = ["Mon", ",", " ", "1", "99", "Jan", "2024", ":", "+", "(", ")", ";", "-"]


@given(st.text(max_size=100) | st.lists(st.sampled_from(SCRAPS_OF_DATES)).map("".join))
def test_any_date_is_one_or_none(date: str) -> None:
    found = request(f"Date: {date}\r\n\r\n".encode("utf-8", "replace")).date
    assert found is None or found.tzinfo


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>Hello&nbsp;<b>you</b></p><p>bye</p>", "Hello you\n\nbye"),
        ("<html><head><title>x</title><style>p{}</style></head><body>a<br>b<script>evil()</script></body>", "a\nb"),
        ("1 < 2 &amp; 3", "1 < 2 & 3"),
        ("<!-- comment -->seen<!-- open", "seen"),
        ("a <broken", "a <broken"),
    ],
)
def test_the_text_of_html_alone(source: str, text: str) -> None:
    message = request(f"Content-Type: text/html\r\n\r\n{source}".encode())
    assert message.body() == text
    assert message.html == source


TAGS = ["<" * 500_000, "<p" * 200_000, "<!--" * 200_000, "<script>" * 100_000, "</" * 200_000, "&" * 500_000, "<br " * 100_000]


@pytest.mark.parametrize("source", TAGS, ids=lambda source: source[:8])
def test_hostile_html_costs_little(source: str) -> None:
    data = f"Content-Type: text/html\r\n\r\n{source}".encode()
    assert_costs_less(1, lambda: request(data).body())


def test_the_body_of_a_message_without_text_is_its_first_part() -> None:
    assert request(b"Content-Type: image/png\n\n\x89PNG").body() == b"\x89PNG"
    assert request(b"Content-Type: image/png\n\n\x89PNG").text == ""
    assert request(b"").body() == ""


def test_to_message_is_the_standard_librarys() -> None:
    message = request(MANY.encode()).to_message()
    theirs = email.message_from_bytes(MANY.encode())
    assert [part.get_content_type() for part in message.walk()] == [part.get_content_type() for part in theirs.walk()]
    assert message["Content-Type"] == theirs["Content-Type"]


# -- MailRequest: what kind of mail it is


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied",
        "auto-submitted: Auto-Generated; x=y",
        "List-Id: <l.example.com>",
        "Precedence: bulk",
        "Precedence: LIST",
        "Return-Path: <>",
        "Return-Path: < >",
        "Auto-Submitted: no\nAuto-Submitted: auto-notified",
        "Precedence: first-class\nPrecedence: bulk",
        "X-Autoreply: yes",
        "X-Auto-Response-Suppress: All",
        "X-Auto-Response-Suppress: DR, OOF, AutoReply",
        "Content-Type: multipart/report; boundary=b",
    ],
)
def test_automatic_mail(header: str) -> None:
    assert request(f"From: joe@example.com\n{header}\n\nhi").is_automatic()


PERSONAL = ["Auto-Submitted: no", "Auto-Submitted: No (really)", "Precedence: first-class", "Return-Path: <joe@example.com>", "X: y"]
PERSONAL += ["Auto-Submitted:", "X-Auto-Response-Suppress: DR, RN, NRN"]  # of receipts alone


@pytest.mark.parametrize("header", PERSONAL)
def test_mail_of_people(header: str) -> None:
    assert not request(f"From: joe@example.com\n{header}\n\nhi").is_automatic()
    assert request(f"{header}\n\nhi", From="").is_automatic()
    assert request(f"{header}\n\nhi", From="<>").is_automatic()


def is_marked(headers: email.message.Message) -> bool:
    """One of the marks of automatic mail, as the standard library reads the headers."""

    def words(name: str) -> set[str]:
        return {re.split(r"[\s;(]", str(value).strip().lower())[0] for value in headers.get_all(name, [])}

    is_null = any("".join(str(value).split()) == "<>" for value in headers.get_all("Return-Path", []))
    return bool(words("Auto-Submitted") - {"no"} or words("Precedence") & {"bulk", "list"} or "List-Id" in headers or is_null)


#: Automatic mail of the corpus without one of those marks: delivery reports with a sender, and an answering machine's own Precedence.
UNMARKED = {"dsn_09.txt", "dsn_12.txt", "dsn_14.txt", "simple_13.txt", "simple_30.txt", "simple_32.txt", "simple_33.txt", "simple_42.txt"}
UNMARKED |= {"qmail_08.txt", "msg_05.txt", "msg_43.txt", "multipart-wo-boundary.raw"}


def test_automatic_mail_of_the_corpus_gets_no_answer_and_people_do(corpus: Path) -> None:
    paths = [path for path in corpus.rglob("*") if path.suffix in (".eml", ".raw", ".msg", ".txt") and path.parent.name != "text"]
    marked, unmarked = 0, set()
    for path in paths:
        message = request(path.read_bytes())
        if is_marked(email.message_from_bytes(message.raw)):
            marked += 1
            assert message.is_automatic(), path
            assert message.reply("x", From="app@example.net") is None, path
        elif message.is_automatic():
            unmarked.add(path.name)
    assert marked > 500
    assert unmarked <= UNMARKED


# -- MailResponse


def test_a_plain_answer() -> None:
    answer = MailResponse(To="joe@example.com", From="list@example.com", Subject="Hi", Body="Hello\nJoe\n")
    lines = bytes(answer).split(b"\r\n")
    assert lines[:3] == [b"To: joe@example.com", b"From: list@example.com", b"Subject: Hi"]
    assert lines[3].startswith(b"Date: ")
    assert lines[4].startswith(b"Message-ID: <")
    assert lines[5:] == [
        b"MIME-Version: 1.0",
        b"Content-Type: text/plain; charset=us-ascii",
        b"Content-Transfer-Encoding: 7bit",
        b"",
        b"Hello",
        b"Joe",
        b"",
    ]
    assert str(answer) == bytes(answer).decode().replace("\r\n", "\n")


def test_date_and_message_id_stay_once_they_were_given() -> None:
    answer = MailResponse(To="joe@example.com", From="List <list@Bücher.example>")
    first = bytes(answer)
    assert bytes(answer) == first
    assert str(answer).replace("\n", "\r\n").encode() == first
    assert re.fullmatch(r"<[0-9a-f]+\.[0-9a-f]{16}@xn--bcher-kva\.example>", answer["Message-ID"] or "")
    assert re.search(r" [+-]\d{4}\Z", answer["Date"] or "")
    parsed = email.utils.parsedate_to_datetime(answer["Date"] or "")
    assert abs(parsed.timestamp() - time.time()) < 60
    assert bytes(MailResponse(To="joe@example.com")) != bytes(MailResponse(To="joe@example.com"))


def test_a_very_long_sender_has_a_message_id_and_is_not_remembered() -> None:
    mail._answerable_domain("example.com")
    before = mail._answerable_domain.cache_info().currsize
    response = MailResponse(To="ann@ex.org", From=f'"{"x" * 100_000}" <list@example.com>', Subject="s", Body="b")
    assert re.search(rb"(?m)^Message-ID: <[0-9a-f.]+@example\.com>\r?$", bytes(response))
    assert mail._answerable_domain.cache_info().currsize == before


def test_date_and_message_id_of_the_application_are_kept() -> None:
    answer = MailResponse(To="joe@example.com")
    answer.update({"date": "Mon, 1 Jan 2024 00:00:00 +0000", "message-id": "<1@x>"})
    assert bytes(answer).count(b"\r\nMessage-ID:") == 0
    assert bytes(answer).lower().count(b"message-id:") == 1


def test_bcc_is_kept_and_never_rendered() -> None:
    answer = MailResponse(To=["A@x.org", "Joe <b@x.org>"], From="l@x.org", Body="x")
    answer["Cc"] = "c@x.org, a@x.org"
    answer["bcc"] = ["secret@x.org"]
    assert answer.recipients() == ["a@x.org", "b@x.org", "c@x.org", "secret@x.org"]
    assert answer["Bcc"] == "secret@x.org"
    for rendered in (bytes(answer).decode(), str(answer), answer.to_message().as_string()):
        assert "secret" not in rendered
        assert "bcc" not in rendered.lower()


def test_no_value_can_start_a_header() -> None:
    answer = MailResponse(To="joe@example.com", From="a@x.org\r\nBcc: v@x.org", Subject="a\nBcc: v@x.org\n\nbody", Body="x")
    answer["X-Y"] = "\u2028Bcc: v@x.org\r"
    message = email.message_from_bytes(bytes(answer))
    assert message["Bcc"] is None
    assert message["Subject"] == "a Bcc: v@x.org body"
    with pytest.raises(EncodingError):
        answer["X\r\nBcc"] = "v@x.org"


@pytest.mark.parametrize("body", ["é" * 2000, "a" * 2000, "line\r\nline\rline\n\u2028line", "", "\n"])
def test_bodies(body: str) -> None:
    data = bytes(MailResponse(To="joe@example.com", From="l@x.org", Body=body))
    assert data.isascii()
    for line in data.split(b"\r\n"):
        assert len(line) <= 998
        assert not set(line) & set(b"\r\n\x00")
    assert (request(data).body() or "") in (body.replace("\r\n", "\n"), body.replace("\r\n", "\n") + "\n")


def test_text_and_html_are_alternatives() -> None:
    answer = MailResponse(To="joe@example.com", From="l@x.org", Subject="é", Body="text é", Html="<p>html é</p>")
    message = email.message_from_bytes(bytes(answer), policy=email.policy.default)
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content() for part in message.iter_parts()] == ["text é", "<p>html é</p>"]
    assert message["Subject"] == "é"
    assert request(bytes(answer)).text == "text é"
    assert request(bytes(answer)).html == "<p>html é</p>"
    assert bytes(answer) == bytes(answer)


def test_html_alone() -> None:
    assert request(bytes(MailResponse(To="joe@example.com", Html="<p>x</p>"))).html == "<p>x</p>\n"


def test_a_content_type_of_the_applications_own() -> None:
    answer = MailResponse(To="joe@example.com", Body="BEGIN:VCALENDAR")
    answer["Content-Type"] = "text/calendar; method=REQUEST; charset=latin-1"
    message = email.message_from_bytes(bytes(answer))
    assert message["Content-Type"] == "text/calendar; method=REQUEST; charset=us-ascii"
    assert len(message.get_all("Content-Type")) == 1


@pytest.mark.parametrize("word", ["a", "é"])
def test_flowed_text_stays_as_it_was_wrapped(word: str) -> None:
    """The spaces before line ends are what makes it flow (RFC 3676)."""
    answer = MailResponse(To="joe@example.com", From="me@example.com", Body=f"{word} line that \nflows on\n> > quoted \n-- \nsig\n")
    answer["Content-Type"] = "text/plain; format=flowed; delsp=yes"
    again = request(bytes(answer))
    assert again.text == answer.Body
    assert again.base.content_encoding["Content-Type"][1].items() >= {"format": "flowed", "delsp": "yes"}.items()
    assert encoding.to_bytes(again.base) == bytes(answer)


def test_attachments(tmp_path: Path) -> None:
    (tmp_path / "naïve file.txt").write_bytes(b"one\n")
    answer = MailResponse(To="joe@example.com", From="l@x.org", Body="text", Html="<p>html</p>")
    answer.attach(filename=str(tmp_path / "naïve file.txt"))
    answer.attach(filename=tmp_path / "naïve file.txt", content_type="application/x-thing", disposition="inline")
    answer.attach(filename="made.csv", data="a,é\n")
    answer.attach(data=b"\x00", content_type="application/octet-stream")
    (tmp_path / "naïve file.txt").write_bytes(b"changed\n")  # files are read when the message is rendered
    message = email.message_from_bytes(bytes(answer), policy=email.policy.default)
    assert message.get_content_type() == "multipart/mixed"
    first, *files = message.iter_parts()
    assert first.get_content_type() == "multipart/alternative"
    assert [part.get_filename() for part in files] == ["naïve file.txt", "naïve file.txt", "made.csv", None]
    assert [part.get_content_type() for part in files] == ["text/plain", "application/x-thing", "text/csv", "application/octet-stream"]
    assert [part.get_content_disposition() for part in files] == ["attachment", "inline", "attachment", "attachment"]
    assert [part.get_payload(decode=True) for part in files] == [b"changed\n", b"changed\n", "a,é\r\n".encode(), b"\x00"]
    answer.clear()
    assert email.message_from_bytes(bytes(answer)).get_content_type() == "text/plain"
    assert answer["To"] == "joe@example.com"


def test_attachments_without_a_body() -> None:
    answer = MailResponse(To="joe@example.com")
    answer.attach(filename="x.txt", data="x")
    message = email.message_from_bytes(bytes(answer))
    assert [part.get_filename() for part in message.get_payload()] == ["x.txt"]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, TypeError, "data, or the filename"),
        ({"content_type": "text/plain"}, TypeError, "data, or the filename"),
        ({"data": b"x"}, TypeError, "content_type"),
        ({"data": 5, "content_type": "text/plain"}, TypeError, "str or bytes"),
        ({"filename": "/no/such/file"}, ValueError, "/no/such/file"),
        ({"data": b"x", "content_type": "nonsense"}, ValueError, "nonsense"),
        ({"data": b"x", "content_type": "text/plain\r\nBcc: x"}, ValueError, "Bcc"),
    ],
)
def test_attach_says_what_is_missing(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        MailResponse().attach(**arguments)


def test_a_file_that_went_away_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    answer = MailResponse()
    answer.attach(filename=str(tmp_path / "x"))
    (tmp_path / "x").unlink()
    with pytest.raises(OSError):
        bytes(answer)


def test_parts_of_a_received_message_are_passed_on() -> None:
    received = request(MANY.encode())
    answer = MailResponse(To="joe@example.com", Body="see below")
    answer.attach_all_parts(received)
    again = request(bytes(answer))
    assert (again.body(), again.text) == ("see below", "see below\ncafé")
    assert [one.name for one in again.attachments if one.name] == ["café.png", "notes.txt"]
    assert [one.data for one in again.attachments if one.type == "image/png"] == [b"hello"]
    assert [part.parts[0]["Subject"] for part in again.walk() if part.content_type == "message/rfc822"] == ["inner"]
    with pytest.raises(TypeError):
        answer.attach_part("text")  # type: ignore[arg-type]


def test_a_message_without_parts_is_passed_on_whole() -> None:
    answer = MailResponse(To="joe@example.com")
    answer.attach_all_parts(request())
    assert request(bytes(answer)).text == "Hi,\nhow are you?\n"


def test_it_is_a_mapping() -> None:
    answer = MailResponse(To="joe@example.com", Subject="x")
    answer["x-y"] = 5
    assert answer.keys() == ["To", "Subject", "x-y"]
    assert answer["X-Y"] == "5"
    del answer["X-Y"]
    assert answer["X-Y"] is None
    assert "joe" in repr(answer)
    with pytest.raises(TypeError):
        answer["Cc"] = None


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(EncodingError):
        bytes(MailResponse(To="joe@example.com", Body="\udce9"))
    with pytest.raises(EncodingError):
        bytes(MailResponse(To="joe@example.com", Subject="\udce9"))


TEXT = st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=100)


@given(TEXT, TEXT, TEXT)
@example("", "", "\ufeffa mark before the text")
@settings(max_examples=200)
def test_what_is_written_is_read_back_by_us_and_by_the_standard_library(name: str, subject: str, body: str) -> None:
    sender = email.utils.formataddr((" ".join(re.sub(r'["\\]', "", header.clean(name)).split()), "joe@example.com"), "utf-8")
    answer = MailResponse(To="l@example.com", From=sender, Subject=subject, Body=body)
    data = bytes(answer)
    message = request(data)
    assert message["Subject"] == answer["Subject"]
    assert message.route_from == "joe@example.com"
    theirs = email.message_from_bytes(data).get_payload(decode=True).decode().replace("\r\n", "\n")
    assert theirs.lstrip("\ufeff").rstrip("\n") == message.text.rstrip("\n")


# -- answers


ASKED = b"From: Ann <ann@example.com>\r\nTo: app@example.net\r\nSubject: Hello\r\nMessage-ID: <1@x>\r\nReferences: <0@x>\r\n\r\nHi\r\n"


def test_a_reply_is_threaded_and_marked() -> None:
    answer = request(ASKED, To="app@example.net").reply("Thank you.", Html="<p>Thank you.</p>")
    assert answer is not None
    assert answer.items() == [
        ("To", "ann@example.com"),
        ("From", "app@example.net"),
        ("Subject", "Re: Hello"),
        ("In-Reply-To", "<1@x>"),
        ("References", "<0@x> <1@x>"),
        ("Auto-Submitted", "auto-replied"),
    ]
    assert (answer.Body, answer.Html) == ("Thank you.", "<p>Thank you.</p>")


def test_of_a_long_thread_a_reply_names_the_last_twenty() -> None:
    earlier = [f"<{at}@{'x' * at}>" for at in range(200)]
    for ids in (earlier, [*earlier, " " * 20_000], [*earlier, "<1@x>", " " * 200_000, "<1@x>"]):
        answer = request(ASKED.replace(b"<0@x>", " ".join(ids).encode()), To="app@example.net").reply("x")
        assert answer is not None
        assert answer["References"] == " ".join([*earlier[-19:], "<1@x>"])


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("Hello", "Re: Hello"),
        ("Re: Hello", "Re: Hello"),
        ("RE: re: AW: Hello", "Re: Hello"),
        ("Re[2]: Hello", "Re: Hello"),
        ("SV: Hello", "Re: Hello"),
        ("回复：Hello", "Re: Hello"),
        ("Regarding: x", "Re: Regarding: x"),
        ("[list] Re: Hello", "Re: [list] Hello"),
        ("Re: [list] AW: Re: Hello", "Re: [list] Hello"),
        ("Re: [list]", "Re: [list]"),
        ("[list] Hello", "Re: [list] Hello"),
        ("Re:", "Re:"),
        ("", "Re:"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Re: Grüße"),
    ],
)
def test_re_stands_once_in_a_reply(subject: str, expected: str) -> None:
    answer = request(ASKED.replace(b"Hello", subject.encode()), To="app@example.net").reply("x")
    assert answer is not None
    assert answer["Subject"] == expected


@pytest.mark.parametrize(
    ("given", "expected"), [("Re: RE: Hello", "Re: Hello"), ("Your ticket", "Your ticket"), ("[17] Re: x", "[17] Re: x")]
)
def test_a_subject_of_ones_own(given: str, expected: str) -> None:
    answer = request(ASKED, To="app@example.net").reply("x", Subject=given)
    assert answer is not None
    assert answer["Subject"] == expected


def test_a_reply_goes_to_reply_to_and_from_whom_it_says() -> None:
    message = request(b"Reply-To: other@example.com, more@example.com\r\n" + ASKED)
    assert message.reply_to == "other@example.com"
    answer = message.reply("x", From="Robot <robot@example.net>", Subject="New")
    assert answer is not None
    assert (answer["To"], answer["From"], answer["Subject"]) == ("other@example.com", "Robot <robot@example.net>", "New")


@pytest.mark.parametrize(
    ("header", "envelope", "why"),
    [
        (b"Auto-Submitted: auto-replied\r\n", {}, "automatic"),
        (b"List-Id: <list.example.com>\r\n", {}, "automatic"),
        (b"Precedence: bulk\r\n", {}, "automatic"),
        (b"Return-Path: <>\r\n", {}, "automatic"),
        (b"", {"From": "<>"}, "automatic"),
        (b"", {"To": "ann@example.com"}, "ourselves"),
        (b"Reply-To: app@example.net\r\n", {}, "ourselves"),
        (b"Reply-To: MAILER-DAEMON@example.com\r\n", {}, "automatic"),
        (b"List-Unsubscribe: <mailto:off@example.com>\r\n", {}, "list"),
        (b"Mailing-List: contact owner@example.com; run by ezmlm\r\n", {}, "list"),
    ],
)
def test_what_must_not_be_answered_gets_no_reply(header: bytes, envelope: dict[str, str], why: str) -> None:
    message = request(header + ASKED, **envelope)
    assert message.reply("x") is None
    assert why in (message.unanswerable() or "")


def test_nobody_gets_no_reply() -> None:
    assert request(b"\r\n\r\n").reply("x", From="app@example.net") is None
    assert "nobody" in (request(b"\r\n\r\n").unanswerable() or "")


def test_reply_text_is_what_is_new() -> None:
    assert request(b"Subject: x\r\n\r\nYes.\r\n\r\nOn 2 May 2012, Ann <ann@example.com> wrote:\r\n> Shall we?\r\n").reply_text == "Yes."


# -- images that the HTML shows


def tree(part: Any) -> Any:
    return (part.content_type, [tree(child) for child in part.parts]) if part.parts else part.content_type


def test_an_image_that_the_html_shows_lies_beside_it() -> None:
    message = MailResponse("a@x.org", "b@x.org", "s", Body="text", Html='<img src="cid:logo">')
    message.attach("logo.png", data=b"PNG", content_id="logo")
    message.attach("list.pdf", data=b"PDF")
    read = request(bytes(message))
    related = ("multipart/related", ["text/html", "image/png"])
    assert tree(read.base) == ("multipart/mixed", [("multipart/alternative", ["text/plain", related]), "application/pdf"])
    assert (read.text, read.html) == ("text", '<img src="cid:logo">')
    image, file = read.attachments
    assert (image.name, image.type, image.data, image.inline, image.content_id) == ("logo.png", "image/png", b"PNG", True, "logo")
    assert (file.name, file.inline, file.content_id) == ("list.pdf", False, "")
    standard = email.message_from_bytes(bytes(message), policy=email.policy.default)
    assert standard.get_body(("related", "html")).get_content_type() == "multipart/related"


def test_html_alone_with_its_image() -> None:
    message = MailResponse("a@x.org", "b@x.org", "s", Html='<img src="cid:logo">')
    message.attach("logo.png", data=b"PNG", content_id="logo")
    assert tree(request(bytes(message)).base) == ("multipart/related", ["text/html", "image/png"])


def test_without_html_an_image_is_a_file() -> None:
    message = MailResponse("a@x.org", "b@x.org", "s", Body="text")
    message.attach("logo.png", data=b"PNG", content_id="logo")
    read = request(bytes(message))
    assert tree(read.base) == ("multipart/mixed", ["text/plain", "image/png"])
    assert read.attachments[0].content_id == "logo"


@pytest.mark.parametrize("content_id", ["", "a b", "<a>", "a\r\nBcc: x", "é", "x" * 201])
def test_a_content_id_that_is_none_is_refused(content_id: str) -> None:
    with pytest.raises(ValueError, match="content_id"):
        MailResponse().attach("logo.png", data=b"PNG", content_id=content_id)
