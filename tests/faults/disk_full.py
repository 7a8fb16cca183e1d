"""The disk is full, of the queue, of the database, and of the log in turn: 4xx, nothing truncated, recovery when space returns.

Needs root: the disk is a small tmpfs, mounted for the occasion.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.client import Sender, letter
from tests.faults.disk_errors import judge_marks, kept_in_queue
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, scene

#: What lies on the small disk, by what it holds; and whose address brings mail there.
FOLDERS = {"queue": ("run/undeliverable", "broken"), "database": ("run", "counter"), "log": ("logs", "counter")}


def run(what: str = "queue", seconds: float = 5.0, messages: int = 300) -> Figures:
    folder, who = FOLDERS[what]
    letters = [letter(f"m-{n}", f"s{n % 20}@client.test", f"{who}@test.com") for n in range(messages)]
    with scene(handlers=["app.handlers.counter", "app.handlers.broken"]) as server, small_disk(server.folder / folder) as disk:
        server.start()
        with Sender(server.port, letters, 5, pause=0.1, pace=seconds / messages) as client:
            server.wait(lambda: len(client.kept) > 20, "some messages taken")
            fill(disk)
            time.sleep(0.2)
            before = len(client.kept)
            time.sleep(seconds)
            while_full = len(client.kept) - before
            heard = dict(client.codes)
            (disk / "filler").unlink()
            freed = time.monotonic()
            count = len(client.kept)
            server.wait(lambda: len(client.kept) > count or not client.working, "a message taken once there was room again")
            recovered = time.monotonic() - freed
            client.join(60)
        if what != "log":
            promise(not while_full, f"{while_full} messages were answered 250 while there was no room for them")
        found = kept_in_queue(server) if what == "queue" else server.marks()
        judge_marks(found, set(client.kept))
        judge_database(server)
        server.stop()
        return {
            "full": what,
            "seconds": seconds,
            "heard by the clients until there was room again": heard,
            "answered 250 while it was full": while_full,
            "seconds until the next 250": recovered,
            "there once, and whole": len(found),
        }


@contextmanager
def small_disk(folder: Path, size: str = "12m") -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def fill(disk: Path) -> None:
    """Writes until there is no room for a byte."""
    handle = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while True:
                    os.write(handle, b"x" * size)
    finally:
        os.close(handle)


def judge_database(server: Scene) -> None:
    found = [row[0] for row in server.query("PRAGMA integrity_check")]
    promise(found == ["ok"], f"the database is damaged: {found}")
