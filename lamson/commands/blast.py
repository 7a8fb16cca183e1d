"""`lamson blast`: a mailbox's messages to a server, as they are."""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from lamson.commands import mailbox, sending
from lamson.commands.style import command, option, switch
from lamson.errors import EncodingError
from lamson.mail import MailRequest
from lamson.queue import Queue
from lamson.smtp.client import Client


@command("blast")
@option("input", "The mailbox to send: an mbox file or a Maildir. It is not changed.", metavar="MBOX_OR_MAILDIR", required=True)
@option("host", "The server's name or address.", default="127.0.0.1")
@option("port", "The server's port.", default=8823, type=click.IntRange(1, 65535), metavar="NUMBER")
@switch("debug", "Shows the SMTP talk.")
def blast(input: str, host: str, port: int, debug: bool) -> None:
    """Sends every message of a mailbox as it is, and shows how far it is.

    A message that fails is named with the reason, and the others are sent.
    """
    box = mailbox.opened(input)
    envelopes = Queue(input) if os.path.isdir(os.path.join(input, "envelopes")) else None
    tally = sending.Tally()
    with Client(host, port, talk=sending.show if debug else None) as client:
        client.open()
        for name, read in sending.with_progress(box.entries, box.count, "Sending"):
            why = send_one(client, name, read, envelopes)
            if why:
                tally.fail(name, why)
                client.open()  # a server that is gone ends it here
            else:
                tally.well += 1
    tally.end("Sent")


def send_one(client: Client, name: str, read: Callable[[], bytes], envelopes: Queue | None) -> str | None:
    """Sends one message. Returns why it failed, or None."""
    try:
        data = sending.crlf(read(), name)
    except OSError as error:
        return error.strerror or str(error)
    except EncodingError as error:
        return str(error).removeprefix(f"{name}, ")
    mail_from, rcpt_tos = envelope_of(data, name, envelopes)
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
