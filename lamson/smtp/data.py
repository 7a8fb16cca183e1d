"""A message on its way in: the DATA stream and the chunks of BDAT.

Both take octets out of the connection's buffer as they come and give the message, whole and as it was sent, when its end is there. They
know what a message on the wire must be (strict CRLF, a size, a header of a size, not too many Received lines) and nothing of commands,
recipients or replies but the `SMTPError` that refuses. A message that is refused while it comes is read to its end all the same,
because only there may the reply stand, and none of it is kept.

Only CRLF.CRLF ends DATA. A bare CR or LF refuses the message, or is kept as data where the setting says so; it is never the end of a line.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamson.errors import SMTPError

#: RFC 5321 §4.1.1.4: a line that is nothing but a dot.
END = b"\r\n.\r\n"

_NO_LINE_ENDS = bytes(set(range(256)) - set(b"\r\n"))


@dataclass(slots=True)  # not frozen: each connection has one, and that would make it five times as dear
class Limits:
    """What a message may be; nobody changes it. Octets, but `received` counts lines. `keep_bare_line_ends`: bare CR and LF are data."""

    size: int
    header_bytes: int
    received: int
    keep_bare_line_ends: bool = False


class DotStream:
    """Reads DATA (RFC 5321 §4.5.2) out of `buffer`, which belongs to the connection and must be empty to begin with."""

    #: As of a chunk: there is no part of it that could be complete, and its end is the message's.
    whole, last = False, True

    def __init__(self, buffer: bytearray, limits: Limits) -> None:
        buffer += b"\r\n"  # the end of the line DATA is the CRLF that a dot at once would follow (RFC 5321 §4.1.1.4)
        self._buffer = buffer
        self._limits = limits
        self._searched = 0
        self._stuffed = False
        self._refused: SMTPError | None = None

    def refuse(self, why: SMTPError) -> None:
        """Keep nothing of this message; `why` is raised where it ends. The first reason counts."""
        self._refused = self._refused or why

    @property
    def kept(self) -> int:
        """Octets of memory that the message takes so far."""
        return 0 if self._refused else len(self._buffer)

    def take(self) -> bytes | None:
        """The message when its end is in the buffer, else None; what follows stays in the buffer. A refusal is raised at the end."""
        end = self._find_end()
        if end < 0:
            self._go_on()
            return None
        with memoryview(self._buffer) as octets:
            data = b"" if self._refused else bytes(octets[2 : end + 2])
        del self._buffer[: end + len(END)]
        if self._refused:
            raise self._refused
        return checked(self._unstuffed(data), self._limits)

    def take_at_once(self, data: bytes) -> bytes | None:
        """The message, where `data` is the whole of it and no dot is doubled. Else None, and nothing is done: that is for the buffer and
        `take`. A refusal is raised, and nothing is done either."""
        came_before = len(self._buffer) > len(b"\r\n")
        if came_before or data.find(b"\r\n.") != len(data) - len(END) or not data.endswith(END) or data.startswith(b"."):
            return None
        message = checked(data[: -len(b".\r\n")], self._limits)
        self._buffer.clear()
        return message

    def _find_end(self) -> int:
        """Where the end begins, -1 when it is not there. One search is enough for the end and for doubled dots where there are none."""
        dot = self._buffer.find(b"\r\n.", self._searched)
        if dot < 0 or self._buffer.startswith(END, dot):
            return dot
        self._stuffed = True
        return self._buffer.find(END, dot)

    def _go_on(self) -> None:
        # Of four octets (`..` CRLF) one at most is a doubled dot and does not count (RFC 1870 §5); the exact count is taken at the end.
        if len(self._buffer) > self._limits.size * 4 // 3 + len(END):
            self.refuse(_too_large(self._limits))
        if self._refused:
            del self._buffer[: 1 - len(END)]
        self._searched = max(0, len(self._buffer) - len(END) + 1)

    def _unstuffed(self, data: bytes) -> bytes:
        """RFC 5321 §4.5.2: a dot that begins a line, and is not the whole of it, goes."""
        if not self._stuffed:
            return data
        return data[data.startswith(b".") :].replace(b"\r\n.", b"\r\n")


class Chunks:
    """Reads BDAT (RFC 3030 §2): chunks of announced length, as many as the client likes; no octet in them means anything."""

    def __init__(self, buffer: bytearray, limits: Limits) -> None:
        self._buffer = buffer
        self._limits = limits
        self._message = bytearray()
        self._missing = 0
        self.last = False  # the chunk ends the message
        self._refused: SMTPError | None = None

    def begin(self, size: int, last: bool) -> None:
        """A chunk of `size` octets follows. May refuse the message, which is raised where the chunk ends."""
        self._missing, self.last = size, last
        if len(self._message) + size > self._limits.size:
            self.refuse(_too_large(self._limits))

    def refuse(self, why: SMTPError) -> None:
        """Keep nothing of this message; `why` is raised where the chunk ends. The first reason counts."""
        self._refused = self._refused or why
        self._message.clear()

    @property
    def kept(self) -> int:
        """Octets of memory that the message takes so far, with what of the chunk is on its way."""
        return 0 if self._refused else len(self._message) + len(self._buffer)

    @property
    def whole(self) -> bool:
        """The chunk is complete."""
        return not self._missing

    def take(self) -> bytes | None:
        """The message when its last chunk is complete, else None; what follows stays in the buffer. A refusal is raised at each end."""
        taken = min(self._missing, len(self._buffer))
        if not self._refused:
            with memoryview(self._buffer) as octets:
                self._message += octets[:taken]
        del self._buffer[:taken]
        self._missing -= taken
        if self._missing:
            return None
        if self._refused:
            raise self._refused
        return checked(bytes(self._message), self._limits) if self.last else None


def checked(data: bytes, limits: Limits) -> bytes:
    """`data` itself, when it is a message that may be taken; else `SMTPError`."""
    if len(data) > limits.size:
        raise _too_large(limits)
    if not limits.keep_bare_line_ends and has_bare_line_end(data):
        raise SMTPError(550, "Lines end in CRLF only; this message has a bare CR or LF", "5.6.0")  # RFC 5321 §2.3.8
    header = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n", 0, limits.header_bytes + 4)  # the octets of its header
    if header < 0:  # no blank line ends it there
        header = len(data)
    if header > limits.header_bytes:
        raise SMTPError(552, f"The header is longer than {limits.header_bytes} octets", "5.3.4")
    if data.count(b"\n", 0, header) >= limits.received and _received(data, header) > limits.received:
        raise SMTPError(554, "Too many hops: this message goes round in circles", "5.4.6")  # RFC 5321 §6.3
    return data


def has_bare_line_end(data: bytes) -> bool:
    """Not each CR and each LF belongs to a CRLF. A last CR is bare as well: DATA always ends in CRLF, BDAT need not."""
    return 2 * data.count(b"\r\n") != len(data.translate(None, _NO_LINE_ENDS))


def _received(data: bytes, header: int) -> int:
    """How many Received lines the header has."""
    return (b"\n" + data[:header].lower()).count(b"\nreceived:")


def _too_large(limits: Limits) -> SMTPError:
    return SMTPError(552, f"The message is longer than {limits.size} octets", "5.3.4")  # RFC 1870 §6.1
