"""`lamson outbox`: mail that is committed and not yet sent."""

from __future__ import annotations

from collections.abc import Callable

import click

from lamson import address, outbox as rows  # isort: skip
from lamson.commands import project
from lamson.commands.style import command, option, switch
from lamson.database import Database


@command("outbox")
@switch("list", "Shows what waits; the same as no option.")
@switch("retry", "Tries it again now.")
@switch("hold", "Holds it back until -release.")
@switch("release", "Lets what was held back go.")
@switch("remove", "Removes it: nobody will get it. Needs -for.")
@option("for", "Only mail to this recipient, or `all`.", metavar="ADDRESS")
def outbox(for_: str | None, list: bool, **wanted: bool) -> None:
    """Shows what waits to be sent, since when and why, a line for each recipient."""
    chosen = [verb for verb, value in wanted.items() if value]
    if len(chosen) + list > 1:
        raise click.UsageError("One at a time: -list, -retry, -hold, -release or -remove.", click.get_current_context())
    if chosen == ["remove"] and for_ is None:
        raise click.UsageError("-remove needs to know whose: -for ADDRESS, or -for all.", click.get_current_context())
    recipient = None if for_ in (None, "all") else address.normalise(str(for_))
    with project.made_database() as database:
        if chosen:
            change, did = VERBS[chosen[0]]
            click.echo(f"{did} mail for {project.counted(change(database, recipient), 'recipient')}.")
        else:
            show(database, recipient)


VERBS: dict[str, tuple[Callable[[Database, str | None], int], str]] = {
    "retry": (rows.retry, "Tries again now:"),
    "hold": (rows.park, "Holds back:"),
    "release": (lambda database, recipient: rows.park(database, recipient, parked=False), "Released:"),
    "remove": (rows.remove, "Removed:"),
}


def show(database: Database, recipient: str | None) -> None:
    """Prints a line for each recipient, the oldest first. That there is none is said to people, and no line for programs."""
    waiting = rows.waiting(database, recipient)
    if not waiting:
        click.echo(f"Nothing waits to be sent{f' to {recipient}' if recipient else ''}.", err=True)
    for row in waiting:
        state = "held back" if row.parked else "being sent" if row.owner else f"next try {project.when(row.due)}"
        why = f": {row.reply}" if row.reply else ""
        sender = row.mail_from or "<>"
        tried = project.counted(row.attempts, "time")
        click.echo(f"{row.rcpt_to}  from {sender}  since {project.when(row.created)}  tried {tried}, {state}{why}")
