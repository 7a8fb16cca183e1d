"""The client against servers that say what they should, what they should not, and nothing."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import subprocess
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamson.errors import PermanentError, RelayError, TransientError
from lamson.smtp import client as client_module
from lamson.smtp.client import Client, Timeouts, extensions
from lamson.smtp.wire import ConnectionLost, ReplyReader, bare_line_end, parse_reply, wire_form
from lamson.status import Reply
from tests.conftest import find_program
from tests.smtp.certificate import self_signed
from tests.smtp.server_script import DEAF, DEFAULTS, DROP, EVERYTHING, FLUSH, HANG, RESET, ScriptedServer, free_port

DATA = b"From: me@example.com\r\nTo: you@example.com\r\nSubject: hello\r\n\r\nHello.\r\n"
ME, YOU, HER = "me@example.com", "you@example.com", "her@example.com"

#: How a server offers PIPELINING and how it does not; most things must be the same either way.
SERVERS = [pytest.param(EVERYTHING, id="pipelined"), pytest.param(EVERYTHING[1:], id="step by step")]


def connect(server: ScriptedServer, **options: Any) -> Client:
    """A client of this server."""
    host, port = (server.address, 25) if isinstance(server.address, str) else server.address[:2]
    return Client(host, port, **{"timeout": 5, "helo": "client.example.org", **options})


def hand(server: ScriptedServer, *rcpt_tos: str, mail_from: str = ME, data: bytes = DATA, **options: Any) -> dict[str, RelayError]:
    """Sends one message on a connection of its own."""
    with connect(server, **options) as client:
        return client.send(mail_from, rcpt_tos or (YOU,), data)


def only(failed: dict[str, RelayError]) -> RelayError:
    """The error of the one recipient."""
    (error,) = failed.values()
    return error


# -- all is well


@pytest.mark.parametrize("offers", SERVERS)
def test_a_message_is_handed_over(offers: tuple[str, ...]) -> None:
    with ScriptedServer(offers=offers) as server:
        assert hand(server, YOU, HER) == {}
    (message,) = server.messages
    assert (message.mail_from, message.rcpt_tos, message.data) == (ME, [YOU, HER], DATA)
    assert server.verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"]
    assert server.commands[0] == "EHLO client.example.org"
    assert server.commands[1] == f"MAIL FROM:<{ME}> SIZE={len(DATA)}"


def test_the_envelope_goes_in_one_packet_when_pipelining_is_offered() -> None:
    with ScriptedServer() as server:
        assert hand(server, YOU, HER) == {}
    assert f"MAIL FROM:<{ME}> SIZE={len(DATA)}\r\nRCPT TO:<{YOU}>\r\nRCPT TO:<{HER}>\r\nDATA\r\n".encode() in server.groups


def test_the_connection_is_kept() -> None:
    with ScriptedServer() as server, connect(server) as client:
        for number in range(5):
            assert client.send(ME, [f"{number}@example.com"], DATA) == {}
        assert client.connected
    assert server.connections == 1
    assert server.verbs.count("EHLO") == 1
    assert "RSET" not in server.verbs
    assert [message.rcpt_tos for message in server.messages] == [[f"{number}@example.com"] for number in range(5)]


def test_the_null_sender() -> None:
    with ScriptedServer() as server:
        assert hand(server, mail_from="") == {}
    assert server.commands[1].startswith("MAIL FROM:<> ")


def test_the_same_recipient_is_named_once() -> None:
    with ScriptedServer() as server:
        assert hand(server, YOU, YOU) == {}
    assert server.messages[0].rcpt_tos == [YOU]


def test_nobody_to_send_to_is_nothing_to_do() -> None:
    with ScriptedServer() as server, connect(server) as client:
        assert client.send(ME, [], DATA) == {}
    assert server.connections == 0


def test_more_recipients_than_a_server_must_take_go_in_several_transactions() -> None:
    everyone = [f"{number}@example.com" for number in range(250)]
    with ScriptedServer() as server:
        assert hand(server, *everyone) == {}
    assert [len(message.rcpt_tos) for message in server.messages] == [100, 100, 50]
    assert server.connections == 1


def test_an_old_server_that_knows_only_helo() -> None:
    with ScriptedServer({"EHLO": "500 what?"}) as server:
        assert hand(server, data=DATA + b"\xff\r\n") == {}
    assert server.verbs == ["EHLO", "HELO", "MAIL", "RCPT", "DATA", "QUIT"]
    assert server.commands[2] == f"MAIL FROM:<{ME}>"


def test_without_a_name_of_its_own_the_client_gives_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "own_name", lambda: "")
    with ScriptedServer() as server:
        assert hand(server, helo=None) == {}
    assert server.commands[0] == "EHLO [127.0.0.1]"


@pytest.mark.parametrize(("name", "used"), [("mail.example.org", "mail.example.org"), ("laptop", ""), ("bad name.example.org", "")])
def test_a_name_that_servers_believe(monkeypatch: pytest.MonkeyPatch, name: str, used: str) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: name)
    assert client_module.own_name.__wrapped__() == used


def test_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    with ScriptedServer(unix_path=tmp_path / "lmtp", lmtp=True) as server:
        assert hand(server, lmtp=True) == {}
    assert server.verbs[0] == "LHLO"


def test_a_large_message_arrives_whole() -> None:
    data = DATA + b"".join(b"%07d %s\r\n" % (number, b"x" * 68) for number in range(60_000))
    with ScriptedServer(offers=("PIPELINING", "SIZE")) as server:
        assert hand(server, data=data) == {}
    assert server.messages[0].data == data


# -- data


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\n..b\r\n.", b"a\r\n...b\r\n..\r\n.\r\n"),
        (b"\r\n.\r\n.\r\n", b"\r\n..\r\n..\r\n.\r\n"),
        (b"a.\r\nb", b"a.\r\nb\r\n.\r\n"),
        (b"\0\xff\r\n", b"\0\xff\r\n.\r\n"),
    ],
)
def test_dots_and_the_end(data: bytes, sent: bytes) -> None:
    assert wire_form(data) == sent


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a\nb\r\n", 1),
        (b"a\r\nb\rc\r\n", 2),
        (b"a\r\n\n.\n", 2),
        (b"\r\r\n", 1),
        (b"\n\r", 1),
        (b"a\r\nb\r", 2),
        (b"a\r\n.\n\r\n", 2),
        (b"a\r\n\r.\r\r\n", 2),
    ],
)
def test_a_bare_line_end_is_refused_before_anything_is_said(data: bytes, line: int) -> None:
    with pytest.raises(PermanentError) as refused:
        wire_form(data)
    assert (refused.value.reply.code, refused.value.reply.status) == (550, "5.6.0")
    assert refused.value.reply.text == f"The message has a bare CR or LF in line {line}"
    with ScriptedServer() as server:
        assert isinstance(only(hand(server, data=data)), PermanentError)
    assert server.connections == 0


@given(st.lists(st.sampled_from([b"a", b".", b"\r\n", b"..", b"\0"])).map(b"".join))
def test_what_a_server_reads_is_what_was_given(data: bytes) -> None:
    lines = wire_form(data).split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert b"." not in lines[:-2]
    received = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2])
    assert received == (data if data.endswith(b"\r\n") or not data else data + b"\r\n")


def test_bare_line_end_of_good_data() -> None:
    assert bare_line_end(DATA) is None


# -- what is asked for in MAIL


def test_8bitmime_is_asked_for_only_when_needed_and_offered() -> None:
    eight = DATA + "é\r\n".encode()
    with ScriptedServer() as server, connect(server) as client:
        assert client.send(ME, [YOU], DATA) == {}
        assert client.send(ME, [YOU], eight) == {}
    assert [" BODY=8BITMIME" in command for command in server.commands if command.startswith("MAIL")] == [False, True]


def test_8_bit_data_goes_as_it_is_to_a_server_that_does_not_offer_8bitmime() -> None:
    eight = DATA + b"\xe9\xff\r\n"
    with ScriptedServer(offers=("PIPELINING",)) as server:
        assert hand(server, data=eight) == {}
    assert server.messages[0].data == eight
    assert server.commands[1] == f"MAIL FROM:<{ME}>"


def test_too_large_for_the_server_is_not_sent() -> None:
    with ScriptedServer(offers=("PIPELINING", "SIZE 50")) as server:
        error = only(hand(server))
    assert isinstance(error, PermanentError)
    assert (error.reply.code, error.reply.status) == (552, "5.3.4")
    assert "MAIL" not in server.verbs


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE lots", "SIZE ٣", "SIZE " + "9" * 5000, f"SIZE {len(DATA)}"])
def test_sizes_that_are_no_limit(size: str) -> None:
    with ScriptedServer(offers=("PIPELINING", size)) as server:
        (failed,) = [hand(server)] if len(size) < 4000 else [{}]
    assert failed == {}


def test_doubled_dots_do_not_count_as_size() -> None:
    data = b".\r\n" * 10
    with ScriptedServer(offers=("PIPELINING", "SIZE 30")) as server:
        assert hand(server, data=data) == {}
    assert server.commands[1] == f"MAIL FROM:<{ME}> SIZE=30"


# -- addresses beyond ASCII


def test_smtputf8_where_it_is_offered() -> None:
    with ScriptedServer(offers=(*EVERYTHING, "SMTPUTF8")) as server:
        assert hand(server, "josé@exämple.com", YOU) == {}
    assert server.commands[1].endswith(" SMTPUTF8")
    assert server.messages[0].rcpt_tos == ["josé@exämple.com", YOU]


def test_smtputf8_is_not_asked_for_without_need() -> None:
    with ScriptedServer(offers=(*EVERYTHING, "SMTPUTF8")) as server:
        assert hand(server) == {}
    assert "SMTPUTF8" not in server.commands[1]


def test_a_domain_beyond_ascii_is_written_in_a_labels() -> None:
    with ScriptedServer() as server:
        assert hand(server, "jose@exämple.com", mail_from="me@exämple.com") == {}
    assert server.messages[0].rcpt_tos == ["jose@xn--exmple-cua.com"]
    assert server.messages[0].mail_from == "me@xn--exmple-cua.com"
    assert "SMTPUTF8" not in server.commands[1]


@pytest.mark.parametrize("rcpt", ["josé@example.com", "jose@exa\u2028mple.com", "jose@ä" + "b" * 80 + ".com"])
def test_an_address_that_this_server_cannot_be_told(rcpt: str) -> None:
    with ScriptedServer() as server:
        failed = hand(server, rcpt, YOU)
    assert isinstance(failed[rcpt], PermanentError)
    assert failed[rcpt].reply.status in ("5.6.7", "5.1.3")
    assert set(failed) == {rcpt}
    assert server.messages[0].rcpt_tos == [YOU]


def test_a_sender_that_this_server_cannot_be_told() -> None:
    with ScriptedServer() as server:
        failed = hand(server, YOU, HER, mail_from="josé@example.com")
    assert [error.reply.status for error in failed.values()] == ["5.6.7", "5.6.7"]
    assert "MAIL" not in server.verbs


@pytest.mark.parametrize(
    "rcpt",
    [
        "you@example.com>\r\nRCPT TO:<her@example.com",
        "you@example.com\nDATA",
        "you@example.com\r",
        "you@example.com> NOTIFY=NEVER",
        "<you@example.com>",
        "you @example.com",
        '"a"b@example.com',
        '"a\\"@example.com',
        '"a"@example.com> X=1',
        "a@b@example.com",
        "you@example.com\0",
        "you@\udc80example.com",
        "you@",
        "@example.com",
        "",
    ],
)
def test_an_address_cannot_say_more_than_itself(rcpt: str) -> None:
    with ScriptedServer(offers=(*EVERYTHING, "SMTPUTF8")) as server:
        failed = hand(server, rcpt, YOU)
        from_it = hand(server, mail_from=rcpt or "<>")
    assert failed[rcpt].reply.status == "5.1.3"
    assert set(failed) == {rcpt}
    assert only(from_it).reply.status == "5.1.7"
    assert server.verbs.count("RCPT") == 1


@pytest.mark.parametrize("rcpt", ["postmaster", "a..b@example.jp", '"a b"@example.com', r'"a\"b>"@example.com', "x@[127.0.0.1]", "=?@b"])
def test_odd_addresses_that_a_server_may_know(rcpt: str) -> None:
    with ScriptedServer() as server:
        assert hand(server, rcpt) == {}
    assert f"RCPT TO:<{rcpt}>" in server.commands


# -- refusals at each step


@pytest.mark.parametrize("offers", SERVERS)
@pytest.mark.parametrize(("code", "kind"), [(451, TransientError), (550, PermanentError)])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
def test_a_refusal_at_each_step(offers: tuple[str, ...], step: str, code: int, kind: type[RelayError]) -> None:
    says = {step: [f"{code} {code // 100}.7.1 not today", "354 go on" if step == "DATA" else "250 OK"]}
    if step in ("MAIL", "RCPT"):
        says["DATA"] = ["503 5.5.1 no recipients", "354 go on"] if "PIPELINING" in offers else "354 go on"
    with ScriptedServer(says, offers=offers) as server, connect(server) as client:
        error = only(client.send(ME, [YOU], DATA))
        assert type(error) is kind
        assert error.reply == Reply(code, "not today", f"{code // 100}.7.1")
        assert client.connected
        assert client.send(ME, [HER], DATA) == {}
    assert server.connections == 1
    assert ("RSET" in server.verbs) == (step != ".")
    assert server.messages[-1].rcpt_tos == [HER]


@pytest.mark.parametrize("offers", SERVERS)
def test_some_recipients_are_refused_and_the_others_served(offers: tuple[str, ...]) -> None:
    says = {f"RCPT TO:<{HER}>": "550-5.1.1 no such user\r\n550 5.1.1 here", "RCPT TO:<full@example.com>": "452 4.2.2 full"}
    with ScriptedServer(says, offers=offers) as server:
        failed = hand(server, HER, YOU, "full@example.com")
    assert {rcpt: (type(error), str(error.reply)) for rcpt, error in failed.items()} == {
        HER: (PermanentError, "550 5.1.1 no such user\nhere"),
        "full@example.com": (TransientError, "452 4.2.2 full"),
    }
    assert server.messages[0].rcpt_tos == [YOU]


def test_a_server_that_wants_data_for_nobody_gets_none() -> None:
    """RFC 2920 §3.1: DATA was pipelined, and the server said 354 to it though it had taken no recipient."""
    says = {"RCPT": ["550 no", "250 yes"], ".": ["554 5.5.1 no valid recipients", "250 OK"]}
    with ScriptedServer(says) as server, connect(server) as client:
        assert isinstance(only(client.send(ME, [HER], DATA)), PermanentError)
        assert client.send(ME, [YOU], DATA) == {}
    assert [message.data for message in server.messages] == [b"", DATA]
    assert server.connections == 1


@pytest.mark.parametrize("step", ["connect", "EHLO", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("offers", SERVERS)
def test_421_closes_at_any_step(offers: tuple[str, ...], step: str) -> None:
    with ScriptedServer({step: ("421 4.3.2 going down", DROP)}, offers=offers) as server, connect(server) as client:
        error = only(client.send(ME, [YOU], DATA))
        assert type(error) in (TransientError, ConnectionLost)
        assert error.reply == Reply(421, "going down", "4.3.2")
        assert not client.connected
    assert "QUIT" not in server.verbs


@pytest.mark.parametrize("step", ["connect", "EHLO", "MAIL", "RCPT", "DATA", "data", "."])
@pytest.mark.parametrize("how", [DROP, RESET, HANG], ids=["drop", "reset", "hang"])
@pytest.mark.parametrize("offers", SERVERS)
def test_a_connection_that_breaks_or_falls_silent_at_any_step(offers: tuple[str, ...], how: object, step: str) -> None:
    timeout = 0.3 if how is HANG else 5.0  # nothing but silence is to be waited for
    with ScriptedServer({step: how}, offers=offers) as server, connect(server, timeout=timeout) as client:
        began = time.monotonic()
        error = only(client.send(ME, [YOU], DATA))
        assert time.monotonic() - began < 3
        assert isinstance(error, TransientError)
        assert (error.reply.code, error.reply.status) == (451, "4.4.2")
        assert not client.connected
    in_doubt = "whether it took the message is not known" in error.reply.text
    assert in_doubt == (step == ".") or step == "data", "at data, it is a race who is first"
    assert server.connections == 1


@pytest.mark.parametrize("how", [DROP, RESET], ids=["drop", "reset"])
def test_a_connection_that_breaks_amid_a_large_message(how: object) -> None:
    data = DATA + b"x" * 76 * 1000 + b"\r\n" * 1_000_000
    with ScriptedServer({"data": how}, offers=("PIPELINING",)) as server, connect(server) as client:
        error = only(client.send(ME, [YOU], data))
        assert isinstance(error, TransientError)
        assert error.reply.status == "4.4.2"
        assert "not known" not in error.reply.text, "the final dot was never sent"
        assert not client.connected


def test_the_last_word_of_a_server_that_stops_reading_counts() -> None:
    """It says 552 before it has all, and the rest of the message goes nowhere."""
    data = DATA + b"x" * 998 * 20 + b"\r\n" * 10_000_000
    with ScriptedServer({"data": ("552 5.3.4 too big", DEAF)}, offers=("PIPELINING",)) as server, connect(server, timeout=0.5) as client:
        error = only(client.send(ME, [YOU], data))
        assert type(error) is PermanentError
        assert error.reply == Reply(552, "too big", "5.3.4")
        assert not client.connected


def test_a_server_that_drips_is_held_to_the_time_of_the_whole_reply() -> None:
    drip = tuple(part for _ in range(100) for part in (b"2", b"2", b"0", b"-", b"x", b"\r\n"))
    with ScriptedServer({"connect": (*drip, HANG)}) as server:
        began = time.monotonic()
        error = only(hand(server, timeout=0.2))
        assert time.monotonic() - began < 2
    assert isinstance(error, TransientError)


def test_a_port_that_is_no_number_is_told() -> None:
    with pytest.raises(TypeError, match=r"The port of mx\.test is a number, as 25, and not '8825'\."):
        Client("mx.test", "8825")  # type: ignore[arg-type]


def test_a_refused_connection_is_transient() -> None:
    with Client("127.0.0.1", free_port(), timeout=2) as client:
        error = only(client.send(ME, [YOU], DATA))
    assert isinstance(error, TransientError)
    assert (error.reply.code, error.reply.status) == (451, "4.4.1")
    assert "refused" in error.reply.text


def test_when_the_host_is_not_there_the_other_batches_do_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def refuse(*args: object) -> socket.socket:
        tried.append(args)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    everyone = [f"{number}@example.com" for number in range(250)]
    failed = Client("127.0.0.1", 2525).send(ME, everyone, DATA)
    assert list(failed) == everyone
    assert len(tried) == 1


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".example", "/nowhere/lmtp", ""])
def test_a_host_that_is_nowhere_is_transient(host: str) -> None:
    error = only(Client(host, free_port(), timeout=5).send(ME, [YOU], DATA))
    assert isinstance(error, TransientError)
    assert error.reply.status in ("4.4.1", "4.4.3")


@pytest.mark.parametrize("says", [{"connect": "554 5.7.1 no service for you"}, {"EHLO": "550 5.7.1 who?", "HELO": "550 5.7.1 who?"}])
def test_a_server_that_will_not_talk_to_us_is_transient(says: dict[str, Any]) -> None:
    """The refusal is about us and not about the message, which would otherwise be sent back for a wrong setting."""
    with ScriptedServer(says) as server:
        error = only(hand(server))
    assert type(error) is TransientError
    assert error.reply.code in (554, 550)
    assert error.reply.status == "5.7.1"


# -- nonsense


@pytest.mark.parametrize(
    "noise",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\r\n",
        b"250-one\r\n251 two\r\n",
        b"250-one\r\nand two\r\n",
        b"25 short\r\n",
        b"2500 long\r\n",
        b"150 preliminary\r\n",
        b"650 beyond\r\n",
        "٢٥٠ OK\r\n".encode(),
        b"\x16\x03\x01\x00\xa5" + b"\0" * 50 + b"\n",
        b"250-x\r\n" * 1000,
        b"250 " + b"x" * 100_000,
        b"aaa-b\r\n",
    ],
)
@pytest.mark.parametrize("step", ["connect", "MAIL", "RCPT", "."])
def test_nonsense_is_transient_and_closes(step: str, noise: bytes) -> None:
    with ScriptedServer({step: (noise, HANG)}) as server, connect(server, timeout=2) as client:
        error = only(client.send(ME, [YOU], DATA))
        assert isinstance(error, TransientError)
        assert (error.reply.code, error.reply.status) == (451, "4.5.0")
        assert "127.0.0.1 said" in error.reply.text
        assert not client.connected


@pytest.mark.parametrize("step", ["MAIL", "RCPT", ".", "RSET"])
@pytest.mark.parametrize("offers", SERVERS)
def test_354_where_it_makes_no_sense(offers: tuple[str, ...], step: str) -> None:
    says: dict[str, Any] = {step: "354 what?"}
    if step == "RSET":
        says |= {f"RCPT TO:<{YOU}>": "550 no", "DATA": ["503 no", "354 go on"] if "PIPELINING" in offers else "354 go on"}
    with ScriptedServer(says, offers=offers) as server, connect(server) as client:
        first, second = only(client.send(ME, [YOU], DATA)), client.send(ME, [HER], DATA)
    if step == "RSET":
        assert (type(first), second) == (PermanentError, {}), "opened again: nothing had begun"
    else:
        assert first.reply.status == "4.5.0"
    assert server.connections == 2


def test_a_yes_to_data_that_is_not_354_is_nonsense() -> None:
    with ScriptedServer({"DATA": "250 sure"}) as server:
        error = only(hand(server))
    assert error.reply.status == "4.5.0"
    assert server.messages == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((b"250 OK",), Reply(250, "OK")),
        ((b"250",), Reply(250, "")),
        ((b"250 \r",), Reply(250, "")),
        ((b"250 2.1.0 OK\r",), Reply(250, "OK", "2.1.0")),
        ((b"250 2.1.0",), Reply(250, "", "2.1.0")),
        ((b"250 4.1.0 odd",), Reply(250, "4.1.0 odd")),
        ((b"250 2.1.0x",), Reply(250, "2.1.0x")),
        ((b"354 2.0.0 go",), Reply(354, "2.0.0 go")),
        ((b"550-5.1.1 no\r", b"550 5.1.1 such user\r"), Reply(550, "no\nsuch user", "5.1.1")),
        ((b"550-5.1.1 no\r", b"550 such user\r"), Reply(550, "no\nsuch user", "5.1.1")),
        ((b"550 \x1b[2Jgone\0",), Reply(550, "?[2Jgone?")),
        ((b"550 caf\xe9 caf\xc3\xa9",), Reply(550, "caf\ufffd café")),
    ],
)
def test_replies(lines: tuple[bytes, ...], said: Reply) -> None:
    assert parse_reply(lines) == said


@given(st.binary(max_size=200), st.integers(1, 7))
def test_reading_replies_is_total(noise: bytes, step: int) -> None:
    """Whatever comes, in whatever pieces: replies, or ValueError."""
    reader = ReplyReader()
    with suppress(ValueError):
        for at in range(0, len(noise), step):
            reader.feed(noise[at : at + step])
            while said := reader.take():
                assert 200 <= said.code < 600


@given(st.integers(1, 40))
def test_replies_in_pieces(step: int) -> None:
    said = b"220 hi\r\n250-a\r\n250-b\r\n250 c\r\n354 go\n"
    reader, codes = ReplyReader(), []
    for at in range(0, len(said), step):
        reader.feed(said[at : at + step])
        while answer := reader.take():
            codes.append((answer.code, answer.text))
    assert codes == [(220, "hi"), (250, "a\nb\nc"), (354, "go")]
    assert reader.empty


def test_extensions() -> None:
    lines = ["SIZE 1000", "pipelining", "AUTH PLAIN", "AUTH=LOGIN CRAM-MD5", "", "X-ODD  a  b "]
    offered = extensions(lines)
    assert offered["SIZE"] == "1000"
    assert "PIPELINING" in offered
    assert offered["AUTH"].split() == ["PLAIN", "LOGIN", "CRAM-MD5"]


# -- kept connections that die


@pytest.mark.parametrize("how", [DROP, RESET, ("421 4.4.2 idle too long", DROP)], ids=["drop", "reset", "421"])
@pytest.mark.parametrize("offers", SERVERS)
def test_a_kept_connection_that_died_is_opened_again(offers: tuple[str, ...], how: object) -> None:
    with ScriptedServer({"MAIL": ["250 OK", how, "250 OK"]}, offers=offers) as server, connect(server) as client:
        assert client.send(ME, [YOU], DATA) == {}
        assert client.send(ME, [HER], DATA) == {}
    assert server.connections == 2
    assert [message.rcpt_tos for message in server.messages] == [[YOU], [HER]]


def test_a_server_that_closed_while_we_were_idle() -> None:
    with ScriptedServer() as server, connect(server) as client:
        assert client.send(ME, [YOU], DATA) == {}
        server.cut()
        assert client.send(ME, [HER], DATA) == {}
        assert server.connections == 2


def test_a_dead_kept_connection_is_opened_again_once_only() -> None:
    with ScriptedServer({"MAIL": ["250 OK", DROP]}) as server, connect(server) as client:
        assert client.send(ME, [YOU], DATA) == {}
        assert isinstance(only(client.send(ME, [HER], DATA)), TransientError)
    assert server.connections == 2


def test_a_server_that_died_and_does_not_come_back() -> None:
    with ScriptedServer({"MAIL": ["250 OK", DROP]}) as server, connect(server) as client:
        assert client.send(ME, [YOU], DATA) == {}
        server.refuse()
        error = only(client.send(ME, [HER], DATA))
    assert error.reply.status == "4.4.1"


@pytest.mark.parametrize("step", ["RCPT", "DATA", "."])
def test_once_anything_was_accepted_nothing_is_sent_again(step: str) -> None:
    good = {"DATA": "354 go on"}.get(step, "250 OK")
    with ScriptedServer({step: [good, DROP, good]}) as server, connect(server) as client:
        assert client.send(ME, [YOU], DATA) == {}
        assert isinstance(only(client.send(ME, [HER], DATA)), TransientError)
        assert server.connections == 1
        assert client.send(ME, [HER], DATA) == {}
    assert server.connections == 2


def test_a_server_that_dies_at_rset_is_opened_again() -> None:
    says = {"RSET": DROP, "RCPT": ["550 no", "250 yes"], "DATA": ["503 no", "354 go on"]}
    with ScriptedServer(says) as server, connect(server) as client:
        assert isinstance(only(client.send(ME, [YOU], DATA)), PermanentError)
        assert client.send(ME, [YOU], DATA) == {}
    assert server.connections == 2


# -- several messages, one after the other


def several(*names: str) -> list[tuple[str, list[str], bytes]]:
    return [(ME, [f"{name}@example.com"], DATA + name.encode() + b"\r\n") for name in names]


def envelope(name: str) -> bytes:
    return f"MAIL FROM:<{ME}> SIZE={len(DATA) + len(name) + 2}\r\nRCPT TO:<{name}@example.com>\r\nDATA\r\n".encode()


def test_the_next_envelope_goes_with_the_end_of_the_message_before_it() -> None:
    """RFC 2920 §3.1."""
    with ScriptedServer() as server, connect(server) as client:
        assert list(client.send_all(several("one", "two", "three"))) == [{}, {}, {}]
    assert [message.behind for message in server.messages] == [envelope("two"), envelope("three"), b""]
    assert [message.data for message in server.messages] == [data for _, _, data in several("one", "two", "three")]
    assert server.verbs == ["EHLO", *["MAIL", "RCPT", "DATA"] * 3, "QUIT"]


def test_so_do_the_envelopes_of_one_message_for_many() -> None:
    everyone = [f"{number}@example.com" for number in range(150)]
    with ScriptedServer() as server:
        assert hand(server, *everyone) == {}
    assert server.messages[0].behind.count(b"RCPT") == 50


@pytest.mark.parametrize("data", [DATA, DATA + b"x" * 70 + b"\r\n" * 70_000], ids=["step by step", "large"])
def test_where_it_does_not(data: bytes) -> None:
    """A server that does not offer it; and a message that is written in several pieces."""
    with ScriptedServer(offers=("PIPELINING",) if data != DATA else ()) as server, connect(server) as client:
        assert list(client.send_all([(ME, [YOU], data), *several("two")])) == [{}, {}]
    assert [message.behind for message in server.messages] == [b"", b""]


def test_each_is_sent_when_it_is_asked_for_and_what_was_begun_is_dropped() -> None:
    with ScriptedServer() as server, connect(server) as client:
        results = client.send_all(several("one", "two"))
        assert server.connections == 0
        assert next(results) == {}
        results.close()
        assert not client.connected
        assert client.send(*several("three")[0]) == {}
    assert [message.rcpt_tos for message in server.messages] == [["one@example.com"], ["three@example.com"]]


def test_a_message_that_cannot_be_sent_is_passed_over() -> None:
    one, two = several("one", "two")
    bare, nobody, odd = (ME, [YOU], b"bare\nLF\r\n"), (ME, [], DATA), (ME, ["no address"], DATA)
    with ScriptedServer() as server, connect(server) as client:
        results = list(client.send_all([bare, one, nobody, odd, two]))
    assert [{rcpt: str(error.reply.status) for rcpt, error in failed.items()} for failed in results] == [
        {YOU: "5.6.0"}, {}, {}, {"no address": "5.1.3"}, {},
    ]  # fmt: skip
    assert [message.rcpt_tos for message in server.messages] == [["one@example.com"], ["two@example.com"]]
    assert server.connections == 1


HOWS = {"450": "450 no", "550": "550 no", "421": ("421 bye", DROP), "drop": DROP}
FAULTS = {f"{step} {name}": (step, how) for step in ("MAIL", "RCPT", "DATA", ".") for name, how in HOWS.items()} | {"well": ("NOOP", "")}


PAIRS = [(first, second) for first in FAULTS for second in FAULTS if "well" in (first, second) or second in ("MAIL drop", ". 550")]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_whatever_goes_wrong_it_ends_as_if_each_was_sent_alone(first: str, second: str) -> None:
    together, alone = outcome(first, second, together=True), outcome(first, second, together=False)
    assert together == alone
    assert "three@example.com" in together[1]


def outcome(first: str, second: str, together: bool) -> tuple[list[Any], list[str]]:
    """Of three messages, two of which meet a fault once: what the client says, and whose messages the server has seen."""
    mails = [(f"{name}@example.com", [f"to-{name}@example.com"], DATA) for name in ("one", "two", "three")]
    says = {}
    for (sender, _, _), (step, how) in zip(mails, (FAULTS[first], FAULTS[second]), strict=False):
        says[f"{step} {sender}"] = [how, DEFAULTS.get(step)]
    with ScriptedServer(says) as server, connect(server) as client:
        results = client.send_all(mails) if together else (client.send(*mail) for mail in mails)
        told = [{rcpt: (type(error), str(error.reply)) for rcpt, error in failed.items()} for failed in results]
    return told, [message.mail_from for message in server.messages]


def test_a_server_that_forgets_what_came_behind_a_message_is_waited_for_once() -> None:
    mails = several("one", "two", "three", "four")
    with ScriptedServer({".": (FLUSH, "250 taken")}) as server, connect(server, timeout=0.3) as client:
        assert list(client.send_all(mails)) == [{}] * 4
    assert [message.data for message in server.messages] == [data for _, _, data in mails]
    assert server.connections == 2


def test_another_message_may_be_sent_between_two_of_them() -> None:
    one, two, other = several("one", "two", "other")
    with ScriptedServer() as server, connect(server) as client:
        results = client.send_all([one, two])
        assert [next(results), client.send(*other), *results] == [{}, {}, {}]
    taken = [(message.rcpt_tos, message.data) for message in server.messages]
    assert taken == [(rcpt_tos, data) for _, rcpt_tos, data in (one, other, two)]


@pytest.mark.parametrize("at", ["S: 250 2.1.5", "S: 250 2.0.0"])
def test_a_bug_amid_a_message_leaves_no_connection_that_is_half_said(at: str) -> None:
    def talk(line: str) -> None:
        if line.startswith(at) and not broken:
            broken.append(line)
            raise RuntimeError("a bug")

    broken: list[str] = []
    with ScriptedServer() as server, connect(server, talk=talk) as client:
        with pytest.raises(RuntimeError):
            client.send(*several("one")[0])
        assert not client.connected
        assert client.send(*several("two")[0]) == {}
    assert server.messages[-1].rcpt_tos == ["two@example.com"]
    assert server.messages[-1].data == several("two")[0][2]


@contextmanager
def a_server_that_reads_no_further_than_a_message(monkeypatch: pytest.MonkeyPatch, says: bytes) -> Iterator[None]:
    """For the first connection: it reads the message's end, says that, and closes. The connection holds little that is not read."""
    ours, its = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    dial = Client._dial
    sockets = [ours]
    monkeypatch.setattr(Client, "_dial", lambda self: sockets.pop() if sockets else dial(self))

    def serve() -> None:
        with its:
            its.sendall(b"220 hi\r\n")
            read_to(b"\r\n")
            its.sendall(b"250-hi\r\n250 PIPELINING\r\n")
            read_to(b"DATA\r\n")
            its.sendall(b"250 OK\r\n250 OK\r\n354 go on\r\n")
            read_to(b"\r\n.\r\n")
            its.sendall(says)

    def read_to(end: bytes) -> None:
        heard = b""
        while not heard.endswith(end):
            heard += its.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(("says", "told"), [(b"250 taken\r\n", {}), (b"550 no\r\n", {"one@example.com": "550 no"})])
def test_a_message_that_was_read_has_its_answer_though_the_next_envelope_was_not(
    monkeypatch: pytest.MonkeyPatch, says: bytes, told: dict[str, str]
) -> None:
    everyone = [f"{number:0>60}@{'x' * 60}.example.com" for number in range(100)]
    with a_server_that_reads_no_further_than_a_message(monkeypatch, says), ScriptedServer() as server, connect(server) as client:
        failed, then = client.send_all([*several("one"), (ME, everyone, DATA)])
    assert {rcpt: str(error.reply) for rcpt, error in failed.items()} == told
    assert then == {}
    assert [message.rcpt_tos for message in server.messages] == [everyone]


def test_closing_does_not_wait_long_for_a_silent_server() -> None:
    with ScriptedServer({"QUIT": HANG}) as server:
        client = connect(server)
        assert client.send(ME, [YOU], DATA) == {}
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 3
        client.close()


def test_a_closed_client_connects_again() -> None:
    with ScriptedServer() as server, connect(server) as client:
        assert client.send(ME, [YOU], DATA) == {}
        client.close()
        assert client.send(ME, [YOU], DATA) == {}
    assert server.connections == 2


# -- LMTP


def test_lmtp_answers_for_each_recipient() -> None:
    says = {f". {HER}": "552 5.2.2 full", ". late@example.com": "450 4.2.1 later", "RCPT TO:<no@example.com>": "550 5.1.1 unknown"}
    with ScriptedServer(says, lmtp=True) as server, connect(server, lmtp=True) as client:
        failed = client.send(ME, [HER, "no@example.com", YOU, "late@example.com"], DATA)
        assert {rcpt: str(error.reply) for rcpt, error in failed.items()} == {
            HER: "552 5.2.2 full",
            "no@example.com": "550 5.1.1 unknown",
            "late@example.com": "450 4.2.1 later",
        }
        assert client.send(ME, [YOU], DATA) == {}
    assert server.verbs[0] == "LHLO"
    assert server.connections == 1


def test_lmtp_waits_for_all_its_answers_before_it_goes_on() -> None:
    """Of a server that gives too few, the answers to the next envelope would be taken for them."""
    with ScriptedServer(lmtp=True) as server, connect(server, lmtp=True) as client:
        assert list(client.send_all(several("one", "two"))) == [{}, {}]
    assert [message.behind for message in server.messages] == [b"", b""]


def test_lmtp_that_breaks_amid_its_answers() -> None:
    with ScriptedServer({f". {HER}": DROP}, lmtp=True) as server, connect(server, lmtp=True) as client:
        failed = client.send(ME, [YOU, HER, "late@example.com"], DATA)
        assert set(failed) == {HER, "late@example.com"}
        assert all("not known" in error.reply.text for error in failed.values())
        assert not client.connected


def test_lmtp_that_wants_data_for_nobody_is_left() -> None:
    with ScriptedServer({"RCPT": "550 no"}, lmtp=True) as server, connect(server, lmtp=True) as client:
        assert isinstance(only(client.send(ME, [YOU], DATA)), TransientError)
        assert not client.connected


def test_lmtp_never_falls_back_to_helo() -> None:
    with ScriptedServer({"LHLO": "500 what?"}, lmtp=True) as server:
        assert isinstance(only(hand(server, lmtp=True)), TransientError)
    assert "HELO" not in server.verbs


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("how", ["ssl", "starttls"])
def test_tls_with_this_machine_needs_no_certificate(certificate: Path, how: str) -> None:
    offers = (*EVERYTHING, "STARTTLS")
    with ScriptedServer(offers=offers, offers_under_tls=EVERYTHING, certificate=certificate, implicit_tls=how == "ssl") as server:
        assert hand(server, **{how: True}) == {}
    assert server.verbs.count("EHLO") == (1 if how == "ssl" else 2)
    assert server.messages[0].data == DATA


@pytest.mark.parametrize("how", ["ssl", "starttls"])
def test_a_certificate_of_an_unknown_authority_is_refused(certificate: Path, how: str) -> None:
    with ScriptedServer(offers=(*EVERYTHING, "STARTTLS"), certificate=certificate, implicit_tls=how == "ssl") as server:
        error = only(hand(server, verify=True, server_name="mail.example.com", **{how: True}))
    assert isinstance(error, TransientError)
    assert (error.reply.code, error.reply.status) == (454, "4.7.5")
    assert "certificate" in error.reply.text
    assert "MAIL" not in server.verbs


@pytest.mark.parametrize("how", ["ssl", "starttls"])
def test_a_certificate_of_an_authority_that_we_were_told_of(certificate: Path, how: str) -> None:
    options = {how: True, "verify": str(certificate)}
    with ScriptedServer(offers=(*EVERYTHING, "STARTTLS"), certificate=certificate, implicit_tls=how == "ssl") as server:
        assert hand(server, server_name="mail.example.com", **options) == {}
        error = only(hand(server, server_name="other.example.com", **options))
    assert error.reply.status == "4.7.5"


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    expired = self_signed(tmp_path, days=-1)
    with ScriptedServer(certificate=expired, implicit_tls=True) as server:
        error = only(hand(server, ssl=True, verify=str(expired), server_name="mail.example.com"))
    assert "expired" in error.reply.text


def test_elsewhere_certificates_are_checked_unless_told_not_to(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    monkeypatch.setattr(client_module.Wire, "local", False)
    with ScriptedServer(offers=(*EVERYTHING, "STARTTLS"), certificate=certificate) as server:
        assert only(hand(server, starttls=True)).reply.status == "4.7.5"
        assert hand(server, starttls=True, verify=False) == {}


def test_starttls_that_is_not_offered_sends_nothing() -> None:
    with ScriptedServer() as server:
        error = only(hand(server, starttls=True))
    assert isinstance(error, TransientError)
    assert error.reply.status == "4.7.4"
    assert server.verbs == ["EHLO"]


@pytest.mark.parametrize("answer", ["454 4.3.0 not now", "500 what?"])
def test_starttls_that_is_refused_sends_nothing(answer: str) -> None:
    with ScriptedServer({"STARTTLS": answer}, offers=("STARTTLS",)) as server:
        assert isinstance(only(hand(server, starttls=True)), TransientError)
    assert "MAIL" not in server.verbs


@pytest.mark.parametrize("trouble", ["500 what?", ("220 go on", b"this is no TLS\r\n", HANG), ("220 go on", DROP)])
def test_starttls_where_offered_goes_on_without_it_when_it_fails(trouble: object) -> None:
    with ScriptedServer({"STARTTLS": trouble}, offers=("PIPELINING", "STARTTLS")) as server:
        server.says["data"] = b""
        assert hand(server, starttls=None, timeout=1) == {}
    assert server.connections == 2


def test_starttls_where_offered_takes_any_certificate(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    monkeypatch.setattr(client_module.Wire, "local", False)
    with ScriptedServer(offers=("STARTTLS",), offers_under_tls=(), certificate=certificate) as server:
        assert hand(server, starttls=None) == {}
    assert server.verbs == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


def test_what_was_said_before_tls_began_is_not_believed(certificate: Path) -> None:
    """An attacker in the middle appends a reply in the clear (RFC 3207 §5)."""
    said = b"220 go on\r\n250 PIPELINING\r\n"
    with ScriptedServer({"STARTTLS": said}, offers=("STARTTLS",), certificate=certificate) as server:
        error = only(hand(server, starttls=True))
    assert error.reply.status == "4.5.0"


# -- AUTH


def auth_server(*mechanisms: str, **says: Any) -> ScriptedServer:
    """A server that wants to be logged in to."""
    return ScriptedServer({"AUTH": "235 2.7.0 welcome", "secret": "235 2.7.0 welcome", **says}, offers=(f"AUTH {' '.join(mechanisms)}",))


def test_auth_plain() -> None:
    with auth_server("LOGIN", "PLAIN") as server:
        assert hand(server, username="josé", password="wördpass") == {}
    verb, mechanism, secret = server.commands[1].split(" ")
    assert (verb, mechanism) == ("AUTH", "PLAIN")
    assert b64decode(secret) == "\0josé\0wördpass".encode()


def test_auth_login() -> None:
    with auth_server("LOGIN", AUTH="334 VXNlcm5hbWU6", secret=["334 UGFzc3dvcmQ6", "235 2.7.0 welcome"]) as server:
        assert hand(server, username="me", password="secret") == {}
    assert server.commands[1] == "AUTH LOGIN"
    assert [b64decode(line) for line in server.commands[2:4]] == [b"me", b"secret"]


def test_auth_cram_md5() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    with auth_server("CRAM-MD5", AUTH=f"334 {b64encode(challenge).decode()}") as server:
        assert hand(server, username="tim", password="tanstaaftanstaaf") == {}
    user, digest = b64decode(server.commands[2]).split(b" ")
    assert user == b"tim"
    assert digest == b"b913a602c7eda7a495b4e6e7334d3890", "the example of RFC 2195 §2"
    assert digest.decode() == hmac.new(b"tanstaaftanstaaf", challenge, hashlib.md5).hexdigest()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("answer", ["535 5.7.8 wrong password", "454 4.7.0 later", "334 PGFAYj4="])
def test_auth_that_fails_is_transient(mechanism: str, answer: str) -> None:
    """The password in the settings is wrong, and not the message."""
    with auth_server(mechanism, secret=answer, AUTH=answer if mechanism == "PLAIN" else "334 PGFAYj4=") as server:
        error = only(hand(server, username="me", password="secret"))
    assert type(error) is TransientError
    assert "MAIL" not in server.verbs


@pytest.mark.parametrize("mechanism", ["LOGIN", "CRAM-MD5"])
def test_auth_that_is_refused_at_once(mechanism: str) -> None:
    with auth_server(mechanism, AUTH="504 5.5.4 not that one") as server:
        assert only(hand(server, username="me", password="secret")).reply.code == 504
    assert server.commands[1:] == [f"AUTH {mechanism}"]


def test_a_challenge_that_is_none() -> None:
    with auth_server("CRAM-MD5", AUTH="334 !!!") as server:
        assert only(hand(server, username="me", password="secret")).reply.status == "4.5.0"


@pytest.mark.parametrize("mechanisms", [(), ("GSSAPI", "XOAUTH2")])
def test_no_way_to_log_in(mechanisms: tuple[str, ...]) -> None:
    with auth_server(*mechanisms) as server:
        error = only(hand(server, username="me", password="secret"))
    assert isinstance(error, TransientError)
    assert error.reply.status == "4.7.4"
    assert "MAIL" not in server.verbs


def test_a_password_is_not_sent_in_the_clear_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module.Wire, "local", False)
    with auth_server("PLAIN", "CRAM-MD5", AUTH="334 PGFAYj4=") as server:
        error = only(hand(server, username="me", password="secret"))
        assert error.reply.status == "4.7.11"
        assert server.verbs == ["EHLO"]
        assert hand(server, username="me", password="secret", insecure_auth=True) == {}
    assert "AUTH CRAM-MD5" in server.commands


def test_under_tls_a_password_may_be_sent(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    monkeypatch.setattr(client_module.Wire, "local", False)
    says = {"AUTH": "235 welcome"}
    with ScriptedServer(says, offers=("STARTTLS",), offers_under_tls=("AUTH PLAIN",), certificate=certificate) as server:
        options = {"starttls": True, "verify": str(certificate), "server_name": "mail.example.com"}
        assert hand(server, username="me", password="secret", **options) == {}


# -- the talk


def test_the_talk_is_shown_without_secrets() -> None:
    said: list[str] = []
    with auth_server("LOGIN", AUTH="334 VXNlcm5hbWU6", secret=["334 UGFzc3dvcmQ6", "235-2.7.0 wel\r\n235 2.7.0 come"]) as server:
        assert hand(server, username="joe", password="pssst", talk=said.append) == {}
    assert said == [
        "S: 220 fake.example.com ESMTP",
        "C: EHLO client.example.org",
        "S: 250-fake.example.com",
        "S: 250 AUTH LOGIN",
        "C: AUTH LOGIN",
        "S: 334 VXNlcm5hbWU6",
        "C: ****",
        "S: 334 UGFzc3dvcmQ6",
        "C: ****",
        "S: 235-2.7.0 wel",
        "S: 235 2.7.0 come",
        f"C: MAIL FROM:<{ME}>",
        "S: 250 2.1.0 OK",
        f"C: RCPT TO:<{YOU}>",
        "S: 250 2.1.5 OK",
        "C: DATA",
        "S: 354 go on",
        f"C: ({len(DATA)} octets of data)",
        "C: .",
        "S: 250 2.0.0 taken",
        "C: QUIT",
        "S: 221 2.0.0 bye",
    ]


def test_auth_plain_hides_its_secret_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lamson.smtp.client"), auth_server("PLAIN") as server:
        assert hand(server, username="joe", password="100%s", debug=1) == {}
    assert "C: AUTH PLAIN ****" in caplog.messages
    assert b64encode(b"\0joe\0100%s").decode() not in caplog.text


# -- wrong use


@pytest.mark.parametrize("options", [{"ssl": True, "starttls": True}, {"ssl": True, "lmtp": True}])
def test_options_that_cannot_be_together(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Client(**options)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_are_none(port: int) -> None:
    with pytest.raises(ValueError, match="port"):
        Client("127.0.0.1", port)


def test_the_time_outs_are_those_of_rfc_5321() -> None:
    times = Timeouts()
    assert (times.greeting, times.command, times.data, times.block, times.final) == (300, 300, 120, 180, 600)


# -- a real server


@contextmanager
def smtp_sink(*options: str) -> Iterator[tuple[str, int]]:
    """Postfix's test server, ready."""
    program, port = find_program("smtp-sink"), free_port()
    with subprocess.Popen([program, *options, f"127.0.0.1:{port}", "100"], stderr=subprocess.PIPE) as process:
        try:
            wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
            yield "127.0.0.1", port
        finally:
            process.terminate()
            process.wait(10)


def wait_for(attempt: Callable[[], None], seconds: float = 10.0) -> None:
    """Until it does not raise `OSError`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def sink_user() -> tuple[str, ...]:


    return ("-u", "nobody") if os.getuid() == 0 else ()


@pytest.mark.program("smtp-sink")
@pytest.mark.parametrize("options", [(), ("-p",), ("-e",), ("-8",), ("-L",)], ids=["all", "no pipelining", "HELO", "7 bit", "LMTP"])
def test_smtp_sink(options: tuple[str, ...]) -> None:
    with smtp_sink(*sink_user(), *options) as (host, port), Client(host, port, lmtp="-L" in options, timeout=10) as client:
        for number in range(50):
            assert client.send(ME, [f"{number}@example.com", YOU], DATA + b".\xe9\r\n" * number) == {}


@pytest.mark.program("smtp-sink")
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "."])
def test_smtp_sink_that_refuses(step: str) -> None:
    for switch, kind in (("-f", PermanentError), ("-r", TransientError)):
        with smtp_sink(*sink_user(), switch, step) as (host, port), Client(host, port, timeout=10) as client:
            for _ in range(3):
                assert type(only(client.send(ME, [YOU], DATA))) in (kind, ConnectionLost)


@pytest.mark.program("smtp-sink")
def test_smtp_sink_that_hangs_up() -> None:
    with smtp_sink(*sink_user(), "-q", "rcpt") as (host, port), Client(host, port, timeout=10) as client:
        assert isinstance(only(client.send(ME, [YOU], DATA)), TransientError)
