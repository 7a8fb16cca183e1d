"""rspamd and spamd: the real ones, and servers that answer what no server should."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lamson.errors import ConfigError, ScorerError
from lamson.mail import MailRequest
from lamson.queue import Queue
from lamson.rspamd import RspamdScorer
from lamson.scorer import Scorer
from lamson.spam import Filter, spam_filter
from lamson.spamd import SpamdScorer
from tests import servers

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def request(body: str = "Hello there", subject: str = "Hello", peer: Any = "127.0.0.1") -> MailRequest:
    head = "From: Ann <ann@example.com>\r\nTo: <post@test.com>\r\nDate: Mon, 01 Jan 2024 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    head += f"Message-ID: <20240101100000.12345@mail.example.com>\r\nSubject: {subject}\r\n"
    return MailRequest(peer, "ann@example.com", "post@test.com", f"{head}\r\n{body}\r\n".encode())


@contextmanager
def running(kind: type[servers.Server]) -> Iterator[servers.Server]:
    try:
        server = kind()
    except servers.NotInstalled as missing:
        (pytest.fail if "LAMSON_CI" in os.environ else pytest.skip)(f"needs {missing}, which is not installed")
    try:
        server.start()
        yield server
    finally:
        server.remove()


# -- the real ones


@pytest.fixture(scope="module")
def rspamd() -> Iterator[servers.Server]:
    with running(servers.Rspamd) as server:
        yield server


@pytest.fixture(scope="module")
def spamd() -> Iterator[servers.Server]:
    with running(servers.Spamd) as server:
        yield server


def test_rspamd(rspamd: servers.Server) -> None:
    scorer = RspamdScorer(rspamd.url)
    assert scorer.score(request()).label == "ham"
    verdict = scorer.score(request("Welcome to our casino"))
    assert (verdict.label, verdict.score) == ("spam", 7.0)
    assert str(verdict) == "spam, 7.000 by rspamd: add header, LAMSON_CASINO +7.00"
    assert scorer.score(request(GTUBE)).label == "spam"


def test_spamd(spamd: servers.Server) -> None:
    scorer = SpamdScorer(port=spamd.port)
    assert scorer.score(request()).label == "ham"
    unsure = scorer.score(request("Welcome to our casino"))
    assert (unsure.label, "LAMSON_CASINO" in unsure.reasons) == ("unsure", True)
    verdict = scorer.score(request(GTUBE))
    assert verdict.label == "spam"
    assert str(verdict).startswith("spam, 1000.000 by spamd: 5 is spam, ")
    assert "GTUBE" in verdict.reasons


def test_a_real_server_before_a_handler(rspamd: servers.Server, tmp_path: Path) -> None:
    config = {"scorer": "rspamd", "url": rspamd.url}
    guarded = spam_filter(None, config, tmp_path / "spam")(lambda message: "handled")
    queue = Queue(tmp_path / "spam")
    assert guarded(request()) == "handled"
    assert guarded(request("the casino")) is None
    (key,) = queue.keys()
    assert (queue.envelope(key) or {})["reason"] == "spam, 7.000 by rspamd: add header, LAMSON_CASINO +7.00"


def test_a_server_that_was_killed_lets_mail_pass(tmp_path: Path) -> None:
    with running(servers.Spamd) as server:
        guarded = spam_filter(None, {"scorer": "spamd", "port": server.port}, tmp_path / "spam")(lambda message: message.verdict.label)
        assert guarded(request()) == "ham"
        server.stop()
        assert guarded(request(GTUBE)) == "unsure"


# -- servers that answer what no server should


@contextmanager
def answering(answer: bytes | None, heard: list[bytes] | None = None) -> Iterator[int]:
    """A server that reads a request and answers this; None, and it is silent until the other side leaves. Gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(0.3 if answer is not None else 10)
            said = b""
            try:
                while piece := connection.recv(65536):
                    said += piece
            except TimeoutError:
                pass
            if heard is not None:
                heard.append(said)
            if answer is not None:
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(10)
        listener.close()


def http(body: object, status: str = "200 OK") -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(text), text)


def rspamd_at(port: int) -> Scorer:
    return RspamdScorer(f"http://127.0.0.1:{port}", seconds=0.5)


def spamd_at(port: int) -> Scorer:
    return SpamdScorer(port=port, seconds=0.8)


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (rspamd_at, None),
        (rspamd_at, b""),
        (rspamd_at, b"\0\xff\n\n"),
        (rspamd_at, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        (rspamd_at, http(b"<html>")),
        (rspamd_at, http([])),
        (rspamd_at, http(b"[" * 100_000)),
        (rspamd_at, http({"action": "reject"})),
        (rspamd_at, http({"action": "reject", "score": "many", "symbols": {}})),
        (rspamd_at, http({"action": ["reject"], "score": 1})),
        (rspamd_at, http({"action": "reject", "score": 9, "symbols": {"X": 1}})),
        (rspamd_at, http({"error": "no"}, "403 Forbidden")),
        (spamd_at, None),
        (spamd_at, b""),
        (spamd_at, b"\0\xff\n\n"),
        (spamd_at, b"SPAMD/1.1 0 EX_OK\r\n\r\n"),
        (spamd_at, b"SPAMD/1.1 76 Bad header line: 42\r\n\r\n"),
        (spamd_at, b"SPAMD/1.1 0 EX_OK\r\nSpam: Perhaps ; 1.0 / 5.0\r\n\r\n"),
        (spamd_at, b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1.0.0 / 5..0\r\n\r\n"),
    ],
)
def test_what_is_no_answer(make: Callable[[int], Scorer], answer: bytes | None) -> None:
    with answering(answer) as port, pytest.raises(ScorerError, match=str(port)):
        make(port).score(request())


@pytest.mark.parametrize("make", [rspamd_at, spamd_at])
def test_nobody_there(make: Callable[[int], Scorer]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ScorerError, match="refused"):
            make(taken.getsockname()[1]).score(request())


@pytest.mark.parametrize(
    ("action", "label"),
    [
        ("no action", "ham"),
        ("greylist", "unsure"),
        ("soft reject", "unsure"),
        ("add header", "spam"),
        ("reject", "spam"),
        ("new one", "unsure"),
    ],
)
def test_the_actions_of_rspamd(action: str, label: str) -> None:
    symbols = {"WEAK": {"score": 0.1}, "STRONG": {"score": 5.0}, "GOOD": {"score": -2.0}, "NOTHING": {"score": 0.0}}
    with answering(http({"action": action, "score": 3.1, "symbols": symbols})) as port:
        verdict = rspamd_at(port).score(request())
    assert (verdict.label, verdict.score) == (label, 3.1)
    assert verdict.reasons == (action, "STRONG +5.00", "GOOD -2.00", "WEAK +0.10")


def test_what_rspamd_is_told() -> None:
    heard: list[bytes] = []
    message = request(peer=("8.8.8.8", 4711))
    with answering(http({"action": "no action", "score": 0}), heard) as port:
        RspamdScorer(f"http://127.0.0.1:{port}/behind/", password="secret", seconds=2).score(message)
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /behind/checkv2 HTTP/1.1\r\n")
    assert {b"From: ann@example.com", b"Rcpt: post@test.com", b"IP: 8.8.8.8", b"Password: secret"} <= set(head.split(b"\r\n"))
    assert body == message.raw
    with answering(http({"action": "no action", "score": 0}), heard) as port:
        rspamd_at(port).score(request(peer="192.168.0.7"))
    assert b"IP:" not in heard[1]


def test_what_spamd_is_told(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with answering(b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -1.9 / 5.0\r\n\r\nALL_TRUSTED\r\n", heard) as port:
        verdict = SpamdScorer(port=port, user="joe").score(request())
    assert (verdict.label, verdict.score, verdict.reasons) == ("ham", -1.9, ("5 is spam", "ALL_TRUSTED"))
    message = request().raw
    assert heard == [b"SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\nUser: joe\r\n\r\n%s" % (len(message), message)]


def test_spamd_is_not_asked_about_what_is_long() -> None:
    verdict = SpamdScorer(port=1, largest=100).score(request())
    assert (verdict.label, verdict.reasons) == ("unsure", ("not looked at: longer than 100 octets",))


def test_spamd_at_a_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match="no.sock"):
        SpamdScorer(socket=str(tmp_path / "no.sock")).score(request())


@pytest.mark.parametrize(
    "config",
    [
        {"scorer": "rspamd", "url": "127.0.0.1:11333"},
        {"scorer": "rspamd", "password": "schlüssel"},
        {"scorer": "rspamd", "password": "x\r\nIP: 127.0.0.1"},
        {"scorer": "spamd", "user": "joe\r\nX: y"},
        {"scorer": "spamd", "spam_cutoff": 1},
    ],
)
def test_settings_that_are_wrong(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Filter(None, config)


def test_they_are_taught_elsewhere() -> None:
    judge = Filter(None, {"scorer": "rspamd"})
    with pytest.raises(TypeError, match="with its own tools"):
        judge.train_spam(request())
    with pytest.raises(TypeError, match="with its own tools"):
        judge.untrain_ham(request())
