"""How every command takes its options: `-name value` as in 1.x, `--name value` as well; a switch alone or with True or False."""

from __future__ import annotations

import difflib
import keyword
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Option(click.Option):
    """An option that is shown with one dash."""

    @property
    def word(self) -> str:
        return self.opts[0]

    def get_error_hint(self, ctx: click.Context | None, *_: Any) -> str:
        return self.word

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        value = "" if self.flag_value == "True" else f" {self.make_metavar(ctx)}"
        default = f" ({self.default})" if isinstance(self.default, str | int) and self.default not in ("", "False") else ""
        return f"{self.word}{value}", f"{self.help}{' (needed)' if self.required else default}"


class Command(click.Command):
    """A command that names an unknown option as it was written, and one that comes near."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            written = [word.partition("=")[0] for word in given if word.startswith(error.option_name)]
            raise click.UsageError(self._unknown(written[0] if written else error.option_name), ctx) from None
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def _unknown(self, word: str) -> str:
        known = {option.opts[0].lower(): option.opts[0] for option in self.params}
        near = difflib.get_close_matches(f"-{word.lstrip('-').lower()}", known, n=1)
        return f"There is no option {word}." + (f" Did you mean {known[near[0]]}?" if near else "")


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function the command of this name. Its docstring is the help."""
    settings = {"help_option_names": ["-help", "--help"], "max_content_width": 110}
    return click.command(name, cls=Command, context_settings=settings, options_metavar="[-option value]")


def option(name: str, help: str, **settings: Any) -> Callable[[F], F]:
    """An option with a value. It reaches the function under its name in lower case, with `_` behind a word of Python's."""
    settings.setdefault("metavar", name.upper())
    return click.option(f"-{name}", f"--{name}", parameter(name), cls=Option, help=help, **settings)


def switch(name: str, help: str) -> Callable[[F], F]:
    """An option that is on or off: `-name`, `-name True`, `-name False`."""
    truth = click.Choice(["True", "False"])
    return option(name, help, is_flag=False, flag_value="True", default="False", type=truth, callback=lambda _, __, value: value == "True")


def parameter(name: str) -> str:
    """The name under which an option reaches its function."""
    name = name.lower()
    return f"{name}_" if keyword.iskeyword(name) else name
