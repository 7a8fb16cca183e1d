"""How the cost grows with the work: each curve is measured at several sizes, once, and drawn by `drawing`.

One measurement a size: what is looked for is the shape, and a line that bends shows over orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import rows
from benchmarks.environment import Missing
from benchmarks.load import Load, Sink
from benchmarks.results import Sample

Point = tuple[float, float]
#: Size, scratch folder -> the figure there.
Probe = Callable[[int, Path], float]

MB = 1_000_000


@dataclass
class Curve:
    """One picture. `sizes` are where each line is measured; `within` has first and last of a line that is not measured at all of them."""

    name: str
    title: str
    x: str
    y: str
    sizes: Sequence[int]
    lines: dict[str, Probe]
    within: dict[str, tuple[int, int]] = field(default_factory=dict)
    y_log: bool = True
    found: dict[str, list[Point]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def measure(self, folder: Path, quick: bool, say: Callable[[str], None]) -> None:
        """Measures all lines; with `quick` at the first two sizes."""
        for line, probe in self.lines.items():
            try:
                for size in self._sizes(line)[: 2 if quick else None]:
                    say(f"{self.title}: {line}, {size:,}")
                    self.found.setdefault(line, []).append((size, probe(size, folder)))
            except Missing as why:
                self.missing[line] = str(why)

    def _sizes(self, line: str) -> list[int]:
        first, last = self.within.get(line, (self.sizes[0], self.sizes[-1]))
        return [size for size in self.sizes if first <= size <= last]

    def plain(self) -> dict[str, Any]:
        """For the file of results."""
        return {"title": self.title, "x": self.x, "y": self.y, "y_log": self.y_log, "lines": self.found}


def microseconds(sample: Sample) -> float:
    """CPU time for each, which a busy machine changes less than the time of day."""
    return sample.cpu / sample.messages * 1e6


# -- the probes


def matching(framework: str, routes: int, folder: Path) -> float:
    lookups = 20_000 if framework == "lamson" else max(20, 20_000 // routes)
    return microseconds(rows.matching(framework, routes, 1.0, lookups, folder))


def queueing(framework: str, messages: int, folder: Path) -> float:
    return microseconds(rows.queueing(framework, 1, messages, folder))


def growing(what: str, size: int, folder: Path) -> float:
    with rows.in_memory(folder) as place:
        return microseconds(rows.work("growth", "lamson", what, size, place))


def receiving(name: str, framework: str, clients: int, folder: Path) -> float:
    load, messages = Load(clients=clients), max(10_000, 5 * clients)
    return rows.at_program(name, framework, load, messages, folder).rate


def peak_received(octets: int, folder: Path) -> float:
    """Megabytes at the highest, beyond what the idle process has, while one message is received and thrown away."""
    with rows.program("stateless", "lamson", folder) as server:
        Load(clients=1).send(server.port, 5)
        before = server.megabytes("VmHWM")
        Load(octets=octets, clients=1).send(server.port, 1)
        return server.megabytes("VmHWM") - before


def peak_forwarded(octets: int, folder: Path) -> float:
    """The same while it is committed to the database and handed on to the next server."""
    load = Load(clients=1, recipient="forward@test.com")
    with Sink() as sink, rows.lamson_project(folder, sink=sink) as server:
        load.send(server.port, 5)
        sink.wait_for(5)
        before = server.megabytes("VmHWM")
        replace(load, octets=octets).send(server.port, 1)
        sink.wait_for(6)
        return server.megabytes("VmHWM") - before


def conversing(workers: int, folder: Path) -> float:
    return rows.conversing(partial(rows.lamson_project, workers=workers), 2_000, folder).rate


# -- the curves


def powers(first: int, last: int) -> list[int]:
    """1, 10, 100, ... from the first to the last."""
    found = [first]
    while found[-1] < last:
        found.append(found[-1] * 10)
    return found


def all_curves() -> list[Curve]:
    """In the order of the picture."""
    each = "µs of CPU for each"
    return [
        Curve("routes", "Matching an address", "routes", each, powers(10, 10_000),
              {"Lamson": partial(matching, "lamson"), "Salmon": partial(matching, "salmon")}),
        Curve("senders", "Reading and moving a state", "senders in the table", each, powers(1, 1_000_000),
              {"Lamson": partial(growing, "states")}),
        Curve("queue", "Pushing and popping", "messages in the queue", each, powers(1, 100_000),
              {"Lamson": partial(queueing, "lamson"), "Salmon": partial(queueing, "salmon")}, within={"Salmon": (10, 1_000)}),
        Curve("outbox", "Sending from the outbox", "rows in the outbox", each, [0, *powers(10, 100_000)],
              {"all due": partial(growing, "due"), "500 due, the rest later": partial(growing, "later")},
              within={"all due": (100, 100_000)}),
        Curve("size", "Memory for one message", "size of the message, MB", "MB at the highest, beyond idle",
              [1_000, 1 * MB, 3 * MB, 10 * MB, 20 * MB, 30 * MB],
              {"received": peak_received, "committed and handed on": peak_forwarded}, y_log=False),
        Curve("connections", "Receiving 2 kB", "connections", "messages a second", [1, 3, 10, 30, 100, 300, 1_000],
              {"Lamson": partial(receiving, "session", "lamson"), "aiosmtpd": partial(receiving, "aiosmtpd_empty", "aiosmtpd")},
              y_log=False),
        Curve("workers", "Conversations", "workers", "messages a second", [1, 2], {"Lamson": conversing}, y_log=False),
    ]  # fmt: skip


def measured(folder: Path, quick: bool, names: Iterable[str], say: Callable[[str], None]) -> list[Curve]:
    """All curves, or those of these names."""
    wanted = set(names)
    found = [curve for curve in all_curves() if not wanted or curve.name in wanted]
    for curve in found:
        curve.measure(folder, quick, say)
    return found
