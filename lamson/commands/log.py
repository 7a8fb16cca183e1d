"""`lamson log`: a server for development that logs every message and keeps it."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

import click

from lamson.commands import daemon
from lamson.commands.style import command, option
from lamson.queue import Queue
from lamson.routing import Router
from lamson.server import SMTPReceiver
from lamson.trace import DeliveryFormatter, LogFile


@command("log")
@option("port", "The port to listen on.", default=8825, type=click.IntRange(0, 65535), metavar="NUMBER")
@option("host", "The address to listen on.", default="127.0.0.1")
@daemon.daemon_options("run/log.pid")
def log(port: int, host: str, terms: dict[str, Any], debug: bool) -> None:
    """Starts a server that logs every message in logs/logger.log and keeps it in run/queue.

    It takes mail for everybody: it stands in for the mail server that your application will hand its mail to.
    """
    daemon.start(terms, lambda: load(host, port), debug, bind=lambda: daemon.bind(host, port), output="logs/logger.err")


def load(host: str, port: int) -> SimpleNamespace:
    """The log server, in the shape of a project's settings."""
    log_to_file("logs/logger.log")
    Queue("run/queue")  # made here, so that a mail reader finds it before the first message
    Router.load(["lamson.handlers.log", "lamson.handlers.queue"])
    return SimpleNamespace(receiver=SMTPReceiver(host, port))


def log_to_file(path: str) -> None:
    """What is logged goes into this file."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handler = LogFile(path)
    handler.setFormatter(DeliveryFormatter("%(asctime)s %(levelname)s %(delivery)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
