"""An exception at each line in turn, of the handler and of all of Lamson that a delivery runs through: no half effects.

The handler writes a row, pushes a message into a queue, has an answer sent and moves the sender. For each line that is executed while
the router delivers, that delivery is done once with an exception raised at that line, and then again as a client would that did not hear
250. Afterwards either all of it is there, once, or none of it and the message lies in the undeliverable queue.
"""

from __future__ import annotations

import gc
import linecache
import logging
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

import lamson
from lamson.database import Database, FSMState, OutboxRow, configure_database
from lamson.errors import LamsonError
from lamson.mail import MailRequest, MailResponse
from lamson.outbox import Outbox
from lamson.queue import Queue
from lamson.relay import Relay
from lamson.routing import RoutingBase
from tests.faults.figures import Figures, promise

HOUSE = str(Path(lamson.__file__).parent)
#: What only enters and leaves, or gives back a lock.
WAYS_OUT = ("__enter__", "__exit__", "_give", "_leave", "give", "give_turn_back")


class Base(orm.DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    sender: orm.Mapped[str] = orm.mapped_column(sa.String(100))


class Raised(RuntimeError):
    """The exception that nobody expects."""


def run(step: int = 1, only_handler: bool = False) -> Figures:
    """`step`: every so manieth line. `only_handler`: leaves Lamson's own lines out."""
    with tempfile.TemporaryDirectory(prefix="lamson-lines-") as folder, application(Path(folder)) as app:
        lines = 0
        became: Counter[str] = Counter()
        while True:
            number = lines * step + 1
            place = app.deliver_raising_at(number, only_handler)
            if place is None:
                break
            lines += 1
            became[app.look(f"s{number}@client.test", place)] += 1
        left = [path for queue in (app.archive, app.undeliverable) for path in Path(queue.queue_dir, "tmp").iterdir()]
        return {"lines at which an exception was raised": lines, "what became of the message": dict(became),
                "files left in tmp/, which no reader sees": len(left)}  # fmt: skip


@contextmanager
def application(folder: Path) -> Iterator[Application]:
    logging.disable(logging.CRITICAL)
    database = configure_database({"url": f"sqlite:///{folder}/lamson.db", "synchronous": "OFF", "busy_seconds": 1.0})
    try:
        database.create_all(Base.metadata)
        yield Application(folder, database)
    finally:
        database.dispose()
        logging.disable(logging.NOTSET)


class Application:
    """A router with one handler, a database and two queues."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.database = database
        self.router = router = RoutingBase()
        router.locks.patience = 1.0
        self.archive, self.undeliverable = Queue(folder / "archive"), Queue(folder / "undeliverable")
        router.STATE_STORE, router.UNDELIVERABLE_QUEUE = database.states, self.undeliverable
        relay = Relay("127.0.0.1", 9)

        @router.route("desk@test.com")
        def START(message: MailRequest) -> Any:
            sender = message.route_from
            database.session.add(Row(sender=sender))
            self.archive.push(message)
            answer = MailResponse(To=sender, From="desk@test.com", Subject="Re", Body="Thanks.")
            relay.deliver(answer)
            return NEXT

        @router.route("other@test.com")
        def NEXT(message: MailRequest) -> None: ...

        self.handler = START.__code__

    def deliver_raising_at(self, number: int, only_handler: bool) -> str | None:
        """Delivers a message of a sender of its own, with an exception at the line executed as `number`-th, then again until it is taken.
        Returns where it was raised, None if the delivery has fewer lines."""
        tracer = Tracer(number, self.handler if only_handler else None)
        message = self.message(number)
        first = self.deliver(message, tracer)
        again = first
        for _ in range(3):
            if again == 250:
                break
            again = self.deliver(message, None)
        promise(again == 250, f"{tracer.place}: after {first} the message was never taken, but answered {again}")
        return tracer.place

    def message(self, number: int) -> MailRequest:
        sender = f"s{number}@client.test"
        data = f"From: {sender}\r\nTo: desk@test.com\r\nMessage-ID: <{number}@client.test>\r\n\r\nHello.\r\n"
        return MailRequest("127.0.0.1", sender, ["desk@test.com"], data.encode())

    def deliver(self, message: MailRequest, tracer: Tracer | None) -> int:
        """What a client would hear."""
        answer: list[int] = [451]

        def work() -> None:
            sys.settrace(tracer)
            try:
                (outcome,) = self.router.deliver(message, receipts=True)
                answer[0] = outcome.reply.code
            except (Raised, LamsonError):
                pass  # the receiver's barrier: 451
            finally:
                sys.settrace(None)

        thread = threading.Thread(target=work, name="delivery")
        thread.start()
        thread.join(60)
        promise(not thread.is_alive(), "the delivery hangs")
        return answer[0]

    def look(self, sender: str, place: str) -> str:
        """What is there of this sender's message: all or nothing. And no connection and no lock is kept."""
        gc.collect()  # the exception that we raised holds on to what its frames had
        promise(self.database.engine.pool.checkedout() == 0, f"{place}: a connection was not given back")
        promise(not self.database.writer.turn.locked(), f"{place}: the turn to write was not given back")
        Outbox(self.database, []).recover()  # as the next start does
        with self.database.engine.connect() as connection:
            rows = connection.execute(sa.select(sa.func.count()).where(Row.sender == sender)).scalar_one()
            mail = connection.execute(sa.select(sa.func.count()).where(OutboxRow.rcpt_to == sender)).scalar_one()
            state = connection.execute(sa.select(FSMState.state, FSMState.version).where(FSMState.sender == sender)).one_or_none()
        kept = take_all(self.archive, sender), take_all(self.undeliverable, sender)
        found = (rows, mail, tuple(state) if state else None, *kept)
        handled, undelivered = (1, 1, ("NEXT", 1), 1, 0), (0, 0, None, 0, 1)
        promise(found in (handled, undelivered), f"{place}: (rows, answers, state, archived, undeliverable) are {found}")
        return "handled" if found == handled else "undeliverable"


def take_all(queue: Queue, sender: str) -> int:
    """How many messages of this sender the queue has; it is emptied."""
    found = 0
    keys = queue.keys()
    for key in keys:
        message = queue.get(key)
        found += message is not None and message.route_from == sender
        queue.remove(key)
    return found


def is_way_out(frame: FrameType) -> bool:
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return frame.f_code.co_name in WAYS_OUT or line.lstrip().startswith("with ")


class Tracer:
    """Raises at the n-th line executed in Lamson or in the handler. `place`: where it did.

    Lines of a `with`, and of what only enters and leaves a context, are left out: Python comes to them on the way out, and what is raised
    there, before the lock is given back, no program can raise. What they call is not left out.
    """

    def __init__(self, number: int, only: Any) -> None:
        self.left = number
        self.only = only
        self.place: str | None = None

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        wanted = code is self.only if self.only else code.co_filename.startswith(HOUSE) or code.co_filename == __file__
        return self.line if wanted else None

    def line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and self.place is None and frame.f_code.co_name != "work" and not is_way_out(frame):
            self.left -= 1
            if self.left == 0:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} ({frame.f_code.co_name})"
                raise Raised(self.place)
        return self.line
