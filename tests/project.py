"""A generated project in a folder of its own, driven by the command line as a person would, with servers that are real processes."""

from __future__ import annotations

import re
import smtplib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from lamson.mail import MailRequest
from lamson.queue import Queue

#: Seconds until something that was begun must be seen.
PATIENCE = 20.0


class Project:
    """`port` and `log_port` are where its servers listen once they are started."""

    def __init__(self, parent: Path, name: str = "mymailserver") -> None:
        self.folder = parent
        self.lamson("gen", "-project", name)
        self.folder = parent / name
        self.port = self.log_port = 0
        self.edit("config/settings.py", '"localhost", "port": 8823', '"127.0.0.1", "port": 0')

    # -- its files

    def write(self, path: str, text: str) -> None:
        (self.folder / path).write_text(text, "utf-8")

    def read(self, path: str) -> str:
        return (self.folder / path).read_text("utf-8")

    def edit(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text, f"{path} has no {old!r}"
        self.write(path, text.replace(old, new))

    # -- its servers

    def lamson(self, *words: object, status: int = 0) -> str:
        """Runs a command and returns what it says, stdout before stderr. It must end with this status."""
        command = [sys.executable, "-m", "lamson", *map(str, words)]
        ran = subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert ran.returncode == status, f"lamson {' '.join(map(str, words))}: status {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def start_log(self) -> None:
        """The server that stands for the rest of the world; the project's relay hands its mail to it."""
        self.log_port = port_in(self.lamson("log", "-port", 0))
        self.edit("config/settings.py", '"localhost", "port": 8825', f'"127.0.0.1", "port": {self.log_port}')

    def start(self) -> None:
        self.port = port_in(self.lamson("start"))

    def stop(self) -> None:
        """Stops what runs of it."""
        if list((self.folder / "run").glob("*.pid")):
            self.lamson("stop", "-ALL", "run")

    # -- mail

    def send(self, sender: str, to: str, body: str = "Hi there.", subject: str = "A test") -> None:
        """One message over SMTP. Raises smtplib's errors when it is not taken."""
        text = f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{time.time_ns()}@test>\r\n\r\n{body}\r\n"
        with smtplib.SMTP("127.0.0.1", self.port, "client.test", timeout=PATIENCE) as smtp:
            smtp.sendmail(sender, [to], text)

    def messages(self, queue: str, number: int) -> list[MailRequest]:
        """The messages of a queue, in order, once there are so many."""
        kept = Queue(str(self.folder / queue))
        wait_for(lambda: kept.count() >= number, f"{number} messages in {queue}")
        return [message for message in map(kept.get, list(kept.keys())) if message is not None]

    def reasons(self) -> list[str]:
        """Why messages went into run/undeliverable."""
        kept = Queue(str(self.folder / "run/undeliverable"))
        return [str((kept.envelope(key) or {}).get("reason")) for key in list(kept.keys())]

    def states(self) -> dict[tuple[str, str], str]:
        """(state key, sender) -> state, as they lie in the database."""
        with closing(sqlite3.connect(self.folder / "run/lamson.db")) as database:
            return {(fsm, sender): state for fsm, sender, state in database.execute("SELECT fsm, sender, state FROM lamson_state")}


def port_in(told: str) -> int:
    """The port that `start` or `log` said it takes mail on."""
    found = re.search(r"127\.0\.0\.1:(\d+)", told)
    assert found, told
    return int(found.group(1))


def wait_for(seen: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < deadline, f"not seen within {PATIENCE:g} seconds: {what}"
        time.sleep(0.02)
