"""The rest of the world: a small SMTP server, independent of Lamson's, that remembers each message that it took.

It can be told to refuse connections, or to answer 4xx, for as long as one likes. What it remembers is written down before it says 250:
a client that never hears that 250 sends again, and the sink then has two of one Message-ID.
"""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass

_FIELD = re.compile(rb"(?im)^(message-id|subject|x-answers):[ \t]*([^\r\n]*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """One message that the sink took. `mark`: of the message that it answers; "" when it says none."""

    message_id: str
    subject: str
    mark: str
    mail_from: str
    rcpt_tos: tuple[str, ...]
    data: bytes


class Sink:
    """Listens on a port of 127.0.0.1, in threads. `mode`: "take", "later" (451 to every MAIL), or "gone" (nobody listens)."""

    def __init__(self, keep_data: bool = False) -> None:
        self.answers: list[Answer] = []
        self.mode = "take"
        self.turned_away = 0
        self._keep_data = keep_data
        self._arrived = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self.port = 0
        self._open()

    def set_mode(self, mode: str) -> None:
        """From now on; connections that are open end where nobody listens any more."""
        self.mode = mode
        if mode == "gone":
            self._close()
        elif self._server is None:
            self._open()

    def by_mark(self) -> dict[str, Counter[str]]:
        """For each mark, how often each Message-ID came."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for answer in list(self.answers):
            found[answer.mark][answer.message_id] += 1
        return found

    def wait_for(self, marks: set[str], seconds: float) -> set[str]:
        """Waits until answers to all these marks have come; returns those that have not."""
        missing = set(marks)
        seen = 0

        def all_here() -> bool:
            nonlocal seen
            fresh = self.answers[seen:]
            seen += len(fresh)
            missing.difference_update(answer.mark for answer in fresh)
            return not missing

        with self._arrived:
            self._arrived.wait_for(all_here, seconds)
        return missing

    def close(self) -> None:
        self._close()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- how

    def _open(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _Conversation)
        self._server.sink = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="sink", daemon=True).start()

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def take(self, mail_from: str, rcpt_tos: list[str], data: bytes) -> None:
        head = data.partition(b"\r\n\r\n")[0]
        fields = {name.lower(): value.decode("latin-1") for name, value in _FIELD.findall(head)}
        kept = data if self._keep_data else b""
        message_id, subject, mark = (fields.get(name, "") for name in (b"message-id", b"subject", b"x-answers"))
        answer = Answer(message_id, subject, mark, mail_from, tuple(rcpt_tos), kept)
        with self._arrived:
            self.answers.append(answer)
            self._arrived.notify_all()

    def connected(self, connection: socket.socket) -> None:
        self._connections.add(connection)

    def parted(self, connection: socket.socket) -> None:
        self._connections.discard(connection)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    sink: Sink


class _Conversation(socketserver.StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.server.sink.connected(self.connection)
        try:
            with suppress(OSError):
                self._talk(self.server.sink)
        finally:
            self.server.sink.parted(self.connection)

    def _talk(self, sink: Sink) -> None:
        mail_from, rcpt_tos = "", []
        self._say("220 sink ESMTP")
        while line := self.rfile.readline(2000):
            verb, _, rest = line.decode("utf-8", "replace").rstrip("\r\n").partition(" ")
            match verb.upper():
                case "EHLO":
                    self._say("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000")
                case "MAIL" if sink.mode == "later":
                    sink.turned_away += 1
                    self._say("451 4.3.0 later")
                case "MAIL":
                    mail_from, rcpt_tos = rest.partition("<")[2].partition(">")[0], []
                    self._say("250 fine")
                case "RCPT" if sink.mode == "later":
                    self._say("451 4.3.0 later")
                case "RCPT":
                    rcpt_tos.append(rest.partition("<")[2].rpartition(">")[0])
                    self._say("250 fine")
                case "DATA" if not rcpt_tos:
                    self._say("503 nobody to send to")
                case "DATA":
                    self._say("354 go on")
                    sink.take(mail_from, rcpt_tos, self._data())
                    rcpt_tos = []
                    self._say("250 taken")
                case "RSET":
                    rcpt_tos = []
                    self._say("250 fine")
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 fine")

    def _data(self) -> bytes:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                raise ConnectionAbortedError("in the middle of a message")
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")
