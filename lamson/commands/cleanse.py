"""`lamson cleanse`: a mailbox written anew in canonical form."""

from __future__ import annotations

import os

from lamson import encoding
from lamson.commands import mailbox, sending
from lamson.commands.style import command, option
from lamson.errors import ConfigError, EncodingError
from lamson.queue import Queue


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
    box = mailbox.opened(input)
    target = Queue(output)
    for name, read in sending.with_progress(box.entries, box.count, "Cleansing"):
        try:
            target.push(canonical(read()))
            tally.well += 1
        except (EncodingError, OSError) as error:
            tally.fail(name, error)
    tally.end("Wrote")


def canonical(data: bytes) -> bytes:
    """The message as Lamson itself would write it."""
    return encoding.to_bytes(encoding.parse(data))
