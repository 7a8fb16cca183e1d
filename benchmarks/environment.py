"""What the benchmarks need beside Lamson: Postfix's test programs, and an environment of its own for each peer from PyPI.

The environments lie beside `.venv-check` in folders that git ignores. What cannot be had is a `Missing` that says what to install; rows
that need it are left out and named.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"

#: Peer -> what pip installs for it. Salmon leaves the choice of a template library to its users.
PEERS = {"aiosmtpd": ["aiosmtpd"], "salmon": ["salmon-mail", "jinja2"]}
#: Salmon's receiver stands on the standard library's smtpd, which Python 3.12 has no more.
NEWEST = {"salmon": (3, 11)}


class Missing(Exception):
    """A program or a package that is not here; the text says what to do."""


def program(name: str) -> str:
    """The path of one of Postfix's test programs. Raises Missing."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        raise Missing(f"{name} is not installed; on Debian and Ubuntu: sudo apt install postfix")
    return path


def python(framework: str) -> str:
    """The interpreter in which this framework is measured: our own for Lamson, the peer's environment otherwise. Raises Missing."""
    return sys.executable if framework == "lamson" else str(_environment(framework) / "bin" / "python")


@cache
def _environment(peer: str) -> Path:
    folder = ROOT / f".venv-{peer}"
    if not (folder / "installed").exists():
        print(f"Making {folder.name} for {peer} ...", file=sys.stderr, flush=True)
        _run(_base_python(peer), "-m", "venv", "--clear", folder)
        _run(folder / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", *PEERS[peer])
        (folder / "installed").touch()
    return folder


def _base_python(peer: str) -> str:
    newest = NEWEST.get(peer)
    if newest is None or sys.version_info[:2] <= newest:
        return sys.executable
    name = "python{}.{}".format(*newest)
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{peer} needs {name}, which is not installed")
    return found


def _run(*command: object) -> None:
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if ran.returncode:
        raise Missing(f"{' '.join(map(str, command))} failed: {ran.stderr.strip()[-500:]}")


def versions() -> dict[str, str]:
    """What was measured, for the record. A peer without an environment is left out."""
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    found = {"python": "{}.{}.{}".format(*sys.version_info)}
    for framework, package in (("lamson", "lamson"), ("aiosmtpd", "aiosmtpd"), ("salmon", "salmon-mail")):
        try:
            ran = subprocess.run([python(framework), "-c", code, package], capture_output=True, text=True)
        except Missing:
            continue
        found[framework] = ran.stdout.strip()
    return found
