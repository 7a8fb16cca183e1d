"""Measures Lamson beside its peers and prints the table.

    benchmarks/run                      all rows, five rounds each: about fifteen minutes on a quiet machine with two cores
    benchmarks/run --quick              one round of few messages: does it all work? The figures mean nothing
    benchmarks/run --row conversation --runs 3
    benchmarks/run --curves             also how the cost grows with the work: ten minutes more
    benchmarks/run --check              fails when a ratio has fallen under three quarters of what was recorded
    benchmarks/run --record             keeps the figures for the next check, and writes them into docs/speed.md

`--record` keeps what was recorded of rows and curves that were not measured now; with `--runs 0` it only writes the page anew.

The status is 1 when a first aim is missed or the check fails, 2 for what could not be run.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import curves, page, results
from benchmarks.curves import Curve
from benchmarks.environment import ROOT
from benchmarks.results import Row
from benchmarks.rows import Measure, measures, only
from benchmarks.server import Failed

#: Real mail lies beside the repository, as for the tests, and is no part of it.
MAIL = [ROOT.parent / "shared" / "corpus" / kind for kind in ("ham", "spam")]


def arguments() -> argparse.Namespace:
    names = [measure.row.name for measure in measures([])]
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", default=[], choices=names, help="only this row; may be given several times")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="rounds of each row (5)")
    parser.add_argument("--quick", action="store_true", help="one round of few messages, and the first two points of each curve")
    parser.add_argument("--curves", nargs="*", metavar="NAME", help="measures the curves too: all, or these")
    parser.add_argument("--mail", type=Path, nargs="+", default=MAIL, metavar="FOLDER", help="real mail for the row `read`")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where servers keep their files: a disk of the kind that counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples into this file")
    parser.add_argument("--check", action="store_true", help="compares with what was recorded")
    parser.add_argument("--record", action="store_true", help="keeps the figures and writes the page")
    options = parser.parse_args()
    if options.quick and (options.record or options.check):
        parser.error("--quick gives no figures that are worth keeping or comparing; leave it out")
    return options


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


def raise_limit() -> None:
    """A thousand connections need more descriptors than shells give; the servers inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536) if most > 0 else 65536, most))


def measure_all(options: argparse.Namespace) -> tuple[list[Row], list[Curve]]:
    """Everything that was asked for, in a scratch folder that goes with it."""
    raise_limit()
    scratch = Path(tempfile.mkdtemp(prefix="lamson-bench-", dir=options.scratch))
    try:
        runs = min(1, options.runs) if options.quick else options.runs
        rows = measured(only(measures(options.mail), options.row), runs, options.quick, scratch) if runs else []
        lines = curves.measured(scratch, options.quick, options.curves, say) if options.curves is not None else []
        return rows, lines
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main() -> int:
    options = arguments()
    try:
        rows, lines = measure_all(options)
    except Failed as error:
        say(f"benchmarks: {error}")
        return 2
    before = page.load()
    now = page.merged(before, rows, lines)
    print("\n\n".join([results.aims_table(rows), results.figures_table(rows), results.notes(rows)]))
    if options.json:
        options.json.write_text(json.dumps(page.merged(page.NOTHING, rows, lines), indent=1) + "\n")
    if options.record:
        page.write([measure.row for measure in measures([])], now)
    complaints = results.fallen(rows, before["rows"]) if options.check else []
    for complaint in complaints:
        say(f"worse than recorded: {complaint}")
    missed = any(aim.stage == "first" and not aim.met(spread.median) for row in rows for aim, spread in row.verdicts())
    return 1 if complaints or (missed and not options.quick) else 0


if __name__ == "__main__":
    sys.exit(main())
