"""What is kept: the tables, the state of every conversation, and the delivery that commits everything at once.

`configure_database({"url": "sqlite:///run/lamson.db"})` makes the object that a project keeps as `settings.database`. Its storage,
`database.states`, begins a `CommittingDelivery` for each message: the moves of state, the outbox's rows, the receipt and the
application's own rows are one transaction, and the client hears 250 after it. SQLite, PostgreSQL and MariaDB are one code.

This module knows nothing of SMTP, of routes or of sending: the outbox reads its tables.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

import sqlalchemy as sa
from sqlalchemy import exc, orm
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from lamson import address, delivery, trace
from lamson.delivery import Delivery
from lamson.errors import Conflict, DatabaseError, Fault, QueueError
from lamson.sqlite import Turn, Write, Writer, make_ours
from lamson.state import ROUTE_FIRST_STATE, StateStorage
from lamson.status import Reply

log = logging.getLogger("lamson.database")

#: The version of the tables below. Raised with every change to them.
SCHEMA_VERSION = 2
#: How to get there: from each older version, the statements that make the next of it. Tables that are new need none.
UPGRADES: Mapping[int, Sequence[str]] = MappingProxyType({1: ()})
#: A message that a mail server takes may be this long; MariaDB must let it pass in one packet.
LARGEST_PACKET = 32 * 1024 * 1024


# -- tables ----------------------------------------------------------------------------------------------------------------------


def _text(length: int) -> sa.types.TypeEngine[str]:
    """Text that is compared byte by byte everywhere: jose is not josé."""
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def _number() -> sa.types.TypeEngine[int]:
    """A key that counts up; SQLite counts INTEGER keys only."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


_BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_SECONDS: sa.Double[float] = sa.Double()
_LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql", "mariadb")


class Base(orm.DeclarativeBase):
    """Lamson's own tables; an application has its own base and metadata."""


class FSMState(Base):
    """The state of one sender in one machine.

    `fsm`: the state key. `recipient`: the address that last moved it, "" when set outside a delivery. `version` counts every run,
    also those that moved nothing, so that of two processes only one can have run from a given version. `last_modified`: seconds
    since 1970.
    """

    __tablename__ = "lamson_state"
    __table_args__ = (sa.UniqueConstraint("fsm", "sender"),)

    id: orm.Mapped[int] = orm.mapped_column(_number(), primary_key=True)
    fsm: orm.Mapped[str] = orm.mapped_column(_text(255))
    recipient: orm.Mapped[str] = orm.mapped_column(_text(320), default="")
    sender: orm.Mapped[str] = orm.mapped_column(_text(320))
    state: orm.Mapped[str] = orm.mapped_column(_text(255))
    version: orm.Mapped[int] = orm.mapped_column(sa.Integer, default=1)
    last_modified: orm.Mapped[float] = orm.mapped_column(_SECONDS, default=time.time)

    def __repr__(self) -> str:
        return f"<FSMState {self.sender} in {self.fsm}: {self.state}>"


class Message(Base):
    """The bytes of outgoing mail, once for all its recipients."""

    __tablename__ = "lamson_message"

    id: orm.Mapped[str] = orm.mapped_column(_text(32), primary_key=True)
    data: orm.Mapped[bytes] = orm.mapped_column(_BYTES)


class OutboxRow(Base):
    """Mail to one recipient that waits to be sent.

    `destination`: the server that it goes to, as its relay names it; one that fails is paused as a whole. `due`: not before, seconds
    since 1970 by the database's clock. `owner` and `lease`: who is sending it and until when that holds.
    `parked`: held back by a person. `reply`: what the next server said last.
    """

    __tablename__ = "lamson_outbox"
    __table_args__ = (
        sa.Index("lamson_outbox_due", "relay", "due"),
        sa.Index("lamson_outbox_message", "message"),
        {"sqlite_autoincrement": True},  # else SQLite gives the number of a row that was sent to the next one
    )

    id: orm.Mapped[int] = orm.mapped_column(_number(), primary_key=True)
    message: orm.Mapped[str] = orm.mapped_column(_text(32))
    delivery: orm.Mapped[str] = orm.mapped_column(_text(32))
    relay: orm.Mapped[str] = orm.mapped_column(_text(64))
    mail_from: orm.Mapped[str] = orm.mapped_column(_text(320))
    rcpt_to: orm.Mapped[str] = orm.mapped_column(_text(320))
    destination: orm.Mapped[str] = orm.mapped_column(_text(320))
    created: orm.Mapped[float] = orm.mapped_column(_SECONDS)
    due: orm.Mapped[float] = orm.mapped_column(_SECONDS)
    attempts: orm.Mapped[int] = orm.mapped_column(sa.Integer, default=0)
    parked: orm.Mapped[bool] = orm.mapped_column(sa.Boolean, default=False)
    owner: orm.Mapped[str | None] = orm.mapped_column(_text(160), nullable=True)
    lease: orm.Mapped[float] = orm.mapped_column(_SECONDS, default=0.0)
    reply: orm.Mapped[str | None] = orm.mapped_column(_LONG_TEXT, nullable=True)


class PushRow(Base):
    """A message committed into a queue whose last rename may not have happened yet; `Outbox.start` finishes it."""

    __tablename__ = "lamson_push"

    id: orm.Mapped[str] = orm.mapped_column(_text(32), primary_key=True)
    queue_dir: orm.Mapped[str] = orm.mapped_column(_text(1000))
    queue_key: orm.Mapped[str] = orm.mapped_column(_text(255))


class Receipt(Base):
    """That a message was handled, and the answer that was given. `id` is a hash (`Router.deliver`)."""

    __tablename__ = "lamson_receipt"

    id: orm.Mapped[str] = orm.mapped_column(_text(64), primary_key=True)
    code: orm.Mapped[int] = orm.mapped_column(sa.Integer)
    status: orm.Mapped[str | None] = orm.mapped_column(_text(16), nullable=True)
    text: orm.Mapped[str] = orm.mapped_column(_LONG_TEXT)
    expires: orm.Mapped[float] = orm.mapped_column(_SECONDS, index=True)


class Confirmation(Base):
    """Something that waits for a person's yes (`lamson.confirm`)."""

    __tablename__ = "lamson_confirmation"
    __table_args__ = (sa.UniqueConstraint("target", "from_address"),)

    id: orm.Mapped[int] = orm.mapped_column(_number(), primary_key=True)
    target: orm.Mapped[str] = orm.mapped_column(_text(255))
    from_address: orm.Mapped[str] = orm.mapped_column(_text(320))
    secret: orm.Mapped[str] = orm.mapped_column(_text(128))
    pending_id: orm.Mapped[str | None] = orm.mapped_column(_text(255), nullable=True)
    expires: orm.Mapped[float] = orm.mapped_column(_SECONDS, index=True)


class SpamToken(Base):
    """In how many learnt messages of each kind a token is (`lamson.bayes`). `id`: 64 bits of its hash. The empty token is in all."""

    __tablename__ = "lamson_spam_token"

    id: orm.Mapped[int] = orm.mapped_column(_number(), primary_key=True, autoincrement=False)
    token: orm.Mapped[str] = orm.mapped_column(_text(255))
    spam: orm.Mapped[int] = orm.mapped_column(sa.Integer)
    ham: orm.Mapped[int] = orm.mapped_column(sa.Integer)


class SpamMessage(Base):
    """That a message was learnt, and as what, so that it counts once and can be taken back. `id` is a hash (`lamson.bayes`)."""

    __tablename__ = "lamson_spam_message"

    id: orm.Mapped[str] = orm.mapped_column(_text(64), primary_key=True)
    spam: orm.Mapped[bool] = orm.mapped_column(sa.Boolean)
    learnt: orm.Mapped[float] = orm.mapped_column(_SECONDS)


class Schema(Base):
    """One row: the version of these tables."""

    __tablename__ = "lamson_schema"

    version: orm.Mapped[int] = orm.mapped_column(sa.Integer, primary_key=True, autoincrement=False)


class now(FunctionElement[float]):
    """Seconds since 1970 by the database's clock, so that processes of two machines agree."""

    type = sa.Double()
    inherit_cache = True
    name = "lamson_now"


@compiles(now)  # type: ignore[no-untyped-call,untyped-decorator,unused-ignore]
def _now_anywhere(element: Any, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")  # type: ignore[no-untyped-call,untyped-decorator,unused-ignore]
def _now_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    return "(EXTRACT(EPOCH FROM clock_timestamp())::double precision)"


@compiles(now, "mysql", "mariadb")  # type: ignore[no-untyped-call,untyped-decorator,unused-ignore]
def _now_mariadb(element: Any, compiler: Any, **kw: Any) -> str:
    return "(UNIX_TIMESTAMP(NOW(6)) + 0e0)"


# -- the statements of every delivery, made once ----------------------------------------------------------------------------------

_same_conversation = (FSMState.fsm == sa.bindparam("of_fsm"), FSMState.sender == sa.bindparam("of_sender"))
_READ_STATE = sa.select(FSMState.state, FSMState.version).where(*_same_conversation)
_READ_STATE_LOCKED = _READ_STATE.with_for_update()
_MOVE_STATE = (
    sa.update(FSMState.__table__)  # type: ignore[arg-type]
    .where(*_same_conversation, FSMState.version == sa.bindparam("of_version"))
    .values(
        state=sa.bindparam("to_state"),
        version=sa.bindparam("to_version"),
        recipient=sa.func.coalesce(sa.bindparam("by_recipient", type_=sa.String), FSMState.recipient),
        last_modified=sa.bindparam("at"),
    )
)
_ADD_STATE = sa.insert(FSMState.__table__)  # type: ignore[arg-type]
_ADD_MESSAGE = sa.insert(Message.__table__)  # type: ignore[arg-type]
_ADD_OUTBOX = sa.insert(OutboxRow.__table__)  # type: ignore[arg-type]
_ADD_PUSH = sa.insert(PushRow.__table__)  # type: ignore[arg-type]
_FORGET_PUSH = sa.delete(PushRow.__table__).where(PushRow.id == sa.bindparam("of_id"))  # type: ignore[arg-type]
_REMOVE_OUTBOX = sa.delete(OutboxRow.__table__).where(OutboxRow.id == sa.bindparam("of_id"))  # type: ignore[arg-type]
_REMOVE_MESSAGE = sa.delete(Message.__table__).where(  # type: ignore[arg-type]
    Message.id == sa.bindparam("of_id"), ~sa.select(OutboxRow.id).where(OutboxRow.message == Message.id).exists()
)
_READ_RECEIPT = sa.select(Receipt.code, Receipt.text, Receipt.status, Receipt.expires).where(Receipt.id == sa.bindparam("of_id"))
_ADD_RECEIPT = sa.insert(Receipt.__table__)  # type: ignore[arg-type]
_FORGET_RECEIPT = sa.delete(Receipt.__table__).where(  # type: ignore[arg-type]
    Receipt.id == sa.bindparam("of_id"), Receipt.expires <= sa.bindparam("at")
)


_LACKS = (
    "The table %s in %s lacks %s. No start changes a table that is there, so mail that needs it will be put off: "
    "add it with ALTER TABLE, or with a tool for migrations such as Alembic."
)


# -- the database -----------------------------------------------------------------------------------------------------------------


class Database:
    """One database with Lamson's tables, and the application's own beside them."""

    FSMState = FSMState

    def __init__(self, engine: Engine, writer: Writer | None = None) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self.writer = writer  # of SQLite
        self.states = SQLAlchemyStorage(self)
        self.finished_pushes: deque[str] = deque()  # whose rows the next commit with a push removes
        self.senders: list[Sender] = []  # the outboxes of this process that run
        self._own = threading.local()

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.engine.url.render_as_string(hide_password=True)

    @property
    def session(self) -> orm.Session:
        """The SQLAlchemy session of the delivery that is being handled, committed and rolled back with it; or that of `transaction()`."""
        held = delivery.current()
        if isinstance(held, CommittingDelivery) and held.database is self:
            return held.session
        own: orm.Session | None = getattr(self._own, "session", None)
        if own is None:
            raise TypeError("database.session outside a delivery: write `with database.transaction() as session:`.")
        return own

    @contextmanager
    def transaction(self) -> Iterator[orm.Session]:
        """A session of one's own, outside a delivery: committed at the end, rolled back if an exception leaves."""
        if delivery.current() is not None:
            raise TypeError("database.transaction() inside a delivery: use database.session, which commits with the message.")
        with self.connected() as connection, orm.Session(connection, expire_on_commit=False) as session, session.begin():
            self._own.session = session
            try:
                yield session
            finally:
                del self._own.session

    @contextmanager
    def joined(self) -> Iterator[orm.Session]:
        """The session of the delivery or of `transaction()` that this is part of; where there is none, one that is committed at the end."""
        try:
            session = self.session
        except TypeError:
            with self.transaction() as own:
                yield own
        else:
            yield session

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """A connection in a transaction, for Lamson's own statements outside deliveries. Raises Fault or Conflict."""
        with self.translated(), self.connect() as connection, connection.begin():
            yield connection

    def connect(self) -> Connection:
        """A connection that takes its turn among this process's writers on SQLite, and gives it back when it is closed."""
        connection = self.engine.connect()
        if self.writer is not None:
            connection.info["lamson_turn"] = Turn(self.writer.turn)
        return connection

    def write(self, writes: Sequence[Write]) -> None:
        """Commits these statements, for Lamson's own outside deliveries. Raises Fault or Conflict."""
        if self.writer is not None:
            try:
                self.writer.commit(writes)
            except exc.SQLAlchemyError as error:  # no connection
                self._raise_translated(error)
            return
        with self.connected() as connection:
            for write in writes:
                execute(connection, write)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of the database come out as Fault, which names it, or Conflict; others as they are."""
        try:
            yield
        except exc.SQLAlchemyError as error:
            self._raise_translated(error)

    def _raise_translated(self, error: exc.SQLAlchemyError) -> NoReturn:
        diagnosed = diagnose(error)
        if diagnosed is error:
            raise error
        if isinstance(diagnosed, Fault):
            raise Fault(f"{diagnosed} (database {self.name})") from error
        raise diagnosed from error

    def create_all(self, *metadata: sa.MetaData) -> None:
        """Makes the tables that are missing, Lamson's and those of the application's `metadata`. Raises DatabaseError.

        A table that is there is left as it is; the log warns of columns that the application's classes have and it has not.
        """
        for tables in (Base.metadata, *metadata):
            self._create(tables)
        self.check()
        for tables in metadata:
            self._warn_of_missing_columns(tables)

    def _warn_of_missing_columns(self, tables: sa.MetaData) -> None:
        found = sa.inspect(self.engine)
        for table in tables.sorted_tables:
            there = {column["name"] for column in found.get_columns(table.name, table.schema)}
            missing = ", ".join(column.name for column in table.columns if column.name not in there)
            if missing:
                log.warning(_LACKS, table.name, self.name, missing)

    def _create(self, tables: sa.MetaData) -> None:
        """Another process may make a table between our look and our attempt, each time another; what is wrong for good fails again."""
        attempts = len(tables.tables) + 1
        for attempt in range(1, attempts + 1):
            try:
                tables.create_all(self.engine)
                return
            except (exc.OperationalError, exc.ProgrammingError, exc.IntegrityError) as error:
                if attempt == attempts or (attempt > 1 and "exists" not in str(error.orig)):
                    self._unusable(error)
            except exc.SQLAlchemyError as error:
                self._unusable(error)

    def schema_version(self) -> int | None:
        """The version of the tables that are there; None where there are none. Raises DatabaseError if the database cannot be opened."""
        try:
            if not sa.inspect(self.engine).has_table(Schema.__tablename__):
                return None
            with self.engine.connect() as connection:
                return connection.execute(sa.select(sa.func.max(Schema.version))).scalar()
        except exc.SQLAlchemyError as error:
            self._unusable(error)

    def check(self) -> None:
        """Refuses a database whose tables are of another version, or that cannot take a large message. Raises DatabaseError."""
        version = self.schema_version()
        if version is None:
            self._mark()
        elif version != SCHEMA_VERSION:
            newer = "a newer Lamson made them; upgrade Lamson" if version > SCHEMA_VERSION else "run `lamson db -upgrade`"
            raise DatabaseError(f"the tables of {self.name} are of version {version}, this Lamson needs {SCHEMA_VERSION}: {newer}.")
        if self.engine.dialect.name in ("mysql", "mariadb"):
            self._check_packet()

    def upgrade(self) -> None:
        """Makes the tables that are missing, and brings those of an older version up to this one. Raises DatabaseError."""
        version = self.schema_version()
        while version is not None and version < SCHEMA_VERSION:
            if version not in UPGRADES:
                raise DatabaseError(f"the tables of {self.name} are of version {version}, from which nothing leads to {SCHEMA_VERSION}.")
            with self.connected() as connection:
                for statement in UPGRADES[version]:
                    connection.execute(sa.text(statement))
                version += 1
                connection.execute(sa.update(Schema).values(version=version))
        self.create_all()

    def _mark(self) -> None:
        with suppress(exc.IntegrityError), self.engine.begin() as connection:  # another process marked it first
            connection.execute(sa.insert(Schema).values(version=SCHEMA_VERSION))

    def _check_packet(self) -> None:
        with self.engine.connect() as connection:
            largest = connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar() or 0
        if largest < LARGEST_PACKET:
            raise DatabaseError(
                f"{self.name} takes packets of {largest} bytes at most, too few for large messages: "
                "set max_allowed_packet=64M on the server."
            )

    def dispose(self) -> None:
        """Closes all connections."""
        if self.writer is not None:
            self.writer.close()
        self.engine.dispose()

    def _unusable(self, error: exc.SQLAlchemyError) -> NoReturn:
        first = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        remedy = "see that its folder exists and may be written" if self.is_sqlite else "see that the server runs and the user may connect"
        raise DatabaseError(f"the database {self.name} cannot be used: {first}; {remedy} (setting: database_config).") from error


class SQLAlchemyStorage(StateStorage):
    """States in the table `lamson_state`. Its deliveries commit everything at once."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def begin(self, recipient: str = "", sender: str | None = None, id: str | None = None) -> CommittingDelivery:
        """The delivery that `lamson.delivery.begin` makes for this storage."""
        return CommittingDelivery(self, recipient, sender, id)

    def get(self, key: str, sender: str) -> str:
        with self.database.connected() as connection:
            row = connection.execute(_READ_STATE, _of(key, address.normalise(sender))).first()
        return row.state if row else ROUTE_FIRST_STATE

    def set(self, key: str, sender: str, state: str) -> None:
        with self.begin() as held:
            held.set_state(key, address.normalise(sender), state)

    def clear(self) -> None:
        with self.database.connected() as connection:
            connection.execute(sa.delete(FSMState))


@dataclass
class DueRow:
    """A row of the outbox that is about to be there. The attributes are those of `OutboxRow`."""

    id: int
    message: str
    delivery: str
    relay: str
    mail_from: str
    rcpt_to: str
    destination: str
    created: float
    due: float = 0.0
    attempts: int = 0
    parked: bool = False
    owner: str | None = None
    lease: float = 0.0
    reply: str | None = None

    def __post_init__(self) -> None:
        self.due = self.created - 1.0  # for the database's clock, which is another, and on SQLite one of milliseconds

    @property
    def letter(self) -> tuple[str, ...]:
        """Rows for which this is the same go in one SMTP transaction."""
        return (self.message, self.mail_from, self.relay, self.destination)

    def values(self) -> dict[str, Any]:
        """As the row that is inserted."""
        return vars(self).copy()


class Sender(Protocol):
    """An outbox of this process, as a delivery sees it."""

    def claim(self, rows: Sequence[DueRow], data: bytes) -> bool:
        """Whether it will send these rows, of one letter, as soon as they are committed; if so it becomes their owner."""

    def take(self, rows: Sequence[DueRow], data: bytes) -> None:
        """What it has claimed is committed."""

    def forget(self, rows: Sequence[DueRow]) -> None:
        """What it has claimed is not committed."""

    def wake(self) -> None:
        """There are rows that nobody has claimed."""


@dataclass(slots=True)
class _Letter:
    """Rows of one message for one destination, and who has claimed them."""

    data: bytes
    rows: list[DueRow] = field(default_factory=list)
    sender: Sender | None = None


class CommittingDelivery(Delivery):
    """A delivery whose state, mail, receipt and rows are one commit. One connection, taken when first needed."""

    storage: SQLAlchemyStorage

    def __init__(self, storage: SQLAlchemyStorage, recipient: str = "", sender: str | None = None, id: str | None = None) -> None:
        super().__init__(storage, recipient, sender, id)
        self.database = storage.database
        self.versions: dict[delivery.Conversation, int | None] = {}
        self._connection: Connection | None = None
        self._session: DeliverySession | None = None
        self.committing: list[delivery.HeldPush] = []  # pushes of which it is not known whether they are committed
        self._receipts: list[dict[str, Any]] = []
        self.writes: list[Write] = []  # statements of Lamson's own that go with it
        self._unseen_receipt: str | None = None

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            self._connection = self.database.connect()
        return self._connection

    @property
    def session(self) -> orm.Session:
        """For the application's own rows."""
        if self._session is None:
            self._session = DeliverySession(self.connection, expire_on_commit=False, join_transaction_mode="control_fully")
        return self._session

    def read_state(self, key: str, sender: str) -> str:
        read = _READ_STATE if self.database.is_sqlite else _READ_STATE_LOCKED
        state, version = self._read(read, _of(key, sender)) or (ROUTE_FIRST_STATE, None)
        self.versions[key, sender] = version
        return str(state)

    def receipt(self, key: str) -> Reply | None:
        row = self._read(_READ_RECEIPT, {"of_id": key})
        self._unseen_receipt = None if row else key
        if row is None:
            return None
        code, text, status, expires = row
        return Reply(code, text, status) if expires > time.time() else None

    def _read(self, statement: Any, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """The first row. Past SQLAlchemy where the application has not begun to use this delivery's connection."""
        if self._connection is None and self.database.writer is not None:
            return self.database.writer.read(statement, values)
        return self.connection.execute(statement, values).first()

    def hold_receipt(self, key: str, answer: Reply, seconds: float) -> None:
        row = {"id": key, "code": answer.code, "text": answer.text, "status": answer.status}
        self._receipts.append(row | {"expires": time.time() + seconds})

    def commit(self) -> None:
        if self._session is not None:
            self._session.flush()
        letters = self._letters() if self.mail else []
        try:
            self._commit(self._writes(letters))
        except BaseException:
            self._forget(letters)
            raise
        self.finish_pushes()
        self._hand_over(letters)

    def _commit(self, writes: Sequence[Write]) -> None:
        """With those of others, where nothing of the application's own and no push is part of it."""
        if self._connection is None and self.database.writer is not None and not self.pushes:
            if writes:
                self.database.writer.commit(writes)
            return
        finished = _drain(self.database.finished_pushes) if self.pushes else []  # their rows go with those of the next pushes
        for write in [*writes, *_push_writes(self.pushes, finished)]:
            execute(self.connection, write)
        if self._connection is not None:
            self._commit_connection(finished)

    def _commit_connection(self, finished: list[str]) -> None:
        self.committing, self.pushes = self.pushes, []  # from here on nobody may undo them who does not know that the commit failed
        try:
            if self._session is not None:
                self._session.really_commit()
            self.connection.commit()
        except BaseException as error:
            self.database.finished_pushes.extend(finished)
            if isinstance(diagnose(error), Conflict):
                self.committing, self.pushes = [], self.committing
            raise
        finally:
            self._let_go()

    def finish_pushes(self) -> None:
        """The commit holds, so nothing may be undone any more: a rename that fails is left to the outbox, which has its row."""
        for push in self.committing:
            try:
                push.finish()
                self.database.finished_pushes.append(push_id(push))
            except QueueError as error:
                log.error("%s in %s is committed but not yet visible; the outbox will finish it: %s", push.key, push.queue_dir, error)
        self.committing = []

    def _finish_what_is_committed(self) -> None:
        """The commit began and an error came back: the connection broke, the disk failed. Whether it holds only the database knows. What
        it does not know of stays in `tmp/`, where no reader sees it, in case that the commit is still on its way."""
        wanted = sa.select(PushRow.id).where(PushRow.id.in_([push_id(push) for push in self.committing]))
        try:
            with self.database.engine.connect() as connection:
                known = set(connection.execute(wanted).scalars())
        except exc.SQLAlchemyError:
            known = set()
        for push in self.committing:
            if push_id(push) not in known:
                log.warning("whether %s is committed into %s is not known; if so, the outbox will finish it", push.key, push.queue_dir)
        self.committing = [push for push in self.committing if push_id(push) in known]
        self.finish_pushes()

    def _writes(self, letters: Sequence[_Letter]) -> list[Write]:
        """Everything held, as statements of the transaction, but for pushes."""
        writes = [self._move(key, sender, state) for (key, sender), state in self.states.items()]
        for receipt in self._receipts:
            writes += self._receipt_writes(receipt)
        return [*writes, *_mail_writes(letters), *self.writes]

    def _move(self, key: str, sender: str, state: str) -> Write:
        if (key, sender) not in self.versions:
            self.read_state(key, sender)
        version = self.versions[key, sender]
        at = time.time()
        if version is None:
            row = {"fsm": key, "sender": sender, "state": state, "recipient": self.recipient, "version": 1, "last_modified": at}
            return Write(_ADD_STATE, [row])
        moved = {"to_state": state, "of_version": version, "to_version": version + 1, "by_recipient": self.recipient or None, "at": at}
        return Write(_MOVE_STATE, [_of(key, sender) | moved], must_hit=True)

    def _receipt_writes(self, row: Mapping[str, Any]) -> list[Write]:
        added = Write(_ADD_RECEIPT, [row])
        if row["id"] == self._unseen_receipt:
            return [added]
        return [Write(_FORGET_RECEIPT, [{"of_id": row["id"], "at": time.time()}]), added]  # there may be one that has expired

    def _letters(self) -> list[_Letter]:
        """The held mail, as rows of the outbox. One that runs here may claim them before they are there: then nobody need look for them."""
        messages: dict[int, str] = {}
        letters: dict[tuple[str, ...], _Letter] = {}
        for carrier, mail in self.mail:
            message = messages.setdefault(id(mail.data), trace.new_id(24))
            for number, rcpt_to in enumerate(mail.rcpt_tos, new_number()):
                place = carrier.destination(rcpt_to)
                row = DueRow(number, message, self.id, carrier.name, mail.mail_from, rcpt_to, place, time.time())
                letters.setdefault(row.letter, _Letter(mail.data)).rows.append(row)
        for letter in letters.values():
            self._offer(letter)
        return list(letters.values())

    def _offer(self, letter: _Letter) -> None:
        for each in self.database.senders:
            if each.claim(letter.rows, letter.data):
                letter.sender = each
                return

    def _hand_over(self, letters: Sequence[_Letter]) -> None:
        left = False
        for letter in letters:
            if letter.sender is not None:
                letter.sender.take(letter.rows, letter.data)
            else:
                left = True
        if left:
            for each in self.database.senders:
                each.wake()

    def _forget(self, letters: Sequence[_Letter]) -> None:
        for letter in letters:
            if letter.sender is not None:
                letter.sender.forget(letter.rows)

    def roll_back(self) -> None:
        try:
            self._let_go()
        except exc.SQLAlchemyError as error:
            log.warning("a connection could not be rolled back and is given up; the database does it: %s", error)
        finally:
            super().roll_back()
        if self.committing:
            self._finish_what_is_committed()

    def _let_go(self) -> None:
        """Gives the connection back; what was not committed is undone by the pool."""
        session, connection = self._session, self._connection
        self._session = self._connection = None
        try:
            if session is not None:
                session.really_close()
        finally:
            if connection is not None:
                connection.close()

    def diagnose(self, error: BaseException) -> BaseException:
        """What a handler ran into while another process was faster is no verdict on the message: then running anew decides."""
        diagnosed = super().diagnose(diagnose(error))
        if diagnosed is error and isinstance(error, Exception) and self._overtaken():
            return Conflict(f"another process was faster; {type(error).__name__}: {error}")
        return diagnosed

    def _overtaken(self) -> bool:
        """Whether a conversation has moved since its state was read, or the same message was handled."""
        if not self.versions and not self._unseen_receipt:
            return False
        try:
            with self.database.engine.connect() as connection:
                receipt = connection.execute(_READ_RECEIPT, {"of_id": self._unseen_receipt}).first() if self._unseen_receipt else None
                rows = [(connection.execute(_READ_STATE, _of(*each)).first(), version) for each, version in self.versions.items()]
        except exc.SQLAlchemyError:
            return False
        return receipt is not None or any((row.version if row else None) != version for row, version in rows)


class DeliverySession(orm.Session):
    """The session of a delivery: the delivery ends it, nobody else."""

    def commit(self) -> None:
        raise TypeError("commit() on a delivery's session: it is committed with the message once the handler has ended well.")

    def rollback(self) -> None:
        raise TypeError("rollback() on a delivery's session: raise an exception, and the whole delivery is rolled back.")

    def close(self) -> None:
        raise TypeError("close() on a delivery's session: the delivery closes it when the handler has ended.")

    def begin(self, nested: bool = False) -> orm.SessionTransaction:
        if not nested:
            raise TypeError("begin() on a delivery's session: it has a transaction already; begin_nested() makes a savepoint.")
        return super().begin(nested)

    def really_commit(self) -> None:
        super().commit()

    def really_close(self) -> None:
        super().close()


def push_id(push: delivery.HeldPush) -> str:
    """The row's key: 32 hexadecimal digits of queue and key, so that nothing need be remembered between commit and rename."""
    return hashlib.sha256(f"{push.queue_dir}\0{push.key}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _push_writes(pushes: Sequence[delivery.HeldPush], finished: Sequence[str]) -> list[Write]:
    """The rows of pushes, and the end of those whose pushes are finished."""
    if not pushes:
        return []
    rows = [{"id": push_id(push), "queue_dir": push.queue_dir, "queue_key": push.key} for push in pushes]
    gone = [Write(_FORGET_PUSH, [{"of_id": each} for each in finished])] if finished else []
    return [Write(_ADD_PUSH, rows), *gone]


def _mail_writes(letters: Sequence[_Letter]) -> list[Write]:
    """The bytes once for each message, and its rows."""
    messages = {letter.rows[0].message: letter.data for letter in letters}
    data = [Write(_ADD_MESSAGE, [{"id": id, "data": data}]) for id, data in messages.items()]
    return data + [Write(_ADD_OUTBOX, [row.values() for row in letter.rows]) for letter in letters]


def execute(connection: Connection, write: Write) -> None:
    """One statement of Lamson's own through SQLAlchemy. Raises Conflict where another process was first."""
    try:
        done = connection.execute(write.statement, write.rows[0] if len(write.rows) == 1 else list(write.rows))
    except exc.IntegrityError as error:
        raise Conflict(f"another process was first: {error.orig}") from error
    if write.must_hit and done.rowcount != 1:
        raise Conflict(f"another process was first: {write.rows[0]}")


def new_number() -> int:
    """The number of a new outbox row: microseconds since 1970 and 11 bits of chance, so that it is known before the row is there, later
    rows have larger ones, and none is used twice. It fits into 63 bits until 2112; should two ever be alike, that is a Conflict."""
    return (time.time_ns() // 1000 << 11) | random.getrandbits(11)


def removals(rows: Sequence[Any]) -> list[Write]:
    """What deletes these rows of the outbox, and the bytes of messages that no row points to any more."""
    messages = sorted({row.message for row in rows})
    return [Write(_REMOVE_OUTBOX, [{"of_id": row.id} for row in rows]), Write(_REMOVE_MESSAGE, [{"of_id": each} for each in messages])]


def _drain(ids: deque[str]) -> list[str]:
    drained: list[str] = []
    with suppress(IndexError):
        while len(drained) < 500:  # databases cap the parameters of one statement
            drained.append(ids.popleft())
    return drained


def _of(key: str, sender: str) -> dict[str, Any]:
    return {"of_fsm": key, "of_sender": sender}


def diagnose(error: BaseException) -> BaseException:
    """Conflict for what running anew can solve, Fault for what time may solve, else the error itself: then it is the application's."""
    if isinstance(error, exc.TimeoutError):
        return Fault("no connection to the database became free; raise pool_size in database_config or look for handlers that hang")
    if not isinstance(error, exc.DBAPIError):
        return error
    code = getattr(error.orig, "sqlstate", None) or (error.orig.args[0] if error.orig and error.orig.args else None)
    if code in _CONFLICTS:
        return Conflict(f"{type(error.orig).__name__}: {error.orig}")
    if isinstance(error, (exc.OperationalError, exc.InterfaceError, exc.InternalError)) or error.connection_invalidated:
        return Fault(f"{type(error.orig).__name__}: {error.orig}")
    return error


#: PostgreSQL: serialization_failure, deadlock_detected. MariaDB: ER_LOCK_DEADLOCK, ER_CHECKREAD.
_CONFLICTS = ("40001", "40P01", 1213, 1020)


# -- making one -------------------------------------------------------------------------------------------------------------------


def configure_database(config: Mapping[str, Any], also_create: bool = False) -> Database:
    """The database of a project.

    `url`: SQLAlchemy's. `synchronous`: SQLite's setting, FULL by default; NORMAL is faster, and the last second may be lost when the
    power fails. `busy_seconds` (10): how long to wait for a lock that another process has; then it is a Fault, and the client hears 451.
    Every other key is an option of `sqlalchemy.create_engine`. Raises DatabaseError for a URL that is none and, with `also_create`, for a
    database that cannot be used.
    """
    options = dict(config)
    try:
        url = make_url(options.pop("url"))
    except KeyError:
        raise DatabaseError('database_config has no "url"; write database_config = {"url": "sqlite:///run/lamson.db"}.') from None
    except exc.ArgumentError as error:
        raise DatabaseError(f'the "url" of database_config is no database URL: {error}') from None
    synchronous, busy_seconds = options.pop("synchronous", "FULL"), options.pop("busy_seconds", 10.0)
    options["connect_args"] = _connect_args(url, busy_seconds) | options.get("connect_args", {})
    engine = _make_engine(url, options)
    writer = make_ours(engine, synchronous, busy_seconds) if engine.dialect.name == "sqlite" else None
    database = Database(engine, None if _in_memory(url) else writer)  # one in memory has one connection
    if also_create:
        database.create_all()
    return database


def _connect_args(url: sa.URL, busy_seconds: float) -> dict[str, Any]:
    """What the drivers that Lamson is tested with are told: nobody waits for ever for a row that a hanging handler elsewhere has."""
    if url.get_backend_name() == "sqlite":
        return {"check_same_thread": False}
    if url.drivername in ("postgresql+psycopg", "postgresql+psycopg2", "postgresql"):
        return {"options": f"-c lock_timeout={int(busy_seconds * 1000)}"}
    if url.drivername in ("mysql+pymysql", "mariadb+pymysql"):
        return {"init_command": f"SET innodb_lock_wait_timeout={max(1, int(busy_seconds))}"}
    return {}


def _in_memory(url: sa.URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def _make_engine(url: sa.URL, options: dict[str, Any]) -> Engine:
    memory = _in_memory(url)
    sensible: dict[str, Any] = {"pool_size": 1 if memory else 40, "max_overflow": 0 if memory else 24, "pool_timeout": 20}
    if url.get_backend_name() == "sqlite":
        sensible |= {"poolclass": sa.pool.QueuePool}
    else:
        sensible |= {"isolation_level": "READ COMMITTED", "pool_pre_ping": True, "pool_recycle": 1800}
    try:
        return sa.create_engine(url, **(sensible | options))
    except exc.NoSuchModuleError:
        raise DatabaseError(f"SQLAlchemy knows no database {url.drivername!r}: sqlite, postgresql+psycopg, mysql+pymysql.") from None
    except ImportError as error:
        extra = {"postgresql": "postgresql", "mysql": "mariadb", "mariadb": "mariadb"}.get(url.get_backend_name(), "")
        remedy = f"pip install 'lamson[{extra}]'" if extra else f"install {error.name}"
        raise DatabaseError(f"the driver for {url.drivername} is not installed ({error}): {remedy}.") from None
    except TypeError as error:
        raise DatabaseError(f"database_config has an option that SQLAlchemy does not know: {error}") from None
