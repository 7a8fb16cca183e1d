"""`lamson help`: the list of the commands, or one in full."""

from __future__ import annotations

import click

from lamson.commands import COMMANDS, lamson, overview, unknown
from lamson.commands.style import command, option


@command("help")
@option("for", "The command to explain.", metavar="COMMAND")
@click.argument("name", required=False)
@click.pass_context
def help(ctx: click.Context, for_: str | None, name: str | None) -> None:
    """Shows all commands, or with -for COMMAND one of them in full."""
    wanted = for_ or name
    if wanted is None:
        click.echo(overview())
        return
    if wanted not in COMMANDS:
        raise click.UsageError(unknown(wanted), ctx)
    found = lamson.get_command(ctx, wanted)
    assert found is not None
    with click.Context(found, info_name=wanted, parent=ctx.parent, **found.context_settings) as its_context:
        click.echo(found.get_help(its_context))
