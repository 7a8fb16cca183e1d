"""The client's end of one SMTP connection: commands out, replies in.

`ReplyReader` and `wire_form` are pure: what a server said, cut into replies, and a message as it is sent. `Wire` puts a socket to them.
It knows nothing of transactions or of what may be said when; `smtp.client` does. Whatever goes wrong with a connection, from a
time-out to a server that talks nonsense, is one thing to the caller: a `ConnectionLost` that says what happened.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import struct
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from ssl import SSLContext, SSLSocket
from typing import Any

from lamson.errors import TransientError, failure
from lamson.smtp.data import has_bare_line_end
from lamson.status import Reply, reply

log = logging.getLogger("lamson.smtp.client")

#: Takes the lines of the conversation as they are said: "C: EHLO here", "S: 250 there". Secrets are masked.
Talk = Callable[[str], None]

#: Octets of one line of a reply, and lines of one reply. RFC 5321 §4.5.3.1.5 has 512 octets; what is beyond these is no mail server.
REPLY_LINE, REPLY_LINES = 4096, 200

#: Seconds that one call of the system waits at most.
LONGEST_WAIT = 5.0

#: Octets of data written under one time-out.
BLOCK = 128 * 1024

_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:[ -]([^\n]*?))?\r*+")
_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)", re.ASCII)
_BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class ConnectionLost(TransientError):
    """This connection is of no use any more: it broke, took too long, ended with 421, or what came over it was not SMTP."""


class Silent(ConnectionLost):
    """It took too long."""


class TLSFailed(ConnectionLost):
    """The TLS handshake or the certificate was no good."""


class ReplyReader:
    """Cuts what a server says into replies. Fed with bytes as they come; `take` gives the next whole reply.

    Strict in what counts as one (RFC 5321 §4.2): anything else raises `ValueError` with a sentence, and reading on makes no sense.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []

    @property
    def empty(self) -> bool:
        """Nothing was received that `take` has not given."""
        return not self._rest and not self._lines

    def feed(self, data: bytes) -> None:
        """More of what was received."""
        self._rest += data

    def take(self) -> Reply | None:
        """The next reply; None when it is not complete yet."""
        while (end := self._rest.find(b"\n")) >= 0:
            line, self._rest = self._rest[:end], self._rest[end + 1 :]
            if line[3:4] != b"-":
                lines, self._lines = (*self._lines, line), []
                return parse_reply(lines)
            self._lines.append(line)
            if not line[:3].isdigit() or len(self._lines) == REPLY_LINES:
                parse_reply(tuple(self._lines))  # raises: no need to wait for its end
                raise ValueError(f"more than {REPLY_LINES} lines in one reply")
        if len(self._rest) > REPLY_LINE:
            raise ValueError(f"a line longer than {REPLY_LINE} octets")
        return None


@lru_cache(maxsize=64)  # a server says the same all the time
def parse_reply(lines: tuple[bytes, ...]) -> Reply:
    """The reply that these lines are. Its enhanced status is taken off them where it is of the code's class (RFC 2034 §4)."""
    found = [_REPLY_LINE.fullmatch(line) for line in lines]
    codes = {match and match[1] for match in found}
    if None in codes or len(codes) > 1:
        raise ValueError(f"{b' '.join(lines)[:80]!r}, which is no reply")
    code, texts = int(lines[0][:3]), [_printable(match[2] or b"") for match in found if match]
    status = _STATUS.match(texts[0])
    if not status or int(status[1][0]) != code // 100:
        return Reply(code, "\n".join(texts))
    return Reply(code, "\n".join(text.removeprefix(status[1]).lstrip(" ") for text in texts), status[1])


def _printable(text: bytes) -> str:
    line = text.decode("utf-8", "replace")
    return line if line.isprintable() else "".join(char if char.isprintable() else "?" for char in line)


def wire_form(data: bytes) -> bytes:
    """The data as it goes over the wire, dots doubled and the final one added (RFC 5321 §4.5.2).

    A bare CR or LF raises `PermanentError` 5.6.0: some servers would take it as a line's end, and so as the end of the message. A last
    line without an end gets one.
    """
    if has_bare_line_end(data):
        raise failure(550, f"The message has a bare CR or LF in line {bare_line_end(data)}", "5.6.0")
    if b"\r\n." in data:
        data = data.replace(b"\r\n.", b"\r\n..")
    if data.startswith(b"."):
        data = b"." + data
    return data + (b".\r\n" if not data or data.endswith(b"\r\n") else b"\r\n.\r\n")


def _lines(commands: Sequence[str]) -> bytes:
    return "".join([f"{command}\r\n" for command in commands]).encode("utf-8")


def bare_line_end(data: bytes) -> int | None:
    """The number of the first line that has a CR or LF on its own; None when there is none."""
    found = _BARE_LINE_END.search(data)
    return data.count(b"\n", 0, found.start()) + 1 if found else None


class Wire:
    """One TCP or Unix connection: commands out, replies in. Every failure is a `ConnectionLost` that says at which step."""

    def __init__(self, sock: socket.socket, host: str, talk: Talk | None) -> None:
        self.sock = sock
        self.host = host
        self.offers: dict[str, str] = {}
        self.unfinished = False  # a transaction was begun and neither ended nor reset
        self.consents = 0  # positive replies since this was last set to 0
        self._talk = talk
        self._replies = ReplyReader()
        self._patience = 0.0  # seconds, as the kernel has been told; it is not asked any more once TLS has begun
        self.sock.settimeout(None)

    @property
    def encrypted(self) -> bool:
        """TLS has begun."""
        return isinstance(self.sock, SSLSocket)

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self.sock.fileno() < 0

    @property
    def local(self) -> bool:
        """The other end is this machine."""
        if self.sock.family not in (socket.AF_INET, socket.AF_INET6):
            return True
        try:
            return ipaddress.ip_address(self.sock.getpeername()[0].partition("%")[0]).is_loopback
        except OSError:  # it is gone
            return False

    def ask(self, command: str, seconds: float, shown: str | None = None) -> Reply:
        """Says one command and waits for its reply. `shown` is said in the talk instead of a secret."""
        return self.ask_all([command], seconds, shown)[0]

    def ask_all(self, commands: Sequence[str], seconds: float, shown: str | None = None) -> list[Reply]:
        """Says all of them at once and waits for as many replies (RFC 2920)."""
        if self._talk:
            for command in commands:
                self._talk(f"C: {shown or command}")
        self._write(_lines(commands), seconds)
        return [self.read(seconds) for _ in commands]

    def write_data(self, data: bytes, seconds: float, then: Sequence[str] = ()) -> None:
        """Writes a whole message, final dot and all, and `then` these commands, whose replies come after the message's (RFC 2920 §3.1).
        `seconds` for each block of it. Where only these are not taken, the message is, and its reply may be there: reading tells."""
        if self._talk:
            self._talk(f"C: ({len(data) - 3} octets of data)")
            for said in (".", *then):
                self._talk(f"C: {said}")
        behind = _lines(then)
        if len(data) > BLOCK:
            view = memoryview(data)
            for at in range(0, len(data), BLOCK):
                self._write(view[at : at + BLOCK], seconds)
            data = b""
        self._write(data + behind, seconds, len(behind))

    def read(self, seconds: float) -> Reply:
        """The next reply. 421 is the end of the connection, whatever it answers (RFC 5321 §3.8)."""
        answer = self._read(seconds)
        if answer.code == 421:
            raise ConnectionLost(answer)
        if answer.code < 400:
            self.consents += 1
        return answer

    def last_word(self) -> Reply | None:
        """What the server said before it closed the connection on us, if that can still be read."""
        try:
            return self._read(1.0)
        except ConnectionLost:
            return None

    def begin_tls(self, context: SSLContext, name: str, seconds: float) -> None:
        """From here on everything is encrypted. What was received before and not read would be an attacker's (RFC 3207 §5)."""
        if not self._replies.empty:
            raise self.nonsense("more after its answer to STARTTLS")
        try:
            self.sock.settimeout(seconds)
            self.sock = context.wrap_socket(self.sock, server_hostname=name)
            self._patience = 0.0
        except (OSError, ValueError) as error:
            raise TLSFailed(reply(454, f"No TLS with {self.host}: {error}", "4.7.5")) from error

    def nonsense(self, what: str) -> ConnectionLost:
        """For what a server must not say."""
        return ConnectionLost(reply(451, f"{self.host} said {what}", "4.5.0"))

    def quit(self) -> None:
        """Takes leave and closes. Whether the server answers does not matter much, so it has a second."""
        try:
            self.ask("QUIT", 1.0)
        except ConnectionLost:
            log.debug("%s did not answer QUIT.", self.host)
        self.close()

    def close(self) -> None:
        """Closes without a word."""
        self.sock.close()

    def _write(self, data: bytes | memoryview, seconds: float, spare: int = 0) -> None:
        """`spare`: so many octets at the end may stay unwritten."""
        deadline = time.monotonic() + seconds
        try:
            while data:
                data = data[self._until(deadline, self.sock.send, data) :]
        except OSError as error:
            if len(data) > spare:
                raise self._lost(error, seconds) from error

    def _read(self, seconds: float) -> Reply:
        try:
            answer = self._replies.take() or self._await(seconds)
        except OSError as error:
            raise self._lost(error, seconds) from error
        except ValueError as error:
            raise self.nonsense(str(error)) from error
        if self._talk:
            self._show(answer)
        return answer

    def _await(self, seconds: float) -> Reply:
        """A whole reply within that time, however slowly its octets come."""
        deadline = time.monotonic() + seconds
        while True:
            received = self._until(deadline, self.sock.recv, 4096)
            if not received:
                raise ConnectionLost(reply(451, f"{self.host} closed the connection", "4.4.2"))
            self._replies.feed(received)
            if answer := self._replies.take():
                return answer

    def _until(self, deadline: float, operate: Callable[[Any], Any], argument: object) -> Any:
        """What a read or write of the socket gives before the deadline."""
        while True:
            left = deadline - time.monotonic()
            if left < LONGEST_WAIT or self._patience < LONGEST_WAIT:
                self._wait_at_most(max(left, 0.001))
            try:
                return operate(argument)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise

    def _wait_at_most(self, seconds: float) -> None:
        """The kernel sees to it: Python's own time-outs are two more calls of the system for each read and write, and other threads run
        meanwhile. It is told a short time that seldom changes. Over TLS, where one read may be several, Python has to."""
        if self.encrypted:
            self.sock.settimeout(seconds)
        elif (patience := min(seconds, LONGEST_WAIT)) != self._patience:
            timeval = struct.pack("@ll", int(patience), int(patience % 1 * 1e6))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.sock.setsockopt(socket.SOL_SOCKET, option, timeval)
            self._patience = patience

    def _lost(self, error: OSError, seconds: float) -> ConnectionLost:
        silent = isinstance(error, (TimeoutError, BlockingIOError))
        why = f"{self.host} was silent for {seconds:g} s" if silent else f"The connection to {self.host} broke: {error}"
        return (Silent if silent else ConnectionLost)(reply(451, why, "4.4.2"))

    def _show(self, answer: Reply) -> None:
        assert self._talk is not None
        *lines, last = [f"{answer.status} {line}" if answer.status else line for line in answer.text.split("\n")]
        for line in lines:
            self._talk(f"S: {answer.code}-{line}")
        self._talk(f"S: {answer.code} {last}".rstrip())
