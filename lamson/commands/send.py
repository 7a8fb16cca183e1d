"""`lamson send`: one test message."""

from __future__ import annotations

import click

from lamson.commands import sending
from lamson.commands.style import command, option, switch
from lamson.mail import MailResponse
from lamson.smtp.client import Client


@command("send")
@option("port", "The server's port: 8823 is a new project's, 8825 that of `lamson log`.", default=8825, type=click.IntRange(1, 65535),
        metavar="NUMBER")  # fmt: skip
@option("host", "The server's name or address.", default="127.0.0.1")
@option("username", "The name to log in with.", metavar="NAME")
@option("password", "The password to log in with.")
@switch("ssl", "Speaks TLS from the beginning.")
@switch("starttls", "Insists on STARTTLS.")
@switch("lmtp", "Speaks LMTP instead of SMTP.")
@switch("debug", "Shows the message too.")
@option("sender", "Whom it comes from.", metavar="ADDRESS", required=True)
@option("to", "Whom it goes to; several with commas.", metavar="ADDRESS", required=True)
@option("subject", "Its subject.", metavar="TEXT", default="")
@option("body", "Its text.", metavar="TEXT", default="")
@option("attach", "A file to attach; may be given several times.", metavar="FILE", multiple=True)
def send(
    port: int,
    host: str,
    username: str | None,
    password: str | None,
    ssl: bool,
    starttls: bool,
    lmtp: bool,
    debug: bool,
    sender: str,
    to: str,
    subject: str,
    body: str,
    attach: tuple[str, ...],
) -> None:
    """Sends one test message and shows the SMTP talk.

    As in: lamson send -port 8823 -sender me@mydomain.com -to test@test.com -subject "My test." -body "Hi there."
    """
    if ssl and (starttls or lmtp):
        raise click.UsageError("-ssl goes neither with -starttls nor with -lmtp.", click.get_current_context())
    mail_from, recipients = one_address(sender), sending.addresses([to])
    if not recipients:
        raise no_address("-to", to)
    data = message(sender, to, subject, body, attach)
    if debug:
        click.echo(data.replace(b"\r\n", b"\n"), err=True)
    client = Client(host, port, ssl=ssl, starttls=starttls, lmtp=lmtp, username=username, password=password, talk=sending.show)
    with client:
        client.open()
        failed = client.send(mail_from, recipients, data)
    sending.report(failed)


def message(sender: str, to: str, subject: str, body: str, attach: tuple[str, ...]) -> bytes:
    """The message that these options describe."""
    made = MailResponse(To=to, From=sender, Subject=subject, Body=sending.crlf(body.encode("utf-8", "surrogateescape"), "-body").decode())
    for path in attach:
        try:
            made.attach(filename=path)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    return bytes(made)


def one_address(text: str) -> str:
    """The bare address of -sender; `<>` is the null sender."""
    found = sending.addresses([text])
    if not found and text.strip() not in ("", "<>"):
        raise no_address("-sender", text)
    return found[0] if found else ""


def no_address(option: str, text: str) -> click.UsageError:
    """What to say of an option that should be an address."""
    return click.BadParameter(f"{text!r} is no address.", click.get_current_context(), param_hint=option)
