"""What transcripts cannot show: the listener's side of a session, its memory, its ends, and faults of what it asks."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from lamson.errors import Fault, SMTPError
from lamson.smtp.session import FIRST_OCTETS, VERBS, Envelope, Rules, Session
from lamson.status import Reply, reply
from tests.cost import assert_costs_less

TAKEN = [reply(250)]
MESSAGE = b"Subject: one\r\n\r\ntext\r\n.\r\n"


class Meter:
    """Counts what is in flight; refuses what goes over `room`."""

    def __init__(self, room: int = 10**9) -> None:
        self.room, self.held = room, 0

    def reserve(self, octets: int) -> bool:
        fits = self.held + octets <= self.room
        self.held += octets * fits
        return fits

    def release(self, octets: int) -> None:
        self.held -= octets
        assert self.held >= 0


def rules(**others: Any) -> Rules:
    return Rules("mx.example", **others)


def greeted(of: Rules | None = None, peer: str = "192.0.2.1", hello: bytes = b"EHLO") -> Session:
    session = Session(of or rules(), peer)
    session.greet()
    session.feed(hello + b" client.example\r\n")
    session.take_output()
    return session


def begun(of: Rules | None = None, hello: bytes = b"EHLO", recipients: int = 1) -> Session:
    """In the middle of DATA."""
    session = greeted(of, hello=hello)
    named = b"".join(b"RCPT TO:<r%d@two.example>\r\n" % number for number in range(recipients))
    session.feed(b"MAIL FROM:<a@one.example>\r\n" + named + b"DATA\r\n")
    assert b"\r\n354 " in session.take_output()
    return session


def given(session: Session, data: bytes = MESSAGE) -> Envelope:
    envelope = session.feed(data)
    assert envelope is not None
    return envelope


def said(session: Session, data: bytes) -> bytes:
    session.feed(data)
    return session.take_output()


def test_the_envelope() -> None:
    of = rules(new_id=lambda: "id-1", authenticate=lambda user, password: True)
    session = Session(of, "127.0.0.1", tls=True)
    session.greet()
    plain = base64.b64encode(b"\0joe\0secret")
    said(session, b"EHLO client.example\r\nAUTH PLAIN " + plain + b"\r\n")
    said(session, "MAIL FROM:<é@one.example> SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<b@two.example>\r\nDATA\r\n".encode())
    assert session.feed(MESSAGE) == Envelope(
        peer="127.0.0.1",
        helo="client.example",
        mail_from="é@one.example",
        rcpt_tos=("b@two.example",),
        data=b"Subject: one\r\n\r\ntext\r\n",
        id="id-1",
        utf8=True,
        body="8BITMIME",
        tls=True,
        user="joe",
    )


def test_nothing_is_read_while_an_envelope_is_pending() -> None:
    session = begun()
    given(session, MESSAGE + b"NOOP\r\n")
    assert session.pending
    assert not session.collecting
    assert session.feed(b"QUIT\r\n") is None
    assert session.take_output() == b""
    assert session.answer(TAKEN) is None
    assert session.take_output() == b"250 2.0.0 OK\r\n250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
    assert session.closed


def test_the_next_envelope_comes_with_the_answer() -> None:
    session = greeted()
    both = b"MAIL FROM:<a@one.example>\r\nRCPT TO:<b@two.example>\r\nBDAT 0 LAST\r\n"
    first = given(session, both + both.replace(b"a@", b"c@"))
    second = session.answer(TAKEN)
    assert first.mail_from == "a@one.example"
    assert second is not None
    assert second.mail_from == "c@one.example"


def test_what_waits_is_bounded() -> None:
    session = begun(rules(pipelined=1000))
    given(session)
    for _ in range(1000):
        session.feed(b"NOOP\r\n" * 100)
        assert len(session._buffer) <= 1000
    session.answer(TAKEN)
    assert session.take_output() == b"250 2.0.0 OK\r\n421 4.7.0 Too much was sent before its turn\r\n"
    assert session.closed


def test_flags_tell_where_it_stands() -> None:
    session = greeted()
    assert session.between
    session.feed(b"MAIL FROM:<a@one.example>\r\n")
    assert not session.between
    session.feed(b"RCPT TO:<b@two.example>\r\nDATA\r\n")
    assert session.collecting
    given(session)
    assert not session.between
    session.answer(TAKEN)
    assert session.between
    session.feed(b"MAIL FROM:<a@one.example>\r\nRCPT TO:<b@two.example>\r\nBDAT 10\r\nabc")
    assert session.collecting
    session.feed(b"defghij")
    assert not session.collecting


def test_a_wrong_number_of_answers_is_an_error() -> None:
    session = begun()
    given(session)
    with pytest.raises(ValueError, match="one answer, not 2"):
        session.answer(TAKEN * 2)
    session = begun(rules(lmtp=True), b"LHLO", recipients=2)
    given(session)
    with pytest.raises(ValueError):
        session.answer(TAKEN)
    assert session.pending


# Ends.


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (Session.timed_out, b"421 4.4.2 Nothing came for too long\r\n"),
        (Session.shut_down, b"421 4.3.2 The server is stopping, try again later\r\n"),
    ],
)
@pytest.mark.parametrize("make", [greeted, begun])
def test_ends(end: Callable[[Session], None], words: bytes, make: Callable[[], Session]) -> None:
    session = make()
    end(session)
    end(session)
    assert session.take_output() == words
    assert session.closed
    assert not session.collecting
    assert session.feed(MESSAGE) is None
    assert session.take_output() == b""


def test_a_server_that_stops_before_the_greeting() -> None:
    session = Session(rules(), "")
    session.shut_down()
    session.greet()
    assert session.take_output().startswith(b"421 4.3.2 ")


def test_abandon_answers_each_recipient_and_ignores_the_late_answer() -> None:
    session = begun(rules(lmtp=True), b"LHLO", recipients=3)
    given(session)
    session.abandon()
    assert session.take_output() == b"451 4.3.2 This took too long, try again later\r\n" * 3
    assert session.closed
    assert session.answer(TAKEN * 3) is None
    assert session.take_output() == b""


def test_abandon_after_the_answer_does_nothing() -> None:
    session = begun()
    given(session)
    session.answer(TAKEN)
    session.abandon()
    assert not session.closed


def test_a_shut_down_answers_what_is_pending() -> None:
    session = begun(rules(lmtp=True), b"LHLO", recipients=2)
    given(session)
    session.shut_down()
    assert session.take_output().count(b"421 4.3.2 ") == 2


def test_the_greeting_follows_no_talk() -> None:
    session = Session(rules(), "192.0.2.1")
    session.feed(b"E")
    session.greet()
    assert session.take_output() == b"554 The server speaks first\r\n"
    assert session.closed


# TLS.


def test_tls_forgets_user_and_name_and_drops_the_buffer() -> None:
    session = greeted(rules(tls_available=True, authenticate=lambda user, password: True), "127.0.0.1")
    said(session, b"AUTH PLAIN " + base64.b64encode(b"\0joe\0secret") + b"\r\n")
    assert session.user == "joe"
    assert session.feed(b"STARTTLS\r\nMAIL FROM:<evil@one.example>\r\n") is None
    assert session.wants_tls
    assert session.take_output() == b"220 2.0.0 Begin TLS\r\n"
    session.feed(b"MAIL FROM:<evil@one.example>\r\n")
    session.tls_started()
    assert (session.user, session.helo, session.tls, session.wants_tls) == (None, "", True, False)
    assert session.take_output() == b""
    assert said(session, b"NOOP\r\n") == b"250 2.0.0 OK\r\n"


# Authentication.


@pytest.mark.parametrize("peer", ["", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_auth_is_offered_on_this_machine(peer: str) -> None:
    session = Session(rules(authenticate=lambda user, password: True), peer)
    session.greet()
    assert b"AUTH PLAIN LOGIN" in said(session, b"EHLO x.example\r\n")


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "unknown", "fe80::1%eth0"])
def test_auth_is_not_offered_in_the_clear(peer: str) -> None:
    session = Session(rules(authenticate=lambda user, password: True), peer)
    session.greet()
    assert b"AUTH" not in said(session, b"EHLO x.example\r\n")
    assert said(session, b"AUTH PLAIN\r\n").startswith(b"538 5.7.11 ")


@pytest.mark.parametrize("words", [b"\0\0secret", b"\0joe\0", b"other\0joe\0secret"])
def test_no_user_or_no_password_is_nobody(words: bytes) -> None:
    session = greeted(rules(authenticate=lambda user, password: True), "::1")
    assert said(session, b"AUTH PLAIN " + base64.b64encode(words) + b"\r\n").startswith(b"535 5.7.8 ")


def broken(*_: object) -> Any:
    raise Fault("secret text of the database")


def failing(*_: object) -> Any:
    raise RuntimeError("secret text of a bug")


def test_a_fault_while_authenticating_is_temporary() -> None:
    session = greeted(rules(authenticate=broken), "::1")
    assert said(session, b"AUTH PLAIN " + base64.b64encode(b"\0joe\0x") + b"\r\n") == b"454 4.7.0 Temporary authentication failure\r\n"
    assert session.user is None


# What is asked of the application.


def test_a_fault_while_asking_for_a_recipient_is_temporary() -> None:
    session = greeted(rules(accept_recipient=broken))
    assert said(session, b"MAIL FROM:<>\r\nRCPT TO:<b@two.example>\r\n").endswith(b"451 4.3.0 Local error, try again later\r\n")


def test_an_unexpected_exception_is_the_listeners_and_never_heard() -> None:
    meter = Meter()
    session = greeted(rules(accept_recipient=failing, reserve=meter.reserve, release=meter.release))
    with pytest.raises(RuntimeError):
        session.feed(b"MAIL FROM:<>\r\nRCPT TO:<b@two.example>\r\n")
    session.shut_down()
    assert b"secret" not in session.take_output()
    assert meter.held == 0


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (Reply(251, "will forward"), b"251 2.0.0 will forward\r\n"),
        (Reply(550, "no", "5.1.1"), b"550 5.1.1 no\r\n"),
        (Reply(450, "two\nlines\r"), b"450-4.0.0 two\r\n450 4.0.0 lines?\r\n"),
    ],
)
def test_recipients_are_answered_by_the_application(answer: Reply, heard: bytes) -> None:
    session = greeted(rules(accept_recipient=lambda recipient, mail_from: answer))
    assert said(session, b"MAIL FROM:<>\r\nRCPT TO:<b@two.example>\r\n").partition(b"\r\n")[2] == heard


def test_an_error_that_carries_a_reply_refuses_the_recipient() -> None:
    def refuse(recipient: str, mail_from: str) -> Reply | None:
        raise SMTPError(550, "not you", "5.7.1", cause="secret")

    session = greeted(rules(accept_recipient=refuse))
    heard = said(session, b"MAIL FROM:<a@one.example>\r\nRCPT TO:<b@two.example>\r\nDATA\r\n")
    assert heard.splitlines()[1:] == [b"550 5.7.1 not you", b"554 5.5.1 No valid recipients"]


def test_who_is_asked_hears_recipient_and_sender() -> None:
    asked: list[tuple[str, str]] = []
    session = greeted(rules(accept_recipient=lambda *both: asked.append(both)))
    said(session, b"MAIL FROM:<a@one.example>\r\nRCPT TO:<@r.example:B@two.example>\r\n")
    assert asked == [("B@two.example", "a@one.example")]


# Memory.


def test_a_line_of_ten_megabytes_is_never_held() -> None:
    session = greeted()
    for _ in range(160):
        session.feed(b"x" * 65536)
        assert len(session._buffer) < 2000
    assert session.take_output() == b"500 5.5.2 A line has 1065 octets at most\r\n"
    assert said(session, b"\r\nNOOP\r\n") == b"250 2.0.0 OK\r\n"


def test_a_message_over_its_size_is_never_held() -> None:
    meter = Meter()
    session = begun(rules(size=100_000, reserve=meter.reserve, release=meter.release))
    for _ in range(160):
        assert session.feed(b"x" * 65000 + b"\r\n") is None
        assert len(session._buffer) < 250_000
    assert meter.held < 400_000
    assert said(session, b".\r\n") == b"552 5.3.4 The message is longer than 100000 octets\r\n"
    assert meter.held == 0


def test_what_is_held_grows_with_what_comes() -> None:
    meter = Meter()
    session = greeted(rules(reserve=meter.reserve, release=meter.release))
    said(session, b"MAIL FROM:<> SIZE=30000000\r\n")
    assert meter.held == FIRST_OCTETS
    said(session, b"RCPT TO:<b@two.example>\r\nDATA\r\n")
    session.feed(b"\r\n" + b"x" * 1_000_000)
    assert 1_000_000 < meter.held < 1_200_000
    given(session, b"\r\n.\r\n")
    assert meter.held > 1_000_000
    session.answer(TAKEN)
    assert meter.held == 0


def test_no_room_for_a_declared_size() -> None:
    meter = Meter(room=1_000_000)
    session = greeted(rules(reserve=meter.reserve, release=meter.release))
    assert said(session, b"MAIL FROM:<> SIZE=2000000\r\n").startswith(b"452 4.3.1 ")
    assert meter.held == 0
    assert said(session, b"MAIL FROM:<> SIZE=900000\r\n").startswith(b"250 ")


@pytest.mark.parametrize("begin", [b"DATA\r\n", b"BDAT 2000002 LAST\r\n"])
def test_no_room_while_reading(begin: bytes) -> None:
    meter = Meter(room=1_000_000)
    session = greeted(rules(reserve=meter.reserve, release=meter.release))
    said(session, b"MAIL FROM:<>\r\nRCPT TO:<b@two.example>\r\n" + begin)
    for _ in range(20):
        session.feed(b"x" * 100_000)
        assert meter.held <= 1_000_000
    end = b"\r\n.\r\n" if begin == b"DATA\r\n" else b"\r\n"
    assert said(session, end).startswith(b"452 4.3.1 ")
    assert meter.held == 0


@pytest.mark.parametrize(
    "ending",
    [
        lambda session: session.feed(b"RSET\r\n"),
        lambda session: session.feed(b"QUIT\r\n"),
        lambda session: session.feed(b"EHLO again.example\r\n"),
        lambda session: session.feed(b"GET / HTTP/1.0\r\n"),
        lambda session: session.feed(b"XYZZY\r\n" * 20),
        lambda session: session.feed(b"RCPT TO:<b@two.example>\r\nBDAT x\r\n"),
        lambda session: session.feed(b"RCPT TO:<b@two.example>\r\nDATA\r\nhaste\r\n"),
        lambda session: session.feed(b"RCPT TO:<b@two.example>\r\nBDAT 2 LAST\r\na\n"),
        lambda session: [session.feed(b"RCPT TO:<b@two.example>\r\nDATA\r\n"), session.feed(b"a\n\r\n.\r\n")],
        lambda session: [session.feed(b"RCPT TO:<b@two.example>\r\nDATA\r\n"), session.feed(MESSAGE), session.answer(TAKEN)],
        lambda session: [session.feed(b"RCPT TO:<b@two.example>\r\nDATA\r\n"), session.feed(MESSAGE), session.abandon()],
        lambda session: [session.feed(b"RCPT TO:<b@two.example>\r\nDATA\r\n"), session.feed(b"half"), session.end()],
        Session.timed_out,
        Session.shut_down,
        Session.end,
    ],
)
def test_what_is_reserved_is_released(ending: Callable[[Session], object]) -> None:
    meter = Meter()
    session = greeted(rules(reserve=meter.reserve, release=meter.release))
    session.feed(b"MAIL FROM:<a@one.example>\r\n")
    assert meter.held == FIRST_OCTETS
    ending(session)
    session.end()
    assert meter.held == 0


# The replies themselves.


def test_every_reply_has_an_enhanced_status() -> None:
    """But the greeting, the answers to EHLO and HELO, and 3xx (RFC 2034 §4)."""
    for verb in sorted(VERBS - {"EHLO", "HELO", "DATA", "AUTH"}):
        session = greeted(rules(authenticate=lambda user, password: True))
        heard = said(session, verb.encode() + b"\r\n" + b"MAIL FROM:<a@one.example> SIZE=x\r\n")
        for line in heard.splitlines():
            assert line[4:6] in (b"2.", b"4.", b"5."), (verb, line)


def test_an_answer_without_status_gets_one() -> None:
    session = begun()
    given(session)
    session.answer([Reply(550, "no")])
    assert session.take_output() == b"550 5.0.0 no\r\n"


def test_counts_begin_anew_with_a_message_that_was_taken() -> None:
    session = greeted(rules(errors=3, commands=20))
    for _ in range(50):
        said(session, b"XYZZY\r\nXYZZY\r\nMAIL FROM:<>\r\nRCPT TO:<b@two.example>\r\nDATA\r\n")
        given(session)
        session.answer(TAKEN)
    assert not session.closed


def test_counts_go_on_with_messages_that_were_refused() -> None:
    session = greeted(rules(commands=20))
    for _ in range(5):
        said(session, b"NOOP\r\nMAIL FROM:<>\r\nRCPT TO:<b@two.example>\r\nDATA\r\n")
        if not session.closed:
            given(session)
            session.answer([reply(550)])
    assert session.closed


def test_sessions_are_gone_without_the_garbage_collector() -> None:
    """A session that referred to itself would keep its buffer until a collection comes."""
    meter = Meter()

    class Watched(Session):
        def __del__(self) -> None:
            meter.held += 1

    session = Watched(rules(), "")
    session.greet()
    session.feed(b"EHLO x.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@two.example>\r\nDATA\r\n")
    del session
    assert meter.held == 1


def test_rules_are_shared_and_frozen() -> None:
    of = rules()
    with pytest.raises(AttributeError):
        of.size = 1  # type: ignore[misc]
    assert replace(of, size=1).size == 1


def test_a_flood_of_small_commands_takes_linear_time() -> None:
    def flood() -> None:
        session = greeted(rules(commands=10**9))
        for _ in range(10):
            session.feed(b"NOOP\r\n" * 10_000)
        assert len(session.take_output()) == 100_000 * len(b"250 2.0.0 OK\r\n")

    assert_costs_less(1, flood)


# The short way.

PLAIN = [b"MAIL FROM:<a@one.example>\r\n", b"RCPT TO:<b@two.example>\r\n", b"DATA\r\n", MESSAGE]

#: What a client may say in their place: as plain, nearly plain, or not.
INSTEAD: list[list[bytes]] = [
    [
        b"EHLO again.example\r\n",
        b"ehlo [192.0.2.1]\r\n",
        b"EHLO\r\n",
        b"EHLO \r\n",
        b"EHLO  again.example\r\n",
        b"EHLO again.example \r\n",
        b"EHLO a b\r\n",
        b"EHLO \xc3\xa9\r\n",
        b"EHLO again.example\n",
        b"EHLOagain.example\r\n",
        b"HELO again.example\r\n",
        b"mail FROM:<a@one.example> size=12\r\n",
        b"MAIL FROM:<> SIZE=100 BODY=8BITMIME\r\n",
        b"MAIL FROM:<a@one.example> SIZE=99999\r\n",
        b"MAIL FROM:<a@one.example> SIZE=9999999999\r\n",
        b"MAIL FROM:<a@one.example> SIZE=1 SIZE=1\r\n",
        b"MAIL FROM:<a@one.example> BODY=BINARYMIME\r\n",
        b"Mail from: <a@one.example>\r\n",
        b"MAIL FROM:<a@one.example>\n",
        b"MAIL FROM:<a@one.example>\r\nRCPT TO:<b@two.example>\r\n",
        b"MAIL FROM:<" + b"a" * 60 + b"@one.example>\r\n",
        b"MAIL FROM:<" + b"a" * 65 + b"@one.example>\r\n",
        b"MAIL FROM:<a@one..example>\r\n",
        b"MAIL FROM:<\xc3\xa9@one.example>\r\n",
    ],
    [
        b"rcpt TO:<c@two.example>\r\n",
        b"RCPT TO:<nobody@two.example>\r\n",
        b"RCPT TO:<later@two.example>\r\n",
        b"RCPT TO:<broken@two.example>\r\n",
        b"RCPT TO:<B@Two.Example>\r\n",
        b"RCPT TO:<>\r\n",
        b"RCPT TO:<b@two.example> NOTIFY=NEVER\r\n",
        b"RCPT TO:<b@two.example>\r\nDATA\r\n",
        b"RCPT TO:<b@two.example>",
        b"BDAT 4\r\na\r\n.",
    ],
    [
        b"data\r\n",
        b"DATA \r\n",
        b"DATA now\r\n",
        b"DATA\r\nhaste\r\n.\r\n",
        b"BDAT 4\r\na\r\n.",
        b"BDAT 0 LAST\r\n",
        b"\r\n",
        b"NOOP\r\n",
        b"RSET\r\n",
    ],
    [
        b".\r\n",
        b"..\r\n.\r\n",
        b"...\r\n.\r\n",
        b".text\r\n.\r\n",
        b"\r\n.\r\n",
        b"text\r\n..b\r\n.\r\n",
        b"text\r\n.",
        b"text\r\n.ab",
        b"text\r\n.\n.\r\n",
        b"text\nb\r\n.\r\n",
        b"text\r\n.\r\nMAIL FROM:<a@one.example>\r\n",
        b"text\r\n.\r\nNOOP",
        b"refused\r\n.\r\n",
        b"x" * 3000 + b"\r\n.\r\n",
        b"Received: x\r\n" * 4 + b"\r\n.\r\n",
        b"h: x\r\n" * 60 + b"\r\n.\r\n",
    ],
]

#: A message's pieces, of which one is now and then another, missing, or said twice.
DIALOGUE = st.tuples(
    *[
        st.one_of(st.just([plain]), st.just([plain]), st.sampled_from([[each] for each in others]), st.sampled_from([[], [plain, plain]]))
        for plain, others in zip(PLAIN, INSTEAD, strict=True)
    ]
).map(lambda parts: [piece for part in parts for piece in part])


def accepting(recipient: str, mail_from: str) -> Reply | None:
    if recipient.startswith("broken"):
        raise Fault("the database is away")
    return {"nobody@two.example": reply(550), "later@two.example": Reply(450, "not now")}.get(recipient)


class Twin:
    """A session and all that can be seen of it."""

    def __init__(self, short: bool, room: int, **others: Any) -> None:
        self.short, self.meter, self.seen = short, Meter(room), b""
        self.envelopes: list[Envelope] = []
        limits: dict[str, Any] = {"size": 2000, "header_bytes": 200, "received": 3, "errors": 4, "recipients": 2, **others}
        of = rules(reserve=self.meter.reserve, release=self.meter.release, accept_recipient=accepting, **limits)
        self.session = Session(of, "192.0.2.1")
        self.session.greet()
        self.state()
        self.feed(b"LHLO client.example\r\n" if of.lmtp else b"EHLO client.example\r\n")

    def feed(self, data: bytes) -> None:
        if not self.short:  # what comes in two pieces is not plain
            self._answer(self.session.feed(data[:1]))
            self._answer(self.session.feed(data[1:]))
            return
        heard = self.session.feed_plain(data)
        self._answer(heard(data) if callable(heard) else heard)

    def _answer(self, heard: Envelope | bytes | None) -> None:
        self.seen += self.session.take_output()
        while isinstance(heard, Envelope):
            self.envelopes.append(heard)
            replies = [reply(250) if b"text" in heard.data else Reply(554)] * (len(heard.rcpt_tos) if self.session.rules.lmtp else 1)
            answer = self.session.answer_plain(replies) if self.short else self.session.answer
            heard = answer(replies) if callable(answer) else answer
        self.seen += heard or b""

    def state(self) -> tuple[object, ...]:
        session = self.session
        self.seen += session.take_output()
        return self.seen, self.envelopes, self.meter.held, session.closed, session.collecting, session.between, session.pending


@drawn(
    dialogues=st.lists(DIALOGUE, max_size=8),
    room=st.sampled_from([10**9, 10**9, FIRST_OCTETS * 3 // 2, 1000]),
    lmtp=st.booleans(),
    line=st.sampled_from([1000, 1000, 28]),
    accept_waits=st.booleans(),
    commands=st.sampled_from([100, 4]),
)
@settings(max_examples=1000, deadline=None)
def test_the_short_way_does_what_the_long_one_does(dialogues: list[list[bytes]], room: int, **others: Any) -> None:
    """It is a second account of the same rules, for speed."""
    long, short = (Twin(way, room, **others) for way in (False, True))
    for piece in [piece for dialogue in dialogues for piece in dialogue]:
        long.feed(piece)
        short.feed(piece)
        assert short.state() == long.state(), piece


def test_a_declared_size_that_needs_more_room_goes_the_long_way() -> None:
    session = greeted()
    assert session.feed_plain(b"MAIL FROM:<a@one.example> SIZE=%d\r\n" % (FIRST_OCTETS + 1)) == session.feed
    assert session.feed_plain(b"MAIL FROM:<a@one.example> SIZE=%d\r\n" % FIRST_OCTETS) == b"250 2.1.0 Sender OK\r\n"


def test_a_message_that_needs_more_room_goes_the_long_way() -> None:
    meter = Meter()
    session = begun(rules(reserve=meter.reserve, release=meter.release))
    large = b"x" * FIRST_OCTETS + MESSAGE
    assert session.feed_plain(large) == session.feed
    given(session, large)
    assert meter.held > len(large)


def test_the_short_way_is_taken() -> None:
    session = Session(rules(), "192.0.2.1")
    session.greet()
    session.take_output()
    assert session.feed_plain(b"EHLO client.example\r\n") == said(greeted(), b"EHLO client.example\r\n")
    mail, rcpt, data, message = PLAIN
    assert session.feed_plain(mail) == b"250 2.1.0 Sender OK\r\n"
    ask = session.feed_plain(rcpt)
    assert callable(ask)
    assert ask != session.feed
    assert ask(rcpt) == b"250 2.1.5 Recipient OK\r\n"
    assert session.feed_plain(data) == b"354 End data with <CR><LF>.<CR><LF>\r\n"
    envelope = session.feed_plain(message)
    assert isinstance(envelope, Envelope)
    assert (envelope.mail_from, envelope.rcpt_tos, envelope.data) == ("a@one.example", ("b@two.example",), MESSAGE[:-3])
    assert session.answer_plain(TAKEN) == b"250 2.0.0 OK\r\n"
    assert not session.take_output()


def test_who_does_not_wait_is_asked_for_a_recipient_at_once() -> None:
    session = greeted(rules(accept_waits=False, accept_recipient=accepting))
    mail, rcpt, _, _ = PLAIN
    session.feed_plain(mail)
    assert session.feed_plain(rcpt) == b"250 2.1.5 Recipient OK\r\n"
    refused = rcpt.replace(b"<b@", b"<nobody@")
    rest = session.feed_plain(refused)
    assert callable(rest)
    assert rest(refused) is None
    assert session.take_output() == b"550 5.0.0 Mailbox unavailable\r\n"


@pytest.mark.parametrize("replies", [[], TAKEN * 2, [reply(451)], [Reply(250, "without a status")]])
def test_no_short_answer(replies: list[Reply]) -> None:
    session = begun()
    given(session)
    assert session.answer_plain(replies) == session.answer


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda session: session.feed(b"NOOP\r\n"),
        lambda session: session.feed(b"NOOP\r\n" * 200_000),
        lambda session: session.shut_down(),
        lambda session: session.end(),
    ],
)
def test_no_short_answer_to_a_client_that_went_on(meanwhile: Callable[[Session], object]) -> None:
    session = begun()
    given(session)
    meanwhile(session)
    assert session.answer_plain(TAKEN) == session.answer


def test_the_short_way_is_not_taken_before_what_was_said_is_written() -> None:
    session = greeted()
    session.feed(b"NOOP\r\n")
    assert session.feed_plain(PLAIN[0]) == session.feed
    session.take_output()
    assert session.feed_plain(PLAIN[0]) == b"250 2.1.0 Sender OK\r\n"
