"""Measures Lamson beside its peers and prints the table.

    benchmarks/run                      all rows, five rounds each: about fifteen minutes on a quiet machine with two cores
    benchmarks/run --quick              one round of few messages: does it all work? The figures mean nothing
    benchmarks/run --row conversation --runs 3
    benchmarks/run --check              fails when a ratio has fallen under three quarters of what was recorded

The status is 1 when a first aim is missed or the check fails, 2 for what could not be run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import environment, results
from benchmarks.environment import HERE, ROOT
from benchmarks.results import Row
from benchmarks.rows import Measure, measures, only
from benchmarks.server import Failed

RECORDED = HERE / "recorded.json"
#: Real mail lies beside the repository, as for the tests, and is no part of it.
MAIL = ROOT.parent / "shared" / "corpus"


def arguments() -> argparse.Namespace:
    names = [measure.row.name for measure in measures(None)]
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", default=[], choices=names, help="only this row; may be given several times")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="rounds of each row (5)")
    parser.add_argument("--quick", action="store_true", help="one round of few messages")
    parser.add_argument("--mail", type=Path, default=MAIL, metavar="FOLDER", help="real mail for the row `read`")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where servers keep their files: a disk of the kind that counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples into this file")
    parser.add_argument("--check", action="store_true", help="compare with what was recorded")
    return parser.parse_args()


def measured(wanted: list[Measure], runs: int, quick: bool, scratch: Path) -> list[Row]:
    """Runs the rows, a round at a time, and says how far it is on stderr."""
    for measure in wanted:
        began = time.monotonic()
        for number in range(runs):
            say(f"{measure.row.title}: round {number + 1} of {runs}")
            measure.round(number, scratch, quick)
        say(f"{measure.row.title}: {time.monotonic() - began:.0f} s")
    return [measure.row for measure in wanted]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def record(rows: list[Row]) -> dict[str, Any]:
    """What a file of results holds."""
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.release()}
    return {"versions": environment.versions(), "machine": machine, "rows": results.to_json(rows)}


def raise_limit() -> None:
    """A thousand connections need more descriptors than shells give; the servers inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536) if most > 0 else 65536, most))


def main() -> int:
    options = arguments()
    raise_limit()
    scratch = Path(tempfile.mkdtemp(prefix="lamson-bench-", dir=options.scratch))
    try:
        rows = measured(only(measures(options.mail), options.row), 1 if options.quick else options.runs, options.quick, scratch)
    except Failed as error:
        say(f"benchmarks: {error}")
        return 2
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print("\n\n".join([results.figures_table(rows), results.aims_table(rows), results.notes(rows)]))
    if options.json:
        options.json.write_text(json.dumps(record(rows), indent=1) + "\n")
    complaints = results.fallen(rows, json.loads(RECORDED.read_text())["rows"]) if options.check else []
    for complaint in complaints:
        say(f"worse than recorded: {complaint}")
    missed = any(aim.stage == "first" and not aim.met(spread.median) for row in rows for aim, spread in row.verdicts())
    return 1 if complaints or (missed and not options.quick) else 0


if __name__ == "__main__":
    sys.exit(main())
