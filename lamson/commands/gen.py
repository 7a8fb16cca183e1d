"""`lamson gen`: a new project, copied from the plain files of `lamson/data/prototype`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

import click

from lamson.commands.style import command, option, switch
from lamson.errors import ConfigError

#: What a project may be called: it becomes the name of a directory and nothing else.
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@command("gen")
@option("project", "The new project's name, which becomes its directory.", metavar="NAME", required=True)
@switch("FORCE", "Fills what is missing in a directory that exists.")
def gen(project: str, force: bool) -> None:
    """Makes a new project in the directory NAME. A file that exists is never overwritten."""
    if not SAFE_NAME.fullmatch(project):
        raise ConfigError(f"{project!r} cannot be a project's name. Use letters, digits, _ . - and begin with a letter or digit")
    if os.path.lexists(project) and not force:
        raise ConfigError(f"{project} exists. Choose another name, or fill what is missing in it: lamson gen -project {project} -FORCE")
    kept = [path for path, source in prototype() if not write_new(os.path.join(project, path), source)]
    for path in kept:
        click.echo(f"Kept {os.path.join(project, path)}, which was there.")
    click.echo(f"Made {project}. How to go on:\n\n  cd {project}\n  lamson start\n  lamson log\n  less README")


def prototype() -> Iterator[tuple[str, Traversable]]:
    """The files of the prototype, each with its path in the project."""
    return below(files("lamson").joinpath("data", "prototype"), "")


def below(folder: Traversable, inside: str) -> Iterator[tuple[str, Traversable]]:
    """The files below a folder, without what running Python or a test leaves there."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = os.path.join(inside, entry.name)
        if entry.is_file() and not entry.name.endswith(".pyc"):
            yield path, entry
        elif entry.is_dir() and entry.name not in ("__pycache__", ".pytest_cache"):
            yield from below(entry, path)


def write_new(path: str, source: Traversable) -> bool:
    """Writes the file unless it exists. Returns whether it did."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(path, "xb") as file:
            file.write(source.read_bytes())
    except FileExistsError:
        return False
    return True
