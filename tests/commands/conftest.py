"""A command line to type on, and a server to send to."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lamson.commands import main
from lamson.smtp.listener import Listener
from lamson.smtp.session import Envelope, Rules, Session
from lamson.status import Reply, reply


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status, what it printed and what it complained."""

    status: int
    out: str
    err: str


Type = Callable[..., Done]


@pytest.fixture
def lamson(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """`lamson("send", "-to", ...)` in this process; `stdin` is what comes from standard input."""

    def run(*words: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        try:
            status = main(list(words))
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return run


@dataclass
class Sink:
    """A server that takes everything, but mail to somebody called `nobody`."""

    port: str = ""
    envelopes: list[Envelope] = field(default_factory=list)

    def take(self, envelope: Envelope) -> list[Reply]:
        self.envelopes.append(envelope)
        return [reply(250)]

    def accept(self, recipient: str, mail_from: str) -> Reply | None:
        return reply(550, "Nobody of that name", "5.1.1") if recipient.startswith("nobody@") else None


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A real server on a port of its own."""
    made = Sink()
    rules = Rules("sink.example", accept_recipient=made.accept)
    listener = Listener(("127.0.0.1", 0), lambda peer, tls: Session(rules, peer, tls), made.take)
    listener.start()
    made.port = str(listener.address[1])
    try:
        yield made
    finally:
        listener.stop(1.0)
