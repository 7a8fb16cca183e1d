"""`lamson blast`: a Maildir's messages to a server, as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from lamson.commands import sending
from lamson.commands.style import command, option, switch
from lamson.errors import ConfigError, EncodingError
from lamson.mail import MailRequest
from lamson.queue import Queue
from lamson.smtp.client import Client


@command("blast")
@option("input", "The Maildir with the messages. It is not changed.", metavar="MAILDIR", required=True)
@option("host", "The server's name or address.", default="127.0.0.1")
@option("port", "The server's port.", default=8823, type=click.IntRange(1, 65535), metavar="NUMBER")
@switch("debug", "Shows the SMTP talk.")
def blast(input: str, host: str, port: int, debug: bool) -> None:
    """Sends every message of a Maildir as it is, and shows how far it is.

    A message that fails is named with the reason, and the others are sent.
    """
    paths = message_paths(input)
    envelopes = Queue(input) if os.path.isdir(os.path.join(input, "envelopes")) else None
    tally = sending.Tally()
    with Client(host, port, talk=sending.show if debug else None) as client:
        client.open()
        for path in sending.with_progress(paths, len(paths), "Sending"):
            why = send_file(client, path, envelopes)
            if why:
                tally.fail(path, why)
                client.open()  # a server that is gone ends it here
            else:
                tally.well += 1
    tally.end("Sent")


def message_paths(maildir: str) -> list[str]:
    """The files of a Maildir's messages, the oldest first by their names."""
    if not os.path.isdir(os.path.join(maildir, "new")):
        raise ConfigError(f"{maildir} is no Maildir: it has no directory `new`. Name one: -input MAILDIR")
    return [path for _, path in sorted(named_files(maildir))]


def named_files(maildir: str) -> Iterator[tuple[str, str]]:
    """Name and path of each message."""
    for folder in ("new", "cur"):
        place = os.path.join(maildir, folder)
        if os.path.isdir(place):
            with os.scandir(place) as entries:
                yield from ((entry.name, entry.path) for entry in entries if entry.is_file() and not entry.name.startswith("."))


def send_file(client: Client, path: str, envelopes: Queue | None) -> str | None:
    """Sends one message. Returns why it failed, or None."""
    try:
        with open(path, "rb") as file:
            data = sending.crlf(file.read(), path)
    except OSError as error:
        return error.strerror or str(error)
    except EncodingError as error:
        return str(error).removeprefix(f"{path}, ")
    mail_from, rcpt_tos = envelope_of(data, path, envelopes)
    if not rcpt_tos:
        return "it names no recipient"
    failed = client.send(mail_from, rcpt_tos, data)
    return "; ".join(f"{recipient}: {error}" for recipient, error in failed.items()) or None


def envelope_of(data: bytes, path: str, envelopes: Queue | None) -> tuple[str, list[str]]:
    """Sender and recipients: as the queue kept them, else as the headers have them."""
    key = os.path.basename(path).partition(":")[0]
    kept = (envelopes.envelope(key) if envelopes else None) or {}
    message = MailRequest(Data=data)
    mail_from = kept.get("mail_from")
    if mail_from is None:
        mail_from = next(iter(sending.addresses(message.get_all("From"))), "")
    headers = (text for name in ("To", "Cc") for text in message.get_all(name))
    return mail_from, kept.get("rcpt_tos") or sending.addresses(headers)
