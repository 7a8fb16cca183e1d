"""The three databases that Lamson runs on, for tests: SQLite in a file, and scratch databases on servers of the tests' own.

`LAMSON_POSTGRESQL` and `LAMSON_MARIADB` may hold the URL of a server to use instead. Where there is neither a URL nor the server's
programs, the test is skipped with the reason; in CI that is a failure.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lamson.database import Database, configure_database
from tests import servers

KINDS = ("sqlite", "postgresql", "mariadb")
_SERVERS: dict[str, type[servers.Server]] = {"postgresql": servers.PostgreSQL, "mariadb": servers.MariaDB}


@contextmanager
def scratch(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of this kind, gone afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/lamson.db"
        return
    server = server_url(kind)
    name = f"lamson_{secrets.token_hex(6)}"
    _execute(server, f"CREATE DATABASE {name}")
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP DATABASE {name}" + (" WITH (FORCE)" if kind == "postgresql" else ""))


@contextmanager
def opened(kind: str, folder: Path, **options: Any) -> Iterator[Database]:
    """A Database with its tables, on a scratch database of this kind."""
    with scratch(kind, folder) as url:
        database = configure_database({"url": url, **options})
        try:
            database.create_all()
            yield database
        finally:
            database.dispose()


@functools.cache
def server_url(kind: str) -> str:
    """The server for this run of the tests, started when first asked for."""
    given = os.environ.get(f"LAMSON_{kind.upper()}")
    if given:
        return given
    server = make_server(kind)
    atexit.register(server.remove)
    server.start()
    return server.url


def make_server(kind: str) -> servers.Server:
    """A server of the test's own, not started yet, to be stopped and killed at will; call `remove` at the end."""
    try:
        return _SERVERS[kind]()
    except servers.NotInstalled as missing:
        (pytest.fail if "LAMSON_CI" in os.environ else pytest.skip)(f"needs {missing}, which is not installed")


def _execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection, suppress(sa.exc.ResourceClosedError):
            connection.execute(sa.text(statement))
    finally:
        engine.dispose()
