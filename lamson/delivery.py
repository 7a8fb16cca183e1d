"""The delivery: one message to one recipient, and everything that it causes.

Inside a handler `current()` is the delivery. Whatever the handler wants to happen is held here and happens together when the handler
has ended well: the moves of state, mail to send, messages pushed into queues, calls to make afterwards. Ending by an exception lets
none of it happen.

`Delivery` itself is the one for storages without a database: held mail is sent in order, pushes are finished, and then the states are
set: best effort (docs/guarantees.md). `lamson.database` has the one that commits all of it in a transaction. This module knows nothing
of SMTP, of routes or of SQL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from lamson import trace
from lamson.errors import DatabaseError, Fault, PermanentError, QueueError, RelayError, SMTPError
from lamson.state import StateStorage
from lamson.status import Reply

log = logging.getLogger("lamson.delivery")

#: A conversation: (state key, sender).
Conversation = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Mail on its way out: rendered bytes with CRLF line ends and its envelope. `mail_from` "" is the null sender."""

    mail_from: str
    rcpt_tos: tuple[str, ...]
    data: bytes


class Carrier(Protocol):
    """What hands mail on: a relay. Its name is kept in the outbox, so that another process can find its own of that name."""

    name: str

    def destination(self, rcpt_to: str) -> str:
        """The server that mail to this recipient goes to; what goes to one goes together, and is paused together when it fails."""

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        """Sends now. Returns the recipients that were not taken, each with why; empty when all were taken."""

    def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
        """The same for several of one destination, in order; each is sent when what became of it is asked for."""

    def close(self) -> None:
        """Lets go of what it keeps open; it may be used again."""

    def close_idle(self) -> None:
        """Lets go of what it has not used for a while."""


class HeldPush(Protocol):
    """A message already written and synced into a queue's `tmp/`, to be renamed into `new/` or removed."""

    queue_dir: str
    key: str

    def finish(self) -> None:
        """Renames it into `new/` and syncs the directory. Once more does no harm."""

    def undo(self) -> None:
        """Removes it."""


class Delivery:
    """What one delivery has caused so far. A context manager: ending well commits, ending by an exception rolls back."""

    _before: Token[Any]  # what this thread worked on before it was entered

    def __init__(self, storage: StateStorage, recipient: str = "", sender: str | None = None, id: str | None = None) -> None:
        self.id = id or trace.new_id()
        self.storage = storage
        self.recipient = recipient
        self.sender = sender
        self.message: Any = None  # the MailRequest of this run
        self.states: dict[Conversation, str] = {}
        self.known: dict[Conversation, str] = {}  # as read when first asked
        self.mail: list[tuple[Carrier, Outgoing]] = []
        self.pushes: list[HeldPush] = []
        self.calls: list[Callable[[], object]] = []
        self.open = False

    # -- what handlers and services put into it

    def get_state(self, key: str, sender: str) -> str:
        """The state as this delivery sees it: its own move, else what is kept."""
        conversation = (key, sender)
        if conversation in self.states:
            return self.states[conversation]
        if conversation not in self.known:
            self.known[conversation] = self.read_state(key, sender)
        return self.known[conversation]

    def set_state(self, key: str, sender: str, state: str) -> None:
        """Holds a move of state."""
        self.states[key, sender] = state

    def hold_mail(self, carrier: Carrier, mail: Outgoing) -> None:
        """Holds mail until the commit."""
        self.mail.append((carrier, mail))

    def hold_push(self, push: HeldPush) -> None:
        """Holds the last step of a push until the commit."""
        self.pushes.append(push)

    def after_commit(self, call: Callable[[], object]) -> None:
        """Calls `call()` once the commit holds, at most once. What it raises is logged; nothing is undone."""
        self.calls.append(call)

    # -- what a storage with a database does differently

    def read_state(self, key: str, sender: str) -> str:
        """The state that is kept."""
        return self.storage.get(key, sender)

    def receipt(self, key: str) -> Reply | None:
        """The answer that was given when this was handled before; None if it never was, or if nothing remembers."""
        return None

    def hold_receipt(self, key: str, answer: Reply, seconds: float) -> None:
        """Keeps the answer for `seconds` with everything else. Without a database there is nowhere to keep it."""

    def commit(self) -> None:
        """Makes everything held happen. Raises `Fault` or `Conflict` when it did not."""
        for carrier, mail in self.mail:
            for error in carrier.hand_over(mail).values():
                raise error
        if self.pushes:
            self.finish_pushes()
        for (key, sender), state in self.states.items():
            self.storage.set(key, sender, state)

    def roll_back(self) -> None:
        """Lets nothing of it happen."""
        for push in self.pushes:
            push.undo()

    def diagnose(self, error: BaseException) -> BaseException:
        """`Fault` or `Conflict` if that is what lies behind the error, else the error itself, which is then the handler's own."""
        beneath = isinstance(error, (RelayError, DatabaseError)) or (isinstance(error, QueueError) and isinstance(error.__cause__, OSError))
        return Fault(f"{type(error).__name__}: {error}") if beneath else error

    # -- its life

    def finish_pushes(self) -> None:
        """Renames what was pushed to where readers of the queues see it."""
        for push in self.pushes:
            push.finish()

    def call_after_commit(self) -> None:
        """Makes the calls that `after_commit` collected; one of the five barriers where any exception is caught."""
        for call in self.calls:
            try:
                call()
            except Exception:
                log.exception("A call that was to follow the commit of delivery %s failed; what was committed stays.", self.id)

    def __enter__(self) -> Self:
        if current() is not None:
            raise TypeError("A delivery cannot begin inside another: inside a handler, call the next state function or relay.deliver().")
        self.open = True
        self._before = trace.CURRENT.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self._commit_or_roll_back()
            else:
                self.roll_back()
                if isinstance(error, PermanentError):  # a handler wanted to send what can never be sent, as a message in a loop
                    raise SMTPError(error.reply.code, error.reply.text, error.reply.status) from error
                self._raise_diagnosed(error)
        finally:
            self.open = False
            trace.CURRENT.reset(self._before)

    def _commit_or_roll_back(self) -> None:
        try:
            self.commit()
        except BaseException as error:
            self.roll_back()
            self._raise_diagnosed(error)
            raise

    def _raise_diagnosed(self, error: BaseException) -> None:
        diagnosed = self.diagnose(error)
        if diagnosed is not error:
            raise diagnosed from error


def current() -> Delivery | None:
    """The delivery that this thread is in, or None."""
    thing = trace.CURRENT.get()
    return thing if isinstance(thing, Delivery) and thing.open else None


def begin(storage: StateStorage, recipient: str = "", sender: str | None = None, id: str | None = None) -> Delivery:
    """A new delivery on this storage: the storage's own kind if it has a method `begin`, else best effort."""
    make: Callable[..., Delivery] | None = getattr(storage, "begin", None)
    return make(recipient, sender, id) if make else Delivery(storage, recipient, sender, id)


def remembers(storage: StateStorage) -> bool:
    """Whether deliveries on this storage keep receipts: those of its own kind do, the best effort has nowhere to keep them."""
    return hasattr(storage, "begin")


class Locks:
    """One lock a conversation, made when wanted and dropped when nobody has or awaits it.

    `waiting`: how many may wait for one conversation. `patience`: seconds that each of them waits at most. Beyond either the
    client hears 451 4.3.2, which is no harm: it tries again.
    """

    def __init__(self, waiting: int = 4, patience: float = 30.0) -> None:
        self.waiting = waiting
        self.patience = patience
        self._mutex = threading.Lock()
        self._turns: dict[Any, list[Any]] = {}  # conversation -> [its lock, how many have or await it]

    def holding(self, conversations: Iterable[Conversation]) -> _Holding:
        """Holds the locks of all of them, taken in sorted order so that no two threads wait for each other."""
        return _Holding(self, sorted(set(conversations)))

    def _take(self, conversation: Conversation, deadline: float) -> None:
        with self._mutex:
            turn = self._turns.setdefault(conversation, [threading.Lock(), 0])
            if turn[1] > self.waiting:
                raise busy(f"{self.waiting} deliveries wait for {conversation} already")
            turn[1] += 1
        if not turn[0].acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._leave(conversation, turn)
            raise busy(f"waited {self.patience:g} s for {conversation}")

    def _give(self, conversation: Conversation) -> None:
        turn = self._turns[conversation]
        turn[0].release()
        self._leave(conversation, turn)

    def _leave(self, conversation: Conversation, turn: list[Any]) -> None:
        with self._mutex:
            turn[1] -= 1
            if not turn[1]:
                del self._turns[conversation]


class _Holding:
    """`with` these locks. A class, as it stands on every message's way."""

    __slots__ = ("_held", "_locks", "_wanted")

    def __init__(self, locks: Locks, wanted: Sequence[Conversation]) -> None:
        self._locks, self._wanted = locks, wanted
        self._held: list[Conversation] = []

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._locks.patience
        try:
            for conversation in self._wanted:
                self._locks._take(conversation, deadline)
                self._held.append(conversation)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        while self._held:
            self._locks._give(self._held.pop())


def busy(cause: str) -> SMTPError:
    """The answer when a conversation is taken for too long: try again (RFC 3463 §3.4, 4.3.2)."""
    return SMTPError(451, "This conversation is busy, try again later", "4.3.2", cause)
