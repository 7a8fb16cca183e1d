"""What a process asked of the kernel, read from strace: system calls with the order in which they began and ended."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import IN_CI, find_program

_LINE = re.compile(r"(?P<tid>\d+) +(?P<text>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<more>.*)")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call. `began`, `ended`: lines of the trace. `injected`: it did not happen, strace made it fail."""

    tid: int
    name: str
    arguments: str
    result: int
    injected: bool
    began: int
    ended: int

    @property
    def failed(self) -> bool:
        return self.result < 0

    def on(self, path: str) -> bool:
        """Whether it was called on a file, or a socket, whose path has this in it."""
        return path in self.arguments


def wrapper(out: Path, calls: str, inject: Sequence[str] = ()) -> list[str]:
    """The command that goes before another to have its `calls` traced into `out`. Skips where strace cannot trace."""
    strace = tracer()
    errors = [word for each in inject for word in ("-e", f"inject={each}")]
    return [strace, "-f", "-y", "-s", "160", "-o", str(out), "-e", f"trace={calls}", *errors]


@cache
def tracer() -> str:
    strace = find_program("strace")
    tried = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        (pytest.fail if IN_CI else pytest.skip)(f"strace cannot trace here: {tried.stderr.strip()[:200]}")
    return strace


def read(out: Path) -> list[Call]:
    """The calls that have ended, in the order in which they ended."""
    calls: list[Call] = []
    begun: dict[int, tuple[int, str]] = {}
    for number, line in enumerate(out.read_text("utf-8", "replace").splitlines()):
        found = _LINE.fullmatch(line)
        if not found:
            continue
        tid, text, began = int(found["tid"]), found["text"], number
        if text.endswith("<unfinished ...>"):
            begun[tid] = (number, text.removesuffix("<unfinished ...>").rstrip())
            continue
        resumed = _RESUMED.fullmatch(text)
        if resumed:
            began, start = begun.pop(tid, (number, f"{resumed['name']}("))
            text = start + resumed["rest"]
        call = _CALL.fullmatch(text)
        if call and call["result"] != "?":
            injected = "(INJECTED)" in call["more"]
            calls.append(Call(tid, call["name"], call["arguments"], int(call["result"]), injected, began, number))
    return calls
