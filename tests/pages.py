"""Runs what a page shows, block by block, as a reader would do it.

A block says by its language and its first line what it is:

    ```python, first line `# path`     a file of the project, written whole; of config/settings.py only the lines that it names are changed
    ```python, otherwise               a fragment, which must compile
    ```jinja, first line `{# path #}`  a template, written whole
    ``` without a language             commands, each run to its end in the folder that the reader is in
    ```text                            what the last command says: each line in order, `...` for anything

The ports of a project are free ones, and stand in for the usual ones wherever these are typed or shown.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.test_project import free_ports

#: Where the programs of this Python are, `lamson` among them.
BIN = Path(sys.executable).parent
#: What installs Lamson is not run again: the tests run in what it made.
INSTALLING = ("python3 -m venv", ". .venv/bin/activate", "pip install")
#: Commands that only look, so that a test may look again until mail has come.
LOOKING = ("cat ", "lamson queue", "lamson states", "lamson outbox", "lamson status")
PATIENCE = 20.0
#: The files of a new project that show how it is done.
SAMPLE = ("app/handlers/sample.py", "app/templates/welcome.msg", "tests/handlers/sample_tests.py", "tests/templates/welcome_tests.py")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: where it begins in the page."""

    language: str
    text: str
    line: int

    @property
    def path(self) -> str | None:
        """The file that it is, by its first line."""
        found = re.match(r"(?:# |\{# )([\w./-]+\.\w+)(?: #\})?\n", self.text)
        return found.group(1) if found else None


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(found[1], found[2], text[: found.start()].count("\n") + 1) for found in fences]


class Reader:
    """Somebody who types what a page says, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""
        self.typed = ""
        self.failed = False
        self.handlers: list[str] | None = None  # None: the page itself says which handlers there are
        self.ports: dict[str, str] = {}
        self.servers: list[Path] = []

    def begin_project(self) -> None:
        """A project without the sample, for pages that do not make one."""
        for command in ("lamson gen -project mymailserver", "cd mymailserver", f"rm {' '.join(SAMPLE)}"):
            self.type(command)
        self.handlers = []

    def follow(self, page: Path) -> None:
        for block in blocks(page):
            try:
                self.do(block)
            except AssertionError as error:
                raise AssertionError(f"{page.name}, line {block.line}: {error}") from None
        self.check_status()

    def do(self, block: Block) -> None:
        if block.path is not None:
            self.write(block.path, block.text)
        elif block.language == "python":
            compile(block.text, "a page", "exec")
        elif block.language == "":
            for command in block.text.replace("\\\n", " ").splitlines():
                self.type(command)
        elif block.language == "text":
            self.see(block.text)

    # -- files

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        assert file.parent.is_dir(), f"there is no folder for {path}"
        file.write_text(changed(file.read_text("utf-8"), text) if path == "config/settings.py" else text, "utf-8")
        if self.handlers is not None and file.parent.name == "handlers" and path.startswith("app/"):
            self.handlers.append(f"app.handlers.{file.stem}")
            self.write("config/settings.py", f"handlers = {self.handlers!r}\n")

    # -- commands

    def type(self, command: str) -> None:
        if command.startswith(INSTALLING):
            return
        self.check_status()
        self.typed = command
        words = shlex.split(self.with_ports(command))
        if words[0] == "less":
            words[0] = "cat"
        if words[0] == "mutt":  # has a test of its own, with a terminal
            assert (self.folder / words[-1]).is_file()
            return
        if words[0] == "cd":
            self.folder = (self.folder / words[1]).resolve()
            return
        if words[:2] == ["lamson", "log"]:
            words += ["-port", self.ports["8825"]]
        ran = self.run(words)
        self.said = self.with_usual_ports(ran.stdout + ran.stderr)
        self.failed = ran.returncode != 0
        if words[:2] == ["lamson", "gen"]:
            self.choose_ports(self.folder / words[words.index("-project") + 1])

    def check_status(self) -> None:
        """A command may fail only where the page shows what it says."""
        assert not self.failed, f"`{self.typed}` failed:\n{self.said}"

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "COLUMNS": "200"}
        settings = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(words, cwd=self.folder, env=environment, **settings)

    def see(self, shown: str) -> None:
        self.failed = False
        deadline = time.monotonic() + PATIENCE
        while not matches(shown, self.said):
            again = self.typed.startswith(LOOKING) and time.monotonic() < deadline
            assert again, f"`{self.typed}` says otherwise:\n{self.said}"
            time.sleep(0.05)
            self.type(self.typed)
            self.failed = False

    # -- servers

    def choose_ports(self, project: Path) -> None:
        self.servers.append(project)
        self.ports = dict(zip(("8823", "8825"), map(str, free_ports(2)), strict=True))
        for name in ("config/settings.py", "muttrc"):
            (project / name).write_text(self.with_ports((project / name).read_text("utf-8")), "utf-8")

    def stop(self) -> None:
        """Stops what still runs."""
        for project in self.servers:
            if list((project / "run").glob("*.pid")):
                self.folder = project
                self.run(["lamson", "stop", "-ALL", "run"])

    def with_ports(self, text: str) -> str:
        return replaced(text, self.ports)

    def with_usual_ports(self, text: str) -> str:
        return replaced(text, {own: usual for usual, own in self.ports.items()})


def replaced(text: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def changed(settings: str, block: str) -> str:
    """The settings with the assignments of the block in the place of theirs; new ones at the end."""
    for name, assignment in assignments(block):
        old = re.compile(rf"^{name} = .*\n", re.MULTILINE)
        settings = old.sub(lambda _, new=assignment: new, settings) if old.search(settings) else settings + assignment
    return settings


def assignments(block: str) -> Iterator[tuple[str, str]]:
    for found in re.finditer(r"^(\w+) = .*\n(?:[ \t}\])].*\n)*", block, re.MULTILINE):
        yield found[1], found[0]


def matches(shown: str, said: str) -> bool:
    """Each line that is shown stands in what was said, in order; a line of dots alone for any lines."""
    at = 0
    lines = [line.rstrip() for line in said.splitlines()]
    for wanted in filter(None, (line.rstrip() for line in shown.splitlines() if line.strip() != "...")):
        pattern = re.compile(".*".join(map(re.escape, wanted.split("..."))))
        at = next((number + 1 for number in range(at, len(lines)) if pattern.fullmatch(lines[number])), -1)
        if at < 0:
            return False
    return True
