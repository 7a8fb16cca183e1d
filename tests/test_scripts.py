"""`./demo` and `./check` on machines that lack something: each says what, and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("demo", "check", "examples/osb/demo")

#: What every POSIX system has and the scripts use.
COREUTILS = ("sh", "basename", "dirname", "cat", "cksum")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The only folder on the PATH of a machine that has no Python yet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in COREUTILS:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(script: str, machine: Path, **variables: str) -> str:
    """What the script says on standard error; it must end with status 1 and make nothing."""
    ran = subprocess.run([ROOT / script], env={"PATH": str(machine), **variables}, capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stdout) == (1, "")
    return ran.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_python(script: str, machine: Path) -> None:
    assert run(script, machine).startswith(f"{Path(script).name}: Lamson needs Python 3.11 or newer")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_that_is_too_old_is_named(script: str, machine: Path) -> None:
    program(machine / "python3", 'case "$1" in --version) echo Python 3.9.18;; *) exit 1;; esac')
    told = run(script, machine)
    assert "python3 is Python 3.9.18" in told
    assert f"PYTHON=/path/to/python3.12 ./{Path(script).name}" in told


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_without_venv_names_the_package(script: str, machine: Path) -> None:
    program(machine / "python3", f'case "$*" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"')
    assert f"sudo apt install python{sys.version_info.major}.{sys.version_info.minor}-venv" in run(script, machine)


def test_a_newer_python_beside_an_old_one_is_found(machine: Path) -> None:
    program(machine / "python3", "exit 1")
    program(machine / "python3.12", f'exec {sys.executable} "$@"')
    find = ["sh", "-c", ". scripts/setup.sh; find_python"]
    found = subprocess.check_output(find, cwd=ROOT, env={"PATH": str(machine)}, text=True)
    assert found.strip() == str(machine / "python3.12")


def test_the_named_python_is_taken(machine: Path) -> None:
    program(machine / "python3", f'exec {sys.executable} "$@"')
    assert "/nowhere/python is not to be run" in run("check", machine, PYTHON="/nowhere/python")


def test_the_scripts_can_be_run() -> None:
    assert [name for name in (*SCRIPTS, ".ci/run") if not os.access(ROOT / name, os.X_OK)] == []
