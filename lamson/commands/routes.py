"""`lamson routes`: which function takes which address."""

from __future__ import annotations

import os
import sys

import click

from lamson import config
from lamson.commands.style import command, option
from lamson.errors import ConfigError
from lamson.routing import Match, Route, Router


@command("routes")
@click.argument("modules", nargs=-1, metavar="[BOOT_MODULE ...]")
@option("path", "The project's directory.", default=".", metavar="DIR")
@option("test", "Shows what this address would run instead, with its captures.", metavar="ADDRESS")
def routes(modules: tuple[str, ...], path: str, test: str | None) -> None:
    """Shows the routes in the order in which they are tried.

    They are loaded by config.testing, so that nothing of the server is touched, or by the boot modules named.
    """
    if not os.path.isdir(path):
        raise ConfigError(f"There is no directory {path}. Name the project's: -path DIR")
    os.chdir(path)
    for module in modules or ("config.testing",):
        config.import_settings(True, boot_module=module)
    if test is None:
        show(Router.routes)
    else:
        show_matches(test, Router.match(test))


def show(found: tuple[Route, ...]) -> None:
    """One line for each route: the function, the format as it was written, the regex that it became."""
    if not found:
        raise ConfigError("There are no routes. Name the modules that have them in config/settings.py: handlers = [...]")
    names = [route.full_name + (" (stateless)" if route.stateless else "") for route in found]
    width, format_width = max(map(len, names)), max(len(route.format) for route in found)
    for name, route in zip(names, found, strict=True):
        click.echo(f"{name:{width}}  {route.format:{format_width}}  {route.pattern}")


def show_matches(address: str, found: list[Match]) -> None:
    """What would run, and when. Status 1 if nothing would."""
    if not found:
        click.echo(f"No route takes {address}: a client hears 550 5.1.1.")
        sys.exit(1)
    for match in found:
        when = "for every sender" if match.route.stateless else f"for a sender in the state {match.route.name}"
        click.echo(f"{match}\n    {when}, by the route {match.route.format}")
