"""`lamson version`."""

from __future__ import annotations

import platform

import click

from lamson import __version__
from lamson.commands.style import command


@command("version")
def version() -> None:
    """Says which Lamson this is, on which Python, under which licence."""
    click.echo(f"Lamson {__version__}\nPython {platform.python_version()}\nLicence: BSD-3-Clause")
