"""What is recorded of a run, and the page that shows it: `recorded.json`, and the part of docs/speed.md between its two marks."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import environment, results
from benchmarks.curves import Curve
from benchmarks.environment import HERE, ROOT
from benchmarks.results import Row, Sample

RECORDED = HERE / "recorded.json"
PAGE = ROOT / "docs" / "speed.md"
PICTURE = ROOT / "docs" / "speed.svg"
NOTHING: Mapping[str, Any] = {"about": {}, "rows": {}, "curves": {}}
BEGIN, END = "<!-- made by benchmarks/run --record -->\n", "<!-- until here -->\n"


def load() -> dict[str, Any]:
    """What was recorded; nothing, if nothing was."""
    found: dict[str, Any] = json.loads(RECORDED.read_text("utf-8")) if RECORDED.exists() else {}
    return {**NOTHING, **found}


def merged(before: Mapping[str, Any], rows: Sequence[Row], curves: Sequence[Curve]) -> dict[str, Any]:
    """What was recorded, with what was measured now in the place of its like."""
    return {
        "about": about() if rows or curves else before["about"],
        "rows": {**before["rows"], **results.to_json(rows)},
        "curves": {**before["curves"], **{curve.name: curve.plain() for curve in curves}},
    }


def about() -> dict[str, str]:
    """Where and with what it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions().items())
    machine = f"{os.cpu_count()} cores, {_processor()}, Linux {platform.release().partition('-')[0]}"
    return {"day": time.strftime("%d %B %Y"), "machine": machine, "versions": versions}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def with_samples(rows: Sequence[Row], recorded: Mapping[str, Any]) -> list[Row]:
    """The rows, each with the samples that were recorded of it; without those of which none were."""
    for row in rows:
        rounds = recorded["rows"].get(row.name, {}).get("rounds", [])
        row.rounds = [{subject: Sample(**sample) for subject, sample in each.items()} for each in rounds]
    return [row for row in rows if row.rounds]


def table(rows: Sequence[Row], recorded: Mapping[str, Any]) -> str:
    """The part of the page that the benchmarks write."""
    said = recorded["about"]
    where = f"Measured on {said['day']} in {_rounds(rows)}: {said['machine']}; {said['versions']}." if said else ""
    tables = [results.aims_table(rows), results.figures_table(rows)]
    return "\n\n".join([f"\n{where}", *tables, "How fair each row is:", results.notes(rows), ""])


def _rounds(rows: Sequence[Row]) -> str:
    """How many there were, and of which rows there were more."""
    fewest = min((len(row.rounds) for row in rows), default=0)
    more = [f"{row.title}: {len(row.rounds)}" for row in rows if len(row.rounds) > fewest]
    return f"{fewest} rounds" + (f" ({'; '.join(more)})" if more else "")


def write(rows: Sequence[Row], recorded: Mapping[str, Any]) -> None:
    """Keeps what is recorded, and writes page and picture."""
    RECORDED.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", "utf-8")
    head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}{table(with_samples(rows, recorded), recorded)}{END}{tail}", "utf-8")
    if recorded["curves"]:
        from benchmarks import drawing  # matplotlib, which only this needs

        PICTURE.write_text(drawing.svg(recorded["curves"]), "utf-8")
