"""A power cut: what the disk holds right after a 250, mounted and counted. Not in CI; needs root, loop devices and ext4.

The server's `run` folder lies on a filesystem of its own on a file. Right after a 250 that file is copied, at once and without telling
anybody: the copy is what a disk whose power fails at that moment would hold, as only what was synced has been written into it. The copy
is mounted, its journal played back, and every message that was answered 250 must be there. The control does the same with SQLite told
not to sync; it must lose messages, or the program would show nothing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.client import Connection, letter
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, scene

#: The programs that this needs.
PROGRAMS = ("losetup", "mkfs.ext4", "mount", "umount")


def run(cuts: int = 50, between: int = 5, megabytes: int = 48) -> Figures:
    """`between`: messages between two cuts, half of them to a handler, half to one that fails, so that they are kept in a queue."""
    if os.geteuid() != 0 or not all(map(shutil.which, PROGRAMS)):
        pytest.skip(f"needs root and {', '.join(PROGRAMS)}")
    promised = lose(cuts, between, megabytes, "FULL")
    promise(promised["missing"] == 0, f"{promised['missing']} messages that were answered 250 are missing after {cuts} cuts")
    control = lose(cuts, between, megabytes, "OFF")
    promise(control["missing"] > 0, "the control lost nothing, so this program shows nothing")
    return {
        "cuts": cuts,
        "messages answered 250 and looked for": promised["looked for"],
        "missing": promised["missing"],
        "missing in the control, without fsync": f"{control['missing']} of {control['looked for']}",
    }


def lose(cuts: int, between: int, megabytes: int, synchronous: str) -> dict[str, int]:
    with TemporaryDirectory(prefix="lamson-power-") as name, disk(Path(name), megabytes) as (image, mounted):
        settings = {"database_config": {"url": f"sqlite:///{mounted}/lamson.db", "synchronous": synchronous}}
        with scene(
            handlers=["app.handlers.counter", "app.handlers.broken"], undeliverable=f"{mounted}/undeliverable", **settings
        ) as server:
            server.start()
            kept: list[str] = []
            missing = looked_for = 0
            for cut in range(cuts):
                kept += send(server, cut * between, between)
                copy = Path(name) / "copy"
                shutil.copyfile(image, copy)
                missing += len(set(kept) - found_on(copy, Path(name) / "after"))
                looked_for += len(kept)
            server.stop()
        return {"missing": missing, "looked for": looked_for}


def send(server: Scene, first: int, count: int) -> list[str]:
    """Sends messages one by one; returns the marks of those answered 250, which is all of them."""
    marks = []
    with Connection(server.port) as connection:
        for number in range(first, first + count):
            to = ("counter@test.com", "broken@test.com")[number % 2]
            each = letter(f"m-{number}", f"s{number % 7}@client.test", to)
            promise(connection.send(each.sender, each.to, each.data) == 250, f"{each.mark} was not taken")
            marks.append(each.mark)
    return marks


def found_on(copy: Path, place: Path) -> set[str]:
    """The marks of what is on the copy: rows of the application, and messages in the queue."""
    place.mkdir(exist_ok=True)
    command("mount", "-o", "loop", copy, place)
    try:
        found = set(marks_in_database(place))
        for path in (place / "undeliverable/new").glob("*"):
            head = path.read_bytes().partition(b"\r\n\r\n")[0]
            found.update(line[8:].decode() for line in head.split(b"\r\n") if line.startswith(b"X-Mark: "))
        return found
    finally:
        command("umount", place)


def marks_in_database(place: Path) -> list[str]:
    try:
        with closing(sqlite3.connect(place / "lamson.db")) as database:
            return [mark for (mark,) in database.execute("SELECT mark FROM handled")]
    except sqlite3.Error:
        return []  # not even the table: what the control may find


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[tuple[Path, Path]]:
    """A filesystem on a file: the file and where it is mounted."""
    image, mounted = folder / "disk", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    command("mkfs.ext4", "-q", "-F", image)
    mounted.mkdir()
    command("mount", "-o", "loop", image, mounted)
    try:
        yield image, mounted
    finally:
        command("umount", "-l", mounted)


def command(*words: object) -> None:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"{words[0]} does not work here: {done.stderr.strip()}")
