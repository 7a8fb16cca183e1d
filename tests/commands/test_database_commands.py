"""`lamson states`, `db` and `outbox`: what a project's database says, and what a person changes in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamson import delivery
from lamson.commands import states as states_command
from lamson.database import SCHEMA_VERSION, Database, configure_database
from lamson.delivery import Outgoing
from lamson.errors import Conflict
from lamson.relay import Relay
from tests.commands.conftest import Type

URL = "sqlite:///run/lamson.db"
MACHINE = "app.handlers.sample"


@pytest.fixture
def project(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The settings of a project, which are all that these commands look at."""
    (run_folder / "config").mkdir()
    (run_folder / "config" / "__init__.py").touch()
    (run_folder / "config" / "settings.py").write_text(f"database_config = {{'url': '{URL}'}}\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield run_folder
    for name in [name for name in sys.modules if name.split(".")[0] == "config"]:
        del sys.modules[name]


@pytest.fixture
def database(project: Path) -> Iterator[Database]:
    made = configure_database({"url": URL}, also_create=True)
    yield made
    made.dispose()


@pytest.fixture
def conversations(database: Database) -> Database:
    for machine, sender, state in (
        (MACHINE, "me@example.com", "FORWARD"),
        (MACHINE, "other@example.com", "FORWARD"),
        ("app.handlers.post", "me@example.com", "FORWARD"),
    ):
        database.states.set(machine, sender, state)
    return database


# -- states


def test_states_are_shown_a_line_each(lamson: Type, conversations: Database) -> None:
    lines = lamson("states").out.splitlines()
    assert sorted(line.split()[:3] for line in lines) == [
        ["me@example.com", "FORWARD", "app.handlers.post"],
        ["me@example.com", "FORWARD", MACHINE],
        ["other@example.com", "FORWARD", MACHINE],
    ]
    assert all("  since 20" in line for line in lines)


def test_states_of_one_sender_in_any_case(lamson: Type, conversations: Database) -> None:
    assert lamson("states", "-for", "Other@Example.com").out.count("\n") == 1
    assert lamson("states", "-for", "nobody@example.com").out == ""


def test_a_sender_is_sent_back(lamson: Type, conversations: Database) -> None:
    assert lamson("states", "-for", "me@example.com", "-reset").out == "Sent 2 conversations of me@example.com back to START.\n"
    assert conversations.states.get(MACHINE, "me@example.com") == "START"
    assert conversations.states.get(MACHINE, "other@example.com") == "FORWARD"


def test_everybody_is_moved(lamson: Type, conversations: Database) -> None:
    assert lamson("states", "-move", "FORWARD", "POSTING").out == "Moved 3 conversations to POSTING.\n"
    assert lamson("states", "-move", f"{MACHINE}.POSTING", "DONE").out == "Moved 2 conversations to DONE.\n"
    assert conversations.states.get("app.handlers.post", "me@example.com") == "POSTING"
    assert lamson("states", "-move", "DONE", "X", "-for", "me@example.com").out == "Moved 1 conversation to X.\n"


def test_a_name_that_nobody_has_is_told(lamson: Type, conversations: Database) -> None:
    mistyped = lamson("states", "-move", "FORWRAD", "POSTING")
    assert (mistyped.status, mistyped.out) == (1, "")
    assert "There is no conversation in the state FORWRAD. Those that there are: lamson states" in mistyped.err
    assert "There is no conversation of mee@example.com." in lamson("states", "-for", "mee@example.com", "-reset").err


def test_a_delivery_that_runs_meanwhile_notices_the_move(lamson: Type, conversations: Database) -> None:
    with pytest.raises(Conflict), conversations.states.begin() as held:
        held.get_state(MACHINE, "me@example.com")
        held.set_state(MACHINE, "me@example.com", "NEXT")
        lamson("states", "-move", "FORWARD", "POSTING")
    assert conversations.states.get(MACHINE, "me@example.com") == "POSTING"


@pytest.mark.parametrize("words", [["-reset"], ["-reset", "-for", "a@b.example", "-move", "A", "B"], ["-move", "A"]])
def test_wrong_use_of_states(lamson: Type, conversations: Database, words: list[str]) -> None:
    assert lamson("states", *words).status == 2


def test_states_that_name_no_function(conversations: Database) -> None:
    conversations.states.set(MACHINE, "third@example.com", "START")
    known = [(MACHINE, "START"), (MACHINE, "OTHER")]
    assert states_command.lost(conversations, known) == [(MACHINE, "FORWARD", 2)], "other machines may be another process's"


# -- db


def test_db_before_and_after(lamson: Type, project: Path) -> None:
    assert lamson("db").out == f"{URL} has no tables of Lamson's yet; this Lamson needs version {SCHEMA_VERSION}.\n"
    assert "They are made by: lamson start" in lamson("states").err
    assert lamson("db", "-upgrade").out == f"{URL} has tables of version {SCHEMA_VERSION}; this Lamson needs version {SCHEMA_VERSION}.\n"
    assert lamson("states").status == 0


def test_a_project_without_a_database(lamson: Type, project: Path) -> None:
    (project / "config" / "settings.py").write_text("")
    done = lamson("db")
    assert done.status == 1
    assert "This project has no database. Give it one in config/settings.py" in done.err


def test_a_database_that_cannot_be_opened(lamson: Type, project: Path) -> None:
    (project / "config" / "settings.py").write_text("database_config = {'url': 'sqlite:///nowhere/x.db'}\n")
    for command in ("db", "states", "outbox"):
        done = lamson(command)
        assert done.status == 1
        assert "nowhere/x.db" in done.err


def test_where_there_is_no_project(lamson: Type, run_folder: Path) -> None:
    assert "There is no project in" in lamson("outbox").err


# -- outbox


@pytest.fixture
def waiting(database: Database) -> Database:
    """Mail to two, in the outbox."""
    with delivery.begin(database.states, "list@example.com", "me@example.com") as held:
        held.hold_mail(Relay("127.0.0.1", 1), Outgoing("list@example.com", ("one@example.com", "two@example.com"), b"Subject: x\r\n\r\n"))
    return database


def test_what_waits(lamson: Type, waiting: Database) -> None:
    lines = lamson("outbox").out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["one@example.com", "two@example.com"]
    assert all("  from list@example.com  since 20" in line for line in lines)
    assert all("tried 0 times, next try 20" in line for line in lines)
    assert lamson("outbox", "-list", "-for", "Two@example.com").out.startswith("two@example.com")


def test_that_nothing_waits_is_said_and_is_no_line(lamson: Type, database: Database) -> None:
    done = lamson("outbox")
    assert (done.status, done.out, done.err) == (0, "", "Nothing waits to be sent.\n")
    assert lamson("outbox", "-for", "One@example.com").err == "Nothing waits to be sent to one@example.com.\n"


def test_it_is_held_and_released(lamson: Type, waiting: Database) -> None:
    assert lamson("outbox", "-hold", "-for", "one@example.com").out == "Holds back: mail for 1 recipient.\n"
    assert "held back" in lamson("outbox", "-for", "one@example.com").out
    assert lamson("outbox", "-release").out == "Released: mail for 2 recipients.\n"
    assert "held back" not in lamson("outbox").out
    assert lamson("outbox", "-retry").out == "Tries again now: mail for 2 recipients.\n"


def test_it_is_removed_only_when_it_is_said_whose(lamson: Type, waiting: Database) -> None:
    done = lamson("outbox", "-remove")
    assert done.status == 2
    assert "-remove needs to know whose" in done.err
    assert lamson("outbox", "-remove", "-for", "one@example.com").out == "Removed: mail for 1 recipient.\n"
    assert lamson("outbox", "-remove", "-for", "all").out == "Removed: mail for 1 recipient.\n"
    assert lamson("outbox").out == ""


def test_one_thing_at_a_time(lamson: Type, waiting: Database) -> None:
    assert lamson("outbox", "-hold", "-retry").status == 2
    assert lamson("outbox", "-list", "-hold").status == 2
