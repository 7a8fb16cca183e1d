"""A client that says exactly what it is told to, and the servers that it talks to in the tests of the listener."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from lamson.smtp.listener import Listener
from lamson.smtp.session import Envelope, Rules, Session
from lamson.status import Reply, reply

#: Seconds that anything may take before a test fails.
PATIENCE = 15.0

OK = reply(250, "OK, kept")


def wait_until(true: Callable[[], object]) -> None:
    """Returns when it is true; fails when it does not become so."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.002)


class Talker:
    """One connection. `say` sends a line and returns the reply; `greeting` is what the server said first."""

    def __init__(self, address: Any, tls: Path | None = None, greeted: bool = True) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.settimeout(PATIENCE)
        self.received = b""
        try:
            self.sock.connect(address)
            if tls:
                self.start_tls(tls)
            self.greeting = self.reply() if greeted else ""
        except OSError:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def say(self, line: str) -> str:
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def reply(self) -> str:
        """The next whole reply, its lines joined by newlines; "" when the server has closed the connection."""
        lines = []
        while True:
            while b"\r\n" not in self.received:
                data = self.sock.recv(65536)
                if not data:
                    assert not self.received, f"the connection ended in the middle of {self.received!r}"
                    return "\n".join(lines)
                self.received += data
            line, _, self.received = self.received.partition(b"\r\n")
            lines.append(line.decode())
            if line[3:4] != b"-":
                return "\n".join(lines)

    @property
    def ended(self) -> bool:
        """The server says nothing more and closes."""
        return self.reply() == ""

    @property
    def quiet(self) -> bool:
        """Nothing is to be read at this moment."""
        return not select.select([self.sock], [], [], 0)[0]

    def start_tls(self, certificate: Path) -> None:
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        self.sock = context.wrap_socket(self.sock)

    def begin(self, lmtp: bool = False) -> None:
        """As far as 354."""
        assert self.say("LHLO here" if lmtp else "EHLO here").startswith("250")
        assert self.say("MAIL FROM:<a@client.example>").startswith("250")
        assert self.say("RCPT TO:<b@server.example>").startswith("250")
        assert self.say("DATA").startswith("354")

    def mail(self, data: bytes = b"Subject: One\r\n\r\nText.\r\n") -> str:
        """Sends a message; the answer to it."""
        self.begin()
        self.send(data + b".\r\n")
        return self.reply()


class Office:
    """A listener with a handler that can be told what to do, and remembers what it got."""

    def __init__(self, handle: Callable[[Envelope], Sequence[Reply]] | None = None, *, lmtp: bool = False, **settings: Any) -> None:
        rule_names = {"size", "commands", "idle_seconds", "data_seconds", "authenticate", "accept_recipient"} & settings.keys()
        rules = {name: settings[name] for name in rule_names}
        more = {name: value for name, value in settings.items() if name in ("idle_seconds", "data_seconds") or name not in rule_names}
        self.in_flight = 0
        self.got: list[Envelope] = []
        self._then = handle or (lambda envelope: [OK])
        tls = "certificate" in settings and not settings.get("implicit_tls")
        self.rules = Rules("server.example", lmtp=lmtp, tls_available=tls, reserve=self._reserve, release=self._release, **rules)
        self.listener = Listener(more.pop("address", ("127.0.0.1", 0)), self.session, self._handle, **{"per_peer": 5000, **more})

    def session(self, peer: str, tls: bool) -> Session:
        return Session(self.rules, peer, tls)

    def _reserve(self, octets: int) -> bool:
        self.in_flight += octets
        return True

    def _release(self, octets: int) -> None:
        self.in_flight -= octets

    def _handle(self, envelope: Envelope) -> Sequence[Reply]:
        self.got.append(envelope)
        return self._then(envelope)

    def __enter__(self) -> Self:
        self.listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.stop(5)

    def talker(self, **more: Any) -> Talker:
        return Talker(self.listener.address, **more)

    def stopping(self, deadline: float = PATIENCE) -> threading.Thread:
        """Begins to stop; returns when no more connections are taken."""
        thread = threading.Thread(target=self.listener.stop, args=(deadline,))
        thread.start()
        wait_until(lambda: not self.listens())
        return thread

    def listens(self) -> bool:
        try:
            Talker(self.listener.address, greeted=False).sock.close()
        except OSError:
            return False
        return True


class Gate:
    """A handler that waits inside until it is opened."""

    def __init__(self, answer: Reply = OK) -> None:
        self.answer = answer
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, envelope: Envelope) -> Sequence[Reply]:
        self.inside.release()
        assert self.open.wait(PATIENCE), "nobody opened the gate"
        return [self.answer]

    def entered(self) -> None:
        assert self.inside.acquire(timeout=PATIENCE), "nobody came"
