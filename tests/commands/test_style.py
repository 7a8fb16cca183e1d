"""How options are written, what wrong use says, and that the table of the README's commands is the program's."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lamson.commands import COMMANDS
from tests.commands.conftest import Type
from tests.cost import fastest

WANTED = {
    *("help", "gen", "start", "stop", "restart", "status", "log", "send", "sendmail", "routes", "queue", "blast", "cleanse", "web"),
    *("states", "db", "outbox", "spam", "version"),
}


def test_the_commands() -> None:
    assert set(COMMANDS) == WANTED


@pytest.mark.parametrize("words", [[], ["help"], ["-help"], ["--help"], ["-h"]])
def test_the_list(lamson: Type, words: list[str]) -> None:
    done = lamson(*words)
    assert done.status == 0
    listed = [line.split()[0] for line in done.out.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_explained(lamson: Type, name: str) -> None:
    explained = lamson("help", "-for", name)
    assert explained.status == 0, explained.err
    assert f"lamson {name}" in explained.out
    assert lamson(name, "--help") == lamson(name, "-help") == explained


@pytest.mark.parametrize("words", [["-for", "send"], ["--for", "send"], ["-for=send"], ["--for=send"], ["send"]])
def test_an_option_may_be_spelt_either_way(lamson: Type, words: list[str]) -> None:
    assert "-starttls" in lamson("help", *words).out


def test_help_names_each_option_with_one_dash(lamson: Type) -> None:
    shown = lamson("help", "-for", "send").out
    for name in ["port", "host", "username", "password", "ssl", "starttls", "lmtp", "debug", "sender", "to", "subject", "body", "attach"]:
        assert f"  -{name}" in shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["strat"], "lamson: There is no command 'strat'. Did you mean `lamson start`? See: lamson help\n"),
        (["Send"], "lamson: There is no command 'Send'. Did you mean `lamson send`? See: lamson help\n"),
        (["xyzzy"], "lamson: There is no command 'xyzzy'. See: lamson help\n"),
        (["help", "-for", "strat"], "lamson help: There is no command 'strat'. Did you mean `lamson start`? See: lamson help -for help\n"),
        (["gen"], "lamson gen: Missing option -project. See: lamson help -for gen\n"),
        (["gen", "-project"], "lamson gen: Option '-project' requires an argument. See: lamson help -for gen\n"),
        (["gen", "-force"], "lamson gen: There is no option -force. Did you mean -FORCE? See: lamson help -for gen\n"),
        (["gen", "-Project", "x"], "lamson gen: There is no option -Project. Did you mean -project? See: lamson help -for gen\n"),
        (["gen", "-project", "x", "-FORCE", "yes"], "'yes' is not one of 'True', 'False'. See: lamson help -for gen\n"),
        (["gen", "-project", "x", "-FORCE", "true"], "'true' is not one of 'True', 'False'. See: lamson help -for gen\n"),
        (["web", "-port", "many"], "lamson web: Invalid value for -port: 'many' is not a valid integer range. See: lamson help -for web\n"),
        (["start", "-umask", "9"], "lamson start: Invalid value for -umask: '9' is no octal number; write 077 or 022."),
        (["version", "extra"], "lamson version: Got unexpected extra argument"),
    ],
)
def test_wrong_use(lamson: Type, run_folder: Path, words: list[str], complaint: str) -> None:
    done = lamson(*words)
    assert done.status == 2
    assert done.err.count("\n") == 1, "one line"
    assert complaint in done.err
    assert done.out == ""


def test_an_error_of_the_system_is_one_line(lamson: Type, run_folder: Path) -> None:
    Path("file").touch()
    done = lamson("gen", "-project", "file", "-FORCE")
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith("lamson gen: ")


def test_version(lamson: Type) -> None:
    done = lamson("version")
    assert done.out.splitlines()[0].startswith("Lamson 2.")
    assert f"Python {sys.version.split()[0]}" in done.out
    assert "BSD-3-Clause" in done.out
    assert lamson("--version") == done


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lamson", *words], capture_output=True, text=True)


def test_as_a_module() -> None:
    assert run("version").stdout.startswith("Lamson ")
    assert run("strat").returncode == 2


def test_a_reader_that_has_read_enough() -> None:
    done = subprocess.run(f"{sys.executable} -m lamson help | true", shell=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["send", "sendmail", "version", "help", "gen", "web", "stop", "status"])
def test_a_command_that_needs_no_database_does_not_wait_for_one(name: str) -> None:
    program = f"import sys; from lamson.commands import main; main(['help', '-for', '{name}']); print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_quick_command_is_quick() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("version")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert fastest(seconds, 2) < 2, "it takes a tenth of a second on an idle machine"
