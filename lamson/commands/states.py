"""`lamson states`: who is in which state of which machine."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click
import sqlalchemy as sa

from lamson import address
from lamson.commands import project
from lamson.commands.style import command, option, switch
from lamson.database import Database, FSMState
from lamson.errors import ConfigError
from lamson.routing import ROUTE_FIRST_STATE


@command("states")
@option("for", "Only the conversations of this sender.", metavar="ADDRESS")
@switch("reset", "Sends the sender of -for back to START.")
@option("move", "Moves everybody from one state to another, after a function was renamed. MODULE.OLD means one machine only.",
        metavar="OLD NEW", nargs=2)  # fmt: skip
def states(for_: str | None, reset: bool, move: tuple[str, str] | None) -> None:
    """Shows who is in which state, one conversation a line. A sender that is not there is in START."""
    if reset and (move or not for_):
        raise click.UsageError("-reset needs -for ADDRESS, and goes not with -move.", click.get_current_context())
    sender = None if for_ is None else address.normalise(for_)
    with project.made_database() as database:
        if move:
            moved = change(database, *named(move[0]), move[1], sender)
            click.echo(f"Moved {some(moved, f'in the state {move[0]}')} to {move[1]}.")
        elif reset:
            moved = change(database, None, None, ROUTE_FIRST_STATE, sender)
            click.echo(f"Sent {some(moved, f'of {sender}')} of {sender} back to START.")
        else:
            show(database, sender)


def some(moved: int, which: str) -> str:
    """How many, in words. None at all is a name that was mistyped."""
    if not moved:
        raise ConfigError(f"There is no conversation {which}. Those that there are: lamson states")
    return project.counted(moved, "conversation")


def named(state: str) -> tuple[str | None, str]:
    """The machine, if it is named, and the state: `app.handlers.post.POSTING` or `POSTING`."""
    machine, _, name = state.rpartition(".")
    return machine or None, name


def chosen(machine: str | None, state: str | None, sender: str | None) -> list[sa.ColumnElement[bool]]:
    """The conditions for those that are not None."""
    columns = ((FSMState.fsm, machine), (FSMState.state, state), (FSMState.sender, sender))
    return [column == value for column, value in columns if value is not None]


def change(database: Database, machine: str | None, old: str | None, new: str, sender: str | None) -> int:
    """Moves conversations, so that a message that is being handled notices. Returns how many."""
    values = {"state": new, "version": FSMState.version + 1, "last_modified": time.time()}
    with database.connected() as connection:
        moved = connection.execute(sa.update(FSMState).where(*chosen(machine, old, sender)).values(**values))
        return moved.rowcount


def show(database: Database, sender: str | None) -> None:
    """Prints them, the last moved at the end."""
    columns = (FSMState.sender, FSMState.state, FSMState.fsm, FSMState.last_modified)
    wanted = sa.select(*columns).where(*chosen(None, None, sender)).order_by(FSMState.last_modified)
    with database.connected() as connection:
        for row in connection.execution_options(yield_per=1000).execute(wanted):
            click.echo(f"{row.sender}  {row.state}  {row.fsm}  since {project.when(row.last_modified)}")


def lost(database: Database, known: Iterable[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """Kept states that name no function: machine, state, and how many senders are in it. `known`: machine and name of each state."""
    functions = set(known)
    machines = {machine for machine, _ in functions}
    counted = sa.select(FSMState.fsm, FSMState.state, sa.func.count()).group_by(FSMState.fsm, FSMState.state)
    with database.connected() as connection:
        rows = [(row[0], row[1], row[2]) for row in connection.execute(counted)]
    return [row for row in rows if row[0] in machines and row[:2] not in functions and row[1] != ROUTE_FIRST_STATE]
