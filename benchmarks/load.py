"""The load: Postfix's smtp-source, which costs the machine little beside any server in Python, and smtp-sink, which takes the answers.

smtp-source keeps its connections with `-d` and makes a new one for each message without it. It gives up at the first reply that is not
the one that it wants, so a run that ends well has had a 250 for every message.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import program
from benchmarks.server import Failed, Server, free_port

#: Seconds that any one load may take.
PATIENCE = 300.0
#: Seconds between the arrivals of two people. Salmon's backlog holds five; of twenty who come at once some would try again after a second.
APART = 0.01


@dataclass(frozen=True)
class Load:
    """Messages of `octets` (without headers), from `clients` at once to `recipient`. `kept`: on kept connections. `people`: each client is
    somebody else, who waits for one answer before he writes again; else all have one address."""

    octets: int = 2048
    clients: int = 20
    kept: bool = True
    people: bool = False
    recipient: str = "nothing@test.com"

    def send(self, port: int, messages: int, cores: set[int] | None = None) -> None:
        """Sends them, from these cores only if some are given, and returns when all were taken. Raises Failed."""
        sources: list[subprocess.Popen[bytes]] = []
        try:
            for command in self._commands(port, messages):
                time.sleep(APART if sources else 0)
                sources.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
                os.sched_setaffinity(sources[-1].pid, cores or os.sched_getaffinity(0))
            for source in sources:
                said = source.communicate(timeout=PATIENCE)[0].decode("utf-8", "replace")
                if source.returncode or said:
                    raise Failed(f"smtp-source ended with status {source.returncode}: {said.strip()}")
        finally:
            for source in sources:
                source.kill()
                source.wait()

    def _commands(self, port: int, messages: int) -> list[list[str]]:
        people = self.clients if self.people else 1
        return [self._command(port, number, messages // people, self.clients // people) for number in range(people)]

    def _command(self, port: int, person: int, messages: int, sessions: int) -> list[str]:
        words: list[object] = [program("smtp-source"), *(["-d"] if self.kept else []), "-s", sessions, "-m", messages, "-l", self.octets]
        words += ["-f", f"person{person}@example.com", "-t", self.recipient, f"127.0.0.1:{port}"]
        return list(map(str, words))


class Sink(Server):
    """smtp-sink, as the next server or as the limit of what a server may reach. It counts what it takes."""

    def __init__(self, counting: bool = True) -> None:
        port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        count = ["-c"] if counting else []
        super().__init__([program("smtp-sink"), *user, *count, "-m", "1000", f"127.0.0.1:{port}", "1000"], port)

    @property
    def count(self) -> int:
        """How many messages it has taken."""
        with Path(self.output.name).open("rb") as file:
            file.seek(max(0, os.path.getsize(self.output.name) - 200))
            numbers = re.findall(rb"mesg=(\d+)", file.read())
        return int(numbers[-1]) if numbers else 0

    def wait_for(self, messages: int) -> None:
        """Returns when it has taken so many. Raises Failed."""
        deadline = time.monotonic() + PATIENCE
        while self.count < messages:
            if time.monotonic() > deadline:
                raise Failed(f"{self.count} of {messages} answers have arrived")
            time.sleep(0.005)
