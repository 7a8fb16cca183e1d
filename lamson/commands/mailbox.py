"""What the commands that go through a mailbox have in common: an mbox file or a Maildir, one message at a time.

Of a mailbox of any size only one message is in memory, and the names of some thousand. A mailbox that is being filled may be gone through.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lamson.errors import ConfigError

#: File names that are sorted at a time: a Maildir of more is listed once more for each so many.
NAMES = 10_000

#: Octets of a line that are read at once.
PIECE = 64 * 1024

#: The line before each message of an mbox file: it ends in a date (RFC 4155, appendix A). Without one, "From " begins a sentence.
_FROM_LINE = re.compile(rb"From .{0,1000}\b\d{1,2}:\d\d\b.{0,40}\b\d{4}\b.{0,40}$", re.DOTALL)

#: A message: where it is, for people, and what reads it. Reading raises `OSError`.
Entry = tuple[str, Callable[[], bytes]]


@dataclass(frozen=True)
class Mailbox:
    """A mailbox: the number of its messages when it was opened, and an iterator over them."""

    path: str
    count: int
    entries: Iterator[Entry]


def opened(path: str) -> Mailbox:
    """The mailbox at that path. Raises `ConfigError` for what is none."""
    if os.path.isdir(path):
        if not os.path.isdir(os.path.join(path, "new")):
            raise ConfigError(f"{path} is no Maildir: it has no directory `new`. Name one: -input MAILDIR")
        return Mailbox(path, sum(1 for _ in _files(path)), _maildir_entries(path))
    if not os.path.isfile(path):
        raise ConfigError(f"There is no mailbox {path}. Name an mbox file or a Maildir: -input FILE")
    with open(path, "rb") as file:
        count = sum(1 for _, begins in _pieces(file) if begins)
        if not count and file.tell():
            raise ConfigError(f"{path} is no mbox file: its first line does not begin with `From `. Name another: -input FILE")
    return Mailbox(path, count, _mbox_entries(path))


# -- Maildir


def _files(maildir: str) -> Iterator[tuple[str, str]]:
    """Name and path of each message, in no order."""
    for folder in ("new", "cur"):
        place = os.path.join(maildir, folder)
        if os.path.isdir(place):
            with os.scandir(place) as entries:
                yield from ((entry.name, entry.path) for entry in entries if entry.is_file() and not entry.name.startswith("."))


def _maildir_entries(maildir: str) -> Iterator[Entry]:
    """The oldest first, by their names."""
    last = ("", "")
    while some := heapq.nsmallest(NAMES, (each for each in _files(maildir) if each > last)):
        yield from ((path, Path(path).read_bytes) for _, path in some)
        last = some[-1]


# -- mbox


def _pieces(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """The file's lines, long ones in several pieces, and whether a message begins there; none where the first begins none."""
    at_start, inside = True, False
    while piece := file.readline(PIECE):
        begins = at_start and piece.startswith(b"From ") and (not inside or _FROM_LINE.match(piece) is not None)
        inside = inside or begins
        if inside:
            yield piece, begins
        elif piece.strip():
            return
        at_start = piece.endswith(b"\n")


def _mbox_entries(path: str) -> Iterator[Entry]:
    number, lines = 0, list[bytes]()
    with open(path, "rb") as file:
        for piece, begins in _pieces(file):
            if begins and number:
                yield _mbox_entry(path, number, lines)
            if begins:
                number, lines = number + 1, []
            else:
                lines.append(piece)
        if number:
            yield _mbox_entry(path, number, lines)


def _mbox_entry(path: str, number: int, lines: list[bytes]) -> Entry:
    """A message as it lies in the file, without the blank line that ends it there."""
    if lines and lines[-1] in (b"\n", b"\r\n"):
        del lines[-1]
    data = b"".join(lines)
    return f"{path}, message {number}", lambda: data
