"""Confirmation by reply: a secret goes to an address, and an answer that carries it proves that the address is its sender's.

A handler that must be sure who wrote calls `ConfirmationEngine.send`: the message waits in a queue, and a question goes to its sender from
an address with a secret in it. The handler of that address calls `verify`, once, and gets the message that waited. All of it is part of the
delivery: a run that fails has asked nobody and used up no secret. Knows the storage, the queue and the view; routes and relays are the
application's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc, orm

from lamson import address, delivery, view
from lamson.database import Confirmation, Database, now
from lamson.errors import Conflict, QueueError
from lamson.queue import Queue

if TYPE_CHECKING:
    from lamson.mail import MailRequest, MailResponse

#: How long an answer is waited for: a week, in seconds.
EXPIRY_SECONDS = 7 * 24 * 3600.0

#: Octets of a secret: 128 bits.
SECRET_OCTETS = 16

#: What a storage says of one confirmation: the secret's digest and the waiting message's key; (None, None) when there is none.
Found = tuple[str | None, str | None]


class ConfirmationStorage:
    """Remembers what waits for an answer, by target and address; in memory, or in any mapping given as `db`.

    Storages of one's own have the same five methods. What they are given as the secret is a digest, of which nobody can make the secret.
    """

    def __init__(self, db: MutableMapping[tuple[str, str], tuple[str, str | None, float]] | None = None) -> None:
        self.confirmations = {} if db is None else db
        self._lock = threading.Lock()

    def get(self, target: str, from_address: str) -> Found:
        """The secret and the waiting message's key; (None, None) when there is none, or it is too old."""
        secret, pending_id, expires = self.confirmations.get((target, from_address), (None, None, 0.0))
        return (secret, pending_id) if expires > time.time() else (None, None)

    def store(
        self, target: str, from_address: str, expected_secret: str, pending_message_id: str | None, seconds: float = EXPIRY_SECONDS
    ) -> str | None:
        """Remembers it for so long, in the place of what was there, and returns the key of the message that had waited for that."""
        with self._lock:
            _, earlier, _ = self.confirmations.get((target, from_address), (None, None, 0.0))
            self.confirmations[target, from_address] = (expected_secret, pending_message_id, time.time() + seconds)
        return earlier

    def delete(self, target: str, from_address: str) -> bool:
        """Forgets it. False when it was gone already: of two who delete, one hears True."""
        with self._lock:
            return self.confirmations.pop((target, from_address), None) is not None

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self.confirmations.clear()

    def purge(self) -> list[str]:
        """Forgets what is too old, and returns the keys of the messages that waited."""
        with self._lock:
            old = [key for key, (_, _, expires) in self.confirmations.items() if expires <= time.time()]
            gone = [self.confirmations.pop(key)[1] for key in old]
        return [pending_id for pending_id in gone if pending_id is not None]


class SQLAlchemyConfirmationStorage(ConfirmationStorage):
    """The same in the database, table `lamson_confirmation`: in a delivery, committed and rolled back with it."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database

    def get(self, target: str, from_address: str) -> Found:
        """The secret and the waiting message's key; the row is ours until the commit."""
        with self.database.joined() as session:
            fresh = sa.select(Confirmation.secret, Confirmation.pending_id).where(*_of(target, from_address), Confirmation.expires > now())
            row = session.execute(fresh.with_for_update()).first()
        return (row.secret, row.pending_id) if row else (None, None)

    def store(
        self, target: str, from_address: str, expected_secret: str, pending_message_id: str | None, seconds: float = EXPIRY_SECONDS
    ) -> str | None:
        """Remembers it for so long, in the place of what was there, and returns the key of the message that had waited for that."""
        values = {"secret": expected_secret, "pending_id": pending_message_id, "expires": now() + seconds}
        with self.database.joined() as session:
            earlier = session.execute(sa.select(Confirmation.pending_id).where(*_of(target, from_address)).with_for_update()).first()
            if earlier:
                session.execute(sa.update(Confirmation).where(*_of(target, from_address)).values(values))
            else:
                self._add(session, target=target, from_address=from_address, **values)
        return earlier.pending_id if earlier else None

    def _add(self, session: orm.Session, **values: Any) -> None:
        try:
            session.execute(sa.insert(Confirmation).values(values))
        except exc.IntegrityError as error:
            raise Conflict(f"another process asked the same: {error.orig}") from error

    def delete(self, target: str, from_address: str) -> bool:
        """Forgets it. False when it was gone already: of two who delete, one hears True."""
        with self.database.joined() as session:
            return _rows(session.execute(sa.delete(Confirmation).where(*_of(target, from_address)))) > 0

    def clear(self) -> None:
        """Forgets everything."""
        with self.database.joined() as session:
            session.execute(sa.delete(Confirmation))

    def purge(self) -> list[str]:
        """Forgets what is too old, and returns the keys of the messages that waited."""
        with self.database.joined() as session:
            old = sa.select(Confirmation.id, Confirmation.pending_id).where(Confirmation.expires <= now())
            rows = session.execute(old.with_for_update()).all()
            session.execute(sa.delete(Confirmation).where(Confirmation.id.in_([row.id for row in rows])))
        return [row.pending_id for row in rows if row.pending_id is not None]


def _of(target: str, from_address: str) -> tuple[sa.ColumnElement[bool], ...]:
    return Confirmation.target == target, Confirmation.from_address == from_address


def _rows(result: Any) -> int:
    return int(result.rowcount)


class ConfirmationEngine:
    """Asks people whether they wrote what came from their address, and keeps it until they answer.

    `pending_queue`: where messages wait, a `Queue` or its directory. `storage`: a `ConfirmationStorage`. `seconds`: how long.
    """

    def __init__(self, pending_queue: Queue | str, storage: ConfirmationStorage, seconds: float = EXPIRY_SECONDS) -> None:
        self.pending = Queue(pending_queue) if isinstance(pending_queue, str) else pending_queue
        self.storage = storage
        self.seconds = seconds

    # -- the messages that wait

    def push_pending(self, message: MailRequest) -> str:
        """Keeps a message, and returns its key."""
        return self.pending.push(message)

    def get_pending(self, pending_id: str) -> MailRequest | None:
        """The message of that key; None when it is gone."""
        return self.pending.get(pending_id)

    def delete_pending(self, pending_id: str | None) -> None:
        """Removes it, in a delivery once that is committed. One that is gone already is no error."""
        if pending_id is not None and self.pending.get(pending_id) is not None:
            try:
                self.pending.remove(pending_id)
            except QueueError as error:
                if isinstance(error.__cause__, OSError):
                    raise

    # -- asking

    def register(self, target: str, message: MailRequest) -> str:
        """Keeps the message and returns the local part that confirms it: `TARGET-confirm-SECRET`.

        What waited for the same target and sender is given up: only the last question counts. `ValueError` for a message without a sender,
        and for a target that leaves no room for a secret in a local part (RFC 5321 §4.5.3.1.1).
        """
        sender = message.route_from
        if not sender:
            raise ValueError("A message without a sender cannot be confirmed: there is nobody to ask.")
        secret = _new_secret()
        local = f"{target}-confirm-{secret}"
        if len(local.encode()) > address.LOCAL_OCTETS:
            room = address.LOCAL_OCTETS - len(local.encode()) + len(target.encode())
            raise ValueError(f"The target {target!r} is too long for an address that confirms it: {room} octets at most.")
        earlier = self.storage.store(target, sender, _digest(secret), self.push_pending(message), self.seconds)
        self.delete_pending(earlier)
        return local

    def send(self, relay: Any, target: str, message: MailRequest, template: str, vars: dict[str, Any]) -> MailResponse | None:
        """Keeps the message, asks its sender, and returns the question.

        The template's variables are `vars`, which names the `host`, and `confirm_address`; the question is from
        `%(confirm_address)s@%(host)s`. None, and nothing is kept, for mail that must not be answered automatically (RFC 3834 §2).
        """
        if not message.route_from or message.unanswerable(message.route_from):
            return None
        variables = {**vars, "confirm_address": self.register(target, message)}
        ours = "%(confirm_address)s@%(host)s"
        question = view.respond(variables, template, To=message.route_from, From=ours, Subject="Confirmation required")
        question["Reply-To"] = question["From"]
        question["Auto-Submitted"] = "auto-replied"
        relay.deliver(question)
        return question

    # -- the answer

    def verify(self, target: str, from_address: str, expect_secret: str) -> MailRequest | None:
        """The message that waited, if this is its secret and its sender: once. None for anything else.

        None, and the secret stays good, also where the answer that is being handled is automatic: somebody is on holiday (RFC 3834 §2).
        """
        if _answered_by_a_machine():
            return None
        pending_id = self._use_up(target, from_address, expect_secret)
        if pending_id is None:
            return None
        message = self.get_pending(pending_id)
        self.delete_pending(pending_id)
        return message

    def cancel(self, target: str, from_address: str, expect_secret: str) -> None:
        """Gives up what waits, if this is its secret and its sender."""
        self.delete_pending(self._use_up(target, from_address, expect_secret))

    def _use_up(self, target: str, from_address: str, secret: str) -> str | None:
        """The waiting message's key, for one caller only. A wrong secret takes as long as a right one."""
        sender = address.bare_address(from_address) or address.NULL
        expected, pending_id = self.storage.get(target, sender)
        is_right = hmac.compare_digest(_digest(secret), expected or _digest(""))
        if not is_right or expected is None or self.storage.delete(target, sender) is False:
            return None
        return pending_id

    # -- tidying up

    def purge(self) -> int:
        """Removes what waited too long, and returns how many that were. Call it now and then, such as at the start."""
        gone = self.storage.purge()
        for pending_id in gone:
            self.delete_pending(pending_id)
        return len(gone)

    def clear(self) -> None:
        """Forgets everything and removes all messages that wait."""
        self.storage.clear()
        self.pending.clear()


def _answered_by_a_machine() -> bool:
    running = delivery.current()
    return running is not None and running.message is not None and running.message.is_automatic()


def _new_secret() -> str:
    """In base32, which is shorter than hexadecimal and also the same in any case: a local part has 64 octets for target and secret."""
    return base64.b32encode(secrets.token_bytes(SECRET_OCTETS)).decode("ascii").rstrip("=").lower()


def _digest(secret: str) -> str:
    """Routes match in any case, so a secret is the same in any case."""
    return hashlib.sha256(secret.lower().encode("utf-8", "surrogatepass")).hexdigest()
