"""A sending mail server as RFC 5321 wants it: it keeps each message until it hears 250, and tries again until then."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults.figures import Broken


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to be sent. `mark` tells it from all others of a run."""

    mark: str
    sender: str
    to: tuple[str, ...]
    data: bytes


def letter(mark: str, sender: str, to: str = "desk@test.com", subject: str = "A question", body: str = "Hello.\r\n") -> Letter:
    """A small message with all that mail should have."""
    head = f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{mark}@client.test>\r\nX-Mark: {mark}\r\n"
    return Letter(mark, sender, (to,), f"{head}\r\n{body}".encode())


class Connection:
    """One SMTP connection; `send` gives the code of the answer to the message, or of what was refused before it."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        try:
            self.expect(220)
            self.say("EHLO client.test")
            self.expect(250)
        except BaseException:
            self.close()
            raise

    def send(self, mail_from: str, rcpt_tos: Sequence[str], data: bytes) -> int:
        self.say(f"MAIL FROM:<{mail_from}>", *(f"RCPT TO:<{each}>" for each in rcpt_tos), "DATA")
        codes = [self.reply() for _ in range(len(rcpt_tos) + 2)]
        if codes[-1] != 354:
            self.say("RSET")
            self.reply()
            return next(code for code in codes if code >= 400)
        self.sock.sendall(stuffed(data))
        return self.reply()

    def say(self, *lines: str) -> None:
        self.sock.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def reply(self) -> int:
        while True:
            line = self.file.readline(2000)
            if len(line) < 4:
                raise ConnectionResetError("the server has gone")
            if line[3:4] != b"-":
                return int(line[:3])

    def expect(self, code: int) -> None:
        said = self.reply()
        if said != code:
            raise ConnectionAbortedError(f"the server said {said}, not {code}")

    def close(self) -> None:
        with suppress(OSError):
            self.file.close()
            self.sock.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stuffed(data: bytes) -> bytes:
    """As it goes over the wire (RFC 5321 §4.5.2), with its end."""
    end = b".\r\n" if data.endswith(b"\r\n") else b"\r\n.\r\n"
    return (b"." if data.startswith(b".") else b"") + data.replace(b"\r\n.", b"\r\n..") + end


@dataclass
class Sender:
    """Sends all letters with `threads` threads, each until 250. Those of one sender go in their order, unless it is `all_at_once`.

    `pause`: seconds until it tries again, `pace`: seconds between two letters of one thread. `kept`: marks that were answered with 250,
    with the moment. `codes`: how often each answer was heard; "broken" is a connection that ended before the answer.
    """

    port: int
    letters: Iterable[Letter]
    threads: int = 20
    pause: float = 0.05
    pace: float = 0.0
    timeout: float = 60.0
    all_at_once: bool = False
    kept: dict[str, float] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    on_kept: Callable[[Letter], None] | None = None

    def start(self) -> Sender:
        shares: list[list[Letter]] = [[] for _ in range(self.threads)]
        places: dict[str, int] = {}
        for each in self.letters:
            queue = each.mark if self.all_at_once else each.sender
            shares[places.setdefault(queue, len(places)) % self.threads].append(each)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(share,), name="client", daemon=True) for share in shares if share]
        for thread in self._threads:
            thread.start()
        return self

    @property
    def working(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self, seconds: float) -> None:
        """Waits until all is sent. Raises `Broken` if it is not by then, or if something was refused for good."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        unfinished = self.working
        self.stop()
        if self.troubles:
            raise Broken("; ".join(self.troubles[:5]))
        if unfinished:
            raise Broken(f"not everything was taken within {seconds:g} s: {len(self.kept)} messages were")

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Sender:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _work(self, share: list[Letter]) -> None:
        connection: Connection | None = None
        for each in share:
            while each.mark not in self.kept and not self._stopping.is_set() and not self.troubles:
                connection = self._try(connection, each)
            self._stopping.wait(self.pace)
        if connection is not None:
            connection.close()

    def _try(self, connection: Connection | None, each: Letter) -> Connection | None:
        try:
            connection = connection or Connection(self.port, self.timeout)
            code = connection.send(each.sender, each.to, each.data)
        except OSError as error:
            self.codes["timed out" if isinstance(error, TimeoutError) else "broken"] += 1
            if connection is not None:
                connection.close()
            self._stopping.wait(self.pause)
            return None
        self.codes[str(code)] += 1
        if code == 250:
            self.kept[each.mark] = time.monotonic()
            if self.on_kept:
                self.on_kept(each)
        elif code >= 500:
            self.troubles.append(f"{each.mark} was refused for good: {code}")
        else:
            self._stopping.wait(self.pause)
        return connection
