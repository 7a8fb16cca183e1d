"""Every transcript over a real port: the same conversations through sockets, threads and TLS."""

from __future__ import annotations

import select
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from lamson.smtp.listener import Connection, Listener
from lamson.smtp.session import Session
from tests.smtp.certificate import self_signed
from tests.transcripts import play

#: Seconds that a reply may take, and that silence is listened to.
PATIENCE, SILENCE = 10.0, 0.05


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("certificate"))


class Trickle:
    """A socket whose client takes one octet at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes) -> int:
        return self.sock.send(data[:1])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class TricklingListener(Listener):
    """Its clients take one octet at a time."""

    def _greet(self, connection: Connection) -> None:
        connection.sock = Trickle(connection.sock)  # type: ignore[assignment]
        super()._greet(connection)


class PortPlayer:
    """A client of its own server, which lives as long as the conversation. What comes early is sent before the server accepts."""

    def __init__(self, script: play.Script, certificate: Path, kind: type[Listener] = Listener) -> None:
        self.script = script
        self.certificate = certificate
        server = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(server.getsockname(), timeout=PATIENCE)
        if "early" in script.marks:
            self.client.sendall(script.steps[0].octets)
        rules = script.rules()
        self.listener = kind(
            server.getsockname(),
            lambda peer, tls: Session(rules, script.peer, tls),
            script.handle,
            certificate=certificate if rules.tls_available else None,
            implicit_tls=script.needs_tls,
            sock=server,
        )
        self.listener.start()
        if script.needs_tls:
            self.start_tls()

    def send(self, data: bytes) -> None:
        if "early" not in self.script.marks:
            self.client.sendall(data)

    def recv(self) -> bytes:
        return self.client.recv(65536)

    def quiet(self) -> bool:
        return not select.select([self.client], [], [], SILENCE)[0]

    def start_tls(self) -> None:
        context = ssl.create_default_context(cafile=str(self.certificate))
        self.client = context.wrap_socket(self.client, server_hostname=self.certificate.stem)

    def close(self) -> None:
        self.client.close()
        self.listener.stop(5)
        assert self.script.in_flight == 0, "what was reserved is not released"


@pytest.mark.parametrize("path", play.scripts(), ids=lambda path: path.stem)
def test_over_a_port(path: Path, certificate: Path) -> None:
    script = play.read(path)
    play.play(script, PortPlayer(script, certificate))


#: All but those with TLS, which takes no socket but a real one.
IN_THE_CLEAR = [path for path in play.scripts() if not (play.read(path).needs_tls or play.read(path).rules().tls_available)]


@pytest.mark.parametrize("path", IN_THE_CLEAR, ids=lambda path: path.stem)
def test_to_a_client_that_takes_an_octet_at_a_time(path: Path, certificate: Path) -> None:
    """Nothing is lost of what could not be written at once, nor overtaken by what comes after it."""
    script = play.read(path)
    play.play(script, PortPlayer(script, certificate, TricklingListener))
