"""The programs from the command line: what `run` of each takes is its options."""

from __future__ import annotations

import argparse
import importlib
import inspect
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.faults.figures import Broken, Figures, show

#: Module -> the forms that `all` runs.
PROGRAMS: Mapping[str, list[dict[str, Any]]] = {
    "kill": [{}, {"workers": 2}, {"database": "postgresql"}, {"database": "postgresql", "workers": 2}, {"database": "mariadb"}],
    "relay_gone": [{}],
    "database_gone": [{}, {"database": "postgresql"}, {"database": "mariadb"}],
    "race": [{}, {"database": "postgresql"}, {"database": "mariadb"}],
    "disk_order": [{"database": kind} for kind in ("sqlite", "maildir", "postgresql", "mariadb")],
    "disk_errors": [{"call": call, "error": error} for call in ("fdatasync", "pwrite64", "fsync", "rename") for error in ("EIO", "ENOSPC")],
    "hang": [{}, *({"database": kind, "when": when} for kind in ("postgresql", "mariadb") for when in ("before", "after"))],
    "lines": [{}],
    "idle": [{}],
    "smuggling": [{}],
    "automatic": [{}],
    "again": [{}],
    "addresses": [{}],
    "templates": [{}],
    "power": [{}],
    "large": [{}, {"database": "postgresql"}, {"database": "mariadb"}],
    "disk_full": [{"what": "queue"}, {"what": "database"}, {"what": "log"}],
}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that servers are ended, too
    parser = argparse.ArgumentParser("python -m tests.faults", description="Faults on purpose, and what became of the mail.")
    commands = parser.add_subparsers(dest="program", required=True)
    commands.add_parser("all", help="every program, in full")
    for name in PROGRAMS:
        add_options(commands.add_parser(name, help=first_line(name)), program(name))
    given = vars(parser.parse_args())
    name = given.pop("program")
    forms = [(each, form) for each, forms in PROGRAMS.items() for form in forms] if name == "all" else [(name, given)]
    failed = [each for each, form in forms if not well(each, form)]
    sys.exit(f"not well: {', '.join(failed)}" if failed else 0)


def program(name: str) -> Callable[..., Figures]:
    run: Callable[..., Figures] = importlib.import_module(f"tests.faults.{name}").run
    return run


def first_line(name: str) -> str:
    return (importlib.import_module(f"tests.faults.{name}").__doc__ or "").split("\n")[0].replace("%", "%%")


def add_options(parser: argparse.ArgumentParser, run: Callable[..., Figures]) -> None:
    for name, parameter in inspect.signature(run).parameters.items():
        default = parameter.default
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")


def well(name: str, form: dict[str, Any]) -> bool:
    """Runs one program and shows its figures."""
    began = time.monotonic()
    title = " ".join([name, *(f"--{option} {value}" for option, value in form.items())])
    try:
        figures = program(name)(**form)
    except Broken as broken:
        show(f"{title}: BROKEN", {"why": broken})
        return False
    except pytest.skip.Exception as why:
        show(f"{title}: skipped", {"why": why})
        return True
    show(f"{title}: as promised, in {time.monotonic() - began:.0f} s", figures)
    return True


if __name__ == "__main__":
    main()
