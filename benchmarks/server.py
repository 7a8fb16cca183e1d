"""A server under measure: a process, or a tree of them, with its CPU time and its memory as the kernel tells them (Linux's /proc)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

#: Seconds until a server must take mail.
PATIENCE = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A server or a load that did not do what was asked; the text holds its last words."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def cores() -> tuple[set[int], set[int]]:
    """The core that a server of one process has for itself, and those of its load. Where there is only one, they share it."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


class Server:
    """Runs `command` from `with` to its end; it takes mail when that begins. `output` is the file with what it says."""

    def __init__(self, command: list[str], port: int, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.command, self.port, self.folder = command, port, folder
        self.environ = {**os.environ, **(environ or {})}

    def __enter__(self) -> Self:
        self.output = tempfile.NamedTemporaryFile(prefix="lamson-bench-", suffix=".out")
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT
        )
        try:
            self._wait_until_it_greets()
        except BaseException:
            self._stop()
            raise
        return self

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def _wait_until_it_greets(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"{self.command[0]} ended with status {self.process.returncode}: {self.said()[-800:]}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as probe:
                    if probe.recv(512).startswith(b"220"):
                        return
            except OSError:
                time.sleep(0.02)
        raise Failed(f"{self.command[0]} does not take mail: {self.said()[-800:]}")

    def _stop(self) -> None:
        """Asks it to end, and after five seconds makes it."""
        processes = list(self._tree())
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in processes:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self.output.close()

    def keep_to(self, cores: set[int]) -> None:
        """All its threads, and what they start, run on these cores only."""
        for pid in self._tree():
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)

    def said(self) -> str:
        """What it has written so far."""
        return Path(self.output.name).read_text("utf-8", "replace")

    # -- what it costs

    def cpu(self) -> float:
        """Seconds of CPU that it and its children have used, user and system."""
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in self._tree()) / TICKS

    def megabytes(self, what: str = "VmRSS") -> float:
        """Memory of its process: `VmRSS` now, `VmHWM` at its highest."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{what}:"))
        return int(line.split()[1]) / 1024

    def _tree(self) -> Iterator[int]:
        parents = {int(path.name): path for path in Path("/proc").iterdir() if path.name.isdigit()}
        children: dict[int, list[int]] = {}
        for pid in parents:
            stat = _stat(pid)
            if stat:
                children.setdefault(int(stat[1]), []).append(pid)
        wanted = [self.pid]
        while wanted:
            pid = wanted.pop()
            wanted += children.get(pid, [])
            if _stat(pid):
                yield pid


class Detached(Server):
    """A server that detaches: `command` ends when it takes mail, `pid_file` in `folder` tells which process it is, and `stop` ends it."""

    def __init__(self, command: list[str], stop: list[str], pid_file: str, port: int, folder: Path) -> None:
        super().__init__(command, port, folder)
        self.folder, self.stop, self.pid_file = folder, stop, pid_file

    @property
    def pid(self) -> int:
        return int((self.folder / self.pid_file).read_text())

    def _wait_until_it_greets(self) -> None:
        if self.process.wait(PATIENCE):
            raise Failed(f"{self.command[0]} did not start: {self.said()[-800:]}")

    def _stop(self) -> None:
        subprocess.run(self.stop, cwd=self.folder, env=self.environ, capture_output=True)
        self.output.close()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the program's name, state first; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
