"""What the commands that send have in common: line ends, who it goes to, progress, and what became of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import click

from lamson import address
from lamson.errors import EncodingError, RelayError

T = TypeVar("T")

#: Where there is no terminal, a line is printed after so many messages.
LINE_EVERY = 1000


def crlf(data: bytes, source: str) -> bytes:
    """A file's lines as SMTP has them: LF becomes CRLF and nothing else is changed. A bare CR is an `EncodingError` with its line."""
    lines = data.replace(b"\r\n", b"\n")
    at = lines.find(b"\r")
    if at >= 0:
        number = lines.count(b"\n", 0, at) + 1
        raise EncodingError(f"{source}, line {number}: a carriage return without a line feed, which mail cannot have. Remove it")
    return lines.replace(b"\n", b"\r\n")


def addresses(texts: Iterable[str]) -> list[str]:
    """The bare addresses in header text, as they are written, without duplicates."""
    return list(dict.fromkeys(found.bare for text in texts for found in address.parse(text) if found.local))


def show(line: str) -> None:
    """One line of the SMTP talk, for `Client(talk=...)`."""
    click.echo(line, err=True)


def report(failed: dict[str, RelayError]) -> None:
    """Ends the command with status 1 if somebody did not get it, and says who and why."""
    for recipient, error in failed.items():
        click.echo(f"lamson: {recipient} did not get it: {error}", err=True)
    if failed:
        sys.exit(1)


def with_progress(items: Iterable[T], total: int, doing: str) -> Iterator[T]:
    """Gives the items and shows how far it is: a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        with click.progressbar(items, length=total, label=doing, show_pos=True, file=sys.stderr) as bar:
            yield from bar
        return
    for number, item in enumerate(items, 1):
        yield item
        if number % LINE_EVERY == 0:
            click.echo(f"{doing}: {number} of {total}", err=True)


class Tally:
    """Counts what went well and what failed. Only the counts are kept, however many there are."""

    def __init__(self) -> None:
        self.well = self.failed = 0

    def fail(self, name: str, why: object) -> None:
        """Says at once what failed, on a line of its own."""
        self.failed += 1
        clear = "\r\033[K" if sys.stderr.isatty() else ""
        click.echo(f"{clear}{name}: {why}", err=True)

    def end(self, did: str) -> None:
        """The last line. Status 1 if anything failed."""
        click.echo(f"{did} {self.well} messages, {self.failed} failed.")
        if self.failed:
            sys.exit(1)
