"""A mail server over real sockets that says what a test tells it to say: refusals at any step, silence, nonsense, a cut connection.

    with ScriptedServer({"RCPT": ["250 2.1.5 OK", "550 5.1.1 no such user"], ".": HANG}) as server:
        Client(*server.address, timeout=0.2).send(...)
    server.commands, server.messages

A key is a whole command ("RCPT TO:<bob@x>"), its verb with the message's sender ("DATA ann@x") or its verb; "connect" is the greeting,
"." the end of data, "data" the moment after 354, "secret" a line within AUTH. A value is what to say: text (CRLF is added), bytes (sent as
they are), HANG, DEAF, DROP, RESET, FLUSH, a tuple of such, done in order, or a list of such, one for each time the command comes, the last
of them for ever.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

#: Say nothing until the client goes or the test ends; do not even read; close the connection; close it with a TCP reset; forget what was
#: received and is not read yet.
HANG, DEAF, DROP, RESET, FLUSH = object(), object(), object(), object(), object()

EVERYTHING = ("PIPELINING", "SIZE 1000000", "8BITMIME", "ENHANCEDSTATUSCODES")

DEFAULTS = {
    "connect": "220 fake.example.com ESMTP",
    "HELO": "250 fake.example.com",
    "MAIL": "250 2.1.0 OK",
    "RCPT": "250 2.1.5 OK",
    "DATA": "354 go on",
    ".": "250 2.0.0 taken",
    "RSET": "250 2.0.0 OK",
    "NOOP": "250 2.0.0 OK",
    "QUIT": ("221 2.0.0 bye", DROP),
    "STARTTLS": "220 2.0.0 go on",
    "unknown": "500 5.5.1 what?",
}


@dataclass
class Taken:
    """A message that was taken, or would have been: what the client sent up to its final dot, dots still doubled. `behind` came with it."""

    mail_from: str
    rcpt_tos: list[str]
    data: bytes
    behind: bytes = b""


class ScriptedServer:
    """Listens from its making until `stop`, or as a context manager."""

    def __init__(
        self,
        says: Mapping[str, Any] | None = None,
        *,
        offers: tuple[str, ...] = EVERYTHING,
        offers_under_tls: tuple[str, ...] | None = None,
        lmtp: bool = False,
        certificate: Path | None = None,
        implicit_tls: bool = False,
        unix_path: Path | None = None,
        port: int = 0,
    ) -> None:
        self.says: dict[str, Any] = {**DEFAULTS, **(says or {})}
        self.offers, self.offers_under_tls = offers, offers if offers_under_tls is None else offers_under_tls
        self.lmtp, self.implicit_tls = lmtp, implicit_tls
        self.context: ssl.SSLContext | None = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
        self.commands: list[str] = []
        self.groups: list[bytes] = []  # what each single recv brought, commands only
        self.messages: list[Taken] = []
        self.connections = 0
        self.stopped = threading.Event()
        self._times: dict[str, int] = {}
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listening = _unix_socket(unix_path) if unix_path else socket.create_server(("127.0.0.1", port))
        self.address = self._listening.getsockname()
        self._start(self._accept)

    @property
    def verbs(self) -> list[str]:
        """The verbs of all commands, in order."""
        return [command.split(" ")[0].upper() for command in self.commands]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes everything and waits for its threads."""
        self.stopped.set()
        self.refuse()
        self.cut()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def refuse(self) -> None:
        """From now on connections are refused."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listening.close()

    def cut(self) -> None:
        """Closes the connections that there are."""
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def wait_until(self, true: Callable[[], bool], seconds: float = 5.0) -> None:
        """Until what the server has heard makes it true; fails after `seconds`."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"heard only {self.commands}"
            time.sleep(0.002)

    def next(self, *keys: str) -> Any:
        """What to say now: what the script has under the first of these keys that it has."""
        key = next(key for key in keys if key in self.says)
        value = self.says[key]
        if not isinstance(value, list):
            return value
        times = self._times[key] = self._times.get(key, -1) + 1
        return value[min(times, len(value) - 1)]

    def _start(self, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, name="scripted server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        self._open.add(sock)
        connection = _Connection(self, sock)
        try:
            connection.run()
        except (OSError, _Gone):
            pass
        finally:
            self._open.discard(sock)
            connection.sock.close()


class _Gone(Exception):
    """The connection is over."""


@dataclass
class _Connection:
    server: ScriptedServer
    sock: socket.socket
    buffer: bytes = b""
    tls: bool = False
    mail_from: str = ""
    rcpt_tos: list[str] = field(default_factory=list)

    def run(self) -> None:
        if self.server.implicit_tls:
            self.begin_tls()
        self.do(self.server.next("connect"))
        while True:
            self.command(self.line())

    def line(self) -> str:
        while b"\r\n" not in self.buffer:
            self.receive(group=True)
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode("utf-8")

    def receive(self, group: bool = False) -> None:
        received = self.sock.recv(65536)
        if not received:
            raise _Gone
        if group:
            self.server.groups.append(received)
        self.buffer += received

    def command(self, line: str) -> None:
        self.server.commands.append(line)
        verb = line.split(" ")[0].upper()
        if verb in ("EHLO", "LHLO") and verb not in self.server.says:
            return self.say_offers()
        first = self.do(self.server.next(line, f"{verb} {path(line) if verb == 'MAIL' else self.mail_from}", verb, "unknown"))
        if verb == "MAIL":
            self.mail_from, self.rcpt_tos = path(line), []
        elif verb == "RCPT" and first.startswith("2"):
            self.rcpt_tos.append(path(line))
        elif verb == "DATA" and first.startswith("354"):
            self.data()
        elif verb == "STARTTLS" and first.startswith("220"):
            self.begin_tls()
        elif verb == "AUTH":
            while first.startswith("334"):
                self.server.commands.append(self.line())
                first = self.do(self.server.next("secret"))

    def say_offers(self) -> None:
        lines = ["fake.example.com", *(self.server.offers_under_tls if self.tls else self.server.offers)]
        self.do("\r\n".join(f"250{' ' if at == len(lines) - 1 else '-'}{line}" for at, line in enumerate(lines)))

    def data(self) -> None:
        if "data" in self.server.says:
            self.do(self.server.next("data"))
        while not (self.buffer.startswith(b".\r\n") or b"\r\n.\r\n" in self.buffer):
            self.receive()
        body, _, self.buffer = (b"\r\n" + self.buffer).partition(b"\r\n.\r\n")
        data = body[2:] + b"\r\n" if len(body) > 2 else b""
        self.server.messages.append(Taken(self.mail_from, list(self.rcpt_tos), data, self.buffer))
        for rcpt in self.rcpt_tos if self.server.lmtp else [""]:
            self.do(self.server.next(f". {rcpt}", f". {self.mail_from}", "."))

    def begin_tls(self) -> None:
        assert self.server.context
        self.server._open.discard(self.sock)
        self.sock = self.server.context.wrap_socket(self.sock, server_side=True)
        self.server._open.add(self.sock)
        self.tls, self.buffer = True, b""

    def do(self, said: Any) -> str:
        """Says it, or does it; returns the text that was said first."""
        if isinstance(said, tuple):
            first, *_ = [self.do(part) for part in said]
            return first
        if said is HANG:
            while not self.server.stopped.is_set() and self.sock.recv(65536):
                pass
            raise _Gone
        if said is DEAF:
            self.server.stopped.wait()
            raise _Gone
        if said is RESET:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if said in (RESET, DROP):
            raise _Gone
        if said is FLUSH:
            self.buffer = b""
            return ""
        octets = said if isinstance(said, bytes) else f"{said}\r\n".encode()
        self.sock.sendall(octets)
        return octets.decode("latin-1")


def path(line: str) -> str:
    """The address of a MAIL or RCPT command."""
    return line.partition("<")[2].rpartition(">")[0]


def _unix_socket(where: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(os.fspath(where))
    sock.listen()
    return sock


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
