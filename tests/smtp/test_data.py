"""The DATA stream and chunks, apart from any conversation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamson.errors import SMTPError
from lamson.smtp.data import Chunks, DotStream, Limits, checked

LIMITS = Limits(size=1000, header_bytes=500, received=50)
KEEPING = Limits(size=1000, header_bytes=500, received=50, keep_bare_line_ends=True)

line = st.sampled_from([b"", b".", b"..", b".a", b"a.", b"\r", b"\n", b"a\r.", b"\n.", b"\n.\r", b"text", b"\xff\x00"])


def cut(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    at, turn = 0, 0
    while at < len(data):
        length = lengths[turn % len(lengths)]
        yield data[at : at + length]
        at, turn = at + length, turn + 1


def stuffed(lines: list[bytes]) -> bytes:
    """As a client sends these lines (RFC 5321 §4.5.2)."""
    return b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in lines) + b".\r\n"


def read(sent: bytes, lengths: list[int], limits: Limits = KEEPING) -> tuple[bytes, bytes]:
    """The message, and what stays in the buffer."""
    buffer = bytearray()
    stream = DotStream(buffer, limits)
    message = None
    for part in cut(sent, lengths):
        buffer += part
        if message is None:
            message = stream.take()
    assert message is not None
    return message, bytes(buffer)


@given(st.lists(line, max_size=20), st.lists(st.integers(1, 30), min_size=1, max_size=10))
def test_what_was_stuffed_comes_out_however_it_is_cut(lines: list[bytes], lengths: list[int]) -> None:
    """Lines that hold bare CR and LF are in here: none of them ends the message or makes a line."""
    joined = b"".join(line + b"\r\n" for line in lines)
    whole = joined.split(b"\r\n")[:-1]
    message, rest = read(stuffed(whole) + b"QUIT\r\n", lengths)
    assert message == joined
    assert rest == b"QUIT\r\n"


@given(st.binary(max_size=60).map(lambda noise: noise.replace(b"\r\n.\r\n", b"")), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_there_is_one_end(noise: bytes, lengths: list[int]) -> None:
    """Whatever stands before the first CRLF.CRLF is the message, and whatever follows is not."""
    sent = noise + b"\r\n.\r\nrest"
    end = (b"\r\n" + sent).find(b"\r\n.\r\n")
    message, rest = read(sent, lengths)
    assert rest == sent[end + 3 :]
    assert message == (b"\r\n" + sent[:end]).replace(b"\r\n.", b"\r\n")[2:]


@given(st.binary(max_size=40).map(lambda noise: noise.translate(bytes(range(256)).replace(b"a", b"\r").replace(b"b", b"\n"))))
def test_bare_line_ends(noise: bytes) -> None:
    bare = b"\r" in noise.replace(b"\r\n", b"") or b"\n" in noise.replace(b"\r\n", b"")
    if bare:
        with pytest.raises(SMTPError, match="bare CR or LF"):
            checked(noise, LIMITS)
    else:
        assert checked(noise, LIMITS) is noise


def test_a_message_that_is_too_large_is_not_kept() -> None:
    buffer = bytearray()
    stream = DotStream(buffer, LIMITS)
    for _ in range(1000):
        buffer += b"x" * 998 + b"\r\n"
        assert stream.take() is None
        assert len(buffer) < 3000
    assert stream.kept == 0
    buffer += b".\r\nQUIT\r\n"
    with pytest.raises(SMTPError, match="longer than 1000"):
        stream.take()
    assert buffer == b"QUIT\r\n"


def test_doubled_dots_do_not_count() -> None:
    message, _ = read(b"\r\n" + b"..\r\n" * 332 + b".\r\n", [7], LIMITS)
    assert len(message) == 998


def test_the_first_refusal_counts() -> None:
    buffer = bytearray()
    stream = DotStream(buffer, LIMITS)
    stream.refuse(SMTPError(452, "no room", "4.3.1"))
    buffer += b"x" * 5000 + b"\r\n.\r\n"
    with pytest.raises(SMTPError, match="no room"):
        stream.take()


def test_chunks() -> None:
    buffer = bytearray()
    chunks = Chunks(buffer, LIMITS)
    chunks.begin(5, False)
    buffer += b"abc"
    assert chunks.take() is None
    assert not chunks.whole
    buffer += b"deBDAT"
    assert chunks.take() is None
    assert chunks.whole
    assert buffer == b"BDAT"
    buffer.clear()
    chunks.begin(2, True)
    buffer += b"\r\nQUIT"
    assert chunks.take() == b"abcde\r\n"
    assert buffer == b"QUIT"


def test_a_chunk_that_is_too_large_is_not_kept() -> None:
    buffer = bytearray()
    chunks = Chunks(buffer, LIMITS)
    chunks.begin(10**18, True)
    for _ in range(100):
        buffer += b"x" * 65536
        assert chunks.take() is None
        assert not buffer
    assert chunks.kept == 0


def test_a_header_is_looked_at_and_the_body_is_not() -> None:
    body = b"Received: x\r\n" * 60
    assert checked(b"A: b\r\n\r\n" + body, LIMITS)
    with pytest.raises(SMTPError, match="Too many hops"):
        checked(body + b"\r\n", Limits(1000, 1000, 50))
    with pytest.raises(SMTPError, match="header is longer"):
        checked(body, LIMITS)


def test_hops_are_header_fields_and_not_words_in_them() -> None:
    assert checked(b"Subject: Received: Received:\r\nX-Received: 1\r\n" * 10 + b"\r\n", Limits(1000, 1000, 5))
