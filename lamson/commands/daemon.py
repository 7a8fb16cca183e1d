"""The options that every command with a daemon has, and how their values reach `lamson.process`."""

from __future__ import annotations

import functools
import grp
import logging
import pwd
import socket
import traceback
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from lamson import process
from lamson.commands.style import option, switch
from lamson.errors import ConfigError, LamsonError
from lamson.smtp import listener
from lamson.trace import DeliveryFormatter, Terminal

F = TypeVar("F", bound=Callable[..., Any])


def daemon_options(pid: str) -> Callable[[F], F]:
    """`-pid` and the rest. They reach the function together, as `terms`."""
    options = [
        option("pid", "The server's pid file.", default=pid, metavar="FILE"),
        switch("FORCE", "Stops first what runs with this pid file."),
        option("chroot", "A directory to be locked into (needs root, and all that the server needs must lie in it).", metavar="DIR"),
        option("chdir", "The project's directory.", default=".", metavar="DIR"),
        option("umask", "What others may not do with new files.", default="077", callback=octal, metavar="OCTAL"),
        option("uid", "The user to become once the ports are bound (needs root).", metavar="USER"),
        option("gid", "The group to become; without it the user's groups.", metavar="GROUP"),
        switch("spread", "Lets the threads of a process run on all cores, for handlers that compute outside Python."),
        switch("foreground", "Does not detach, and logs to the terminal: for systemd and containers."),
        switch("debug", "The same, and says more."),
    ]

    def apply(function: F) -> F:
        @functools.wraps(function)
        def with_terms(**values: Any) -> Any:
            terms = {name: values.pop(name) for name in ("pid", "force", "chroot", "chdir", "umask", "foreground", "spread")}
            terms["foreground"] = terms["foreground"] or values["debug"]
            terms["uid"] = number_of("user", values.pop("uid"))
            terms["gid"] = number_of("group", values.pop("gid"))
            return function(terms=terms, **values)

        decorated = with_terms
        for add in reversed(options):
            decorated = add(decorated)
        return cast(F, decorated)

    return apply


def octal(ctx: click.Context, option: click.Parameter, value: str) -> int:
    """The value of -umask."""
    try:
        return int(value, 8)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no octal number; write 077 or 022.", ctx, option) from None


def number_of(kind: str, name: str | None) -> int | None:
    """The number of a user or group given by name or number."""
    if name is None or name.isdecimal():
        return None if name is None else int(name)
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"There is no {kind} {name!r} on this machine. Name one that exists, or a number") from None


def start(terms: dict[str, Any], load: Callable[[], Any], debug: bool, **more: Any) -> None:
    """Starts what `load()` gives on these terms, and says when it takes mail."""

    def load_and_log() -> Any:
        try:
            settings = load()
        except LamsonError:
            if debug:
                traceback.print_exc()
            raise
        if terms["foreground"]:
            log_to_terminal(logging.DEBUG if debug else logging.INFO)
        return settings

    process.Server(load_and_log, **terms, **more).start(tell=click.echo)


def log_to_terminal(level: int) -> None:
    """What is logged goes to standard error, too."""
    handler = Terminal()
    handler.setFormatter(DeliveryFormatter("%(asctime)s %(levelname)s %(delivery)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(level)


def bind(host: str, port: int) -> dict[tuple[str, int], socket.socket]:
    """A socket for this address, or none: then the receiver binds for itself and says what is wrong."""
    try:
        return {(host, port): listener.bind((host, port))}
    except ConfigError:
        return {}
