"""The scene of a fault: the project of `project/` in a scratch folder, its server as a real process, and eyes on its database.

The server is started by `lamson start -foreground` in a process group of its own, so that all of it can be killed at one blow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests import databases
from tests.faults.figures import Broken

PROJECT = Path(__file__).parent / "project"
#: Seconds within which something that was begun must be seen.
PATIENCE = 30.0


class Scene:
    """One project and its server. `settings` go over those of `project/config/settings.py`; dicts are merged."""

    def __init__(self, folder: Path, url: str = "", workers: int = 1, wrapper: Sequence[str] = (), **settings: Any) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder}/run/lamson.db"
        self.workers = workers
        self.wrapper = list(wrapper)
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.starts = 0
        shutil.copytree(PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("run", "logs"):
            (folder / name).mkdir(exist_ok=True)
        self.settings: dict[str, Any] = {
            "receiver_config": {"host": "127.0.0.1", "port": self.port},
            "database_config": {"url": self.url},
            "outbox_config": {"poll": 0.2},
        }
        self.set(**settings)

    # -- its server

    def set(self, **settings: Any) -> None:
        """Changes settings, for the next start."""
        for name, value in settings.items():
            known = self.settings.get(name)
            self.settings[name] = {**known, **value} if isinstance(known, dict) else value
        (self.folder / "local.json").write_text(json.dumps(self.settings), "utf-8")

    def launch(self) -> None:
        """Starts the server and does not wait for it."""
        command = [*self.wrapper, sys.executable, "-m", "lamson", "start", "-foreground", "-workers", str(self.workers)]
        self.starts += 1
        with (self.folder / "logs/output").open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def start(self) -> None:
        """Starts the server; returns when it takes mail."""
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        self.wait(self.answers, "the server takes mail")

    def answers(self) -> bool:
        """Whether somebody says 220."""
        if self.process is not None and self.process.poll() is not None:
            raise Broken(f"the server ended by itself: {self.output()[-3000:]}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
            return sock.recv(3) == b"220"
        return False

    def kill(self) -> None:
        """kill -9 of the server and all its workers, at one blow."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.process = None

    def kill_only_the_server(self) -> None:
        """kill -9 of the server, and not of the program that runs it, which shall write down what it saw."""
        assert self.process is not None
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.process = None

    def kill_worker(self, which: int) -> None:
        """kill -9 of one worker, whom the first process has to replace. (One that dies before all are up ends the start, which says so.)"""
        assert self.process is not None
        self.wait(lambda: f": process {self.process.pid} (run/smtp.pid)" in self.output(), "all workers are up")  # type: ignore[union-attr]
        children = self.children()
        if children:
            with suppress(ProcessLookupError):
                os.kill(children[which % len(children)], signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The server's own, also where another program runs it."""
        return int((self.folder / "run/smtp.pid").read_text())

    def children(self) -> list[int]:
        assert self.process is not None
        with suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]
        return []

    def stop(self) -> None:
        """Ends the server in good order; what does not end is killed, and said."""
        if self.process is None:
            return
        os.kill(self.pid, signal.SIGTERM)
        try:
            self.wait(self._asked_to_end, "the server ends", 45)
        finally:
            self.kill()

    def _asked_to_end(self) -> bool:
        """Under strace the kernel may give a signal to a thread that is not the first, and Python hears of it with the next one."""
        assert self.process is not None
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGTERM)
        return self.process.poll() is not None

    def output(self) -> str:
        return (self.folder / "logs/output").read_text("utf-8", "replace")

    def log(self) -> str:
        return (self.folder / "logs/lamson.log").read_text("utf-8", "replace")

    def count_in_log(self, pattern: str) -> int:
        return len(re.findall(pattern, self.log()))

    # -- its database

    def query(self, statement: str, **values: Any) -> list[Any]:
        """What the database says, by a connection of its own."""
        engine = sa.create_engine(self.url, poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            return list(connection.execute(sa.text(statement), values).all())

    def handled(self) -> list[tuple[str, str, str, str]]:
        """The application's rows in the order in which they were made: mark, sender, recipient, state."""
        return [tuple(row) for row in self.query("SELECT mark, sender, recipient, state FROM handled ORDER BY id")]

    def marks(self) -> Counter[str]:
        return Counter(mark for mark, *_ in self.handled())

    def states(self) -> dict[str, tuple[str, int]]:
        """Sender -> state and version, of the desk."""
        rows = self.query("SELECT sender, state, version FROM lamson_state WHERE fsm = 'app.handlers.desk'")
        return {sender: (state, version) for sender, state, version in rows}

    def waiting(self) -> int:
        """How many rows wait in the outbox."""
        return int(self.query("SELECT count(*) FROM lamson_outbox")[0][0])

    def undeliverable(self) -> list[Path]:
        return sorted((self.folder / "run/undeliverable/new").glob("*"))

    # -- waiting

    def wait(self, seen: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        wait_for(seen, what, seconds, lambda: self.output()[-2000:])

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def wait_for(seen: Callable[[], object], what: str, seconds: float = PATIENCE, more: Callable[[], str] = str) -> None:
    """Looks until it is so. Raises `Broken` when time is up."""
    deadline = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > deadline:
            raise Broken(f"not seen within {seconds:g} s: {what}. {more()}")
        time.sleep(0.02)


@contextmanager
def scene(database: str = "sqlite", workers: int = 1, wrapper: Sequence[str] = (), url: str = "", **settings: Any) -> Iterator[Scene]:
    """A scene in a folder of its own, on a scratch database of this kind or the one at `url`; all gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="lamson-faults-"))
    folder = root / "deep" / "project"  # room above it, in which nothing may ever appear
    try:
        with (
            nullcontext(url) if url else databases.scratch(database, folder / "run") as where,
            Scene(folder, where, workers, wrapper, **settings) as made,
        ):
            yield made
    except BaseException:
        keep = os.environ.get("LAMSON_KEEP_FAULTS")
        if keep:
            shutil.copytree(folder, Path(keep) / root.name, dirs_exist_ok=True)
        raise
    finally:
        shutil.rmtree(root, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
