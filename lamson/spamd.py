"""The scorer spamd: asks SpamAssassin's server by its own protocol (SPAMC/1.5, https://svn.apache.org/repos/asf/spamassassin/trunk/spamd/PROTOCOL).

It judges by rules and its own learning, which is trained by `sa-learn`. Stands where `lamson.bayes` stands, with the interface of
`lamson.scorer`. A server that cannot be reached, or answers what nobody understands, is a `ScorerError` and nothing else.
"""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING

from lamson.errors import ScorerError
from lamson.scorer import Label, Scorer, Verdict

if TYPE_CHECKING:
    from lamson.mail import MailRequest

#: Octets of an answer.
LONGEST_ANSWER = 1024 * 1024
#: Reasons in a verdict.
REASONS = 12

_STATUS = re.compile(rb"SPAMD/[\d.]+ (\d+) ([^\r\n]*)")
_SPAM = re.compile(rb"^Spam: *(True|Yes|False|No) *; *(-?\d+(?:\.\d+)?) */ *(-?\d+(?:\.\d+)?)\s", re.MULTILINE | re.IGNORECASE)


class SpamdScorer(Scorer):
    """Asks the spamd at `host` and `port`, or at the unix socket `socket`.

    `user`: whose preferences it takes; None, and it takes its own. `seconds`: until the answer must be there. `unsure`: from this share of
    the score that it calls spam, a message is unsure. `largest`: octets; what is longer is not asked about, as by `spamc`, and is unsure.
    """

    name = "spamd"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 783,
        socket: str | None = None,
        user: str | None = None,
        seconds: float = 30.0,
        unsure: float = 0.5,
        largest: int = 512_000,
    ) -> None:
        if user is not None and not re.fullmatch(r"[!-~]+", user):
            raise ValueError(f"{user!r} is no user's name.")
        self.host, self.port, self.socket = host, port, socket
        self.user = user
        self.seconds = seconds
        self.unsure = unsure
        self.largest = largest
        self.place = socket or f"{host}:{port}"

    def score(self, message: MailRequest) -> Verdict:
        data = bytes(message)
        if len(data) > self.largest:
            return Verdict("unsure", 0.0, (f"not looked at: longer than {self.largest} octets",), self.name)
        return self._read(self._ask(data))

    def _read(self, answer: bytes) -> Verdict:
        """What the answer says. The body is the names of the rules that hit."""
        head, _, body = answer.partition(b"\r\n\r\n")
        status, spam = _STATUS.match(head), _SPAM.search(head + b"\r\n")
        if status is None or status[1] != b"0" or spam is None:
            said = head[:200].decode("ascii", "replace")
            raise ScorerError(f"spamd at {self.place} gave an answer that is none: {said!r}")
        score, needed = float(spam[2]), float(spam[3])
        label: Label = "spam" if spam[1].lower() in (b"true", b"yes") else "unsure" if score >= self.unsure * needed else "ham"
        rules = [rule for rule in re.split(r"[,\s]+", body.decode("ascii", "replace")) if rule]
        return Verdict(label, score, (f"{needed:g} is spam", *rules[:REASONS]), self.name)

    def _ask(self, data: bytes) -> bytes:
        user = f"User: {self.user}\r\n" if self.user else ""
        head = f"SYMBOLS SPAMC/1.5\r\nContent-length: {len(data)}\r\n{user}\r\n"
        until = time.monotonic() + self.seconds
        try:
            with self._connected() as connection:
                connection.sendall(head.encode("ascii") + data)
                connection.shutdown(socket.SHUT_WR)
                return _everything(connection, until)
        except OSError as error:
            raise ScorerError(f"spamd at {self.place} gives no answer: {error or type(error).__name__}") from error

    def _connected(self) -> socket.socket:
        if not self.socket:
            return socket.create_connection((self.host, self.port), self.seconds)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(self.seconds)
            connection.connect(self.socket)
        except OSError:
            connection.close()
            raise
        return connection


def _everything(connection: socket.socket, until: float) -> bytes:
    """All that comes until the other side closes. Raises TimeoutError when the time is up, however little at a time came."""
    answer = b""
    while len(answer) < LONGEST_ANSWER:
        connection.settimeout(max(0.001, until - time.monotonic()))
        piece = connection.recv(65536)
        if not piece:
            break
        answer += piece
    return answer
