"""The command line: `lamson COMMAND -option value`.

This package finds the command, runs it, and turns its errors into one line and an exit status: 0 done, 1 it could not be done, 2 wrong
use. A command's module is imported only when it is wanted, so that `lamson send` waits for no database. The commands are thin: what
they do is done by the modules of the house.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import click

from lamson.errors import LamsonError

#: Each command: its module here, in which it is the function of that name, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "help": ("help", "This list, or one command in full: lamson help -for COMMAND"),
    "gen": ("gen", "Makes a new project."),
    "start": ("start", "Starts the project's server as a daemon."),
    "stop": ("stop", "Stops a server, or all of a directory, and waits until they are gone."),
    "restart": ("start", "Stops the project's server and starts it anew."),
    "status": ("stop", "Says whether the project's server runs."),
    "log": ("log", "Starts a server that logs every message and keeps it in run/queue."),
    "send": ("send", "Sends one test message and shows the SMTP talk."),
    "sendmail": ("sendmail", "Sends a message from standard input, as the program sendmail does."),
    "routes": ("routes", "Shows the routes in order, or what an address would run."),
    "queue": ("queue", "Looks into a Maildir queue, and takes messages out of it."),
    "blast": ("blast", "Sends every message of a mailbox as it is."),
    "cleanse": ("cleanse", "Writes a mailbox anew in canonical form."),
    "web": ("web", "Serves the files of a directory over HTTP."),
    "states": ("states", "Shows who is in which state, and moves people to another."),
    "db": ("db", "Says which version the database's tables have, and upgrades them."),
    "outbox": ("outbox", "Shows what waits to be sent, since when and why, and changes that."),
    "spam": ("spam", "Teaches the spam filter, and shows what it thinks of a message."),
    "version": ("version", "Says which Lamson this is, on which Python, under which licence."),
}


class CommandTable(click.Group):
    """Finds a command by its name in `COMMANDS` and imports its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lamson.commands.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            raise click.UsageError(unknown(args[0]), ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=CommandTable, invoke_without_command=True, add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.pass_context
def lamson(ctx: click.Context) -> None:
    """Lamson is to mail what a web framework is to HTTP."""
    if ctx.invoked_subcommand is None:
        click.echo(overview())


def unknown(name: str) -> str:
    """The sentence for a command that does not exist."""
    near = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
    return f"There is no command {name!r}." + (f" Did you mean `lamson {near[0]}`?" if near else "")


def overview() -> str:
    """The list of all commands."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{does}" for name, (_, does) in COMMANDS.items()]
    return "\n".join(["lamson COMMAND -option value", "", *lines, "", "One command in full: lamson help -for COMMAND"])


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] in (["-help"], ["--help"], ["-h"]):
        words[0] = "help"
    if words[:1] == ["--version"]:
        words[0] = "version"
    try:
        status = lamson.main(words, prog_name="lamson", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        name = error.ctx.info_name if error.ctx and error.ctx.parent else None
        return _complain(name, f"{error.format_message()} See: lamson help" + (f" -for {name}" if name else ""), status=2)
    except click.ClickException as error:
        return _complain(words[0], error.format_message())
    except click.Abort:
        return _complain(words[0], "Interrupted", status=130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has read enough
        return 0
    except LamsonError as error:
        return _complain(words[0], str(error))
    except OSError as error:
        return _complain(words[0], f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))


def _complain(command: str | None, text: str, status: int = 1) -> int:
    click.echo(f"lamson{' ' + command if command else ''}: {' '.join(text.split())}", err=True)
    return status
