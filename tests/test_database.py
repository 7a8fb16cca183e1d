"""The committing delivery: everything at once or nothing, on the three databases."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from lamson import delivery
from lamson.database import (
    SCHEMA_VERSION,
    Database,
    DueRow,
    FSMState,
    Message,
    OutboxRow,
    PushRow,
    Receipt,
    Schema,
    configure_database,
)
from lamson.delivery import Outgoing
from lamson.errors import Conflict, DatabaseError, Fault, QueueError, RelayError, SMTPError
from lamson.outbox import Outbox
from lamson.queue import Queue
from lamson.status import reply
from tests import databases


class AppBase(orm.DeclarativeBase):
    pass


class Row(AppBase):
    __tablename__ = "app_row"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str] = orm.mapped_column(sa.String(100))


class Carrier:
    name = "default"

    def close(self) -> None: ...

    def close_idle(self) -> None: ...

    def destination(self, rcpt_to: str) -> str:
        return "next:25"

    def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
        return map(self.hand_over, mails)

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        raise AssertionError("mail inside a delivery goes to the outbox, not out")


class Push:
    """A push that can be made to fail."""

    queue_dir, key = "run/queue", "1.x"

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken = False

    def finish(self) -> None:
        if self.broken:
            raise QueueError("no rename") from OSError()
        self.done.append("finished")

    def undo(self) -> None:
        self.done.append("undone")


class BusyOutbox:
    """One that claims nothing, and is only told that there is something."""

    woken = 0

    def claim(self, rows: Sequence[DueRow], data: bytes) -> bool:
        return False

    def take(self, rows: Sequence[DueRow], data: bytes) -> None: ...

    def forget(self, rows: Sequence[DueRow]) -> None: ...

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture(params=databases.KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with databases.opened(request.param, tmp_path) as database:
        database.create_all(AppBase.metadata)
        yield database


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    with databases.opened("sqlite", tmp_path, busy_seconds=0.2) as database:
        yield database


def rows(database: Database, model: Any) -> list[Any]:
    with database.transaction() as session:
        return list(session.scalars(sa.select(model)))


def begin(database: Database, id: str | None = None) -> delivery.Delivery:
    return delivery.begin(database.states, "list@test.com", "ann@ex.org", id)


def test_states_are_kept_and_told_by_recipient_and_version(database: Database) -> None:
    assert database.states.get("m", "ann@ex.org") == "START"
    with begin(database) as held:
        assert held.get_state("m", "ann@ex.org") == "START"
        held.set_state("m", "ann@ex.org", "NEXT")
        assert held.get_state("m", "ann@ex.org") == "NEXT"
    assert database.states.get("m", "Ann@ex.org") == "NEXT"
    with begin(database) as held:
        held.set_state("m", "ann@ex.org", "NEXT")
    (row,) = rows(database, FSMState)
    assert (row.recipient, row.version, row.state) == ("list@test.com", 2, "NEXT")
    database.states.set("m", "ann@ex.org", "LAST")
    (row,) = rows(database, FSMState)
    assert (row.recipient, row.version, row.state) == ("list@test.com", 3, "LAST")
    database.states.clear()
    assert database.states.get("m", "ann@ex.org") == "START"


def test_jose_is_not_josé_and_case_of_keys_counts(database: Database) -> None:
    database.states.set("m", "jose@x", "ONE")
    database.states.set("m", "josé@x", "TWO")
    database.states.set("M", "jose@x", "THREE")
    found = [database.states.get(*of) for of in (("m", "jose@x"), ("m", "josé@x"), ("M", "jose@x"))]
    assert found == ["ONE", "TWO", "THREE"]


def fill(database: Database, held: delivery.Delivery, push: Push) -> None:
    held.set_state("m", "ann@ex.org", "NEXT")
    held.hold_mail(Carrier(), Outgoing("list@test.com", ("ann@ex.org", "bob@ex.org"), b"answer"))
    held.hold_push(push)
    held.hold_receipt("r" * 64, reply(250), 60)
    database.session.add(Row(text="mine"))


def test_all_that_a_delivery_caused_is_one_commit(database: Database) -> None:
    push, outbox = Push(), BusyOutbox()
    database.senders.append(outbox)
    with begin(database, "abc") as held:
        fill(database, held, push)
        assert rows_seen_elsewhere(database) == 0
        assert push.done == []
    assert [row.text for row in rows(database, Row)] == ["mine"]
    assert [(row.rcpt_to, row.delivery, row.destination) for row in rows(database, OutboxRow)] == [
        ("ann@ex.org", "abc", "next:25"),
        ("bob@ex.org", "abc", "next:25"),
    ]
    assert [row.data for row in rows(database, Message)] == [b"answer"]
    assert [(row.queue_dir, row.queue_key) for row in rows(database, PushRow)] == [("run/queue", "1.x")]
    assert (push.done, outbox.woken) == (["finished"], 1)
    with begin(database) as held:
        assert held.receipt("r" * 64) == reply(250)


def rows_seen_elsewhere(database: Database) -> int:
    """What another connection sees now."""
    seen: list[int] = []

    def look() -> None:
        seen.append(sum(len(rows(database, model)) for model in (Row, OutboxRow, Message, PushRow, Receipt, FSMState)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return seen[0]


def test_a_delivery_that_raises_leaves_nothing(database: Database) -> None:
    push = Push()
    with pytest.raises(ValueError, match="handler"), begin(database) as held:
        fill(database, held, push)
        database.session.flush()
        raise ValueError("handler")
    assert rows_seen_elsewhere(database) == 0
    assert push.done == ["undone"]
    assert delivery.current() is None


def test_rows_of_finished_pushes_go_with_the_next_one(database: Database) -> None:
    for key in ("1.x", "2.x"):
        with begin(database) as held:
            push = Push()
            push.key = key
            held.hold_push(push)
    assert [row.queue_key for row in rows(database, PushRow)] == ["2.x"]


def test_a_rename_that_fails_after_the_commit_undoes_nothing(database: Database) -> None:
    push = Push()
    push.broken = True
    with begin(database) as held:
        held.set_state("m", "ann@ex.org", "NEXT")
        held.hold_push(push)
    assert push.done == []
    assert len(rows(database, PushRow)) == 1
    assert database.states.get("m", "ann@ex.org") == "NEXT"


def test_of_two_deliveries_from_one_version_the_second_conflicts(database: Database) -> None:
    database.states.set("m", "ann@ex.org", "NEXT")
    first = database.states.begin("r", "ann@ex.org")
    first.versions["m", "ann@ex.org"] = 0  # as read before another process moved it
    with pytest.raises(Conflict), first:
        first.set_state("m", "ann@ex.org", "LOST")
    assert database.states.get("m", "ann@ex.org") == "NEXT"


def test_of_two_first_moves_the_second_conflicts(database: Database) -> None:
    first = database.states.begin("r", "ann@ex.org")
    first.versions["m", "ann@ex.org"] = None
    database.states.set("m", "ann@ex.org", "NEXT")
    with pytest.raises(Conflict), first:
        first.set_state("m", "ann@ex.org", "LOST")


def test_of_two_receipts_the_second_conflicts_and_an_expired_one_does_not(database: Database) -> None:
    for seconds, expected in ((-1, None), (60, None), (60, reply(250))):
        with begin(database) as held:
            assert held.receipt("k") == expected
            if expected is None:
                held.hold_receipt("k", reply(250), seconds)
    with pytest.raises(Conflict), begin(database) as held:
        held.hold_receipt("k", reply(250), 60)


def test_whoever_has_not_looked_replaces_an_expired_receipt(database: Database) -> None:
    """The undeliverable queue's own transaction did not: for an hour the client heard 451."""
    for seconds in (-1, 60):
        with begin(database) as held:
            held.hold_receipt("k", reply(250), seconds)
            held.hold_receipt("l", reply(250), seconds)
    assert len(rows(database, Receipt)) == 2


def test_what_a_handler_ran_into_while_another_process_was_faster_is_a_conflict(database: Database) -> None:
    """Of two first messages of one sender both want to add the sender's row; the second must run anew and find it."""
    with pytest.raises(Conflict, match="ValueError: the row is there"), begin(database) as held:
        held.get_state("m", "ann@ex.org")
        move_elsewhere(lambda: database.states.set("m", "ann@ex.org", "NEXT"))
        raise ValueError("the row is there")
    with pytest.raises(Conflict), begin(database) as held:
        held.receipt("k")
        move_elsewhere(lambda: handle_elsewhere(database, "k"))
        raise ValueError
    with pytest.raises(ValueError, match="of its own"), begin(database) as held:
        held.get_state("m", "ann@ex.org")
        held.receipt("j")
        raise ValueError("of its own")


def handle_elsewhere(database: Database, key: str) -> None:
    with begin(database) as held:
        held.hold_receipt(key, reply(250), 60)


def move_elsewhere(move: Callable[[], None]) -> None:
    """In a thread, as a delivery cannot begin inside another."""
    thread = threading.Thread(target=move)
    thread.start()
    thread.join()


def test_the_session_belongs_to_the_delivery(database: Database) -> None:
    with begin(database):
        session = database.session
        assert session is database.session
        for name in ("commit", "rollback", "close", "begin"):
            with pytest.raises(TypeError, match=f"{name}\\(\\) on a delivery's session"):
                getattr(session, name)()
        with session.begin_nested() as savepoint:
            session.add(Row(text="dropped"))
            savepoint.rollback()
        session.add(Row(text="kept"))
    assert [row.text for row in rows(database, Row)] == ["kept"]


def test_sessions_outside_a_delivery(database: Database) -> None:
    with pytest.raises(TypeError, match="database.transaction"):
        _ = database.session
    with database.transaction() as session:
        assert database.session is session
        session.add(Row(text="own"))
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        session.add(Row(text="lost"))
        1 / 0  # noqa: B018
    assert [row.text for row in rows(database, Row)] == ["own"]
    with begin(database), pytest.raises(TypeError, match="inside a delivery"), database.transaction():
        pass


def test_an_application_sees_its_own_rows_and_others_do_not(database: Database) -> None:
    with begin(database):
        database.session.execute(sa.insert(Row).values(text="mine"))
        assert database.session.scalar(sa.select(sa.func.count(Row.id))) == 1
        assert rows_seen_elsewhere(database) == 0


def test_a_handlers_own_mistake_in_sql_is_not_called_a_fault(database: Database) -> None:
    with database.transaction() as session:
        session.add(Row(id=1, text="first"))
    with pytest.raises(sa.exc.IntegrityError), begin(database):
        database.session.add(Row(id=1, text="second"))
        database.session.flush()


def test_a_message_of_30_megabytes_is_kept_whole(database: Database) -> None:
    data = bytes(range(256)) * (30 * 4096)
    with begin(database) as held:
        held.hold_mail(Carrier(), Outgoing("", ("ann@ex.org",), data))
    assert rows(database, Message)[0].data == data


def test_the_database_is_gone_and_comes_back(tmp_path: Path, sqlite: Database) -> None:
    other = sqlite3.connect(tmp_path / "lamson.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Fault, match="locked"), begin(sqlite) as held:
        held.set_state("m", "ann@ex.org", "NEXT")
    other.execute("ROLLBACK")
    other.close()
    with begin(sqlite) as held:
        held.set_state("m", "ann@ex.org", "NEXT")
    assert sqlite.states.get("m", "ann@ex.org") == "NEXT"


def test_a_row_that_hangs_elsewhere_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    for kind in ("postgresql", "mariadb"):
        with databases.opened(kind, tmp_path, busy_seconds=1) as database:
            database.states.set("m", "ann@ex.org", "NEXT")
            with database.engine.begin() as other:
                other.execute(sa.select(FSMState).with_for_update()).all()
                with pytest.raises(Fault, match=r"(?i)lock"), begin(database) as held:
                    held.get_state("m", "ann@ex.org")
            database.states.set("m", "ann@ex.org", "LAST")


def test_one_writer_at_a_time_and_the_turn_always_comes_back(sqlite: Database) -> None:
    with begin(sqlite):
        sqlite.session.execute(sa.text("DELETE FROM lamson_state"))
        failed: list[BaseException] = []

        def write() -> None:
            try:
                sqlite.states.set("m", "bob@x", "NEXT")
            except Fault as error:
                failed.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert "was being written" in str(failed[0])
    assert not sqlite.writer.turn.locked()
    sqlite.states.set("m", "bob@x", "NEXT")


def test_many_threads_write_without_conflict(tmp_path: Path) -> None:
    """With the patience that is the default: a disk may take a fifth of a second for one commit."""
    with databases.opened("sqlite", tmp_path) as database:

        def move(number: int) -> None:
            for _ in range(20):
                with delivery.begin(database.states, "r", f"s{number}") as held:
                    held.get_state("m", f"s{number}")
                    held.set_state("m", f"s{number}", "NEXT")

        threads = [threading.Thread(target=move, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(row.version for row in rows(database, FSMState)) == [20] * 8


def test_sqlite_is_durable_by_default_and_a_setting_relaxes_it(tmp_path: Path, sqlite: Database) -> None:
    def pragma(database: Database, name: str) -> Any:
        with database.connected() as connection:
            return connection.execute(sa.text(f"PRAGMA {name}")).scalar()

    assert (pragma(sqlite, "journal_mode"), pragma(sqlite, "synchronous")) == ("wal", 2)
    relaxed = configure_database({"url": f"sqlite:///{tmp_path}/other.db", "synchronous": "NORMAL"})
    assert pragma(relaxed, "synchronous") == 1
    relaxed.dispose()


# -- making one


def test_create_all_is_repeatable_and_marks_the_version(database: Database) -> None:
    database.create_all()
    assert database.schema_version() == SCHEMA_VERSION


def test_a_column_that_a_table_lacks_is_told_at_the_start(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The first change that people make to a model; it was noticed with the first message only."""
    database.create_all(AppBase.metadata)
    assert "lacks" not in caplog.text
    grown = sa.MetaData()
    sa.Table("app_row", grown, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(9)), sa.Column("since", sa.Float))
    database.create_all(grown)
    assert f"The table app_row in {database.name} lacks since. No start changes a table that is there" in caplog.text


@pytest.mark.parametrize("kind", databases.KINDS)
def test_processes_that_start_together_make_the_tables_together(kind: str, tmp_path: Path) -> None:
    """Each of several workers finds another table made by one of the others."""
    with databases.scratch(kind, tmp_path) as url:
        together = threading.Barrier(6)
        failures: list[BaseException] = []

        def start() -> None:
            database = configure_database({"url": url})
            try:
                together.wait()
                database.create_all(AppBase.metadata)
            except BaseException as error:
                failures.append(error)
            finally:
                database.dispose()

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_tables_of_another_version_are_refused_with_the_remedy(database: Database) -> None:
    for version, remedy in ((0, "lamson db -upgrade"), (99, "upgrade Lamson")):
        with database.transaction() as session:
            session.execute(sa.update(Schema).values(version=version))
        with pytest.raises(DatabaseError, match=remedy):
            database.create_all()


def test_older_tables_are_upgraded_step_by_step(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {1: ("CREATE TABLE lamson_new (a INTEGER)", "INSERT INTO lamson_new VALUES (7)"), 2: ("UPDATE lamson_new SET a = a + 1",)}
    with database.transaction() as session:
        session.execute(sa.update(Schema).values(version=1))
    monkeypatch.setattr("lamson.database.SCHEMA_VERSION", 3)
    monkeypatch.setattr("lamson.database.UPGRADES", steps)
    with pytest.raises(DatabaseError, match="lamson db -upgrade"):
        database.create_all()
    database.upgrade()
    assert database.schema_version() == 3
    with database.connected() as connection:
        assert connection.execute(sa.text("SELECT a FROM lamson_new")).scalar() == 8
    database.upgrade()
    monkeypatch.setattr("lamson.database.SCHEMA_VERSION", 5)
    with pytest.raises(DatabaseError, match="nothing leads to 5"):
        database.upgrade()


def test_tables_of_version_1_get_those_of_the_spam_filter(database: Database) -> None:
    with database.connected() as connection:
        for table in ("lamson_spam_token", "lamson_spam_message"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.update(Schema).values(version=1))
    database.upgrade()
    assert database.schema_version() == SCHEMA_VERSION
    assert {"lamson_spam_token", "lamson_spam_message"} <= set(sa.inspect(database.engine).get_table_names())


def test_a_database_without_tables_has_no_version(tmp_path: Path) -> None:
    database = configure_database({"url": f"sqlite:///{tmp_path}/new.db"})
    assert database.schema_version() is None
    database.dispose()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, 'no "url"'),
        ({"url": "rubbish"}, "no database URL"),
        ({"url": "oracle9+nothing://x"}, "knows no database"),
        ({"url": "sqlite://", "no_such_option": 1}, "no_such_option"),
        ({"url": "sqlite:////no/such/folder/x.db"}, "see that its folder exists"),
        ({"url": "postgresql+psycopg://u:secret@127.0.0.1:1/x"}, "see that the server runs"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_remedy(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DatabaseError, match=sentence) as raised:
        configure_database(config, also_create=True)
    assert "secret" not in str(raised.value)


def test_a_memory_database_works_for_small_tests() -> None:
    database = configure_database({"url": "sqlite://"}, also_create=True)
    database.states.set("m", "a@x", "NEXT")
    assert database.states.get("m", "a@x") == "NEXT"
    database.dispose()


def test_a_commit_of_which_nobody_knows_whether_it_holds_loses_no_push(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client hears 451; when it comes again, the receipt says 250, and the message must be there."""
    queue = Queue(str(tmp_path / "queue"))
    commit = sa.engine.Connection.commit

    def lose_the_answer(connection: sa.engine.Connection) -> None:
        commit(connection)
        raise sa.exc.OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    monkeypatch.setattr(sa.engine.Connection, "commit", lose_the_answer)
    with pytest.raises(Fault), begin(database) as held:
        queue.push(b"Subject: hi\r\n\r\n")
        held.hold_receipt("k", reply(250), 60)
    monkeypatch.undo()
    with begin(database) as held:
        assert held.receipt("k")
    assert queue.count() == 1


def test_a_commit_of_which_even_the_database_does_not_tell_leaves_pushes_to_the_outbox(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(str(tmp_path / "queue"))
    commit = sa.engine.Connection.commit

    def gone() -> None:
        raise sa.exc.OperationalError("", {}, Exception("the server is gone"))

    def lose_the_database(connection: sa.engine.Connection) -> None:
        commit(connection)
        monkeypatch.setattr(sqlite.engine, "connect", gone)
        raise sa.exc.OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    monkeypatch.setattr(sa.engine.Connection, "commit", lose_the_database)
    with pytest.raises(Fault), begin(sqlite):
        queue.push(b"Subject: hi\r\n\r\n")
    monkeypatch.undo()
    assert queue.count() == 0
    Outbox(sqlite, []).recover()
    assert queue.count() == 1


def test_a_conflict_at_the_commit_leaves_nothing_of_a_push(sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(connection: sa.engine.Connection) -> None:
        error = Exception("could not serialize access")
        error.sqlstate = "40001"  # type: ignore[attr-defined]
        raise sa.exc.OperationalError("COMMIT", {}, error)

    queue = Queue(str(tmp_path / "queue"))
    monkeypatch.setattr(sa.engine.Connection, "commit", conflict)
    with pytest.raises(Conflict), begin(sqlite):
        queue.push(b"Subject: hi\r\n\r\n")
    assert not list((tmp_path / "queue" / "tmp").iterdir())


def test_of_two_that_find_one_expired_receipt_the_second_conflicts(database: Database) -> None:
    with begin(database) as held:
        held.hold_receipt("k", reply(250, "long ago"), -1)
    first, second = database.states.begin(), database.states.begin()
    assert (first.receipt("k"), second.receipt("k")) == (None, None)
    second._let_go()  # as on SQLite, where looking takes no lock
    with first:
        first.hold_receipt("k", reply(250, "one"), 60)
    with pytest.raises(Conflict), second:
        second.hold_receipt("k", reply(250, "two"), 60)


@pytest.mark.parametrize(
    ("kind", "who_am_i", "kill"),
    [("postgresql", "SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"), ("mariadb", "SELECT connection_id()", "KILL {}")],
)
def test_a_connection_that_is_gone_when_it_comes_to_rolling_back(kind: str, who_am_i: str, kill: str, tmp_path: Path) -> None:
    """What the handler raised still counts: a refusal is no failure that belongs into the undeliverable queue."""
    with databases.opened(kind, tmp_path) as database:
        with pytest.raises(SMTPError), begin(database):
            own = database.session.scalar(sa.text(who_am_i))
            with database.engine.connect() as other:
                other.execute(sa.text(kill.format(own)))
            raise SMTPError(550, "no")
        assert database.states.get("m", "ann@ex.org") == "START"
