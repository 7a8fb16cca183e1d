"""`lamson start` and `lamson restart`: the project's server."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import click
import jinja2

from lamson import config, routing, view
from lamson.commands import daemon, states
from lamson.commands.style import command, option
from lamson.database import Database
from lamson.errors import ConfigError
from lamson.smtp.endpoint import Certificate

log = logging.getLogger("lamson.start")


@command("start")
@daemon.daemon_options("run/smtp.pid")
@option("boot", "The module that makes services of the settings.", default="config.boot", metavar="MODULE")
@option("workers", "How many processes take mail.", default=1, type=click.IntRange(1, 256), metavar="NUMBER")
def start(terms: dict[str, Any], debug: bool, boot: str, workers: int) -> None:
    """Starts the project's server as a daemon.

    Returns when mail is taken, or says why it cannot be, with exit status 1.
    """
    daemon.start(terms, lambda: load(boot), debug, bind=bind_receiver, workers=workers)


@command("restart")
@daemon.daemon_options("run/smtp.pid")
@option("boot", "The module that makes services of the settings.", default="config.boot", metavar="MODULE")
@option("workers", "How many processes take mail.", default=1, type=click.IntRange(1, 256), metavar="NUMBER")
def restart(terms: dict[str, Any], debug: bool, boot: str, workers: int) -> None:
    """Stops the project's server, if it runs, and starts it anew.

    The settings and handlers are tried first: with a mistake in them the old server goes on.
    """
    daemon.start(terms | {"force": True}, lambda: load(boot), debug, bind=bind_receiver, workers=workers)


def load(boot: str) -> Any:
    """The booted settings, looked at for what would else go wrong with the first message."""
    settings = config.import_settings(True, boot_module=boot)
    if not hasattr(settings, "receiver"):
        raise ConfigError(f"{boot} sets no settings.receiver, so nothing would take mail. Write: settings.receiver = SMTPReceiver(**...)")
    check_templates()
    check_port(settings)
    check_certificate(settings)
    if not routing.Router.routes:
        log.warning("There are no routes, so all mail is refused. Name the modules that handle mail in config/settings.py: handlers")
    warn_of_lost_states(settings, routing.Router.routes)  # compiled here, so a wrong route is told
    return settings


def check_templates() -> None:
    """The directories that templates are looked for in are there."""
    loader = getattr(view.LOADER, "loader", None)
    if isinstance(loader, jinja2.FileSystemLoader) and not any(map(os.path.isdir, loader.searchpath)):
        missing = ", ".join(map(os.path.abspath, loader.searchpath))
        raise ConfigError(f"The templates' directory is missing: {missing}. Make it, or correct template_config in config/settings.py")


def check_port(settings: Any) -> None:
    """The port of `receiver_config` is a number. The receiver would tell, too, but only after a restart has stopped the old one."""
    wanted = getattr(settings, "receiver_config", None)
    port = wanted.get("port", 0) if isinstance(wanted, dict) else 0
    if port not in range(65536):
        raise ConfigError(f"receiver_config: a port is a number from 0 to 65535, and not {port!r}. Correct it in config/settings.py")


def check_certificate(settings: Any) -> None:
    """The certificate of `receiver_config` is good. The receiver would tell, too, but only after a restart has stopped the old one."""
    wanted = getattr(settings, "receiver_config", None)
    if isinstance(wanted, dict) and wanted.get("certificate"):
        Certificate(wanted["certificate"], wanted.get("key"))


def warn_of_lost_states(settings: Any, routes: tuple[routing.Route, ...]) -> None:
    """Says which kept states name no function any more: their senders' mail would be undeliverable."""
    if isinstance(getattr(settings, "database", None), Database):
        known = [(route.module, route.name) for route in routes]
        for machine, state, senders in states.lost(settings.database, known):
            remedy = f"If it was renamed: lamson states -move {machine}.{state} NEW"
            log.warning("%d senders are in the state %s of %s, which is no function there. %s", senders, state, machine, remedy)


def bind_receiver() -> dict[tuple[str, int], socket.socket]:
    """The socket of `receiver_config`, bound while the process may bind every port. What cannot be bound, the receiver will explain."""
    wanted = getattr(config.import_settings(False), "receiver_config", None)
    if not isinstance(wanted, dict) or not isinstance(wanted.get("port"), int):
        return {}
    return daemon.bind(str(wanted.get("host", "127.0.0.1")), wanted["port"])
