"""Every transcript against the session, without a socket: at once, octet by octet, cut at random, and by its short way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamson.smtp.session import Envelope, Session
from tests.transcripts import play

Cut = Callable[[bytes], Iterator[bytes]]


def at_once(data: bytes) -> Iterator[bytes]:
    yield data


def by_octets(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]


class SessionPlayer:
    """Does for a session what a listener does; `cut` says how the client's bytes arrive, and `short` that the short way is tried first."""

    def __init__(self, script: play.Script, cut: Cut = at_once, short: bool = False) -> None:
        self.script = script
        self.cut = cut
        self.short = short
        self.said = b""  # by the short way
        self.session = Session(script.rules(), script.peer, tls=script.needs_tls)
        self.greeted = False

    def send(self, data: bytes) -> None:
        for part in self.cut(data):
            heard = self.session.feed_plain(part) if self.short else self.session.feed
            self._answer(heard(part) if callable(heard) else heard)

    def _answer(self, heard: Envelope | bytes | None) -> None:
        self.said += self.session.take_output()
        while isinstance(heard, Envelope):
            replies = self.script.handle(heard)
            answer = self.session.answer_plain(replies) if self.short else self.session.answer
            heard = answer(replies) if callable(answer) else answer
        self.said += heard or b""

    def _output(self) -> bytes:
        said, self.said = self.said, b""
        return said + self.session.take_output()

    def recv(self) -> bytes:
        if not self.greeted:
            self.greeted = True
            self.session.greet()
        output = self._output()
        assert output or self.session.closed, "nothing more comes"
        return output

    def quiet(self) -> bool:
        return not self.session.closed and not self._output()

    def start_tls(self) -> None:
        assert self.session.wants_tls
        assert not self._output()
        self.session.tls_started()

    def close(self) -> None:
        self.session.end()
        assert self.script.in_flight == 0, "what was reserved is not released"


def names(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", play.scripts(), ids=names)
def test_at_once(path: Path) -> None:
    script = play.read(path)
    play.play(script, SessionPlayer(script))


@pytest.mark.parametrize("path", play.scripts(), ids=names)
def test_the_short_way(path: Path) -> None:
    script = play.read(path)
    play.play(script, SessionPlayer(script, short=True))


#: All but those that are about what arrives in one piece.
PATIENT = [path for path in play.scripts() if "haste" not in play.read(path).marks]


@pytest.mark.parametrize("path", PATIENT, ids=names)
def test_octet_by_octet(path: Path) -> None:
    script = play.read(path)
    play.play(script, SessionPlayer(script, by_octets))


@pytest.mark.parametrize("path", PATIENT, ids=names)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_it_is_cut(path: Path, lengths: list[int]) -> None:
    script = play.read(path)

    def cut(data: bytes) -> Iterator[bytes]:
        at, turn = 0, 0
        while at < len(data):
            length = lengths[turn % len(lengths)]
            yield data[at : at + length]
            at, turn = at + length, turn + 1

    play.play(script, SessionPlayer(script, cut))


def test_a_step_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="few:2: this is no step: Q: what"):
        play.parse("C: NOOP\nQ: what", "few")


def test_a_rule_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="colour"):
        play.parse("= colour red")


def test_a_conversation_that_goes_another_way_names_the_line() -> None:
    script = play.parse("S: 220 mx.example ESMTP Lamson\nC: NOOP\nS: 550 no\n", "other")
    with pytest.raises(AssertionError, match=r"other:3: the server said '250 2.0.0 OK'"):
        play.play(script, SessionPlayer(script))


def test_a_message_that_the_transcript_does_not_show_is_a_failure() -> None:
    text = (play.FOLDER / "one-message.txt").read_text()
    script = play.parse("\n".join(line for line in text.splitlines() if line[:2] not in ("E:", "D:")))
    with pytest.raises(AssertionError, match="messages were received"):
        play.play(script, SessionPlayer(script))


def test_escapes() -> None:
    assert play.unescaped(r"a\r\n\x00\t\\é\{ab*3}!") == b"a\r\n\x00\t\\\xc3\xa9ababab!"
