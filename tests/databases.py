"""The three databases that Lamson runs on, for tests: SQLite in a file, and scratch databases on local PostgreSQL and MariaDB servers.

`LAMSON_POSTGRESQL` and `LAMSON_MARIADB` hold the URLs of servers where a database may be made; without them the usual local ones
are tried. Where there is none, the test is skipped with the reason; in CI that is a failure.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lamson.database import Database, configure_database

KINDS = ("sqlite", "postgresql", "mariadb")
_SERVERS = {
    "postgresql": ("LAMSON_POSTGRESQL", ("postgresql+psycopg://postgres@127.0.0.1:5432/postgres",)),
    "mariadb": ("LAMSON_MARIADB", ("mysql+pymysql://root@127.0.0.1:3306/test", "mysql+pymysql://root@127.0.0.1:3306/mysql")),
}


@contextmanager
def scratch(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of this kind, gone afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/lamson.db"
        return
    server = _server(kind)
    name = f"lamson_{secrets.token_hex(6)}"
    if kind == "mariadb":
        _execute(server, "SET GLOBAL max_allowed_packet = 67108864")  # its default is too small for mail, as the start would say
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


def _server(kind: str) -> str:
    variable, usual = _SERVERS[kind]
    why = "none was tried"
    for url in (os.environ[variable],) if variable in os.environ else usual:
        try:
            _execute(url, "SELECT 1")
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            why = str(error).split("\n")[0]
        else:
            return url
    (pytest.fail if "LAMSON_CI" in os.environ else pytest.skip)(f"needs a {kind} server (set {variable}): {why}")


def _execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection, suppress(sa.exc.ResourceClosedError):
            connection.execute(sa.text(statement))
    finally:
        engine.dispose()
