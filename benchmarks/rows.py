"""The rows of the table: what is measured, beside whom, and how fair that is.

A subject is a function that is given how many messages to take and a scratch folder, runs a server or a program, and returns a `Sample`.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.corpus import message_files
from benchmarks.environment import HERE, Missing, python
from benchmarks.load import Load, Sink
from benchmarks.results import Aim, Row, Sample
from benchmarks.server import Detached, Failed, Server, cores, free_port

Subject = Callable[[int, Path], Sample]

#: Messages that every server is given before the clock starts.
WARM_UP = 200
#: Here files cost memory and no disk.
IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Measure:
    """How a row is measured. `messages` in a run, `few` with --quick."""

    row: Row
    subjects: Mapping[str, Subject]
    messages: int
    few: int = 100

    def round(self, number: int, folder: Path, quick: bool) -> None:
        """Runs each subject once, in an order that turns from round to round."""
        names = list(self.subjects)
        turned = names[number % len(names) :] + names[: number % len(names)]
        messages = self.few if quick else self.messages
        samples: dict[str, Sample] = {}
        for name in turned:
            try:
                samples[name] = self.subjects[name](messages, folder)
            except Missing as why:
                self.row.missing[name] = str(why)
        self.row.rounds.append({name: samples[name] for name in names if name in samples})


# -- servers


@contextmanager
def program(name: str, framework: str, folder: Path) -> Iterator[Server]:
    """A program of `programs/`."""
    port = free_port()
    command = [python(framework), str(HERE / "programs" / f"{name}.py"), str(port)]
    with Server(command, port, folder) as server:
        yield server


@contextmanager
def lamson_project(folder: Path, workers: int = 1, sink: Sink | None = None) -> Iterator[Server]:
    """A project as `lamson gen` makes it, with the benchmark's handlers and ports, started as `lamson start` does it; its database and its
    log are the default ones."""
    project = folder / "lamson"
    shutil.rmtree(project, ignore_errors=True)
    lamson = [python("lamson"), "-m", "lamson"]
    subprocess.run([*lamson, "gen", "-project", "lamson"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(HERE / "projects" / "lamson", project, dirs_exist_ok=True)
    port, settings = free_port(), project / "config" / "settings.py"
    text = settings.read_text().replace('"localhost", "port": 8823', f'"127.0.0.1", "port": {port}')
    settings.write_text(text.replace('"localhost", "port": 8825', f'"127.0.0.1", "port": {sink.port if sink else 9}'))
    with Detached([*lamson, "start", "-workers", str(workers)], [*lamson, "stop"], "run/smtp.pid", port, project) as server:
        yield server


@contextmanager
def salmon_project(folder: Path, sink: Sink | None = None, log: str = "DEBUG") -> Iterator[Server]:
    """Salmon with the same handlers, and a log that says as much as ours, or nothing of messages."""
    project = folder / "salmon"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(HERE / "projects" / "salmon", project)
    for name in ("logs", "run"):
        (project / name).mkdir()
    port = free_port()
    environ = {"BENCH_PORT": str(port), "BENCH_SINK": str(sink.port if sink else 9), "BENCH_LOG": log, "PYTHONWARNINGS": "ignore"}
    salmon = Path(python("salmon")).with_name("salmon")
    with Server([str(salmon), "start", "--no-daemon", "--boot", "config.boot"], port, project, environ) as server:
        yield server


# -- what is done with them


def loaded(server: Server, load: Load, messages: int) -> Sample:
    """The server, of one process, takes so many messages after a few that are not counted. It has a core for itself: else the kernel runs
    the clients that it wakes in its place, the more often the quicker it answers."""
    its, others = cores()
    server.keep_to(its)
    load.send(server.port, WARM_UP, others)
    cpu, began = server.cpu(), time.perf_counter()
    load.send(server.port, messages, others)
    return Sample(messages, time.perf_counter() - began, server.cpu() - cpu)


def at_program(name: str, framework: str, load: Load, messages: int, folder: Path) -> Sample:
    with program(name, framework, folder) as server:
        return loaded(server, load, messages)


def at_smtp_sink(load: Load, messages: int, folder: Path) -> Sample:
    with Sink(counting=False) as server:
        return loaded(server, load, messages)


def at_project(project: Callable[..., AbstractContextManager[Server]], load: Load, messages: int, folder: Path) -> Sample:
    with project(folder) as server:
        return loaded(server, load, messages)


def conversing(project: Callable[..., AbstractContextManager[Server]], messages: int, folder: Path) -> Sample:
    """Every message is answered, and the clock stops when the last answer is with the next server."""
    load = replace(PEOPLE, recipient="talk@test.com")
    with Sink() as sink, project(folder, sink=sink) as server:
        load.send(server.port, WARM_UP)
        sink.wait_for(WARM_UP)
        cpu, began = server.cpu(), time.perf_counter()
        load.send(server.port, messages)
        sink.wait_for(WARM_UP + messages)
        sample = Sample(messages, time.perf_counter() - began, server.cpu() - cpu)
        time.sleep(0.05)
        if sink.count != WARM_UP + messages:
            raise Failed(f"{sink.count - WARM_UP} answers to {messages} messages")
        return sample


def idle(name: str, framework: str, connections: int, folder: Path) -> Sample:
    """Memory while so many clients are connected, have said EHLO, and are silent."""
    with program(name, framework, folder) as server, ExitStack() as clients:
        cpu, began = server.cpu(), time.perf_counter()
        for _ in range(connections):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            client.recv(512)
            client.sendall(b"EHLO client.example\r\n")
            client.recv(512)
        return Sample(connections, time.perf_counter() - began, max(server.cpu() - cpu, 0.001), server.megabytes())


def work(program: str, framework: str, *words: object) -> Sample:
    """What a program of `programs/` says of its own work."""
    command = [python(framework), "-W", "ignore", str(HERE / "programs" / f"{program}.py"), *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise Failed(f"{program} {' '.join(map(str, words))[:80]}: {ran.stderr.strip()[-800:]}")
    told = json.loads(ran.stdout)
    if told.get("raised"):
        print(f"{framework} raised on {told['raised']} of {told['messages']} messages", file=sys.stderr)
    return Sample(told["messages"], told["seconds"], told["cpu"])


@contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """A folder in memory where that can be, so that what is measured is not the disk."""
    made = Path(tempfile.mkdtemp(prefix="lamson-bench-", dir=IN_MEMORY if IN_MEMORY.is_dir() else folder))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def matching(framework: str, routes: int, part: float, lookups: int, folder: Path) -> Sample:
    return work("work", framework, framework, "match", routes, max(10, int(lookups * part)))


def queueing(framework: str, times: float, messages: int, folder: Path) -> Sample:
    """Pushes and pops `times` as many messages."""
    with in_memory(folder) as place:
        return work("work", framework, framework, "queue", int(messages * times), place / "queue")


def reading(framework: str, mail: Sequence[Path], messages: int, folder: Path) -> Sample:
    files = [path for each in mail if each.is_dir() for path in message_files(each)]
    if not files:
        raise Missing(f"there is no mail in {', '.join(map(str, mail))}; name a folder with some: --mail FOLDER")
    return work("work", framework, framework, "read", *files[:: max(1, len(files) // messages)][:messages])


# -- the table

KEPT_2K, NEW_2K, KEPT_64K, PEOPLE = Load(), Load(kept=False), Load(octets=65536), Load(people=True)


def session_row(name: str, title: str, load: Load, messages: int, aims: Sequence[Aim]) -> Measure:
    fair = "All three throw the message away; nothing is stored and nothing routed."
    subjects: dict[str, Subject] = {
        "Lamson": partial(at_program, "session", "lamson", load),
        "aiosmtpd": partial(at_program, "aiosmtpd_empty", "aiosmtpd", load),
        "smtp-sink": partial(at_smtp_sink, load),
    }
    return Measure(Row(name, title, aims, fair), subjects, messages)


def measures(mail: Sequence[Path]) -> list[Measure]:
    """All rows, in the order of the table."""
    return [
        session_row("kept", "Session alone, 2 kB, kept connections", KEPT_2K, 20_000, [
            Aim("first", "Lamson", "aiosmtpd", 2.5), Aim("then", "Lamson", "aiosmtpd", 4), Aim("then", "Lamson", "smtp-sink", 0.5)]),
        session_row("new", "Session alone, 2 kB, a new connection each", NEW_2K, 8_000, [
            Aim("first", "Lamson", "aiosmtpd", 2), Aim("then", "Lamson", "aiosmtpd", 4)]),
        session_row("large", "Session alone, 64 kB, kept connections", KEPT_64K, 4_000, [
            Aim("first", "Lamson", "aiosmtpd", 5), Aim("then", "Lamson", "aiosmtpd", 8), Aim("then", "Lamson", "smtp-sink", 1)]),
        stateless_row(),
        conversation_row(),
        Measure(
            Row("read", "Read all headers and bodies of real mail", [
                Aim("first", "Lamson", "Salmon", 5), Aim("then", "Lamson", "Salmon", 10)],
                "The same program in both: all headers decoded, all parts, all bodies of a thousand messages of the SpamAssassin corpus. "
                "A message on which one raises counts as read."),
            {name: partial(reading, name.lower(), mail) for name in ("Lamson", "Salmon")}, 1_000),
        match_row(),
        queue_row(),
        Measure(
            Row("idle", "Memory with 1,000 idle connections", [Aim("first", "Lamson", None, 100)],
                "The whole process with its Python. Each client has said EHLO and is silent. A second: how quickly they were let in."),
            {"Lamson": partial(idle, "stateless", "lamson"), "aiosmtpd": partial(idle, "aiosmtpd_empty", "aiosmtpd")}, 1000),
    ]  # fmt: skip


def stateless_row() -> Measure:
    fair = (
        "Lamson and Salmon receive, make a request of the message, match its route and run a handler that does nothing; neither stores or "
        "logs anything. aiosmtpd only receives. `with receipts` is Lamson's default project: that the message was handled is committed to "
        "SQLite (WAL, synchronous=FULL) before the 250, and its way is logged."
    )
    aims = [Aim("first", "Lamson", "Salmon", 3.5), Aim("then", "Lamson", "Salmon", 5), Aim("then", "Lamson", "aiosmtpd", 2)]
    subjects: dict[str, Subject] = {
        "Lamson": partial(at_program, "stateless", "lamson", PEOPLE),
        "Lamson, with receipts": partial(at_project, lamson_project, PEOPLE),
        "Salmon": partial(at_project, partial(salmon_project, log="WARNING"), PEOPLE),
        "aiosmtpd": partial(at_program, "aiosmtpd_empty", "aiosmtpd", PEOPLE),
    }
    return Measure(Row("stateless", "Receive and route to a stateless handler, 2 kB", aims, fair), subjects, 20_000)


def conversation_row() -> Measure:
    fair = (
        "The same handlers and template; 20 people, each of whom waits for the 250 before the next message; every answer has arrived at "
        "smtp-sink when the clock stops. Lamson is the project that `lamson gen` makes: receipt, state and answer are committed to SQLite "
        "(WAL, synchronous=FULL) before the 250, and the answer is sent from its outbox. Salmon keeps states in a shelve that it never "
        "syncs, keeps no receipt, and sends the answer before its 250. Both log each message's way into a file, as generated."
    )
    aims = [
        Aim("first", "Lamson", "Salmon", 3),
        Aim("then", "Lamson", "Salmon", 5),
        Aim("then", "Lamson, -workers 2", "Salmon", 5),
    ]
    subjects: dict[str, Subject] = {
        "Lamson": partial(conversing, lamson_project),
        "Lamson, -workers 2": partial(conversing, partial(lamson_project, workers=2)),
        "Salmon": partial(conversing, salmon_project),
    }
    return Measure(Row("conversation", "Conversation: state, template, answer through the relay", aims, fair), subjects, 4_000)


def match_row() -> Measure:
    fair = (
        "The same program in both: half of the routes are told by the beginning of the address, half by its host; one address in ten fits "
        "none. All matches are asked for."
    )
    sizes = {10: 1.0, 1_000: 0.05, 10_000: 0.005}  # routes -> the part of the lookups that Salmon has time for
    subjects: dict[str, Subject] = {f"Lamson, {size:,} routes": partial(matching, "lamson", size, 1.0) for size in sizes}
    subjects |= {f"Salmon, {size:,} routes": partial(matching, "salmon", size, part) for size, part in sizes.items()}
    aims = [
        Aim("first", "Lamson, 1,000 routes", "Lamson, 10 routes", 0.67),
        Aim("then", "Lamson, 10,000 routes", "Lamson, 1,000 routes", 0.2),
        Aim("then", "Lamson, 1,000 routes", "Salmon, 1,000 routes", 10),
    ]
    return Measure(Row("match", "Match an address", aims, fair), subjects, 20_000, few=1000)


def queue_row() -> Measure:
    fair = (
        "The same program in both: pushes so many messages of 2 kB, then pops them all. Both sync each message; the Maildir lies in memory "
        "(/dev/shm), so that the queue is measured and not the disk. Lamson keeps the envelope beside each message; Salmon keeps none."
    )
    subjects: dict[str, Subject] = {
        "Lamson, 1,000": partial(queueing, "lamson", 1),
        "Lamson, 100,000": partial(queueing, "lamson", 100),
        "Salmon, 1,000": partial(queueing, "salmon", 1),
    }
    aims = [Aim("first", "Lamson, 100,000", "Lamson, 1,000", 0.67), Aim("then", "Lamson, 1,000", "Salmon, 1,000", 5)]
    return Measure(Row("queue", "Push and pop a Maildir queue", aims, fair), subjects, 1_000, few=20)


def only(measures: Sequence[Measure], names: Sequence[str]) -> list[Measure]:
    """Those of these names, or all when there are none. Raises KeyError for a name that no row has."""
    known = {measure.row.name: measure for measure in measures}
    return [known[name] for name in names] if names else list(measures)
