"""The thread of a message through the log: the current delivery's id on every line, and the file that takes the lines of many threads.

Knows nothing of deliveries but that they have an `id`. Receiver, router and delivery set `CURRENT` while they have a message in hand.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import random
import sys
import threading
import time
from collections import deque
from contextvars import ContextVar
from typing import Any

#: What this thread is working on: anything with an `id`. None between messages.
CURRENT: ContextVar[Any] = ContextVar("lamson_current", default=None)

#: From so many lines that wait to be written, as for a terminal that was stopped, each thread waits for its turn for these seconds.
MANY, PATIENCE = 10_000, 1.0

#: Of our own: an application may seed that of `random`, and ids would come again. A child process begins anew.
_CHANCE = random.Random()
os.register_at_fork(after_in_child=_CHANCE.seed)


def new_id(digits: int = 12) -> str:
    """A short id that no other message of this machine has: so many hexadecimal digits of chance. No secret: it can be foreseen. The
    system's randomness costs a call of the system, and other threads run meanwhile."""
    return _CHANCE.getrandbits(4 * digits).to_bytes((digits + 1) // 2, "big").hex()[-digits:]


class Logger(logging.Logger):
    """`logging`'s own, but what it writes does not name the line of source that wrote it: to find that out, and to take its path apart, is
    half of what making a record costs, and a message leaves five. A record factory of the application's own is asked as ever."""

    def findCaller(self, stack_info: bool = False, stacklevel: int = 1) -> tuple[str, int, str, str | None]:
        """As `logging` says it where the source cannot be found."""
        return "(unknown file)", 0, "(unknown function)", None

    def _log(self, level: int, msg: object, args: Any, *more: Any, **others: Any) -> None:
        """A record with the attributes that `logging` gives one; an unusual one `logging` makes."""
        usual = not more and not others and (len(args) != 1 or isinstance(args[0], str))  # of a mapping alone `logging` takes the items
        whole = logging.logThreads and logging.logProcesses and logging.logMultiprocessing
        if not (usual and whole) or logging.getLogRecordFactory() is not logging.LogRecord:
            super()._log(level, msg, args, *more, **others)
            return
        record, created = logging.LogRecord.__new__(logging.LogRecord), time.time()
        record.__dict__ = its = _BLANK.copy()  # set one by one: by `update` or in one literal it takes twice as long
        its["name"], its["msg"], its["args"] = self.name, msg, args
        its["levelno"], its["levelname"] = level, logging.getLevelName(level)
        its["created"], its["msecs"], its["relativeCreated"] = created, created % 1 * 1000 // 1, (created - _BEGAN) * 1000
        its["thread"], its["threadName"], its["process"] = threading.get_ident(), threading.current_thread().name, os.getpid()
        if "multiprocessing" in sys.modules:
            record.processName = _process_name()
        if _KNOWS_TASKS and "asyncio" in sys.modules:
            record.taskName = _task_name()
        self.handle(record)


def _process_name() -> str:
    """As `multiprocessing` has it, once that is imported to its end."""
    current = getattr(sys.modules["multiprocessing"], "current_process", None)
    return "MainProcess" if current is None else str(current().name)


def _task_name() -> str | None:
    """As `asyncio` has it where a task of it runs."""
    asyncio = sys.modules["asyncio"]
    running = getattr(logging, "logAsyncioTasks", True) and asyncio._get_running_loop() is not None
    task = asyncio.current_task() if running else None
    return None if task is None else str(task.get_name())


_BLANK = logging.LogRecord("", 0, "(unknown file)", 0, "", (), None, "(unknown function)").__dict__
_BEGAN = _BLANK["created"] - _BLANK["relativeCreated"] / 1000
#: Python 3.12 and later.
_KNOWS_TASKS = "taskName" in _BLANK
_BLANK.update({"processName": "MainProcess"} | ({"taskName": None} if _KNOWS_TASKS else {}))


def logger(name: str) -> logging.Logger:
    """The logger of this name: one of ours, unless there is one already."""
    usual = logging.getLoggerClass()
    logging.setLoggerClass(Logger)
    try:
        return logging.getLogger(name)
    finally:
        logging.setLoggerClass(usual)


class DeliveryFilter(logging.Filter):
    """Gives each log record an attribute `delivery`: the current delivery's id, `-` outside one, for formats with `%(delivery)s`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.delivery = getattr(CURRENT.get(), "id", "-")
        return True


class DeliveryFormatter(logging.Formatter):
    """A formatter with `%(delivery)s`, for `logging.conf` files, which cannot name filters."""

    _second: tuple[int, str] = (0, "")  # the last one that was put into words, and these

    def format(self, record: logging.LogRecord) -> str:
        if "delivery" not in record.__dict__:
            record.delivery = getattr(CURRENT.get(), "id", "-")
        if record.exc_info or record.exc_text or record.stack_info:
            return super().format(record)
        record.message, record.asctime = record.getMessage(), self.formatTime(record, self.datefmt)
        return self.formatMessage(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """As `logging` does it; but a format as most are is filled in at once."""
        style: Any = self._style
        usual = type(style) is logging.PercentStyle
        if usual and not style._defaults:
            try:
                return str(style._fmt % record.__dict__)
            except KeyError:
                pass  # `logging` says which it was
        return super().formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """As `logging` does it; but the lines of one second have most of it in common."""
        if datefmt or not self.default_msec_format:
            return super().formatTime(record, datefmt)
        second, words = self._second
        if second != int(record.created):
            second, words = int(record.created), time.strftime(self.default_time_format, self.converter(record.created))
            self._second = second, words
        return self.default_msec_format % (words, record.msecs)


class _Lines(logging.Handler):
    """A handler that no thread waits for: who finds it busy leaves its line to whoever is writing, who takes all lines along.

    Lines keep their order and each is written whole. Only where so many are left that memory might fill, threads wait.
    """

    terminator = "\n"

    def __init__(self, *args: Any) -> None:
        self._lines: deque[str] = deque()
        self._writing = threading.Lock()
        super().__init__(*args)

    def handle(self, record: logging.LogRecord) -> Any:
        """Past the lock of `logging`: every thread would wait for it while one writes."""
        if not self.filters:
            self.emit(record)
            return record
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def close(self) -> None:
        """Closes when who is writing has written."""
        with self._writing:
            super().close()

    def _at_fork_reinit(self) -> None:
        """`logging` calls it in a child process: who was writing is not there, and writes its lines in the parent."""
        super()._at_fork_reinit()  # type: ignore[misc]
        self._lines.clear()
        self._writing = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record, and whatever others leave meanwhile. What is not taken is lost, and is told as `logging` does."""
        try:
            self._lines.append(self.format(record) + self.terminator)
            while self._lines and (self._writing.acquire(blocking=False) or self._waited()):
                try:
                    self._write("".join([self._lines.popleft() for _ in range(len(self._lines))]))
                finally:
                    self._writing.release()
        except Exception:
            self.handleError(record)

    def _waited(self) -> bool:
        """Whether it waited for the turn to write, and has it."""
        return len(self._lines) > MANY and self._writing.acquire(timeout=PATIENCE)

    def _write(self, lines: str) -> None:
        raise NotImplementedError


class LogFile(_Lines, logging.handlers.WatchedFileHandler):
    """A log's file. It may be moved away, as logrotate does: within a second a new one is begun. A line after `close` opens it again."""

    def __init__(self, filename: str | os.PathLike[str], mode: str = "a", encoding: str | None = "utf-8") -> None:
        self._look_at = 0.0
        self._cut_off = b""  # the end of a line that the disk did not take to its end
        super().__init__(filename, mode, encoding)

    def _open(self) -> Any:
        """Without a buffer: what was written is in the file."""
        return open(self.baseFilename, f"{self.mode}b", buffering=0)

    def _write(self, lines: str) -> None:
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + 1.0
            self.reopenIfNeeded()
        stream: Any = self.stream or self._open()
        self.stream, octets = stream, self._cut_off + lines.encode(self.encoding or "utf-8", "backslashreplace")
        while octets:
            octets = octets[stream.write(octets) :]
            self._cut_off = b"\n" if octets else b""


class Terminal(_Lines, logging.StreamHandler[Any]):
    """Standard error, as it is when this is made, or another stream."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)

    def _write(self, lines: str) -> None:
        self.stream.write(lines)
        self.stream.flush()
