"""What the commands that look into a project's database have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from lamson import config
from lamson.database import Database, configure_database
from lamson.errors import ConfigError


@contextmanager
def database() -> Iterator[Database]:
    """The database of the project's settings. Nothing is booted for it."""
    settings = config.import_settings(False)
    wanted = getattr(settings, "database_config", None)
    if not isinstance(wanted, dict):
        raise ConfigError('This project has no database. Give it one in config/settings.py: database_config = {"url": "sqlite:///run/lamson.db"}')
    found = configure_database(wanted)
    try:
        yield found
    finally:
        found.engine.dispose()


@contextmanager
def made_database() -> Iterator[Database]:
    """The same, if its tables are there and of our version."""
    with database() as found:
        if found.schema_version() is None:
            raise ConfigError(f"{found.name} has no tables of Lamson's yet. They are made by: lamson start")
        found.check()
        yield found


def counted(number: int, thing: str) -> str:
    """`1 time`, `2 times`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def one_line(text: str) -> str:
    """The text with its line ends as spaces, for what is listed a line each."""
    return " ".join(text.splitlines())


def when(seconds: float) -> str:
    """A moment, given in seconds since 1970, in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
