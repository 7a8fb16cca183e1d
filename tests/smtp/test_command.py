"""One command line -> verb, path, parameters."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamson.errors import SMTPError
from lamson.smtp import command
from tests.cost import assert_costs_less


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (b"NOOP", ("NOOP", "")),
        (b"noop  \t ", ("NOOP", "")),
        (b"MAIL FROM:<a@b.example> SIZE=1", ("MAIL", "FROM:<a@b.example> SIZE=1")),
        (b"ehlo   client", ("EHLO", "client")),
        (b"", ("", "")),
        (b" NOOP", ("", "NOOP")),
        ("VRFY josé".encode(), ("VRFY", "josé")),
    ],
)
def test_verb_and_argument(line: bytes, parsed: tuple[str, str]) -> None:
    assert command.parse(line) == parsed


PATH = rb"<([a-zA-Z0-9.+_-]{0,66}@?[a-z.-]{0,9}|@h:a@b)>"


@given(st.from_regex(rb"(MAIL|mail|MaIL) FROM: ?" + PATH + rb"( SIZE=[0-9]{1,11}| BODY=(7BIT|8bitmime)| X){0,2} ?\r\n", fullmatch=True))
def test_what_is_plain_in_mail_is_what_is_read_the_long_way(line: bytes) -> None:
    plain = command.plain_mail(line)
    if plain is not None:
        assert plain == command.mail(command.parse(line[:-2])[1])


@given(st.from_regex(rb"(RCPT|rcpt|RcPT) TO: ?" + PATH + rb"( X=1)? ?\r\n", fullmatch=True))
def test_what_is_plain_in_rcpt_is_what_is_read_the_long_way(line: bytes) -> None:
    plain = command.plain_rcpt(line)
    if plain is not None:
        assert plain == command.rcpt(command.parse(line[:-2])[1], False)


@pytest.mark.parametrize("end", [b">", b">\n", b">\r\nX\r\n", b"\n>\r\n", b">\r\n\r\n", b">x\r\n"])
def test_no_line_is_not_plain(end: bytes) -> None:
    assert command.plain_rcpt(b"RCPT TO:<a@b.example" + end) is None
    assert command.plain_mail(b"MAIL FROM:<a@b.example" + end) is None


@pytest.mark.parametrize("line", [b"NO\x00OP", b"NOOP\x7f", b"NOOP a\tb", b"NOOP \x1b", b"NOOP \xff", b"NOOP \xed\xa0\x80"])
def test_what_is_no_text(line: bytes) -> None:
    with pytest.raises(SMTPError) as refused:
        command.parse(line)
    assert (refused.value.reply.code, refused.value.reply.status) == (500, "5.5.2")


def test_mail_with_everything() -> None:
    asked = command.mail("FROM:<a@b.example> size=12 BODY=8BitMime SMTPUTF8 AUTH=<>")
    assert asked == command.Mail("a@b.example", 12, "8BITMIME", True, "<>")


def test_mail_with_nothing() -> None:
    assert command.mail("FROM:<>") == command.Mail("", 0, "7BIT", False, None)


def test_rcpt() -> None:
    assert command.rcpt("TO:<Joe.Doe@Two.Example>", False) == "Joe.Doe@Two.Example"


@pytest.mark.parametrize(
    "path", ["<\ud800@b.example>", "<a@b.example\u2028>", "<a b@c.example>", "<<a@b.example>>", '<"a@b.example>', "<a@b.example"]
)
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(SMTPError) as refused:
        command.rcpt(f"TO:{path}", True)
    assert refused.value.reply.code == 501


@pytest.mark.parametrize(
    "path", ['<"' + "\\\\" * 500, "<" + '"a"' * 400, '<"' * 600, "<" + "@a," * 400, "<" + "a." * 600, "<a@" + "b-" * 600 + ">"]
)
def test_paths_that_are_none_are_so_quickly(path: str) -> None:
    def refuse() -> None:
        with pytest.raises(SMTPError):
            command.mail(f"FROM:{path}")

    assert_costs_less(0.1, refuse)


@pytest.mark.parametrize(
    ("argument", "asked"),
    [("10", (10, False)), ("0 LAST", (0, True)), ("7  last", (7, True)), ("9" * 20, (10**20 - 1, False))],
)
def test_bdat(argument: str, asked: tuple[int, bool]) -> None:
    assert command.bdat(argument) == asked


@pytest.mark.parametrize("argument", ["", "LAST", "-1", "1 FIRST", "1 LAST LAST", "1LAST", "٣", "1" * 21])
def test_bdat_that_is_none(argument: str) -> None:
    with pytest.raises(SMTPError) as refused:
        command.bdat(argument)
    assert refused.value.reply.code == 501


def test_auth() -> None:
    assert command.auth("plain") == ("PLAIN", None)
    assert command.auth("PLAIN =") == ("PLAIN", "")
    assert command.auth("LOGIN am9l") == ("LOGIN", "am9l")


@given(st.text())
def test_a_response_is_what_was_encoded(text: str) -> None:
    assert command.response(base64.b64encode(text.encode()).decode()) == text


@pytest.mark.parametrize("name", ["client.example", "[192.0.2.1]", "[IPv6:::1]", "my_pc-1", "localhost."])
def test_hosts(name: str) -> None:
    assert command.is_host(name)


@pytest.mark.parametrize("name", ["", "a b", "(x)", "a\u00e9", "[", "[]", "a]", "<a>", "a;b", "x" * 256])
def test_hosts_that_are_none(name: str) -> None:
    assert not command.is_host(name)


@given(st.binary(max_size=200))
@example(b"FROM:<a@b.example> =")
@example(b'FROM:<"\\>')
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    """Nothing but an `SMTPError` comes out of any line, and nothing but a printable reply out of that."""
    for read in (command.mail, command.bdat, command.auth, command.response, command.is_host, lambda text: command.rcpt(text, True)):
        try:
            _, argument = command.parse(b"X " + octets)
            read(argument)
        except SMTPError as refused:
            wire = bytes(refused.reply)
            assert wire.endswith(b"\r\n")
            assert wire.count(b"\n") == 1


@given(st.from_regex(r"[A-Z0-9][A-Z0-9-]{0,10}(=[!-<>-~]{1,10})?", fullmatch=True))
def test_unknown_parameters_are_refused(parameter: str) -> None:
    if parameter.partition("=")[0] not in ("SIZE", "BODY", "SMTPUTF8", "AUTH"):
        with pytest.raises(SMTPError) as refused:
            command.mail(f"FROM:<a@b.example> {parameter}")
        assert refused.value.reply.code == 555
