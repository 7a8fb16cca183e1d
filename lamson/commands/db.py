"""`lamson db`: the version of the database's tables."""

from __future__ import annotations

import click

from lamson.commands import project
from lamson.commands.style import command, switch
from lamson.database import SCHEMA_VERSION


@command("db")
@switch("upgrade", "Makes the tables that are missing, and brings older ones up to this version.")
def db(upgrade: bool) -> None:
    """Says which version the database's tables have."""
    with project.database() as database:
        if upgrade:
            database.upgrade()
        version = database.schema_version()
        have = "has no tables of Lamson's yet" if version is None else f"has tables of version {version}"
        click.echo(f"{database.name} {have}; this Lamson needs version {SCHEMA_VERSION}.")
