r"""Reads a transcript and plays it.

A transcript is a text file; each line is one step.

    # a comment; empty lines mean nothing
    = size 1000              a rule of the session, before the first step (below)
    C: EHLO client.example   the client sends this line, CRLF is added; C lines in a row are sent in one piece
    C- one\ntwo              the client sends exactly these octets, nothing is added
    S: 250-mx.example        the server answers this line; `...` stands for any text
    (silence)                the server has nothing to say
    (closed)                 the server has closed the connection
    (tls)                    TLS begins here
    A: 550 5.7.1 No          what the application says to the next message, once for each recipient in LMTP; without it 250
    E: <a@b> <c@d> <e@f>     a message was received: its sender, its recipients
    D: Subject: one          and its data: these lines with CRLF; `D-` adds nothing

Escapes in C, S and D: `\r \n \t \\ \xHH`, and `\{x*1000}` for a thousand times `x`; other characters are UTF-8. Rules are the fields of
`Rules` with a number or yes, and `peer ADDRESS`, `user NAME PASSWORD`, `full` (no room for any message), `tls` (begin with it). The
recipient `nobody` is refused with 550 and `later` with 451. At the end nothing more was said, and no message was received that the
transcript does not show.

Marks for those who play: `= early` (the client speaks before the greeting) and `= haste` (what is sent in one piece has to arrive in one).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from lamson.smtp.session import Envelope, Rules
from lamson.status import Reply, reply

FOLDER = Path(__file__).parent

_STEP = re.compile(r"(?P<kind>[CSAED=#]|\((?:silence|closed|tls)\))(?:(?P<raw>-)|:)?(?: (?P<text>.*))?")
_REPEATED = re.compile(r"\\\{(.+?)\*(\d+)\}")
_REPLY = re.compile(r"(\d{3}) (?:(\d\.\d+\.\d+) )?(.*)")
_MARKS = ("early", "haste")


class Player(Protocol):
    """One connection. `recv` gives what has come, waiting for it where that takes time, and `b""` once the connection is closed."""

    def send(self, data: bytes) -> None: ...

    def recv(self) -> bytes: ...

    def quiet(self) -> bool:
        """The server says nothing, and has not closed."""
        ...

    def start_tls(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Step:
    """`number`: the line in the file. `raw`: no CRLF belongs to it."""

    number: int
    kind: str
    text: str
    raw: bool

    @property
    def octets(self) -> bytes:
        return unescaped(self.text) + (b"" if self.raw else b"\r\n")


@dataclass
class Script:
    """A transcript that was read, and the server's side of it: `rules` for the sessions, `handle` for the messages."""

    name: str
    steps: list[Step]
    options: dict[str, str]
    received: list[Envelope] = field(default_factory=list)
    in_flight: int = 0

    def __post_init__(self) -> None:
        self._answers = [_reply(step.text) for step in self.steps if step.kind == "A"]

    @property
    def marks(self) -> set[str]:
        return {mark for mark in _MARKS if mark in self.options}

    @property
    def peer(self) -> str:
        return self.options.get("peer", "127.0.0.1")

    @property
    def needs_tls(self) -> bool:
        return "tls" in self.options

    def rules(self, **others: object) -> Rules:
        """The session's rules. `others` override."""
        named = {field.name for field in fields(Rules)}
        numbers = {name: value == "yes" or int(value) for name, value in self.options.items() if name in named}
        asked: dict[str, object] = {
            "hostname": "mx.example",
            "accept_recipient": _accept,
            "reserve": self._reserve,
            "release": self._release,
            "authenticate": self._authenticate if "user" in self.options else None,
        }
        return Rules(**(asked | numbers | others))  # type: ignore[arg-type]

    def handle(self, envelope: Envelope) -> list[Reply]:
        """What the application answers."""
        self.received.append(envelope)
        answers = len(envelope.rcpt_tos) if "lmtp" in self.options else 1
        return [self._answers.pop(0) if self._answers else reply(250) for _ in range(answers)]

    def _reserve(self, octets: int) -> bool:
        if "full" in self.options:
            return False
        self.in_flight += octets
        return True

    def _release(self, octets: int) -> None:
        self.in_flight -= octets

    def _authenticate(self, user: str, password: str) -> bool:
        return [user, password] == self.options["user"].split()


def scripts() -> list[Path]:
    """Every transcript."""
    return sorted(FOLDER.glob("*.txt"))


def read(path: Path) -> Script:
    """The script in a file."""
    return parse(path.read_text(encoding="utf-8"), path.stem)


def parse(text: str, name: str = "-") -> Script:
    """The script in a text. `ValueError` names the line that is none."""
    steps, options = [], {}
    for number, line in enumerate(text.splitlines(), 1):
        found = _STEP.fullmatch(line.rstrip())
        if line.strip() and not found:
            raise ValueError(f"{name}:{number}: this is no step: {line}")
        if not found or found["kind"] == "#":
            continue
        if found["kind"] == "=":
            option, _, value = (found["text"] or "").partition(" ")
            options[option] = value
        else:
            steps.append(Step(number, found["kind"], found["text"] or "", bool(found["raw"])))
    _check_options(name, options)
    return Script(name, steps, options)


def _check_options(name: str, options: dict[str, str]) -> None:
    known = {"peer", "user", "full", "tls", *_MARKS, *(field.name for field in fields(Rules))}
    if unknown := options.keys() - known:
        raise ValueError(f"{name}: these are no rules: {unknown}")


def unescaped(text: str) -> bytes:
    """The octets that are meant."""
    return b"".join(_pieces(text))


def _pieces(text: str) -> Iterator[bytes]:
    at = 0
    for found in _REPEATED.finditer(text):
        yield _plain(text[at : found.start()])
        yield _plain(found[1]) * int(found[2])
        at = found.end()
    yield _plain(text[at:])


def _plain(text: str) -> bytes:
    return codecs.escape_decode(text.encode())[0]  # type: ignore[attr-defined,no-any-return]


def _accept(recipient: str, mail_from: str) -> Reply | None:
    refused = {"nobody": reply(550, "No such user", "5.1.1"), "later": reply(451, "Try again later", "4.2.0")}
    return refused.get(recipient.partition("@")[0])


def _reply(text: str) -> Reply:
    found = _REPLY.fullmatch(text)
    if not found:
        raise ValueError(f"this is no reply: {text}")
    return Reply(int(found[1]), found[3], found[2])


def play(script: Script, player: Player) -> None:
    """Hold the conversation; `AssertionError` names the line where it went another way."""
    try:
        _Play(script, player).run()
    finally:
        player.close()


class _Play:
    def __init__(self, script: Script, player: Player) -> None:
        self.script = script
        self.player = player
        self.heard = b""
        self.sending = b""
        self.seen = 0  # messages
        self.data: Iterator[bytes] = iter(())

    def run(self) -> None:
        acts = {"C": self.send, "S": self.expect, "E": self.expect_message, "D": self.expect_data, "A": lambda step: None}
        acts |= {"(silence)": self.expect_silence, "(closed)": self.expect_end, "(tls)": self.start_tls}
        for step in self.script.steps:
            if step.kind != "C":
                self.flush()
            acts[step.kind](step)
        self.flush()
        self.expect_nothing_else()

    def send(self, step: Step) -> None:
        assert not self.heard, self.at(step, f"the server said more: {self.heard!r}")
        self.sending += step.octets

    def flush(self) -> None:
        if self.sending:
            self.player.send(self.sending)
            self.sending = b""

    def expect(self, step: Step) -> None:
        while b"\r\n" not in self.heard:
            more = self.player.recv()
            assert more, self.at(step, "the server closed the connection")
            self.heard += more
        line, _, self.heard = self.heard.partition(b"\r\n")
        text = unescaped(step.text).decode()
        wanted = ".*".join(re.escape(part) for part in text.split("..."))
        assert re.fullmatch(wanted, line.decode("ascii")), self.at(step, f"the server said {line.decode()!r}")

    def expect_silence(self, step: Step) -> None:
        assert not self.heard, self.at(step, f"the server said {self.heard!r}")
        assert self.player.quiet(), self.at(step, "the server was not silent")

    def expect_end(self, step: Step) -> None:
        assert not self.heard, self.at(step, f"the server said {self.heard!r}")
        more = self.player.recv()
        assert more == b"", self.at(step, f"the server said {more!r}")

    def start_tls(self, step: Step) -> None:
        assert not self.heard, self.at(step, f"the server said {self.heard!r}")
        self.player.start_tls()

    def expect_message(self, step: Step) -> None:
        self.end_data(step)
        assert len(self.script.received) > self.seen, self.at(step, "no message was received")
        envelope = self.script.received[self.seen]
        self.seen += 1
        addresses = " ".join(f"<{address}>" for address in (envelope.mail_from, *envelope.rcpt_tos))
        assert addresses == step.text, self.at(step, f"the message has the envelope {addresses}")
        self.data = iter([envelope.data])

    def expect_data(self, step: Step) -> None:
        rest = next(self.data, b"")
        assert rest.startswith(step.octets), self.at(step, f"the message goes on with {rest[:100]!r}")
        self.data = iter([rest[len(step.octets) :]])

    def end_data(self, step: Step | None) -> None:
        rest = next(self.data, b"")
        assert not rest, self.at(step, f"the message goes on with {rest[:100]!r}")

    def expect_nothing_else(self) -> None:
        self.end_data(None)
        ended = self.script.steps[-1].kind == "(closed)"
        assert not self.heard, self.at(None, f"the server said {self.heard!r}")
        assert ended or self.player.quiet(), self.at(None, "the server said more, or closed")
        assert len(self.script.received) == self.seen, self.at(None, f"messages were received: {self.script.received[self.seen :]}")

    def at(self, step: Step | None, what: str) -> str:
        if step is None:
            return f"{self.script.name}: at the end {what}"
        return f"{self.script.name}:{step.number}: {what}, not {step.kind} {step.text!r}"
