"""`lamson sendmail`: standard input to a server, with the arguments of the program sendmail, so that mutt and others can call it."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from lamson.commands import sending
from lamson.commands.style import Command, option, switch
from lamson.errors import EncodingError
from lamson.mail import MailRequest
from lamson.smtp.client import Client

#: Options of sendmail's that mean nothing here, and take the next word if nothing is attached to them.
IGNORED_WITH_VALUE = ("-B", "-F", "-N", "-R", "-V", "-X")
#: Those that mean nothing here and stand alone.
IGNORED = ("-bm", "-em", "-m", "-n", "-v", "-U", "-G")


@dataclass
class Wanted:
    """What the arguments say."""

    host: str = "127.0.0.1"
    port: int = 8825
    debug: bool = False
    from_headers: bool = False
    dot_ends: bool = True
    sender: str | None = None
    recipients: list[str] = field(default_factory=list)


class SendmailCommand(Command):
    """Its options are declared for the help's sake; they are read as sendmail reads them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args in (["-help"], ["--help"]):
            click.echo(ctx.get_help())
            ctx.exit()
        ctx.params = {"wanted": read_arguments(args, ctx)}
        return []


@click.command("sendmail", cls=SendmailCommand, add_help_option=False, options_metavar="[-option value] RECIPIENT ...")
@option("port", "The server's port.", default=8825, metavar="NUMBER")
@option("host", "The server's name or address.", default="127.0.0.1")
@switch("debug", "Shows the SMTP talk.")
@option("t", "Takes the recipients from To, Cc and Bcc, and removes Bcc.", metavar=" ")
@option("i", "A line with nothing but a dot does not end the message.", metavar=" ")
@option("f", "The sender; without it the address in From.", metavar="ADDRESS")
def sendmail(wanted: Wanted, **_: Any) -> None:
    """Sends a message from standard input, as the program sendmail does.

    Other options of sendmail's are ignored; -- ends them.
    """
    data = sending.crlf(b"".join(message_lines(wanted.dot_ends)), "standard input")
    if not data:
        raise EncodingError("There is no message on standard input")
    message = MailRequest(Data=data)
    recipients = sending.addresses(wanted.recipients)
    if wanted.from_headers:
        recipients = list(dict.fromkeys(recipients + header_recipients(message)))
        del message["Bcc"]
    if not recipients:
        raise click.UsageError("Nobody to send it to: name the recipients, or -t if the message does.", click.get_current_context())
    client = Client(wanted.host, wanted.port, talk=sending.show if wanted.debug else None)
    with client:
        client.open()
        failed = client.send(sender_of(message, wanted.sender), recipients, bytes(message))
    sending.report(failed)


def read_arguments(args: list[str], ctx: click.Context) -> Wanted:
    """Reads the arguments. A word that is no option is a recipient; behind `--` all are."""
    wanted = Wanted()
    words = iter(args)
    for word in words:
        if word == "--":
            wanted.recipients.extend(words)
        elif word.startswith("-") and word != "-":
            read_option(wanted, word, words, ctx)
        else:
            wanted.recipients.append(word)
    return wanted


def read_option(wanted: Wanted, word: str, words: Iterator[str], ctx: click.Context) -> None:
    """Reads one option, and its value where it has one: attached, behind `=`, or the next word."""
    name, attached, value = word.lstrip("-").partition("=")
    if name in ("port", "host"):
        text = value if attached else value_of(word, words, ctx)
        setattr(wanted, name, port_number(text, ctx) if name == "port" else text)
    elif name == "debug":
        wanted.debug = value != "False"
    elif word == "-t":
        wanted.from_headers = True
    elif word in ("-i", "-oi"):
        wanted.dot_ends = False
    elif word[:2] in ("-f", "-r"):
        wanted.sender = word[2:] or value_of(word, words, ctx)
    elif word in IGNORED_WITH_VALUE:
        value_of(word, words, ctx)
    elif word[:2] not in ("-o", *IGNORED_WITH_VALUE) and word not in IGNORED:
        raise click.UsageError(f"There is no option {word}.", ctx)


def value_of(word: str, words: Iterator[str], ctx: click.Context) -> str:
    """The next word."""
    value = next(words, None)
    if value is None:
        raise click.UsageError(f"{word} needs a value.", ctx)
    return value


def port_number(text: str, ctx: click.Context) -> int:
    """The value of -port."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise click.UsageError(f"-port {text!r} is no port: a number from 1 to 65535.", ctx)
    return int(text)


def message_lines(dot_ends: bool) -> Iterator[bytes]:
    """Standard input, to its end or to a line with nothing but a dot."""
    for line in sys.stdin.buffer:
        if dot_ends and line in (b".\n", b".\r\n"):
            return
        yield line


def header_recipients(message: MailRequest) -> list[str]:
    """Who stands in To, Cc and Bcc."""
    return sending.addresses(text for name in ("To", "Cc", "Bcc") for text in message.get_all(name))


def sender_of(message: MailRequest, given: str | None) -> str:
    """The envelope's sender: the one given (`<>` is the null sender), else the one in From, else this user at this machine."""
    if given is not None:
        return next(iter(sending.addresses([given])), "")
    found = sending.addresses(message.get_all("From"))
    return found[0] if found else f"{getpass.getuser()}@{socket.getfqdn()}"
