"""SQLite's one writer: who waits is committed together, and each hears of its own."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lamson import sqlite
from lamson.database import Database, FSMState
from lamson.errors import Conflict, Fault
from lamson.sqlite import Write, Writer
from tests import databases
from tests.smtp.talk import wait_until

ADD = sa.insert(FSMState.__table__)  # type: ignore[arg-type]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with databases.opened("sqlite", tmp_path, busy_seconds=1.0) as database:
        yield database


@pytest.fixture
def writer(database: Database) -> Writer:
    assert database.writer is not None
    return database.writer


@pytest.fixture
def commits(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many each attempt at a commit was for."""
    seen: list[int] = []
    transaction = writer._transaction

    def counting(together: Any) -> None:
        seen.append(len(together))
        transaction(together)

    monkeypatch.setattr(writer, "_transaction", counting)
    return seen


def added(sender: str, state: str = "NEXT") -> list[Write]:
    row = {"fsm": "m", "sender": sender, "state": state, "recipient": "", "version": 1, "last_modified": 0.0}
    return [Write(ADD, [row])]


def senders(database: Database) -> list[str]:
    with database.connected() as connection:
        return list(connection.execute(sa.select(FSMState.sender).order_by(FSMState.sender)).scalars())


class Committers:
    """Threads that commit at one moment: they wait for a turn that somebody else has."""

    def __init__(self, writer: Writer, *writes: list[Write]) -> None:
        self.writer = writer
        self.errors: dict[int, BaseException] = {}
        self.threads = [threading.Thread(target=self._commit, args=each) for each in enumerate(writes)]

    def _commit(self, number: int, writes: list[Write]) -> None:
        try:
            self.writer.commit(writes)
        except Exception as error:
            self.errors[number] = error

    def go(self, meanwhile: Callable[[], object] = lambda: None) -> dict[int, BaseException]:
        """What each was told; nothing where all is well."""
        with self.writer.turn:
            for number, thread in enumerate(self.threads, 1):
                thread.start()
                wait_until(lambda number=number: len(self.writer._waiting) == number)  # type: ignore[misc]
            meanwhile()
        for thread in self.threads:
            thread.join(20)
        assert not self.writer.turn.locked()
        assert not self.writer._waiting
        return self.errors


def test_those_who_wait_are_one_commit(database: Database, writer: Writer, commits: list[int]) -> None:
    assert Committers(writer, *(added(f"s{number}") for number in range(6))).go() == {}
    assert commits == [6]
    assert len(senders(database)) == 6


def test_no_commit_is_for_more_than_so_many(writer: Writer, commits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "TOGETHER", 4)
    assert Committers(writer, *(added(f"s{number}") for number in range(10))).go() == {}
    assert sum(commits) == 10
    assert max(commits) == 4


def test_what_is_wrong_with_one_is_told_to_that_one_and_the_others_are_kept(database: Database, writer: Writer) -> None:
    writer.commit(added("there"))
    errors = Committers(writer, added("a"), added("there"), added("b"), added("\udcff"), added("c")).go()
    assert {number: type(error) for number, error in errors.items()} == {1: Conflict, 3: UnicodeEncodeError}
    assert senders(database) == ["a", "b", "c", "there"]


def test_a_row_that_moved_elsewhere_is_a_conflict(database: Database, writer: Writer) -> None:
    of = FSMState.sender == sa.bindparam("of_sender")
    moved = sa.update(FSMState.__table__).where(of).values(version=sa.bindparam("to"))  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="nobody"):
        writer.commit([*added("a"), Write(moved, [{"of_sender": "nobody", "to": 2}], must_hit=True)])
    assert senders(database) == []


def test_what_time_may_solve_is_told_to_all_at_once(database: Database, writer: Writer, commits: list[int], tmp_path: Path) -> None:
    """The file is locked by another program: nobody waits for it one after the other."""
    other = sqlite3.connect(str(database.engine.url.database), isolation_level=None)
    try:
        errors = Committers(writer, *(added(f"s{number}") for number in range(5))).go(lambda: other.execute("BEGIN IMMEDIATE"))
    finally:
        other.close()
    assert [type(error) for error in errors.values()] == [Fault] * 5
    assert {str(error) for error in errors.values()} == {"OperationalError: database is locked"}
    assert commits == [5]
    writer.commit(added("later"))
    assert senders(database) == ["later"]


def test_who_waits_too_long_for_a_turn_is_told_and_is_not_written(database: Database, writer: Writer) -> None:
    writer.patience = 0.05
    with writer.turn, pytest.raises(Fault, match=r"was being written for 0\.05 s"):
        writer.commit(added("late"))
    writer.commit(added("in time"))
    assert senders(database) == ["in time"]


def test_who_is_being_committed_when_patience_ends_waits_for_the_end_of_it(database: Database, writer: Writer) -> None:
    writer.patience = 0.05
    transaction = writer._transaction
    slow = threading.Event()

    def slowly(together: Any) -> None:
        assert slow.wait(10)
        transaction(together)

    writer._transaction = slowly  # type: ignore[method-assign]
    both = Committers(writer, added("a"), added("b"))
    threading.Timer(0.3, slow.set).start()
    writer.patience = 5.0
    assert both.go(lambda: setattr(writer, "patience", 0.05)) == {}
    assert senders(database) == ["a", "b"]


def test_an_error_that_nobody_foresaw_is_the_first_ones_and_the_others_are_kept(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction = writer._transaction

    def out_of_memory(together: Any) -> None:
        if len(together) > 1:
            raise MemoryError
        transaction(together)

    monkeypatch.setattr(writer, "_transaction", out_of_memory)
    errors = Committers(writer, added("a"), added("b"), added("c")).go()
    assert [type(error) for error in errors.values()] == [MemoryError]
    assert len(senders(database)) == 2


def test_a_reader_sees_what_is_committed_and_no_more(writer: Writer) -> None:
    read = sa.select(FSMState.state).where(FSMState.sender == sa.bindparam("of_sender"))
    assert writer.read(read, {"of_sender": "a"}) is None
    writer.commit(added("a"))
    assert writer.read(read, {"of_sender": "a"}) == ("NEXT",)


def test_a_broken_file_is_a_fault(database: Database, writer: Writer) -> None:
    with database.connected() as connection:
        connection.execute(sa.text("DROP TABLE lamson_state"))
    with pytest.raises(Fault, match="no such table: lamson_state"):
        writer.commit(added("a"))


def test_who_is_named_before_it_has_begun_to_wait_leads_and_tells_all(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second lines up and is held up there; meanwhile the first ends and names it, and a third comes."""
    line_up, lined_up, may_go_on = writer._line_up, threading.Event(), threading.Event()

    def held_up(mine: Any) -> None:
        line_up(mine)
        if mine.writes == second:
            lined_up.set()
            assert may_go_on.wait(10)

    monkeypatch.setattr(writer, "_line_up", held_up)
    second = added("second")
    committers = Committers(writer, added("first"), second, added("third"))
    monkeypatch.setattr(sqlite, "TOGETHER", 1)
    with writer.turn:
        committers.threads[0].start()
        wait_until(lambda: len(writer._waiting) == 1)
        committers.threads[1].start()
        assert lined_up.wait(10)
    committers.threads[0].join(10)
    monkeypatch.setattr(sqlite, "TOGETHER", 64)
    committers.threads[2].start()
    wait_until(lambda: len(writer._waiting) == 2)
    may_go_on.set()
    for thread in committers.threads[1:]:
        thread.join(10)
    assert committers.errors == {}
    assert senders(database) == ["first", "second", "third"]
    assert not any(thread.is_alive() for thread in committers.threads)


def test_who_waits_for_another_process_that_mends_the_file_has_patience(writer: Writer) -> None:
    """SQLite has numbers of its own for that kind of waiting, and so for each kind."""
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
    answers: list[sqlite3.OperationalError | None] = [busy, busy, None]

    class Mending:
        def execute(self, statement: str) -> None:
            answer = answers.pop(0)
            if answer:
                raise answer

    writer._when_free(Mending(), "BEGIN IMMEDIATE")  # type: ignore[arg-type]
    assert not answers


def test_without_wal_a_commit_waits_for_readers_of_other_processes(database: Database, writer: Writer) -> None:
    """Where files cannot be shared memory, as on some network disks, SQLite falls back to a journal, and a reader keeps a commit off."""
    database.dispose()
    ours, other = (sqlite3.connect(str(database.engine.url.database), 0, 0, None, check_same_thread=False) for _ in range(2))
    assert ours.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    writer._writers.append(ours)
    other.execute("BEGIN")
    other.execute("SELECT * FROM lamson_state").fetchall()
    threading.Timer(0.2, other.close).start()
    writer.commit(added("a"))
    assert senders(database) == ["a"]


def test_a_file_that_cannot_be_opened_is_a_fault(database: Database, writer: Writer) -> None:
    path = Path(str(database.engine.url.database))
    database.dispose()
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    with pytest.raises(Fault, match="unable to open database file"):
        writer.commit(added("a"))
    with pytest.raises(Fault, match="unable to open database file"):
        writer.read(sa.select(FSMState.state), {})
    with pytest.raises(Fault, match="unable to open database file"):
        database.states.set("m", "a@b.org", "NEXT")
    path.rmdir()
    path.with_suffix(".away").rename(path)
    writer.commit(added("a"))
    assert senders(database) == ["a"]


def test_more_rows_than_one_insert_holds_are_written_one_by_one(database: Database, writer: Writer) -> None:
    """A letter to thousands, where one insert would have more values than SQLite takes."""
    writer._on_connection(writer._writers, lambda connection: connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32766))
    writer.commit([Write(ADD, [added(f"s{number}")[0].rows[0] for number in range(6000)])])
    assert len(senders(database)) == 6000


def test_when_who_leads_fails_another_leads(database: Database, writer: Writer) -> None:
    """The first gets no turn; the second, who came later, still has patience."""
    writer.patience = 1.0
    first = Committers(writer, added("first"))
    second = Committers(writer, added("second"))
    with writer.turn:
        first.threads[0].start()
        wait_until(lambda: len(writer._waiting) == 1)
        time.sleep(0.5)
        second.threads[0].start()
        first.threads[0].join()
        wait_until(lambda: [each.leads for each in writer._waiting] == [True])
    second.threads[0].join()
    assert [str(error) for error in first.errors.values()] == ["the database was being written for 1 s"]
    assert second.errors == {}
    assert senders(database) == ["second"]


def test_connections_are_kept_but_for_those_that_failed(database: Database, writer: Writer) -> None:
    writer.commit(added("a"))
    (kept,) = writer._writers
    with pytest.raises(Conflict):
        writer.commit(added("a"))
    assert list(writer._writers) == [kept]
    with database.connected() as connection:
        connection.execute(sa.text("DROP TABLE lamson_state"))
    with pytest.raises(Fault):
        writer.commit(added("b"))
    assert not writer._writers
    writer.read(sa.select(sa.literal_column("1")), {})
    database.dispose()
    assert not writer._readers


def test_rows_of_several_deliveries_are_one_insert_and_their_order_stays(database: Database, writer: Writer) -> None:
    of = FSMState.sender == sa.bindparam("of")
    moved = sa.update(FSMState.__table__).where(of).values(state=sa.bindparam("to"))  # type: ignore[arg-type]
    to_last = Write(moved, [{"of": "a", "to": "LAST"}], must_hit=True)
    merged = sqlite._merged([*added("a"), to_last, *added("b"), Write(ADD, [added("c")[0].rows[0], added("d")[0].rows[0]])])
    assert [(write.statement is ADD, len(write.rows)) for write in merged] == [(True, 4), (False, 1)]
    writer.commit(merged)
    assert senders(database) == ["a", "b", "c", "d"]


def test_an_insert_holds_no_more_rows_than_sqlite_takes(writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "ROWS", 3)
    writes = [write for number in range(7) for write in added(f"s{number}")]
    assert [len(write.rows) for write in sqlite._merged(writes)] == [3, 3, 1]
    writer.commit(writes)
    assert len(senders(database)) == 7
