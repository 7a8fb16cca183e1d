"""`lamson stop` and `lamson status`: servers by their pid files."""

from __future__ import annotations

import glob
import os
import sys

import click

from lamson import process
from lamson.commands.style import command, option, switch
from lamson.errors import ConfigError


@command("stop")
@option("pid", "The server's pid file.", default="run/smtp.pid", metavar="FILE")
@option("ALL", "Stops every server that has a pid file (*.pid) in this directory.", metavar="DIR")
@switch("KILL", "Ends it at once, without letting it finish what it has begun.")
def stop(pid: str, all: str | None, kill: bool) -> None:
    """Stops the project's server and waits until it is gone.

    It takes no new mail then, finishes what it has begun, and ends.
    """
    for line in process.stop_all([pid] if all is None else pid_files(all), kill):
        click.echo(line)


def pid_files(folder: str) -> list[str]:
    """The pid files of a directory. Where there are none, that is said and no error."""
    if not os.path.isdir(folder):
        raise ConfigError(f"There is no directory {folder}. Name the one with the pid files: -ALL run")
    found = sorted(glob.glob(os.path.join(glob.escape(folder), "*.pid")))
    if not found:
        click.echo(f"No server runs here: there is no pid file in {folder}.")
    return found


@command("status")
@option("pid", "The server's pid file.", default="run/smtp.pid", metavar="FILE")
def status(pid: str) -> None:
    """Says whether the project's server runs. The exit status is 0 if it does, else 1."""
    holder = process.PidFile(pid).holder()
    click.echo(f"{holder}." if holder else f"No server runs: there is no {pid}.")
    if holder is None or not holder.running:
        sys.exit(1)
