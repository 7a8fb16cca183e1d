"""Other people's programs talk to a receiver with routed handlers: swaks, and Postfix's smtp-source."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamson.errors import SMTPError
from lamson.mail import MailRequest
from lamson.routing import RoutingBase
from lamson.server import LMTPReceiver, SMTPReceiver
from tests.smtp.certificate import self_signed

#: How many messages smtp-source sends, and on how many connections at a time.
MANY, SESSIONS = 5000, 20


class Taken:
    """What the handlers were given: (recipient, raw bytes)."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._lock = threading.Lock()

    def add(self, message: MailRequest) -> None:
        with self._lock:
            self.messages.append((message.recipient, message.raw))

    @property
    def recipients(self) -> list[str]:
        return [recipient for recipient, _ in self.messages]


@pytest.fixture
def taken(router: RoutingBase) -> Taken:
    """A router that takes mail for test.com: `full@` is refused by its handler, the rest is remembered."""
    found = Taken()

    @router.route("(who)@test\\.com", who="[^@]+")
    def START(message: MailRequest, who: str = "") -> None:
        if who == "full":
            raise SMTPError(552, "Full", "5.2.2")
        found.add(message)

    return found


@pytest.fixture
def receiver(router: RoutingBase, taken: Taken, tmp_path: Path) -> Iterator[SMTPReceiver]:
    """Offers all that it can: TLS, and AUTH for ann."""
    certificate = self_signed(tmp_path)
    server = SMTPReceiver("127.0.0.1", 0, router=router, certificate=certificate, authenticate=lambda *pair: pair == ("ann", "secret"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def unix_path() -> Iterator[str]:
    """A short path: the system allows about a hundred characters."""
    folder = tempfile.mkdtemp(prefix="lmtp-")
    yield os.path.join(folder, "s")
    shutil.rmtree(folder)


@pytest.fixture
def swaks(need_program: Callable[[str], str], tmp_path: Path) -> Callable[..., str]:
    """Runs swaks and returns the talk. It must end with this status (0: everything was taken)."""
    program = need_program("swaks")

    def run(*words: object, status: int = 0) -> str:
        ran = subprocess.run([program, *map(str, words)], capture_output=True, stdin=subprocess.DEVNULL, cwd=tmp_path, timeout=60)
        talk = (ran.stdout + ran.stderr).decode("utf-8", "replace")
        assert ran.returncode == status, talk
        return talk

    return run


def at(server: SMTPReceiver) -> list[str]:
    return ["--server", f"127.0.0.1:{server.address[1]}", "--from", "ann@example.com"]


# -- swaks


def test_swaks_sends_a_message(swaks: Callable[..., str], receiver: SMTPReceiver, taken: Taken) -> None:
    talk = swaks(*at(receiver), "--to", "list@test.com")
    assert taken.recipients == ["list@test.com"]
    assert "<** " not in talk, "a line that swaks did not expect"


def test_swaks_with_pipelining_and_several_recipients(swaks: Callable[..., str], receiver: SMTPReceiver, taken: Taken) -> None:
    swaks(*at(receiver), "--pipeline", "--to", "a@test.com,b@test.com,c@test.com")
    assert taken.recipients == ["a@test.com", "b@test.com", "c@test.com"]


def test_swaks_is_told_of_each_recipient_that_is_not_ours(swaks: Callable[..., str], receiver: SMTPReceiver, taken: Taken) -> None:
    talk = swaks(*at(receiver), "--pipeline", "--to", "a@test.com,b@elsewhere.example,c@test.com")
    assert "550 5.1.1" in talk
    assert taken.recipients == ["a@test.com", "c@test.com"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_authenticates_under_starttls(swaks: Callable[..., str], receiver: SMTPReceiver, taken: Taken, mechanism: str) -> None:
    talk = swaks(*at(receiver), "--tls", "--auth", mechanism, "--auth-user", "ann", "--auth-password", "secret", "--to", "a@test.com")
    assert "TLS started" in talk
    assert "235 2.7.0" in talk
    assert taken.recipients == ["a@test.com"]


def test_swaks_with_a_wrong_password(swaks: Callable[..., str], receiver: SMTPReceiver, taken: Taken) -> None:
    wrong = ["--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "guess"]
    talk = swaks(*at(receiver), "--tls", *wrong, "--to", "a@test.com", status=28)
    assert "535 5.7.8" in talk
    assert taken.recipients == []


def test_swaks_over_tls_from_the_first_byte(swaks: Callable[..., str], router: RoutingBase, taken: Taken, tmp_path: Path) -> None:
    server = SMTPReceiver("127.0.0.1", 0, router=router, certificate=self_signed(tmp_path), implicit_tls=True)
    server.start()
    try:
        swaks(*at(server), "--tls-on-connect", "--to", "a@test.com")
    finally:
        server.stop()
    assert taken.recipients == ["a@test.com"]


def test_swaks_sends_eight_bits(swaks: Callable[..., str], receiver: SMTPReceiver, taken: Taken, tmp_path: Path) -> None:
    body = "Größe, 大きさ, размер\r\n.a dot in front\r\n..and two"
    (tmp_path / "eight").write_bytes(f"Subject: Grüße\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n".encode())
    swaks(*at(receiver), "--to", "a@test.com", "--data", "@eight")
    ((_, raw),) = taken.messages
    assert body.encode() in raw
    assert "Subject: Grüße".encode() in raw


def test_swaks_is_refused_by_a_handler(swaks: Callable[..., str], receiver: SMTPReceiver, taken: Taken) -> None:
    talk = swaks(*at(receiver), "--to", "full@test.com", status=26)
    assert "552 5.2.2 Full" in talk


def test_swaks_speaks_lmtp_over_tcp(swaks: Callable[..., str], router: RoutingBase, taken: Taken) -> None:
    server = LMTPReceiver("127.0.0.1", 0, router=router)
    server.start()
    try:
        talk = swaks(*at(server), "--protocol", "LMTP", "--to", "a@test.com")
    finally:
        server.stop()
    assert "LHLO" in talk
    assert taken.recipients == ["a@test.com"]


def test_swaks_speaks_lmtp_over_a_unix_socket(swaks: Callable[..., str], router: RoutingBase, taken: Taken, unix_path: str) -> None:
    server = LMTPReceiver(socket=unix_path, router=router)
    server.start()
    try:
        swaks("--socket", unix_path, "--protocol", "LMTP", "--from", "ann@example.com", "--to", "a@test.com")
    finally:
        server.stop()
    assert taken.recipients == ["a@test.com"]


# -- smtp-source


def smtp_source(program: str, *words: object) -> None:
    """Runs it and fails with what it complains of."""
    ran = subprocess.run([program, *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=110)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


@pytest.mark.parametrize("connections", ["kept", "new"])
def test_smtp_source_sends_thousands(need_program: Callable[[str], str], router: RoutingBase, taken: Taken, connections: str) -> None:
    """On kept connections (-d), and on a new one for each message."""
    program = need_program("smtp-source")
    server = SMTPReceiver("127.0.0.1", 0, router=router)
    server.start()
    try:
        kept = ["-d"] if connections == "kept" else []
        address = f"inet:127.0.0.1:{server.address[1]}"
        # -N numbers the recipients: 1u@..., 2u@... so that each message is told from the others
        smtp_source(program, *kept, "-N", "-s", SESSIONS, "-m", MANY, "-l", 2048, "-f", "ann@example.com", "-t", "u@test.com", address)
    finally:
        server.stop()
    assert len(taken.messages) == MANY
    assert len(set(taken.recipients)) == MANY


def test_smtp_source_speaks_lmtp_to_several_recipients(
    need_program: Callable[[str], str], router: RoutingBase, taken: Taken, unix_path: str
) -> None:
    program = need_program("smtp-source")
    server = LMTPReceiver(socket=unix_path, router=router)
    server.start()
    try:
        smtp_source(program, "-L", "-d", "-s", 5, "-m", 100, "-r", 3, "-f", "ann@example.com", "-t", "u@test.com", f"unix:{unix_path}")
    finally:
        server.stop()
    assert len(taken.messages) == 300
