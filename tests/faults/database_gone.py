"""The database is gone for a while under load: clients hear 451 or wait, no 250 without a commit, and it goes on without a restart.

PostgreSQL and MariaDB are killed and started again; SQLite's file is locked by another process.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests import databases
from tests.faults.client import Sender
from tests.faults.figures import Figures, promise
from tests.faults.kill import conversation, judge
from tests.faults.scene import Scene, scene
from tests.faults.sink import Sink

#: Locks the file for writing, says so, and keeps it until its standard input ends.
LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
"""
#: A 250 whose commit was before may still be on its way for so many seconds.
ON_ITS_WAY = 0.25


def run(database: str = "sqlite", seconds: float = 10.0, messages: int = 2000, senders: int = 100) -> Figures:
    letters = conversation(messages, senders)
    with Sink() as sink, breakable(database, sink) as (server, leave, come_back):
        server.start()
        pid = server.process.pid if server.process else 0
        with Sender(server.port, letters, 20, pace=0.02) as client:
            server.wait(lambda: len(client.kept) > messages / 10, "some messages taken")
            leave()
            gone = time.monotonic()
            time.sleep(seconds)
            kept = [mark for mark, at in client.kept.items() if at > gone + ON_ITS_WAY]
            promise(not kept, f"{len(kept)} messages were answered 250 while the database was gone")
            heard = dict(client.codes)
            promise(client.working, "everything was sent before the database went; take more messages")
            before = len(client.kept)
            come_back()
            back = time.monotonic()
            server.wait(lambda: len(client.kept) > before, "a message taken once the database was back")
            recovered = time.monotonic() - back
            client.join(120)
        missing = sink.wait_for({each.mark for each in letters}, 60)
        promise(not missing, f"{len(missing)} answers never came")
        promise(server.process and server.process.pid == pid and server.process.poll() is None, "the server did not live through it")
        return {
            "database": database,
            "seconds without it": seconds,
            "heard by the clients until it came back": heard,
            "heard in all": dict(client.codes),
            "answered 250 while it was gone": 0,
            "seconds until the next 250": recovered,
        } | judge(server, sink, letters)


@contextmanager
def breakable(kind: str, sink: Sink) -> Iterator[tuple[Scene, Callable[[], None], Callable[[], None]]]:
    """A scene, what makes its database go, and what brings it back."""
    settings = {"relay_config": {"port": sink.port}, "outbox_config": {"pauses": [0.5, 1.0]}}
    if kind == "sqlite":
        with scene(database_config={"busy_seconds": 2.0}, **settings) as made:
            locker = Locker(f"{made.folder}/run/lamson.db")
            try:
                yield made, locker.lock, locker.unlock
            finally:
                locker.unlock()
        return
    server = databases.make_server(kind)
    try:
        server.start()
        with scene(url=server.url, **settings) as made:
            yield made, server.stop, server.start
    finally:
        server.remove()


class Locker:
    """Another process that has SQLite's file locked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.process: subprocess.Popen[str] | None = None

    def lock(self) -> None:
        command = [sys.executable, "-c", LOCK, self.path]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        promise(self.process.stdout.readline() == "locked\n", "the other process could not lock the file")

    def unlock(self) -> None:
        if self.process:
            self.process.communicate(timeout=30)
            self.process = None
