"""The listener with real sockets and the real session: who is served while others are slow, what a stop does, caps, time-outs, TLS."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lamson.errors import ConfigError
from lamson.smtp.endpoint import bind
from lamson.smtp.listener import Listener, source
from lamson.smtp.session import Envelope, Session
from lamson.status import Reply, reply
from tests.cost import assert_costs_less
from tests.smtp.certificate import self_signed
from tests.smtp.talk import OK, PATIENCE, Gate, Office, Talker, wait_until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lamson-")]


# -- serving


def test_one_connection_brings_many_messages() -> None:
    with Office() as office, office.talker() as client:
        assert client.greeting == "220 server.example ESMTP Lamson"
        for number in range(20):
            assert client.mail(f"Subject: {number}\r\n\r\n".encode()) == "250 2.0.0 OK, kept"
        assert client.say("QUIT").startswith("221")
        assert client.ended
    assert [envelope.data for envelope in office.got] == [f"Subject: {number}\r\n\r\n".encode() for number in range(20)]
    assert {envelope.peer for envelope in office.got} == {"127.0.0.1"}
    assert office.in_flight == 0


def test_many_connections_bring_one_message_each() -> None:
    with Office() as office:
        for _ in range(50):
            with office.talker() as client:
                assert client.mail().startswith("250")
    assert len(office.got) == 50


def test_a_message_in_many_pieces_is_one_message() -> None:
    data = b"Subject: Pieces\r\n\r\n" + b"..dots\r\n" * 20
    with Office() as office, office.talker() as client:
        client.begin()
        for octet in data + b".\r\n":
            client.send(bytes([octet]))
        assert client.reply().startswith("250")
    assert office.got[0].data == data.replace(b"..dots", b".dots")


def test_a_large_message_arrives_whole() -> None:
    data = b"Subject: Large\r\n\r\n" + b"x" * 78 + b"\r\n" + b"0123456789abcdef\r\n" * 400_000
    with Office() as office, office.talker() as client:
        assert client.mail(data).startswith("250")
    assert office.got[0].data == data


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_pipelined_messages_are_answered_one_by_one(seconds: float) -> None:
    """Two hundred in one piece, handled at the wheel and in the pool: no recursion, no order lost."""

    def handle(envelope: Envelope) -> list[Reply]:
        if len(office.got) < 20:
            time.sleep(seconds)
        return [reply(250, f"OK {len(office.got)}")]

    message = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@server.example>\r\nBDAT 14 LAST\r\nSubject: x\r\n\r\n"
    with Office(handle) as office, office.talker() as client:
        assert client.say("EHLO here").startswith("250")
        client.send(message * 200)
        said = [client.reply() for _ in range(600)]
    assert said[2::3] == [f"250 2.0.0 OK {number + 1}" for number in range(200)]


def test_lmtp_answers_for_each_recipient() -> None:
    def handle(envelope: Envelope) -> list[Reply]:
        return [reply(250, rcpt) for rcpt in envelope.rcpt_tos]

    with Office(handle, lmtp=True) as office, office.talker() as client:
        assert client.say("LHLO here").startswith("250")
        client.say("MAIL FROM:<a@client.example>")
        client.say("RCPT TO:<b@server.example>")
        client.say("RCPT TO:<c@server.example>")
        assert client.say("DATA").startswith("354")
        assert client.say("Subject: Two\r\n\r\n.") == "250 2.0.0 b@server.example"
        assert client.reply() == "250 2.0.0 c@server.example"


def test_who_talks_before_the_greeting_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    office = Office(address=server.getsockname(), sock=server)
    with Talker(server.getsockname(), greeted=False) as client:
        client.send(b"EHLO here\r\n")
        with office:
            assert client.reply().startswith("554")
            assert client.ended


# -- who waits for whom


def test_slow_handlers_run_side_by_side() -> None:
    """Each waits until all of them have begun."""
    together = threading.Barrier(20)

    def handle(envelope: Envelope) -> list[Reply]:
        together.wait(PATIENCE)
        return [OK]

    with Office(handle, threads=20) as office:
        clients = [office.talker() for _ in range(20)]
        for client in clients:
            client.begin()
        for client in clients:
            client.send(b"Subject: x\r\n\r\n.\r\n")
        assert {client.reply() for client in clients} == {"250 2.0.0 OK, kept"}
        for client in clients:
            client.sock.close()


def test_a_handler_that_hangs_keeps_nobody_waiting(gate: Gate) -> None:
    def handle(envelope: Envelope) -> Sequence[Reply]:
        return gate(envelope) if envelope.data.startswith(b"Subject: Hang") else [OK]

    with Office(handle) as office, office.talker() as stuck:
        stuck.begin()
        stuck.send(b"Subject: Hang\r\n\r\n.\r\n")
        gate.entered()
        for _ in range(5):
            with office.talker() as other:
                assert other.mail().startswith("250")
        assert stuck.quiet
        gate.open.set()
        assert stuck.reply().startswith("250")


def test_a_password_check_that_hangs_keeps_nobody_waiting() -> None:
    """`feed` asks the application, too."""
    inside, go_on = threading.Event(), threading.Event()

    def authenticate(user: str, password: str) -> bool:
        inside.set()
        return go_on.wait(PATIENCE)

    with Office(authenticate=authenticate) as office, office.talker() as stuck:
        stuck.say("EHLO here")
        stuck.send(b"AUTH PLAIN AGEAYg==\r\nNOOP\r\n")
        assert inside.wait(PATIENCE)
        with office.talker() as other:
            assert other.mail().startswith("250")
        go_on.set()
        assert stuck.reply().startswith("235")
        assert stuck.reply().startswith("250")


def test_no_more_handlers_run_at_once_than_there_are_threads(gate: Gate) -> None:
    with Office(gate, threads=3) as office:
        clients = [office.talker() for _ in range(8)]
        for client in clients:
            client.begin()
            client.send(b"Subject: x\r\n\r\n.\r\n")
        for _ in range(4):  # three in the pool, and the one that the deputy took the wheel from
            gate.entered()
        assert not gate.inside.acquire(timeout=0.05)
        gate.open.set()
        assert {client.reply() for client in clients} == {"250 2.0.0 OK, kept"}
        for client in clients:
            client.sock.close()
    assert len(office.got) == 8


def test_a_thousand_idle_connections_cost_no_threads_and_little_memory() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 2300:
        pytest.skip(f"needs 2,300 open files, and may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4000)) if hard > 0 else 4000, hard))
    before = resident_octets()
    try:
        with Office(connections=1100) as office:
            idle = [office.talker() for _ in range(1000)]
            assert len(our_threads()) <= 3
            with office.talker() as client:
                assert client.mail(b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n").startswith("250")
            grown = resident_octets() - before
            for client in idle:
                client.sock.close()
            with office.talker() as client:
                assert client.mail().startswith("250")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert grown < 40 * 1024 * 1024, "for server and clients together"


def resident_octets() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- slow and silent clients


def test_an_idle_client_hears_421() -> None:
    with Office(idle_seconds=0.1) as office, office.talker() as client:
        assert client.reply().startswith("421 4.4.2")
        assert client.ended


def test_a_command_that_comes_octet_by_octet_gains_no_time() -> None:
    with Office(idle_seconds=0.7) as office, office.talker() as slow, office.talker() as other:
        begun = time.monotonic()
        with pytest.raises((ConnectionError, AssertionError)):
            while time.monotonic() < begun + PATIENCE:
                slow.send(b"N")
                assert other.say("NOOP").startswith("250")
                assert slow.quiet, "it has said something"
                time.sleep(0.02)
        assert 0.6 < time.monotonic() - begun < 5
        assert slow.reply().startswith("421 4.4.2")


def test_a_message_has_its_own_time() -> None:
    with Office(idle_seconds=60, data_seconds=0.3) as office, office.talker() as client:
        client.begin()
        client.send(b"Subject: Half of")
        assert client.reply().startswith("421 4.4.2")
        assert client.ended
    assert office.in_flight == 0


def test_a_client_that_never_reads_is_closed_and_does_not_fill_memory() -> None:
    with Office(send_seconds=0.3, commands=10**9) as office, office.talker() as deaf:
        deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        before = resident_octets()
        with pytest.raises(ConnectionError):
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                deaf.send(b"HELP\r\n" * 10000)
        assert resident_octets() - before < 60 * 1024 * 1024
        with office.talker() as other:
            assert other.mail().startswith("250")
        wait_until(lambda: not office.listener._connections)


def test_a_client_that_goes_in_the_middle_of_a_message_leaves_nothing() -> None:
    with Office() as office:
        with office.talker() as client:
            client.begin()
            client.send(b"Subject: Half")
            wait_until(lambda: office.in_flight)
        wait_until(lambda: not office.listener._connections)
    assert office.got == []
    assert office.in_flight == 0


def test_a_client_that_resets_while_its_message_is_handled(gate: Gate) -> None:
    with Office(gate) as office, office.talker() as client:
        client.begin()
        client.send(b"Subject: x\r\n\r\n.\r\n")
        gate.entered()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sock.close()
        gate.open.set()
        wait_until(lambda: not office.listener._connections)
        with office.talker() as other:
            assert other.mail().startswith("250")
    assert office.in_flight == 0


def test_a_client_that_resets_right_behind_its_message(caplog: pytest.LogCaptureFixture) -> None:
    """The replies before the message's cannot be written, and the handler is left to the pool."""
    message = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@server.example>\r\nBDAT 6 LAST\r\nA: b\r\n"
    with Office() as office:
        for count in range(1, 6):
            with office.talker() as client:
                client.say("EHLO here")
                office.listener._wheel._pace = 1.0
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.send(message)
            wait_until(lambda: not office.listener._connections)
            wait_until(lambda count=count: len(office.got) == count)
    assert office.in_flight == 0
    assert not caplog.records


def test_what_is_sent_while_a_message_is_handled_waits(gate: Gate) -> None:
    with Office(gate) as office, office.talker() as client:
        client.begin()
        client.send(b"Subject: x\r\n\r\n.\r\n")
        gate.entered()
        client.send(b"NOOP\r\nQUIT\r\n")
        with office.talker() as other:
            assert other.say("NOOP").startswith("250")
        assert client.quiet
        gate.open.set()
        assert client.reply().startswith("250 2.0.0 OK, kept")
        assert client.reply().startswith("250")
        assert client.reply().startswith("221")
        assert client.ended


def test_the_last_reply_is_not_lost_when_the_client_talks_on() -> None:
    """Closing with octets unread sends a reset, which may overtake the reply."""
    with Office() as office:
        for _ in range(20):
            with office.talker() as client:
                client.send(b"QUIT\r\n" + b"NOOP\r\n" * 20000)
                assert client.reply().startswith("221")


def test_waiting_for_a_handler_costs_nothing(gate: Gate) -> None:
    """Though there is more to read, and though the client has gone."""
    with Office(gate) as office, office.talker() as client, office.talker() as gone:
        for each in (client, gone):
            each.begin()
            each.send(b"Subject: x\r\n\r\n.\r\nNOOP\r\n")
            gate.entered()
            each.send(b"NOOP\r\n")
        gone.sock.close()
        assert_costs_less(0.15, lambda: time.sleep(0.3))  # what spins takes all of it


# -- handlers that fail


def test_a_handler_that_raises_costs_its_client_451_and_nobody_else_anything(caplog: pytest.LogCaptureFixture) -> None:
    def handle(envelope: Envelope) -> Sequence[Reply]:
        if len(office.got) == 1:
            raise RuntimeError("the secret of the house")
        return [OK]

    with Office(handle) as office, office.talker() as other:
        with office.talker() as client:
            answer = client.mail()
            assert answer.startswith("451")
            assert "secret" not in answer
            assert client.ended
        assert other.mail().startswith("250")
    assert "the secret of the house" in caplog.text
    assert office.in_flight == 0


def test_a_handler_that_raises_in_the_pool(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    def handle(envelope: Envelope) -> Sequence[Reply]:
        gate(envelope)
        raise RuntimeError("later")

    with Office(handle) as office:
        clients = [office.talker() for _ in range(3)]
        for client in clients:
            client.begin()
            client.send(b"Subject: x\r\n\r\n.\r\n")
            gate.entered()
        gate.open.set()
        assert [client.reply()[:3] for client in clients] == ["451"] * 3
        for client in clients:
            client.sock.close()


def test_replies_that_do_not_fit_cost_the_client_451(caplog: pytest.LogCaptureFixture) -> None:
    with Office(lambda envelope: [OK, OK]) as office, office.talker() as client:
        assert client.mail().startswith("451")
        assert client.ended


def test_a_session_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    def no_session(peer: str, tls: bool) -> Session:
        raise RuntimeError("no session today")

    listener = Listener(("127.0.0.1", 0), no_session, lambda envelope: [OK])
    listener.start()
    try:
        with Talker(listener.address, greeted=False) as client:
            assert client.ended
    finally:
        listener.stop()
    assert "no session today" in caplog.text


def test_a_handler_over_its_time_is_given_up(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with Office(gate, handler_seconds=0.2) as office, office.talker() as client:
        client.begin()
        client.send(b"Subject: x\r\n\r\n.\r\n")
        assert client.reply().startswith("451 4.3.2")
        assert client.ended
        gate.open.set()
        with office.talker() as other:
            assert other.mail().startswith("250")
    assert "not handled in time" in caplog.text
    assert office.in_flight == 0


def test_a_message_whose_time_ends_while_it_waits_for_a_thread_is_not_handled(gate: Gate) -> None:
    with Office(gate, handler_seconds=0.3, threads=1) as office:
        clients = [office.talker() for _ in range(6)]
        for client in clients:
            client.begin()
            client.send(b"Subject: x\r\n\r\n.\r\n")
        assert {client.reply()[:9] for client in clients} == {"451 4.3.2"}
        gate.open.set()
        for client in clients:
            client.sock.close()
    assert len(office.got) == 2, "their clients will send them again"


def test_a_password_check_over_its_time_ends_the_connection() -> None:
    go_on = threading.Event()
    with Office(authenticate=lambda user, password: go_on.wait(PATIENCE), handler_seconds=0.2) as office, office.talker() as client:
        client.say("EHLO here")
        client.send(b"AUTH PLAIN AGEAYg==\r\n")
        assert client.ended
        go_on.set()
        with office.talker() as other:
            assert other.mail().startswith("250")


# -- caps


def test_connections_in_all() -> None:
    with Office(connections=2) as office, office.talker() as first, office.talker():
        with office.talker() as third:
            assert third.greeting.startswith("421 4.3.2")
            assert third.ended
        assert first.say("QUIT").startswith("221")
        first.sock.close()
        wait_until(lambda: len(office.listener._connections) == 1)
        with office.talker() as fourth:
            assert fourth.greeting.startswith("220")


def test_clients_are_counted_by_address_and_of_ipv6_by_network() -> None:
    found = [source(peer) for peer in ("192.0.2.7", "2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1", "fe80::1%eth0", "")]
    assert found == ["192.0.2.7", "2001:db8::/64", "2001:db8::/64", "2001:db8:0:1::/64", "fe80::/64", ""]


def test_connections_of_one_peer() -> None:
    with Office(per_peer=1) as office:
        with office.talker() as first:
            with office.talker() as second:
                assert second.greeting.startswith("421 4.7.0")
                assert second.ended
            assert first.mail().startswith("250")
        wait_until(lambda: not office.listener._connections)
        with office.talker() as third:
            assert third.greeting.startswith("220")


def test_a_refusal_on_a_tls_port_says_nothing_in_the_clear(certificate: Path) -> None:
    with Office(connections=0, certificate=certificate, implicit_tls=True) as office, office.talker(greeted=False) as client:
        assert client.ended


class Exhausted(socket.socket):
    """A listening socket whose process has no descriptors left, for a while."""

    failures = 3

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_out_of_descriptors_is_a_pause_and_not_the_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamson.smtp.listener.TICK", 0.05)
    sock = Exhausted()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    with Office(sock=sock) as office:
        begun = time.monotonic()
        with office.talker() as client:
            assert time.monotonic() - begun > 0.1
            assert client.mail().startswith("250")
    assert caplog.text.count("Too many open files") == 3


# -- stopping


def test_stop_of_a_listener_that_nobody_talks_to() -> None:
    office = Office()
    with office:
        assert our_threads()
    assert not our_threads()
    office.listener.stop()  # once more does no harm


def test_a_stop_in_the_middle_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was seen by the end of the turn and not by its beginning: the wheel ended, and the port stayed open."""
    tick, ticking, go_on = Listener._tick, threading.Event(), threading.Event()

    def slow_tick(self: Listener, now: float) -> None:
        tick(self, now)
        ticking.set()
        assert go_on.wait(PATIENCE)

    monkeypatch.setattr(Listener, "_tick", slow_tick)
    with Office() as office:
        assert ticking.wait(PATIENCE)
        stopping = threading.Thread(target=office.listener.stop)
        stopping.start()
        wait_until(lambda: office.listener._stopping)
        go_on.set()
        stopping.join()
        assert not office.listens()


def test_stop_of_a_listener_that_was_never_started() -> None:
    Office().listener.stop()


def test_stop_ends_idle_clients_with_421() -> None:
    with Office() as office, office.talker() as new, office.talker() as greeted, office.talker() as half:
        greeted.say("EHLO here")
        half.say("EHLO here")
        half.send(b"MAIL FR")
        wait_until(lambda: len(office.listener._connections) == 3)
        begun = time.monotonic()
        office.stopping().join()
        assert time.monotonic() - begun < 3
        for client in (new, greeted, half):
            assert client.reply().startswith("421 4.3.2")
            assert client.ended


@pytest.mark.parametrize("said", [1, 2, 3])
def test_stop_lets_a_transaction_be_finished(said: int) -> None:
    lines = ["MAIL FROM:<a@client.example>", "RCPT TO:<b@server.example>", "DATA"]
    with Office() as office, office.talker() as client:
        client.say("EHLO here")
        for line in lines[:said]:
            client.say(line)
        stopping = office.stopping()
        for line in lines[said:]:
            assert client.say(line)[0] in "23"
        client.send(b"Subject: Last\r\n\r\n.\r\n")
        assert client.reply().startswith("250")
        assert client.reply().startswith("421 4.3.2")
        assert client.ended
        stopping.join()
    assert len(office.got) == 1
    assert not our_threads()


def test_stop_refuses_a_message_that_takes_too_long() -> None:
    with Office() as office, office.talker() as client:
        client.begin()
        client.send(b"Subject: Never e")
        office.stopping(deadline=0.2).join()
        assert client.reply().startswith("421 4.3.2")
        assert client.ended
    assert office.got == []


def test_a_callable_that_raises_ends_its_client_and_says_no_more(caplog: pytest.LogCaptureFixture) -> None:
    def authenticate(user: str, password: str) -> bool:
        raise KeyError("secret")

    with Office(authenticate=authenticate) as office, office.talker() as client:
        client.say("EHLO here")
        assert client.say("AUTH PLAIN AGEAYg==") == "421 4.3.0 Local error, try again later"
        assert client.ended
    assert "KeyError" in caplog.text


def test_stop_waits_for_a_handler_and_answers(gate: Gate) -> None:
    with Office(gate) as office, office.talker() as client:
        client.begin()
        client.send(b"Subject: x\r\n\r\n.\r\nMAIL FROM:<c@client.example>\r\n")
        gate.entered()
        stopping = office.stopping()
        gate.open.set()
        assert client.reply().startswith("250 2.0.0 OK, kept")
        client.send(b"RSET\r\n")
        assert {client.reply()[:3], client.reply()[:3]} == {"250"}
        assert client.reply().startswith("421")
        stopping.join()
    assert not our_threads()


def test_stop_answers_all_messages_that_were_pipelined() -> None:
    message = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@server.example>\r\nBDAT 14 LAST\r\nSubject: x\r\n\r\n"

    def handle(envelope: Envelope) -> list[Reply]:
        time.sleep(0.02)
        return [OK]

    with Office(handle) as office, office.talker() as client:
        client.say("EHLO here")
        client.send(message * 10)
        wait_until(lambda: office.got)
        office.stopping().join()
        said = []
        while one := client.reply():
            said.append(one)
    taken = sum(one.endswith("OK, kept") for one in said)
    assert taken == len(office.got), "what was handled was answered, and nothing else was"
    assert said[-1].startswith("421")


def test_stop_gives_a_handler_up_that_does_not_end(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with Office(gate) as office, office.talker() as client:
        client.begin()
        client.send(b"Subject: x\r\n\r\n.\r\n")
        gate.entered()
        begun = time.monotonic()
        office.stopping(deadline=0.2).join()
        assert time.monotonic() - begun < 6
        assert client.reply().startswith("451")
        assert client.ended
    assert "is left behind" in caplog.text
    gate.open.set()
    wait_until(lambda: not our_threads())


def test_nothing_that_heard_250_is_dropped_by_a_stop() -> None:
    """Ten clients send as fast as they can while the listener stops; what they heard and what was handled is the same."""
    heard: list[str] = []

    def send_on(client: Talker) -> None:
        try:
            while (answer := client.mail()).startswith("250"):
                heard.append(answer)
        except (AssertionError, OSError):
            pass  # 421 came in the middle

    with Office() as office:
        clients = [office.talker() for _ in range(10)]
        threads = [threading.Thread(target=send_on, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(heard) > 50)
        office.listener.stop()
        for thread in threads:
            thread.join()
        for client in clients:
            client.sock.close()
    assert len(heard) == len(office.got)


# -- TLS


def test_starttls(certificate: Path) -> None:
    with Office(certificate=certificate) as office, office.talker() as client:
        assert "STARTTLS" in client.say("EHLO here")
        assert client.say("STARTTLS").startswith("220")
        client.start_tls(certificate)
        assert client.mail().startswith("250")
        assert client.say("QUIT").startswith("221")
        assert client.ended, "a TLS farewell, no torn line"
    assert office.got[0].tls


def test_what_is_injected_before_starttls_is_never_obeyed(certificate: Path) -> None:
    """CVE-2011-0411."""
    with Office(certificate=certificate) as office, office.talker() as client:
        client.say("EHLO here")
        client.send(b"STARTTLS\r\nMAIL FROM:<evil@client.example>\r\n")
        assert client.reply().startswith("220")
        client.start_tls(certificate)
        assert client.say("NOOP").startswith("250")
        assert client.say("RCPT TO:<b@server.example>").startswith("503")


def test_implicit_tls_with_a_large_message(certificate: Path) -> None:
    data = b"Subject: Large\r\n\r\n" + b"0123456789abcdef\r\n" * 200_000
    with Office(certificate=certificate, implicit_tls=True) as office, office.talker(tls=certificate) as client:
        assert client.greeting.startswith("220")
        assert client.mail(data).startswith("250")
        assert client.mail().startswith("250")
    assert office.got[0].data == data


def test_who_says_nothing_in_the_handshake_is_closed_and_keeps_nobody_waiting(certificate: Path) -> None:
    with Office(certificate=certificate, implicit_tls=True, send_seconds=1) as office, office.talker(greeted=False) as silent:
        with office.talker(tls=certificate) as client:
            assert client.mail().startswith("250")
        assert silent.ended


def test_who_speaks_plainly_to_a_tls_port_is_closed(certificate: Path) -> None:
    with Office(certificate=certificate, implicit_tls=True) as office, office.talker(greeted=False) as client:
        client.send(b"EHLO here\r\n" * 20)
        with pytest.raises((ConnectionError, UnicodeDecodeError, AssertionError)):  # it may get a TLS alert
            assert not client.ended
        with office.talker(tls=certificate) as other:
            assert other.mail().startswith("250")


def test_old_tls_is_not_spoken(certificate: Path) -> None:
    with Office(certificate=certificate, implicit_tls=True) as office, office.talker(greeted=False) as client:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.sock = context.wrap_socket(client.sock)


def test_a_certificate_that_changed_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shown = self_signed(tmp_path, "old.example.com")
    new = self_signed(tmp_path, "new.example.com")
    old = shown.read_bytes()
    with Office(certificate=shown, implicit_tls=True) as office:
        with office.talker(tls=shown):
            pass
        new.replace(shown)
        with office.talker(tls=shown):
            pass
        shown.write_bytes(b"broken")
        with pytest.raises(ssl.SSLError), office.talker(tls=_written(tmp_path, old)):
            pass
    assert "was read again" in caplog.text
    assert "stays in use" in caplog.text


def _written(folder: Path, certificate: bytes) -> Path:
    path = folder / "written.pem"
    path.write_bytes(certificate)
    return path


def test_a_certificate_that_is_missing_or_broken_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pem cannot be read: No such file"):
        Office(certificate=tmp_path / "nowhere.pem")
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"broken\.pem .*cannot be used"):
        Office(certificate=broken)
    with pytest.raises(TypeError, match="needs a certificate"):
        Office(implicit_tls=True)


# -- addresses


def test_a_port_that_is_taken_is_told_with_the_remedy() -> None:
    with Office() as office:
        other = Office(address=office.listener.address)
        with pytest.raises(ConfigError, match=r"listen on 127\.0\.0\.1:\d+: another program has this port\. .*lamson stop.*another port"):
            other.listener.start()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (("no.such.host.invalid", 0), "'no.such.host.invalid' is no known host"),
        (("192.0.2.1", 0), "does not have that address"),
        (("127.0.0.1", 70000), "a port is a number from 0 to 65535"),
    ],
)
def test_an_address_that_cannot_be_had(address: tuple[str, int], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        bind(address)


def test_a_listener_is_started_once() -> None:
    with Office() as office, pytest.raises(TypeError, match="once"):
        office.listener.start()


def test_ipv6() -> None:
    try:
        sock = bind(("::1", 0))
    except ConfigError:
        pytest.skip("needs IPv6")
    with Office(sock=sock) as office, office.talker() as client:
        assert client.mail().startswith("250")
    assert office.got[0].peer == "::1"


def test_both_kinds_of_ip_on_one_socket() -> None:
    try:
        sock = bind(("::", 0))
    except ConfigError:
        pytest.skip("needs IPv6")
    with Office(sock=sock) as office, Talker(("127.0.0.1", sock.getsockname()[1])) as client:
        assert client.mail().startswith("250")
    assert office.got[0].peer == "127.0.0.1"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A short one: the path of a unix socket has 107 octets at most."""
    folder = Path("/tmp") / f"lamson-{os.getpid()}-{tmp_path.name[-20:]}"
    folder.mkdir()
    yield str(folder / "lmtp")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def test_a_unix_socket(path: str) -> None:
    with Office(address=path, mode=0o600) as office:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with Talker(path) as client:
            assert client.mail().startswith("250")
        assert office.listener.address == path
    assert office.got[0].peer == ""
    assert not os.path.exists(path)


def test_the_file_of_a_server_that_is_no_more_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with Office(address=path), Talker(path) as client:
        assert client.mail().startswith("250")


def test_the_file_of_a_server_that_lives_is_not(path: str) -> None:
    with Office(address=path):
        with pytest.raises(ConfigError, match="another program does"):
            bind(path)
        with Talker(path) as client:
            assert client.mail().startswith("250")


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(ConfigError, match="there is a file of that name"):
        bind(path)
    assert Path(path).read_text() == "precious"


def test_a_unix_socket_in_no_folder() -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        bind("/nowhere/lmtp")


# -- the load generator of Postfix


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("seconds", [0, 0.002])
def test_smtp_source(kept: bool, seconds: float, need_program: Callable[[str], str]) -> None:
    def handle(envelope: Envelope) -> list[Reply]:
        if seconds:
            time.sleep(seconds)
        return [OK]

    command = [need_program("smtp-source"), "-s", "20", "-m", "1000", "-l", "2048", "-f", "a@client.example", "-t", "b@server.example"]
    with Office(handle) as office:
        where = ":".join(map(str, office.listener.address))
        done = subprocess.run([*command, *(["-d"] if kept else []), where], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(office.got) == 1000
    assert {len(envelope.data) for envelope in office.got} <= set(range(1900, 2300))
