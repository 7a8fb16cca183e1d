"""Finding a project and importing its settings and its boot module.

A project is a directory with `config/settings.py` (plain variables) and `config/boot.py` (which turns them into services). This module
runs before any message is on its way. It knows nothing of what the settings mean; what it adds is that whatever is wrong with them
becomes one sentence with the place and the remedy.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType

from lamson.errors import ConfigError, LamsonError


def import_settings(boot_also: bool, from_dir: str | None = None, boot_module: str = "config.boot") -> ModuleType:
    """Imports `config.settings` of the project in `from_dir` (the working directory if None) and returns it.

    `boot_also`: imports `boot_module` too, which puts services into the settings. Raises `ConfigError`: what is wrong, where, and what
    to do. The traceback hangs on it as its cause.
    """
    project = os.path.abspath(from_dir or os.getcwd())
    if not os.path.isfile(os.path.join(project, "config", "settings.py")):
        remedy = "Go into a project, or make one: lamson gen -project NAME"
        raise ConfigError(f"There is no project in {project}: config/settings.py is missing. {remedy}")
    if project not in sys.path:
        sys.path.insert(0, project)
    settings = _import("config.settings", project)
    _check_origin(settings, project)
    if boot_also:
        _import(boot_module, project)
    return settings


def _import(name: str, project: str) -> ModuleType:
    """The module. Whatever its code raises comes out as `ConfigError`; nothing is swallowed, so this is no barrier."""
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(explain(name, error, project)) from error


def _check_origin(settings: ModuleType, project: str) -> None:
    found = os.path.abspath(settings.__file__ or "")
    if found != os.path.join(project, "config", "settings.py"):
        remedy = "One process serves one project; rename the other package `config`"
        raise ConfigError(f"config.settings was imported from {found}, not from {project}. {remedy}")


def explain(name: str, error: BaseException, project: str) -> str:
    """One line for an error raised while `name` was imported: the place in the project, the error, the remedy."""
    if isinstance(error, ModuleNotFoundError) and error.name and (error.name == name or name.startswith(error.name + ".")):
        return f"There is no module {name} in {project}. Write {name.replace('.', '/')}.py, or name another: -boot config.boot"
    return " ".join(f"{_place(error, project)}: {_what(error).rstrip('.')}. {_remedy(error)}".split())


def _what(error: BaseException) -> str:
    """The error in words. Our own are sentences already; a syntax error names the file and line, which we do."""
    if isinstance(error, LamsonError):
        return str(error)
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"


def _remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"Correct the name, or install it for {sys.executable}"
    if _wants_a_setting(error):
        return "Set it in config/settings.py, or before Router.load in config/boot.py and, for tests, in config/testing.py"
    return ""


def _wants_a_setting(error: BaseException) -> bool:
    """Whether it is about a name that `config.settings` does not have: `from config.settings import name`, or `settings.name`."""
    if isinstance(error, AttributeError):
        return getattr(error.obj, "__name__", None) == "config.settings"
    return isinstance(error, ImportError) and error.name == "config.settings"


def _place(error: BaseException, project: str) -> str:
    """File and line that are to blame: of the syntax error, else the innermost line of the project's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return _spot(error.filename, error.lineno, project)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if frame.filename.startswith(project + os.sep) and "site-packages" not in frame.filename]
    last = (own or frames)[-1]
    return _spot(last.filename, last.lineno, project)


def _spot(filename: str, line: int | None, project: str) -> str:
    inside = filename.startswith(project + os.sep)
    return f"{os.path.relpath(filename, project) if inside else filename}, line {line}"
