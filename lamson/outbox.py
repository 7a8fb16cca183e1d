"""The outbox: mail that deliveries have committed, handed on until the next server has it or will never take it.

Step 12 of a message's way. A row is claimed in a short transaction, sent, and finished in another, so a crash between them sends it
again with the same Message-ID and never loses it. What fails for now waits for growing pauses; what fails for good goes to the
undeliverable queue with the reason, and a report to its sender. It knows nothing of handlers or of SMTP replies' wire form.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lamson import queue, report, trace
from lamson.database import CommittingDelivery, Database, DueRow, Message, OutboxRow, PushRow, Receipt, execute, now, removals
from lamson.delivery import Carrier, Outgoing
from lamson.errors import Conflict, Fault, PermanentError, QueueError, RelayError
from lamson.status import Reply, reply

log = trace.logger("lamson.outbox")

#: Seconds to wait after the first, second, ... failure; the last one is for all that follow.
PAUSES = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
#: Seconds after which what fails for now has failed for good (RFC 5321 §4.5.4.1: at least 4-5 days).
GIVE_UP = 5 * 86400.0
#: The due time of what a person wants tried now: it is no longer held up by the pause of its destination.
AT_ONCE = 0.0
#: Seconds between two purges.
PURGE = 3600.0
#: How many rows an outbox claims before they are there. Beyond them mail waits in the database alone, and memory stays small.
READY = 200
#: Seconds after which a sender without work looks whether those with work are held up and leave some.
GLANCE = 0.05
#: Octets up to which messages are read together. A larger one is read when its turn comes, so that each sender has one in memory.
SMALL = 256 * 1024


@dataclass(frozen=True, slots=True)
class Waiting:
    """One row of the outbox, to be looked at."""

    id: int
    relay: str
    destination: str
    mail_from: str
    rcpt_to: str
    created: float
    due: float
    attempts: int
    parked: bool
    owner: str | None
    reply: str | None


class _Letter:
    """Rows of one message for one destination: one SMTP transaction.

    `data`: None where it is not read yet, for it is large. `company`: the same for letters that go over one connection; a large one goes
    alone.
    """

    __slots__ = ("carrier", "company", "data", "destination", "failures", "mail_from", "rcpt_tos", "rows")

    def __init__(self, carrier: Carrier, rows: list[Any], data: bytes | None) -> None:
        self.carrier, self.rows, self.data = carrier, rows, data
        self.destination: tuple[str, str] = (rows[0].relay, rows[0].destination)
        self.company: object = self.destination if data is not None else id(self)
        self.mail_from: str = rows[0].mail_from
        self.rcpt_tos: tuple[str, ...] = tuple([row.rcpt_to for row in rows])
        self.failures: dict[str, RelayError] = {}

    @property
    def unreachable(self) -> bool:
        """The way to the next server failed (RFC 3463 §3.5)."""
        return any((each.reply.status or "").startswith("4.4.") for each in self.failures.values())

    def read(self, connection: Any) -> bytes | None:
        """The message's bytes; None if somebody has deleted them."""
        if self.data is not None:
            return self.data
        data = connection.execute(sa.select(Message.data).where(Message.id == self.rows[0].message)).scalar()
        return None if data is None else bytes(data)


class Outbox:
    """Sends what waits in the database for the relays that this process has.

    `undeliverable`: the queue for what fails for good; without one such rows stay in the outbox, parked. `senders`: how many threads
    send. `batch`: how many rows one of them takes at a time. `lease`: seconds for which a claim holds unless renewed, which happens
    while its owner lives. `pauses`, `give_up`: seconds, see `PAUSES` and `GIVE_UP`. `poll`: seconds between looks for what
    other processes left.
    """

    def __init__(
        self,
        database: Database,
        relays: Sequence[Carrier],
        undeliverable: Any = None,
        *,
        senders: int = 4,
        batch: int = 20,
        pauses: Sequence[float] = PAUSES,
        give_up: float = GIVE_UP,
        lease: float = 120.0,
        poll: float = 2.0,
        hostname: str | None = None,
    ) -> None:
        self.database = database
        self.carriers: dict[str, Carrier] = {relay.name: relay for relay in relays}
        if len(self.carriers) < len(relays):
            raise TypeError("two relays of an outbox have the same name; give each its own: Relay(..., name='backup').")
        self.undeliverable = undeliverable
        self.senders, self.batch, self.pauses, self.give_up = senders, batch, tuple(pauses), give_up
        self.lease, self.poll, self.hostname = lease, poll, hostname or socket.getfqdn()
        self.owner = ""
        self._threads: list[threading.Thread] = []
        self._claiming = threading.Lock()
        self._sending: set[int] = set()  # the numbers of rows that are claimed
        self._unsettled: set[int] = set()  # of rows that are this outbox's by the database, if they are there, and that nobody here has
        self._ready: deque[_Letter] = deque()  # committed, claimed, and not yet in the hands of a sender
        self._behind = False  # there may be rows in the database that nobody has claimed; none that are newer shall overtake them
        self._woken = False  # `wake` was called since the last look began
        self._looked = 0.0
        self._ahead = 0.0  # by how many seconds the database's clock is ahead of ours
        self._paused: dict[tuple[str, str], float] = {}
        self._pausing = threading.Lock()  # each sender may pause a destination while another looks
        self._wake = threading.Condition()
        self._busy = 0  # how many senders have letters in hand
        self._glancing = 0  # how many others look now and then whether these leave some
        self._stopping = False
        self._ended = threading.Event()

    # -- life

    def start(self) -> None:
        """Finishes what a crash left, then sends in threads. Returns when they run."""
        self.recover()
        self._stopping = False
        self._ended.clear()
        self.database.senders.append(self)
        names = [f"lamson-outbox-{number}" for number in range(self.senders)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        self._threads.append(threading.Thread(target=self._keep_leases, name="lamson-outbox-leases", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, deadline: float = 10.0) -> None:
        """Lets each sender finish what it is sending, `deadline` seconds at most. What waits is sent by the next start."""
        if self in self.database.senders:
            self.database.senders.remove(self)
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._ended.set()
        until = time.monotonic() + deadline
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._threads = []
        self._give_back()
        for carrier in self.carriers.values():
            carrier.close()

    def drain(self, deadline: float = 10.0) -> bool:
        """Sends in this thread what is due now, `deadline` seconds at most. True when nothing due is left; what failed is not due."""
        until = time.monotonic() + deadline
        self._identify()
        while time.monotonic() < until:
            self.wake()
            if not self._send_batch() and not self._sending:
                return True
            if self._sending:
                time.sleep(0.01)  # another thread of this outbox has the rest
        return False

    def wake(self) -> None:
        """There are rows that nobody has claimed."""
        with self._wake:
            self._behind = self._woken = True
            self._wake.notify()

    def claim(self, rows: Sequence[DueRow], data: bytes) -> bool:
        """Whether it will send these rows, of one letter, as soon as they are committed; if so it becomes their owner."""
        if rows[0].relay not in self.carriers or self._is_paused((rows[0].relay, rows[0].destination)):
            return False
        if self._behind or self._stopping or len(self._sending) >= READY:
            self._behind = True
            return False
        for row in rows:
            self._sending.add(row.id)
            row.owner, row.lease = self.owner, time.time() + self._ahead + self.lease
        return True

    def take(self, rows: Sequence[DueRow], data: bytes) -> None:
        """What it has claimed is committed."""
        self._ready.append(_Letter(self.carriers[rows[0].relay], list(rows), data if len(data) <= SMALL else None))
        if self._stopping:
            self._give_back()
        elif not (self._busy and self._glancing) or len(self._ready) > self.batch:
            with self._wake:
                self._wake.notify()  # else one who is at work comes for it in a moment, with others, or one who looks now and then

    def forget(self, rows: Sequence[DueRow]) -> None:
        """What it has claimed is not committed. Should it be so after all, the next look at the database finds it."""
        ids = {row.id for row in rows}
        self._unsettled |= ids
        self._sending -= ids

    def _give_back(self) -> None:
        """What is committed and no sender will take in hand any more is anybody's."""
        rows = [row for letter in self._next_ready(len(self._ready)) for row in letter.rows]
        if not rows:
            return
        self.forget(rows)
        mine = sa.update(OutboxRow).where(OutboxRow.id.in_([row.id for row in rows]), OutboxRow.owner == self.owner)
        try:
            with self.database.connected() as connection:
                connection.execute(mine.values(owner=None, lease=0.0))
        except (Fault, Conflict) as error:
            log.warning("%d rows could not be given back; others send them in %g s at the latest: %s", len(rows), self.lease, error)

    def recover(self) -> None:
        """Frees the claims of dead processes of this machine, and finishes pushes that were committed but not renamed."""
        self._identify()
        for step in (self._compare_clocks, self._free_claims, self._finish_pushes, self.purge):
            _in_spite_of_conflicts(step)

    def purge(self) -> None:
        """Removes receipts that have expired, and message bytes whose last two rows were finished by two processes at one moment."""
        used = sa.select(OutboxRow.id).where(OutboxRow.message == Message.id).exists()
        with self.database.connected() as connection:
            connection.execute(sa.delete(Receipt).where(Receipt.expires < time.time()))
            connection.execute(sa.delete(Message).where(~used))

    def _identify(self) -> None:
        """Names this outbox and its process; after a fork the child is another."""
        self.owner = f"{_machine()}/{os.getpid()}/{_started(os.getpid())}/{id(self):x}"

    def _compare_clocks(self) -> None:
        with self.database.connected() as connection:
            self._ahead = connection.execute(sa.select(now())).scalar_one() - time.time()

    def _free_claims(self) -> None:
        with self.database.connected() as connection:
            owners = connection.execute(sa.select(OutboxRow.owner).where(OutboxRow.owner.is_not(None)).distinct()).scalars().all()
            dead = [owner for owner in owners if owner and not _alive(owner)]
            if dead:
                freed = sa.update(OutboxRow).where(OutboxRow.owner.in_(dead)).values(owner=None, lease=0.0)
                log.info("freed %d claims of processes that are gone", connection.execute(freed).rowcount)

    def _finish_pushes(self) -> None:
        with self.database.connected() as connection:
            rows = connection.execute(sa.select(PushRow.id, PushRow.queue_dir, PushRow.queue_key)).all()
        for row in rows:
            try:
                queue.HeldPush(row.queue_dir, row.queue_key).finish()
                self.database.finished_pushes.append(row.id)
            except QueueError as error:
                log.error("the message %s pushed into %s could not be made visible: %s", row.queue_key, row.queue_dir, error)

    # -- the threads

    def _work(self) -> None:
        """The barrier of a sending thread: whatever goes wrong is logged, and after a pause it goes on."""
        while not self._stopping:
            try:
                if not self._send_batch():
                    self._rest()
            except Exception:
                log.exception("The outbox could not work; nothing is lost, it tries again.")
                self._ended.wait(self.poll)

    def _rest(self) -> None:
        with self._wake:
            if self._ready or self._behind or self._stopping:
                return
            glances = self._busy > 0
            self._glancing += glances
            self._wake.wait(GLANCE if glances else self.poll)
            self._glancing -= glances

    def _keep_leases(self) -> None:
        purged = time.monotonic()
        while not self._stopping:
            self._ended.wait(min(self.lease / 3, 30.0))
            try:
                self._close_idle()
                if self._sending:
                    _in_spite_of_conflicts(self._renew)
                if time.monotonic() - purged > PURGE:
                    purged = time.monotonic()
                    self._finish_pushes()
                    self.purge()
            except Exception:
                log.exception("The outbox could not renew its leases or purge; another process may send the same mail again.")

    def _close_idle(self) -> None:
        for carrier in self.carriers.values():
            carrier.close_idle()

    def _renew(self) -> None:
        with self.database.connected() as connection:
            mine = sa.update(OutboxRow).where(OutboxRow.id.in_(list(self._sending)), OutboxRow.owner == self.owner)
            connection.execute(mine.values(lease=now() + self.lease))

    # -- one batch

    def _send_batch(self) -> int:
        """Sends and finishes a batch. Returns how many rows it took."""
        letters = self._next()
        if not letters:
            return 0
        rows = [row for letter in letters for row in letter.rows]
        try:
            self._send_all(letters)
        except BaseException:
            self.forget(rows)  # what became of them could not be written down, so they are sent again
            raise
        self._sending.difference_update([row.id for row in rows])
        return len(rows)

    def _send_all(self, letters: list[_Letter]) -> None:
        with self._wake:
            self._busy += 1
        try:
            for _, together in groupby(letters, attrgetter("company")):
                self._send(list(together))
            self._finish(letters)
        finally:
            with self._wake:
                self._busy -= 1

    def _next(self) -> list[_Letter]:
        """What was claimed when it was committed; and when that is all, or it is time, what waits in the database."""
        with self._claiming:
            due = time.monotonic() >= self._looked + self.poll
            if self._ready and not due:
                return self._next_ready(self.batch)
            if not (due or self._behind):
                return []
            self._woken = False
            rows = self._claim()
            self._sending.update(row.id for row in rows)
            self._looked, self._behind = time.monotonic(), self._woken  # the look may have missed what was committed meanwhile
        if len(rows) == self.batch:
            self.wake()  # there may be more: another sender shall look
        try:
            return self._read(rows)
        except BaseException:
            self.forget(rows)
            raise

    def _next_ready(self, letters: int) -> list[_Letter]:
        found: list[_Letter] = []
        try:
            while len(found) < letters:
                found.append(self._ready.popleft())
        except IndexError:
            pass  # these are all
        return found

    def _claim(self) -> list[Any]:
        unsettled = set(self._unsettled)
        left = sa.and_(OutboxRow.owner == self.owner, OutboxRow.id.in_(unsettled))
        free = sa.or_(OutboxRow.owner.is_(None), OutboxRow.lease < now(), left)
        due = sa.select(OutboxRow).where(OutboxRow.relay.in_(self.carriers), OutboxRow.due <= now(), ~OutboxRow.parked, free)
        paused = self._paused_now()
        if paused:
            due = due.where(sa.or_(OutboxRow.due == AT_ONCE, sa.tuple_(OutboxRow.relay, OutboxRow.destination).not_in(paused)))
        chosen = due.order_by(OutboxRow.due, OutboxRow.id).limit(self.batch).with_for_update(skip_locked=True)
        with self.database.connected() as connection:
            found = connection.execute(chosen.with_only_columns(*OutboxRow.__table__.columns)).all()
            self._unsettled -= unsettled if len(found) < self.batch else {row.id for row in found}
            rows = [row for row in found if row.id not in self._sending]  # a lease that could not be renewed in time is ours still
            if not rows:
                return []
            mine = sa.update(OutboxRow).where(OutboxRow.id.in_([row.id for row in rows]), free)
            taken = connection.execute(mine.values(owner=self.owner, lease=now() + self.lease)).rowcount
            return rows if taken == len(rows) else self._those_taken(connection, rows)

    def _those_taken(self, connection: Any, rows: list[Any]) -> list[Any]:
        """On SQLite another process may have claimed some of them between the look and the claim."""
        own = sa.select(OutboxRow.id).where(OutboxRow.owner == self.owner, OutboxRow.id.in_([row.id for row in rows]))
        mine = set(connection.execute(own).scalars())
        return [row for row in rows if row.id in mine]

    def _read(self, rows: Sequence[Any]) -> list[_Letter]:
        """The letters that these rows are; small ones with their bytes."""
        groups: dict[tuple[str, str, str, str], list[Any]] = {}
        for row in rows:
            groups.setdefault((row.message, row.mail_from, row.relay, row.destination), []).append(row)
        if not groups:
            return []
        with self.database.connected() as connection:
            wanted = sa.select(Message.id, Message.data).where(Message.id.in_({message for message, *_ in groups}))
            small = wanted.where(sa.func.length(Message.data) <= SMALL)
            data = {row.id: bytes(row.data) for row in connection.execute(small)}
        return [_Letter(self.carriers[rows[0].relay], rows, data.get(message)) for (message, *_), rows in groups.items()]

    def _send(self, letters: Sequence[_Letter]) -> None:
        """Letters that go together. The barrier around a relay: one that makes it raise what it should not waits, and holds up no other."""
        results: Iterator[dict[str, RelayError]] | None = None
        for at, letter in enumerate(letters):
            if self._is_paused(letter.destination) and letter.rows[0].due != AT_ONCE:
                letter.failures, results = dict.fromkeys(letter.rcpt_tos, _PAUSED), None
                continue
            try:
                results = results or self._hand_over(letters[at:])
                letter.failures = next(results)
            except Exception:
                log.exception("The relay %s failed on mail to %s; it waits.", letter.carrier.name, ", ".join(letter.rcpt_tos))
                letter.failures, results = dict.fromkeys(letter.rcpt_tos, _BROKEN), None
            if letter.failures and letter.unreachable:
                self._pause(letter.destination, min(self.pauses[0], 60.0))

    def _hand_over(self, letters: Sequence[_Letter]) -> Iterator[dict[str, RelayError]]:
        """What becomes of each of them, as they are sent. A large one is alone, and read now."""
        first = letters[0]
        if first.data is not None:
            return first.carrier.hand_over_all([Outgoing(each.mail_from, each.rcpt_tos, each.data or b"") for each in letters])
        with self.database.connected() as connection:
            data = first.read(connection)
        if data is None:
            return iter([dict.fromkeys(first.rcpt_tos, _MISSING)])
        return first.carrier.hand_over_all([Outgoing(first.mail_from, first.rcpt_tos, data)])

    def _pause(self, destination: tuple[str, str], seconds: float) -> None:
        with self._pausing:
            self._paused[destination] = time.monotonic() + seconds

    def _is_paused(self, destination: tuple[str, str]) -> bool:
        return destination in self._paused and destination in self._paused_now()

    def _paused_now(self) -> list[tuple[str, str]]:
        at = time.monotonic()
        with self._pausing:
            self._paused = {destination: until for destination, until in self._paused.items() if until > at}
            return list(self._paused)

    # -- what became of it

    def _finish(self, letters: list[_Letter]) -> None:
        """Writes down what became of the letters. What was sent comes first and apart: no trouble with the rest may send it again."""
        self._finish_sent([row for letter in letters for row in letter.rows if row.rcpt_to not in letter.failures])
        failed = [letter for letter in letters if letter.failures]
        if failed:
            with self.database.states.begin() as held:  # the undeliverable queue's copies and the reports are in this commit
                for letter in failed:
                    self._settle(held, letter)

    def _finish_sent(self, rows: list[Any]) -> None:
        if rows:
            _in_spite_of_conflicts(lambda: self.database.write(removals(rows)))  # else all of them would be sent again
        for row in rows:
            log.info("sent %s for delivery %s by relay %s", row.rcpt_to, row.delivery, row.relay)

    def _settle(self, held: CommittingDelivery, letter: _Letter) -> None:
        lost: list[tuple[Any, Reply]] = []
        for row in letter.rows:
            error = letter.failures.get(row.rcpt_to)
            if error is None:
                continue
            final = self._final(row, error)
            if final is None:
                self._postpone(held, row, error)
            else:
                lost.append((row, final))
        if lost:
            self._give_up(held, letter, lost)

    def _final(self, row: Any, error: RelayError) -> Reply | None:
        """The reply by which it has failed for good; None while it may still succeed."""
        if isinstance(error, PermanentError):
            return error.reply
        if error is not _PAUSED and time.time() - row.created > self.give_up:
            return Reply(error.reply.code, f"given up after {self.give_up / 86400:g} days; last: {error.reply}", "4.4.7")
        return None

    def _postpone(self, held: CommittingDelivery, row: Any, error: RelayError) -> None:
        tried = error is not _PAUSED
        pause = self.pauses[min(row.attempts, len(self.pauses) - 1)] if tried else min(self.pauses[0], 60.0)
        values: dict[str, Any] = {"owner": None, "lease": 0.0, "due": now() + pause, "attempts": row.attempts + tried}
        if tried:
            values["reply"] = str(error.reply)
            log.warning("not sent to %s for delivery %s, again in %g s: %s", row.rcpt_to, row.delivery, pause, error.reply)
        held.connection.execute(sa.update(OutboxRow).where(OutboxRow.id == row.id).values(**values))

    def _give_up(self, held: CommittingDelivery, letter: _Letter, lost: list[tuple[Any, Reply]]) -> None:
        for row, final in lost:
            log.error("will never be sent to %s for delivery %s: %s", row.rcpt_to, row.delivery, final)
        if self.undeliverable is None:
            self._park(held, lost)
            return
        rows = [row for row, _ in lost]
        reason = "; ".join(f"{row.rcpt_to}: {final}" for row, final in lost)
        data = letter.read(held.connection) or b""
        try:
            self.undeliverable.push(data, mail_from=rows[0].mail_from, rcpt_tos=[row.rcpt_to for row in rows], reason=reason)
        except QueueError as error:
            log.error("the undeliverable queue did not take it, so the outbox keeps it: %s", error)
            for row in rows:
                self._postpone(held, row, letter.failures[row.rcpt_to])
            return
        self._report(held, letter, data, {row.rcpt_to: final for row, final in lost})
        held.writes += removals(rows)

    def _report(self, held: CommittingDelivery, letter: _Letter, data: bytes, failures: dict[str, Reply]) -> None:
        mail_from = letter.rows[0].mail_from
        notice = report.bounce(data, mail_from, failures, self.hostname)
        if notice is not None:
            held.hold_mail(letter.carrier, Outgoing("", (mail_from,), bytes(notice)))

    def _park(self, held: CommittingDelivery, lost: list[tuple[Any, Reply]]) -> None:
        for row, final in lost:
            values = {"parked": True, "owner": None, "lease": 0.0, "reply": str(final), "attempts": row.attempts + 1}
            held.connection.execute(sa.update(OutboxRow).where(OutboxRow.id == row.id).values(**values))


def _in_spite_of_conflicts(step: Callable[[], None]) -> None:
    """Again, a few times, when others were in the way: on a server, statements for the same rows or pages may be a deadlock."""
    for _ in range(4):
        try:
            return step()
        except Conflict:
            pass
    step()


_BROKEN = RelayError(reply(451, "the relay itself failed, see the log", "4.3.0"))
_MISSING = PermanentError(reply(554, "its bytes are missing from the database", "5.3.0"))
_PAUSED = RelayError(reply(451, "the destination failed a moment ago and is paused", "4.4.1"))


# -- looking and meddling, for the command line ------------------------------------------------------------------------------------


def waiting(database: Database, address: str | None = None) -> list[Waiting]:
    """What is in the outbox, the oldest first; only to `address` where one is given."""
    columns = [getattr(OutboxRow, name) for name in Waiting.__slots__]
    with database.connected() as connection:
        return [Waiting(*row) for row in connection.execute(_for(sa.select(*columns), address).order_by(OutboxRow.id))]


def retry(database: Database, address: str | None = None) -> int:
    """Makes what waits due at once, also where its destination is paused. Returns how many rows."""
    return _change(database, address, due=AT_ONCE)


def park(database: Database, address: str | None = None, parked: bool = True) -> int:
    """Holds rows back, or releases them. Returns how many rows."""
    return _change(database, address, parked=parked)


def remove(database: Database, address: str | None = None) -> int:
    """Removes rows that nobody is sending, for good. Returns how many."""
    idle = sa.or_(OutboxRow.owner.is_(None), OutboxRow.lease < now())
    with database.connected() as connection:
        rows = connection.execute(_for(sa.select(OutboxRow.id, OutboxRow.message).where(idle), address)).all()
        for write in removals(rows) if rows else ():
            execute(connection, write)
        return len(rows)


def _change(database: Database, address: str | None, **values: Any) -> int:
    with database.connected() as connection:
        return int(connection.execute(_for(sa.update(OutboxRow), address).values(**values)).rowcount)


def _for(statement: Any, address: str | None) -> Any:
    return statement.where(OutboxRow.rcpt_to == address) if address else statement


# -- processes ---------------------------------------------------------------------------------------------------------------------


def _machine() -> str:
    """Where pids mean what they mean here: the host's name, and the container's number, as two containers may have one name."""
    try:
        return f"{socket.gethostname()}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process began, as the kernel counts it; a pid that is used again began at another time. "" where there is no /proc, and for a
    process that has ended and is only not yet buried by its parent: in a container that may be never."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        return ""


def _alive(owner: str) -> bool:
    host, pid, started, _ = owner.rsplit("/", 3)
    if host != _machine():
        return True  # its lease will tell
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(int(pid)) == started
