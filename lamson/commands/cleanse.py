"""`lamson cleanse`: a mailbox written anew in canonical form."""

from __future__ import annotations

import mailbox
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from lamson import encoding
from lamson.commands import sending
from lamson.commands.blast import message_paths
from lamson.commands.style import command, option
from lamson.errors import ConfigError, EncodingError
from lamson.queue import Queue

#: A mailbox: the names of its messages, and what reads the one of a name.
Messages = tuple[list[str], Callable[[str], bytes]]


@command("cleanse")
@option("input", "The mailbox to read: an mbox file or a Maildir. It is not changed.", metavar="MBOX_OR_MAILDIR", required=True)
@option("output", "The Maildir to write; it is made when missing, and what is in it stays.", metavar="MAILDIR", required=True)
def cleanse(input: str, output: str) -> None:
    """Writes every message of a mailbox anew in canonical form, and shows how far it is.

    A message that cannot be written is named with the reason, and the others are written.
    """
    if os.path.realpath(input) == os.path.realpath(output):
        raise ConfigError("-input and -output are the same mailbox. Name another: -output MAILDIR")
    tally = sending.Tally()
    with opened(input) as (names, read):
        target = Queue(output)
        for name in sending.with_progress(names, len(names), "Cleansing"):
            try:
                target.push(canonical(read(name)))
                tally.well += 1
            except (EncodingError, OSError) as error:
                tally.fail(name, error)
    tally.end("Wrote")


def canonical(data: bytes) -> bytes:
    """The message as Lamson itself would write it."""
    return encoding.to_bytes(encoding.parse(data))


@contextmanager
def opened(path: str) -> Iterator[Messages]:
    """The messages of an mbox file or a Maildir. They are read one at a time."""
    if os.path.isdir(path):
        yield message_paths(path), lambda name: Path(name).read_bytes()
    elif os.path.isfile(path):
        with closing(mailbox.mbox(path, create=False)) as box:
            places = {f"{path}, message {number}": place for number, place in enumerate(box.iterkeys(), 1)}
            if not places and os.path.getsize(path):
                raise ConfigError(f"{path} is no mbox file: there is no line that begins with `From `. Name another: -input FILE")
            yield list(places), lambda name: box.get_bytes(places[name])
    else:
        raise ConfigError(f"There is no mailbox {path}. Name an mbox file or a Maildir: -input FILE")
