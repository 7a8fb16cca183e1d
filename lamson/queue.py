"""A Maildir as a queue: where mail waits, on disk, to be read by the next process, by a person, or by nobody yet.

A message's way: `push` writes it into `tmp/`, syncs it, keeps its envelope in `envelopes/KEY.json`, renames it into `new/` and syncs
that directory; inside a delivery the rename waits for the commit. `pop` or `claim` takes it out again. The file is exactly the bytes
that were received, so any mail reader opens the queue as the Maildir that it is; one that moves a message to `cur/` leaves its key
valid. This module knows nothing of routes, of SMTP or of who pushes.

Who has a message is decided by `flock` on its file, taken before it is read and kept until it is removed or given back. A message
therefore goes to one taker among all threads and processes, and a taker that dies, however it dies, gives it back: the kernel drops
the lock with the process, and the file has never left its place. No pid is written down that another process could have by then. The
file system must know `flock`: every local one does, NFS from version 4 on.

Nothing is deleted here because it could not be read. What the disk refuses becomes a `QueueError` that says what, where and what to do.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Self

from lamson import delivery
from lamson.errors import QueueError
from lamson.mail import MailRequest

__all__ = ["Claim", "HeldPush", "Queue", "QueueError", "SafeMaildir"]

log = logging.getLogger("lamson.queue")

#: The directories of a Maildir, and the one beside them that holds the envelopes.
DIRECTORIES = ("tmp", "new", "cur", "envelopes")

#: What to do about each trouble that a disk has; the sentence that an OSError ends with.
REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within this user's quota",
    errno.EACCES: "let this user write there",
    errno.EPERM: "let this user write there",
    errno.EROFS: "mount it for writing",
    errno.ENOENT: "create the directory again, or restart",
    errno.ENOTDIR: "move the file that stands in its place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EXDEV: "keep both directories on one file system",
    errno.ENOLCK: "keep the queue on a file system that knows flock",
    errno.EOPNOTSUPP: "keep the queue on a file system that knows flock",
}


class Queue:
    """A Maildir that is pushed to and popped from, by any number of threads and processes at once.

    `queue_dir`: the Maildir, made when missing. `safe`: keys do not tell the machine's name. `pop_limit`: bytes; a larger message is
    not popped but moved to `oversize_dir` (a Maildir too, on the same file system), or passed over with a warning where there is none;
    0 means no limit.
    """

    def __init__(self, queue_dir: str | os.PathLike[str], safe: bool = False, pop_limit: int = 0, oversize_dir: str | None = None) -> None:
        self.queue_dir = os.fspath(queue_dir)
        self.dir = self.queue_dir  # 1.x
        self.pop_limit = pop_limit
        self.oversize_dir = oversize_dir
        self._new_key = Keys(_hidden_host() if safe else _host())
        self._mutex = threading.Lock()
        self._batch: deque[tuple[str, str]] = deque()  # what the last listing found and nobody here has taken yet
        for directory in filter(None, (self.queue_dir, oversize_dir)):
            with _told(f"The queue {directory} cannot be made"):
                for name in DIRECTORIES:
                    _make_directory(os.path.join(os.path.abspath(directory), name))

    def __bool__(self) -> bool:
        """An empty queue is a queue: `if UNDELIVERABLE_QUEUE:` asks whether there is one."""
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.queue_dir!r})"

    # -- in

    def push(
        self,
        message: Any,
        *,
        mail_from: str | None = None,
        rcpt_tos: Iterable[str] | None = None,
        peer: Any = None,
        reason: str | None = None,
    ) -> str:
        """Keeps the message (MailRequest, MailResponse, str or bytes), its bytes as they are, and returns its key.

        The envelope is the request's own unless given. On return the message is on disk, or, in a delivery, will be seen by readers
        once that is committed and never if it fails; only the delivery's own `get` finds it before. Raises QueueError, its `data` the
        message, when the disk does not take it; nothing of it is left then.
        """
        data = _as_bytes(message)
        running = delivery.current()
        envelope = _envelope_of(message, mail_from, rcpt_tos, peer, running.recipient if running else None)
        envelope |= {"reason": reason, "delivery": running.id if running else None}
        push = HeldPush(self.queue_dir, self._new_key())
        with _told(f"The message could not be pushed into {self.queue_dir}", message), _or_undone(push):
            push.write(data, envelope, durable_in_tmp=running is not None)
            if running is None:
                push.show()
            else:
                running.hold_push(push)
        return push.key

    # -- out

    def pop(self) -> tuple[str, MailRequest] | tuple[None, None]:
        """Takes out the oldest message: (key, message), or (None, None) when the queue is empty.

        No other process or thread gets the same. It is yours alone from here on, and a delivery that fails does not put it back; if it
        must survive you, use `claim`. Raises QueueError for a message that cannot be read; it stays, and the next call goes on with the
        next one.
        """
        claim = self.claim()
        if claim is None:
            return None, None
        with claim:
            claim.remove()
            return claim.key, claim.message

    def claim(self) -> Claim | None:
        """Takes the oldest message that nobody has, but leaves it in the queue until `Claim.remove()`; None when there is none."""
        for key, path in self._candidates():
            claim = self._try_to_claim(key, path)
            if claim is not None:
                return claim
        return None

    def get(self, key: str) -> MailRequest | None:
        """The message of this key, which stays where it is; None if there is none. In a delivery also one that it has pushed itself."""
        path = self._find(key)
        if path is None:
            return None
        try:
            with _told(f"The message {key} in {self.queue_dir} cannot be read", key), open(path, "rb") as file:
                return self._request(key, file.read())
        except QueueError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # taken meanwhile
                return None
            raise

    def envelope(self, key: str) -> dict[str, Any] | None:
        """What is known of the message besides its bytes: mail_from, rcpt_tos, peer, reason, delivery (each None when unknown).

        None without an envelope, as for messages that other programs delivered, and for one that cannot be read, which is logged: the
        message's headers serve then.
        """
        if not _is_key(key):
            return None
        try:
            with open(_path(self.queue_dir, "envelopes", f"{key}.json"), encoding="ascii") as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("The envelope of %s in %s cannot be read (%s); its headers serve instead.", key, self.queue_dir, error)
            return None
        return found if isinstance(found, dict) else None

    # -- housekeeping

    def keys(self) -> list[str]:
        """The keys of all messages, oldest first, those that somebody has claimed included."""
        return sorted(self._list())

    def count(self) -> int:
        """How many messages there are."""
        return len(self._list())

    __len__ = count

    def remove(self, key: str) -> None:
        """Removes the message and its envelope; in a delivery, once that is committed. Raises QueueError if there is no such message."""
        running = delivery.current()
        held = self._held(key)
        if self._find(key) is None:
            raise QueueError(f"There is no message {key} in the queue {self.queue_dir}.", key)
        if running is None:
            self._unlink(key)
        elif held is None:
            running.after_commit(lambda: self._unlink(key))
        else:
            running.pushes.remove(held)
            held.undo()

    def clear(self) -> None:
        """Removes all messages, at once."""
        for key in self._list():
            self._unlink(key)
        with self._mutex:
            self._batch.clear()

    def oversize(self, key: str) -> None:
        """Moves the message and its envelope to `oversize_dir`. Raises QueueError if there is no such message or directory."""
        path = self._find(key)
        if path is None:
            raise QueueError(f"There is no message {key} in the queue {self.queue_dir}.", key)
        if self.oversize_dir is None:
            raise QueueError(f"The queue {self.queue_dir} has no oversize_dir to move {key} to; give it one.", key)
        with _told(f"The message {key} could not be moved from {self.queue_dir} to {self.oversize_dir}", key):
            envelope = f"{key}.json"
            with suppress(FileNotFoundError):
                _move(_path(self.queue_dir, "envelopes", envelope), _path(self.oversize_dir, "envelopes"), envelope)
            _move(path, _path(self.oversize_dir, "new"), key)

    # -- how it is done

    def _candidates(self) -> Iterator[tuple[str, str]]:
        """Keys to try, oldest first: what is left of the last listing, then at most one more listing.

        Listing the directory once for each full round, and not for each pop, is what makes popping linear.
        """
        listed = False
        while True:
            with self._mutex:
                if not self._batch and not listed:
                    self._batch.extend(sorted(self._list().items()))
                    listed = True
                if not self._batch:
                    return
                candidate = self._batch.popleft()
            yield candidate

    def _try_to_claim(self, key: str, path: str) -> Claim | None:
        """The claim, or None when the message is gone, is another's, or is too large."""
        with _told(f"The message {key} in {self.queue_dir} cannot be read", key):
            file = _open_locked(path)
            if file is None:
                return None
            try:
                if not self.pop_limit or os.fstat(file.fileno()).st_size <= self.pop_limit:
                    return Claim(self, key, self._request(key, file.read()), file)
                self._pass_over(key)
            except BaseException:
                file.close()
                raise
        file.close()
        return None

    def _pass_over(self, key: str) -> None:
        if self.oversize_dir is None:
            log.warning("The message %s in %s is over %d bytes and stays there: no oversize_dir.", key, self.queue_dir, self.pop_limit)
            return
        self.oversize(key)
        log.info("The message %s in %s is over %d bytes, moved to %s.", key, self.queue_dir, self.pop_limit, self.oversize_dir)

    def _request(self, key: str, data: bytes) -> MailRequest:
        known = self.envelope(key) or {}
        return MailRequest(known.get("peer"), known.get("mail_from"), known.get("rcpt_tos"), data)

    def _list(self) -> dict[str, str]:
        """Key -> path of every message, those that a mail reader has moved to `cur/` included."""
        found = {}
        with _told(f"The queue {self.queue_dir} cannot be read"):
            for directory in ("new", "cur"):
                with os.scandir(_path(self.queue_dir, directory)) as entries:
                    for entry in entries:
                        key = entry.name.partition(":")[0]
                        if _is_key(key) and entry.is_file(follow_symlinks=False):
                            found[key] = entry.path
        return found

    def _find(self, key: str) -> str | None:
        """The path of the message's file, or None. A mail reader appends flags to the name: `KEY:2,S`."""
        if not _is_key(key):
            return None
        path = _path(self.queue_dir, "tmp" if self._held(key) else "new", key)
        if os.path.isfile(path):
            return path
        return self._list().get(key)

    def _held(self, key: str) -> HeldPush | None:
        """The current delivery's own push of this key into this queue, or None."""
        running = delivery.current()
        wanted = HeldPush(self.queue_dir, key)
        return wanted if running is not None and wanted in running.pushes else None

    def _unlink(self, key: str) -> None:
        with _told(f"The message {key} could not be removed from {self.queue_dir}", key):
            with suppress(FileNotFoundError):
                path = self._find(key)
                if path is not None:
                    os.unlink(path)
            with suppress(FileNotFoundError):
                os.unlink(_path(self.queue_dir, "envelopes", f"{key}.json"))


class SafeMaildir(Queue):
    """A queue whose keys do not tell the machine's name. 1.x had the name; `Queue(queue_dir, safe=True)` says the same."""

    def __init__(self, queue_dir: str | os.PathLike[str]) -> None:
        super().__init__(queue_dir, safe=True)


class Claim:
    """A message that this thread has taken, still in the queue: `remove()` it when it is owned elsewhere, else it is given back.

    A context manager; leaving it gives back what was not removed. Dying does, too.
    """

    def __init__(self, queue: Queue, key: str, message: MailRequest, file: BinaryIO) -> None:
        self.key = key
        self.message = message
        self._queue = queue
        self._file = file

    def remove(self) -> None:
        """Takes the message out of the queue for good."""
        self._queue._unlink(self.key)
        self.release()

    def release(self) -> None:
        """Gives the message back, to whoever claims next."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


@dataclass(slots=True)
class HeldPush:
    """A push whose last step waits. Made anew from directory and key, as by a start that finishes what a crash left, it does the same."""

    queue_dir: str
    key: str

    def write(self, data: bytes, envelope: dict[str, Any], durable_in_tmp: bool) -> None:
        """Writes and syncs the message into `tmp/`, and its envelope where that says anything."""
        _write(_path(self.queue_dir, "tmp", self.key), data)
        if durable_in_tmp:  # the commit that it waits for must find it after a power cut
            _sync_directory(_path(self.queue_dir, "tmp"))
        if any(value is not None for value in envelope.values()):
            _write(_path(self.queue_dir, "envelopes", f"{self.key}.json"), json.dumps(envelope, default=str).encode("ascii"))
            _sync_directory(_path(self.queue_dir, "envelopes"))

    def show(self) -> None:
        """Renames it into `new/` and syncs the directory."""
        os.rename(_path(self.queue_dir, "tmp", self.key), _path(self.queue_dir, "new", self.key))
        _sync_directory(_path(self.queue_dir, "new"))

    def finish(self) -> None:
        """Lets readers see it. Once more, or after it was taken, does no harm. Raises QueueError; it can be tried again then."""
        with _told(f"The message {self.key} could not be moved from tmp/ to new/ in {self.queue_dir}", self.key):
            with suppress(FileNotFoundError):  # it was finished before
                os.rename(_path(self.queue_dir, "tmp", self.key), _path(self.queue_dir, "new", self.key))
            _sync_directory(_path(self.queue_dir, "new"))

    def undo(self) -> None:
        """Removes it with its envelope. Once more does no harm. Never raises: what stays in `tmp/` is seen by no reader."""
        for directory, name in (("new", self.key), ("tmp", self.key), ("envelopes", f"{self.key}.json")):
            try:
                os.unlink(_path(self.queue_dir, directory, name))
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("%s of a push that failed stays in %s/%s: %s.", name, self.queue_dir, directory, error.strerror)


class Keys:
    """Makes keys: unique among all machines that share a queue, and in the order of time.

    Seconds, nanoseconds and randomness, then the host, in the form that Maildir readers know: `SECONDS.UNIQUE.HOST`.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._last = 0
        self._mutex = threading.Lock()

    def __call__(self) -> str:
        with self._mutex:
            self._last = max(self._last + 1, time.time_ns())  # no two alike, though the clock stand still or be set back
            seconds, nanoseconds = divmod(self._last, 10**9)
        return f"{seconds:010d}.N{nanoseconds:09d}R{os.urandom(6).hex()}.{self._host}"


# -- the message and its envelope


def _as_bytes(message: Any) -> bytes:
    if isinstance(message, str):
        return message.encode("utf-8", "surrogateescape")
    if isinstance(message, bytes | bytearray | memoryview) or hasattr(message, "__bytes__"):
        return bytes(message)
    raise TypeError(f"push() takes a MailRequest, a MailResponse, str or bytes, not {type(message).__name__}.")


def _envelope_of(
    message: Any, mail_from: str | None, rcpt_tos: Iterable[str] | None, peer: Any, recipient: str | None
) -> dict[str, Any]:
    """What was given, else what the request came with: of its recipients only this delivery's, as each has a delivery of its own."""
    if isinstance(message, MailRequest):
        mail_from = message.From if mail_from is None else mail_from
        peer = message.Peer if peer is None else peer
        if rcpt_tos is None:
            rcpt_tos = [recipient] if recipient and message.recipient == recipient else message.To
    recipients = [rcpt_tos] if isinstance(rcpt_tos, str) else rcpt_tos and list(rcpt_tos)
    return {"mail_from": mail_from, "rcpt_tos": recipients or None, "peer": peer}


def _is_key(key: str) -> bool:
    """Whether this can be the name of a message: a key may come from a mail address, and must never be a path."""
    return 0 < len(key) <= 250 and key[0] != "." and not any(character in key for character in "/\0:")


def _host() -> str:
    return socket.gethostname().replace("/", "\\057").replace(":", "\\072") or "localhost"


def _hidden_host() -> str:
    return hashlib.sha256(_host().encode()).hexdigest()[:16]


# -- the disk


def _path(*parts: str) -> str:
    return "/".join(parts)


def _write(path: str, data: bytes) -> None:
    """A new file, written and synced; mail is its owner's alone."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: str) -> None:
    """Makes renames and new names in it durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_directory(path: str) -> None:
    """Makes it and what is missing above it, durably: a message is no safer than the directory that it lies in."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    _make_directory(above)
    with suppress(FileExistsError):  # made by another process this moment; a file in its place is told by whoever uses it
        os.mkdir(path, 0o700)
    _sync_directory(above)


def _move(path: str, directory: str, name: str) -> None:
    os.rename(path, _path(directory, name))
    _sync_directory(directory)


def _open_locked(path: str) -> BinaryIO | None:
    """The file, with its lock, or None when another has it or has taken it out."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - the caller's claim keeps it open
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # else: taken out between open and flock
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


@contextmanager
def _told(what: str, data: Any = None) -> Iterator[None]:
    """Turns an OSError into a QueueError with a sentence."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "look at that disk")
        raise QueueError(f"{what}: {error.strerror or error}; {remedy}.", data) from error


@contextmanager
def _or_undone(push: HeldPush) -> Iterator[None]:
    try:
        yield
    except BaseException:
        push.undo()
        raise
