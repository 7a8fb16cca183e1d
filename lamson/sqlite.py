"""SQLite as the embedded database: what makes its connections ours, and one commit for all who wait for its one writer.

SQLite lies in this process, so a statement costs it a few microseconds, and handling one through SQLAlchemy several times that. What every
delivery reads and writes goes past it, with the text that SQLAlchemy made of the same statement. And because a commit waits for the disk,
deliveries that wait for their turn are committed together by whoever has it; each hears only when its own is on the disk.

`lamson.database` decides what is written. This module knows no tables, no deliveries and no mail.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from lamson.errors import Conflict, Fault

#: What time may solve.
_FAULTS = (sqlite3.OperationalError, sqlite3.InternalError)
#: Statements that write nothing begin so.
_READING = ("SELECT", "PRAGMA", "EXPLAI")
#: How many deliveries one commit holds at most, so that the first of them does not wait for long.
TOGETHER = 64
#: Seconds between two looks whether another process has written what it had to write.
PAUSE = 0.0005
#: How many rows one INSERT holds at most: SQLite takes 32,766 values.
ROWS = 500

#: Takes a statement's values out of a row.
_ValuesOf = Callable[[Mapping[str, Any]], Sequence[Any]]


@dataclass(slots=True)  # not frozen, which takes twice as long to make: a message makes several
class Write:
    """A statement and the rows that it is executed for. `must_hit`: Conflict unless it changes one row."""

    statement: Any
    rows: Sequence[Mapping[str, Any]]
    must_hit: bool = False


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Waiting:
    """Writes that wait for their commit. Neither `committed` nor `fault` once it was told: its commit is to be made alone."""

    writes: Sequence[Write]
    told: threading.Lock = field(default_factory=_locked)  # released when there is something to know
    leads: bool = False
    committed: bool = False
    fault: str = ""


class Writer:
    """The one writer of an SQLite database in this process. `patience`: seconds to wait for the turn, then it is a Fault.

    The first who comes leads: it waits for the turn, commits for all who have come meanwhile, tells them, and names the next.
    """

    def __init__(self, engine: Engine, patience: float) -> None:
        self.engine = engine
        self.patience = patience
        self.turn = threading.Lock()  # threads queue here and not in SQLite's own waiting, which is a poll, slow and unfair
        self._waiting: deque[_Waiting] = deque()
        self._led = False
        self._mutex = threading.Lock()  # of these two
        self._readers: deque[sqlite3.Connection] = deque()  # connections that are kept; what writes does its own waiting
        self._writers: deque[sqlite3.Connection] = deque()
        self._texts: dict[tuple[Any, ...], tuple[str, _ValuesOf]] = {}

    def read(self, statement: Any, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The first row, in autocommit: what is committed now."""
        text, values_of = self._text(statement, ())
        given = values_of(values)
        row: tuple[Any, ...] | None = self._on_connection(self._readers, lambda connection: connection.execute(text, given).fetchone())
        return row

    def commit(self, writes: Sequence[Write]) -> None:
        """Returns when all of them are committed, perhaps together with those of others. Raises Conflict or Fault when they are not."""
        mine = _Waiting(writes)
        self._line_up(mine)
        if not mine.told.acquire(timeout=self.patience):
            self._step_out(mine)
            mine.told.acquire()  # somebody is committing it just now
        if mine.leads:
            self._lead(mine)
        elif not mine.committed and not mine.fault:
            self._alone(mine)
        if mine.fault:
            raise Fault(mine.fault)

    def close(self) -> None:
        """Closes the connections that it keeps."""
        for kept in (self._readers, self._writers):
            while kept:
                kept.pop().close()

    # -- who leads

    def _line_up(self, mine: _Waiting) -> None:
        with self._mutex:
            self._waiting.append(mine)
            if not self._led:
                self._name_the_first()

    def _step_out(self, mine: _Waiting) -> None:
        with self._mutex:
            if mine in self._waiting and not mine.leads:
                self._waiting.remove(mine)
                raise self._too_long()

    def _lead(self, mine: _Waiting) -> None:
        try:
            self._in_turn(self._commit_for_all)
            if not mine.committed and not mine.fault:
                self._alone(mine)
        finally:
            self._name_the_next(mine)

    def _name_the_next(self, mine: _Waiting) -> None:
        with self._mutex:
            if mine in self._waiting:  # it had no turn
                self._waiting.remove(mine)
            self._led = False
            if self._waiting:
                self._name_the_first()

    def _name_the_first(self) -> None:
        self._led = self._waiting[0].leads = True
        self._waiting[0].told.release()

    def _in_turn(self, step: Callable[[], None]) -> None:
        if not self.turn.acquire(timeout=self.patience):
            raise self._too_long()
        try:
            step()
        finally:
            self.turn.release()

    def _too_long(self) -> Fault:
        return Fault(f"the database was being written for {self.patience:g} s")

    # -- commits

    def _commit_for_all(self) -> None:
        """One commit for all who wait. What time may solve is told to each; what is wrong with one of them each finds out alone."""
        with self._mutex:
            together = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
        try:
            self._transaction(together)
        except Fault as fault:
            for each in together:
                each.fault = str(fault)
        except (Conflict, ValueError, OverflowError, sqlite3.Error):
            if len(together) == 1:
                raise
        finally:
            for each in together:
                each.told.release()

    def _alone(self, mine: _Waiting) -> None:
        self._in_turn(lambda: self._transaction([mine]))

    def _transaction(self, together: Sequence[_Waiting]) -> None:
        writes = _merged([write for each in together for write in each.writes])
        self._on_connection(self._writers, lambda connection: self._write_all(connection, writes))
        for each in together:
            each.committed = True

    def _write_all(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> None:
        self._when_free(connection, "BEGIN IMMEDIATE")
        try:
            for write in writes:
                self._write(connection, write)
            self._when_free(connection, "COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def _when_free(self, connection: sqlite3.Connection, statement: str) -> None:
        """Waits for other processes, at most `patience` seconds: for their writers, one that mends the file after a crash, and, on a disk
        without WAL, readers. SQLite's own waiting looks again after ever longer pauses, of up to a tenth of a second, and may never meet
        the moment in which a busy process does not write."""
        until = time.monotonic() + self.patience
        while True:
            try:
                connection.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(PAUSE)

    def _write(self, connection: sqlite3.Connection, write: Write) -> None:
        text, values_of = self._text(write.statement, tuple(write.rows[0]))
        if len(write.rows) == 1:
            if connection.execute(text, values_of(write.rows[0])).rowcount != 1 and write.must_hit:
                raise Conflict(f"another process was first: {', '.join(map(str, values_of(write.rows[0])))}")
        elif len(write.rows) <= ROWS and write.statement.is_insert:
            connection.execute(_of_many(text, len(write.rows)), [value for row in write.rows for value in values_of(row)])
        else:
            connection.executemany(text, [values_of(row) for row in write.rows])

    def _text(self, statement: Any, columns: tuple[str, ...]) -> tuple[str, _ValuesOf]:
        """The statement as SQLite reads it, and what takes its values out of a row."""
        known = self._texts.get((statement, columns))
        if known is None:
            inserted = list(columns) if statement.is_insert else None
            compiled = statement.compile(dialect=self.engine.dialect, column_keys=inserted)
            known = self._texts[statement, columns] = (str(compiled), _values_of(list(compiled.positiontup or ())))
        return known

    def _on_connection(self, kept: deque[sqlite3.Connection], use: Callable[[sqlite3.Connection], Any]) -> Any:
        """Uses a connection without SQLAlchemy around it, kept for the next unless it failed. Errors come out as Conflict or Fault."""
        try:
            connection = kept.pop()
        except IndexError:
            connection = self._open(waits=kept is self._readers)
        try:
            result = use(connection)
        except sqlite3.IntegrityError as error:
            kept.append(connection)
            raise Conflict(f"another process was first: {error}") from error
        except _FAULTS as error:
            connection.close()
            raise _fault(error) from error
        except BaseException:
            connection.close()
            raise
        kept.append(connection)
        return result

    def _open(self, waits: bool) -> sqlite3.Connection:
        try:
            pooled = self.engine.raw_connection()
        except _FAULTS as error:  # no file, no descriptor for it
            raise _fault(error) from error
        pooled.detach()
        connection = pooled.dbapi_connection
        assert isinstance(connection, sqlite3.Connection)
        if not waits:
            connection.execute("PRAGMA busy_timeout=0")
        return connection


def _fault(error: sqlite3.Error) -> Fault:
    return Fault(f"{type(error).__name__}: {error}")


def _values_of(names: Sequence[str]) -> _ValuesOf:
    """What takes the values of these names out of a row, in order."""
    if len(names) > 1:
        return itemgetter(*names)
    if names:  # of one name, itemgetter gives the value alone
        name = names[0]
        return lambda row: (row[name],)
    return lambda row: ()


def _merged(writes: Sequence[Write]) -> list[Write]:
    """Rows of several inserts into one table become one insert; each statement costs a way to SQLite and back. So an insert may come before
    what stood before it, as the deletion of an expired receipt: that fails, and then each commits alone, in its own order."""
    merged: list[Write] = []
    gathered: dict[Any, list[Any]] = {}
    for write in writes:
        if not write.statement.is_insert:
            merged.append(write)
            continue
        key = (write.statement, tuple(write.rows[0]))
        rows = gathered.get(key)
        if rows is not None and len(rows) + len(write.rows) <= ROWS:
            rows += write.rows
        else:
            gathered[key] = rows = list(write.rows)
            merged.append(Write(write.statement, rows))
    return merged


@lru_cache(maxsize=256)
def _of_many(text: str, rows: int) -> str:
    """An INSERT for so many rows."""
    values = text[text.rindex("VALUES ") + len("VALUES ") :]
    return text + f", {values}" * (rows - 1)


def make_ours(engine: Engine, synchronous: str, patience: float) -> Writer:
    """WAL; every commit on disk; reads outside transactions; and BEGIN IMMEDIATE before the first write.

    Python's driver would begin a transaction of its own before some statements and not others; with `isolation_level` None it begins
    none. Reading inside the transaction that later writes would be refused whenever another process wrote in between.
    """
    writer = Writer(engine, patience)

    @sa.event.listens_for(engine, "connect")
    def set_up(dbapi: Any, record: Any) -> None:
        dbapi.isolation_level = None
        for pragma in (f"busy_timeout={int(patience * 1000)}", "journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
            dbapi.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "before_cursor_execute")
    def begin_before_writing(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        dbapi = connection.connection.dbapi_connection
        if dbapi is not None and not dbapi.in_transaction and statement.lstrip()[:6].upper() not in _READING:
            turn = connection.info.get("lamson_turn")
            if turn is not None:
                turn.take(patience)
            cursor.execute("BEGIN IMMEDIATE")

    @sa.event.listens_for(engine, "checkin")
    def give_turn_back(dbapi: Any, record: Any) -> None:
        turn = record.info.pop("lamson_turn", None)
        if turn is not None:
            turn.give()

    return writer


class Turn:
    """The turn of a connection that writes through SQLAlchemy: taken before its first write, given back with the connection."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self.taken = False

    def take(self, seconds: float) -> None:
        if not self.taken:
            self.taken = self.lock.acquire(timeout=seconds)
            if not self.taken:
                raise Fault(f"the database was being written for {seconds:g} s")

    def give(self) -> None:
        if self.taken:
            self.taken = False
            self.lock.release()
