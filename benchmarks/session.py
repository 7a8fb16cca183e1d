"""CPU time of the session alone: no sockets, no threads. `python benchmarks/session.py` prints microseconds a message."""

from __future__ import annotations

import timeit
from collections.abc import Sequence

from lamson.smtp.session import Envelope, Rules, Session
from lamson.status import reply

RULES = Rules("bench.example")
TAKEN = [reply(250, "OK", "2.0.0")]
LINE = b"The quick brown fox jumps over the lazy dog and writes mail about it.\r\n"
HEADER = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: speed\r\nMessage-ID: <1@example.com>\r\n\r\n"


def message(octets: int) -> bytes:
    """A message of about so many octets, as it is sent: with its final dot."""
    return HEADER + LINE * ((octets - len(HEADER)) // len(LINE)) + b".\r\n"


def chunks(sent: bytes, octets: int) -> list[bytes]:
    """As `recv` would give it."""
    return [sent[at : at + octets] for at in range(0, len(sent), octets)]


def greeted() -> Session:
    session = Session(RULES, "127.0.0.1")
    session.greet()
    session.feed(b"EHLO client.example\r\n")
    session.take_output()
    return session


def fed(session: Session, data: bytes) -> Envelope | bytes | None:
    """As a listener does it: by the short way where there is one."""
    heard = session.feed_plain(data)
    return heard(data) if callable(heard) else heard


def transaction(session: Session, parts: Sequence[bytes]) -> None:
    """One message on a kept connection, one command at a time."""
    for line in (b"MAIL FROM:<sender@example.com>\r\n", b"RCPT TO:<recipient@example.com>\r\n", b"DATA\r\n"):
        fed(session, line)
        session.take_output()
    envelope = None
    for part in parts:
        envelope = fed(session, part)
    assert isinstance(envelope, Envelope)
    session.answer_plain(TAKEN)


def microseconds(work: str, names: dict[str, object], number: int) -> float:
    """The best of seven."""
    return min(timeit.repeat(work, globals=names | {"transaction": transaction}, number=number, repeat=7)) / number * 1e6


def main() -> None:
    for octets, number in ((2_000, 5000), (64_000, 500), (1_000_000, 20)):
        parts = chunks(message(octets), 256 * 1024)
        spent = microseconds("transaction(session, parts)", {"session": greeted(), "parts": parts}, number)
        print(f"{octets:>9,} octets, kept connection: {spent:8.1f} us a message")
    spent = microseconds("transaction(greeted(), parts)", {"greeted": greeted, "parts": chunks(message(2_000), 4096)}, 5000)
    print(f"{2_000:>9,} octets, new session:     {spent:8.1f} us a message")


if __name__ == "__main__":
    main()
