"""`lamson queue`: looking into a Maildir queue, and taking messages out of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from lamson import config
from lamson.commands import project
from lamson.commands.style import command, option, switch
from lamson.errors import ConfigError, SMTPError
from lamson.mail import MailRequest
from lamson.queue import Queue
from lamson.routing import Outcome, Router


@command("queue")
@option("name", "The queue's directory.", default="run/queue", metavar="DIR")
@switch("pop", "Takes the oldest message out and prints it.")
@option("get", "Prints the message with this key.", metavar="KEY")
@option("remove", "Removes the message with this key.", metavar="KEY")
@switch("keys", "Prints all keys, the oldest first.")
@switch("count", "Prints how many messages there are.")
@switch("clear", "Removes all messages.")
@switch("list", "Prints a line for each message, with the reason why it was kept.")
@option("route", "Puts the message with this key, or all, back through the project's handlers.", metavar="KEY")
@option("boot", "For -route: the module that makes services of the settings.", default="config.boot", metavar="MODULE")
def queue(name: str, boot: str, **wanted: Any) -> None:
    """Looks into a Maildir queue, and takes messages out of it. Without an option it counts."""
    chosen = [verb for verb, value in wanted.items() if value]
    if len(chosen) > 1:
        raise click.UsageError(f"One at a time: {' or '.join(f'-{verb}' for verb in chosen)}.", click.get_current_context())
    if not os.path.isdir(os.path.join(name, "new")):
        raise ConfigError(f"{name} is no queue: it has no directory `new`. Name one: -name DIR")
    verb = chosen[0] if chosen else "count"
    if verb == "route":
        route(Queue(name), wanted["route"], boot)
    else:
        VERBS[verb](Queue(name), wanted[verb])


def pop(mails: Queue, _: bool) -> None:
    """Prints the oldest message before it is gone for good."""
    claim = mails.claim()
    if claim is None:
        raise ConfigError(f"The queue {mails.queue_dir} is empty")
    with claim:
        print_message(claim.message)
        claim.remove()


def get(mails: Queue, key: str) -> None:
    print_message(message_of(mails, key))


def remove(mails: Queue, key: str) -> None:
    mails.remove(key)
    click.echo(f"Removed {key}.")


def keys(mails: Queue, _: bool) -> None:
    for key in mails.keys():  # noqa: SIM118  # a queue is no dictionary
        click.echo(key)


def count(mails: Queue, _: bool) -> None:
    click.echo(mails.count())


def clear(mails: Queue, _: bool) -> None:
    click.echo(f"Removed {project.counted(mails.count(), 'message')}.")
    mails.clear()


def list_all(mails: Queue, _: bool) -> None:
    for key in mails.keys():  # noqa: SIM118  # a queue is no dictionary
        message = mails.get(key)
        if message is not None:
            reason = project.one_line((mails.envelope(key) or {}).get("reason") or "-")
            click.echo(f"{key}  from {message.route_from or '<>'}  to {', '.join(message.route_to)}  {message['subject'] or '-'}  {reason}")


VERBS: dict[str, Callable[[Queue, Any], None]] = {
    "pop": pop,
    "get": get,
    "remove": remove,
    "keys": keys,
    "count": count,
    "clear": clear,
    "list": list_all,
}


def message_of(mails: Queue, key: str) -> MailRequest:
    """The message with this key, which must be there."""
    message = mails.get(key)
    if message is None:
        raise ConfigError(f"There is no message {key} in {mails.queue_dir}. Its keys: lamson queue -name {mails.queue_dir} -keys")
    return message


def print_message(message: MailRequest) -> None:
    """The message's own bytes."""
    click.echo(bytes(message), nl=False)


# -- back through the router


def route(mails: Queue, key: str, boot: str) -> None:
    """Puts one message or all of them back. A message leaves the queue when it is owned elsewhere. Status 1 if any was not handled."""
    wanted = mails.keys() if key == "all" else [key]
    messages = {each: message_of(mails, each) for each in wanted[:1]}  # a wrong key is told before anything is booted
    config.import_settings(True, boot_module=boot)
    well = True
    for each in wanted:
        message = messages.get(each) or mails.get(each)
        if message is not None:
            well = route_one(mails, each, message) and well
    if not well:
        sys.exit(1)


def route_one(mails: Queue, key: str, message: MailRequest) -> bool:
    """Puts one message back, and says for each recipient what became of it. Whether all was handled."""
    try:
        outcomes = Router.deliver(message)
    except SMTPError as refusal:
        click.echo(f"{key}: stays, the handler refused it: {refusal}")
        return False
    for outcome in outcomes:
        click.echo(f"{key}: {outcome.recipient}: {account(outcome)}")
    if all(outcome.reply.code // 100 == 2 for outcome in outcomes):
        mails.remove(key)
    return all(outcome.reply.ok and not outcome.kept for outcome in outcomes)


def account(outcome: Outcome) -> str:
    """What became of it, in words."""
    if outcome.kept:
        why = project.one_line(f"{type(outcome.error).__name__}: {outcome.error}") if outcome.error else "nobody took it"
        return f"kept again as {outcome.kept}: {why}"
    if outcome.reply.code // 100 == 2:
        return f"handled by {', '.join(outcome.ran)}"
    return f"stays: {outcome.reply}"
