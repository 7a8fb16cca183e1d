"""Writes docs/commands.md from the commands themselves: `python scripts/write_commands.py`. A test fails while the page is older."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from lamson.commands import COMMANDS, lamson
from lamson.commands.style import Option

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"

OPENING = """\
# The command line

Everything is a command with options: `lamson COMMAND -option value`. `--option value` means the same. A switch stands alone, or has
`True` or `False` behind it. `lamson help` lists the commands, `lamson help -for COMMAND` tells what this page does.

A command that fails says why in one line and ends with status 1; one that is called wrongly ends with status 2. Most of them are called in
a project's directory.

<!-- Written by scripts/write_commands.py: change the commands and run it, not this page. -->
"""


def page() -> str:
    context = click.Context(lamson, info_name="lamson", **lamson.context_settings)
    return "\n".join([OPENING, *(line for name in COMMANDS for line in section(name, context))])


def section(name: str, parent: click.Context) -> Iterator[str]:
    command = lamson.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)  # click keeps the help option of the first
    yield f"## lamson {name}\n"
    yield "```\n" + command.get_usage(context).removeprefix("Usage: ") + "\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    options = [each for each in command.params if isinstance(each, Option)]
    if options:
        yield "| option | default | |\n|---|---|---|"
        yield from (row(each, context) for each in options)
        yield ""


def row(option: Option, context: click.Context) -> str:
    written, _ = option.get_help_record(context)
    default = option.default if isinstance(option.default, str | int) and option.default not in ("", "False") else None
    known = "needed" if option.required else "" if default is None else f"`{default}`"
    return f"| `{written.strip()}` | {known} | {option.help} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
