"""The pages say what is so: links lead somewhere, commands exist, and the README's example runs."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from lamson import commands
from lamson.outbox import Outbox
from lamson.relay import Relay
from lamson.server import LISTENER_LIMITS, SESSION_LIMITS, LMTPReceiver, QueueReceiver, SMTPReceiver
from lamson.smtp.listener import Listener
from lamson.smtp.session import Rules
from tests.project import Project

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> Iterator[str]:
    """The code blocks of a page that are of this language; "" for those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return (block for name, block in found if name == language)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if ":" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_the_pages_is_python(page: Path) -> None:
    for example in blocks(page, "python"):
        compile(example, page.name, "exec")


def lines_with_lamson(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page, "") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if re.match(r"lamson [a-z]", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_exist(page: Path) -> None:
    for verb, *words in lines_with_lamson(page):
        assert verb in commands.COMMANDS, f"lamson {verb}"
        command = commands.lamson.get_command(commands.lamson.make_context("lamson", ["help"]), verb)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert [word for word in words if word.startswith("-") and word not in known] == [], f"lamson {verb}"


def test_the_two_commands_come_before_anything_else_to_be_typed() -> None:
    first = next(blocks(ROOT / "README.md", ""))
    assert [line.split()[0] for line in first.splitlines()] == ["./demo", "./check"]


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for example in blocks(ROOT / "README.md", "python"):
        path = re.match(r"# (\S+)\n", example)
        assert path
        project.write(path.group(1), example)
    (template,) = blocks(ROOT / "README.md", "jinja")
    project.write("app/templates/opened.msg", template)
    project.edit("config/settings.py", "app.handlers.sample", "app.handlers.support")
    project.start_log()
    try:
        project.start()
        machine, ann = "app.handlers.support", "ann@example.com"
        project.send(ann, "support@test.com", subject="Help")
        (answer,) = project.messages("run/queue", 1)
        assert answer["Subject"] == "Re: Help"
        assert project.states() == {(machine, ann): "OPEN"}
        project.send(ann, "support@test.com", body="More of it.")
        assert "More of it.\n" in [message.body() for message in project.messages("run/queue", 2)]
        project.send(ann, "support-close@test.com")
        assert project.states()[machine, ann] == "START"
        assert project.reasons() == []
    finally:
        project.stop()


def numbers_in(section: str) -> dict[str, int]:
    """The rows of docs/settings.md's tables whose default is a number, in the section of this heading."""
    text = (ROOT / "docs/settings.md").read_text("utf-8").partition(f"\n## {section}")[2].partition("\n## ")[0]
    return {name: int(number) for name, number in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)}


def test_the_limits_on_the_page_are_those_that_there_are() -> None:
    listener = inspect.signature(Listener).parameters
    defaults = {field.name: field.default for field in fields(Rules)} | {name: each.default for name, each in listener.items()}
    switches = {"require_tls", "require_auth", "keep_bare_line_ends"}
    assert numbers_in("`receiver_config`") == {name: defaults[name] for name in (SESSION_LIMITS | LISTENER_LIMITS) - switches - {"mode"}}


@pytest.mark.parametrize(("section", "service"), [("`relay_config`", Relay), ("The outbox", Outbox), ("More than one", QueueReceiver)])
def test_defaults_on_the_page_are_those_that_there_are(section: str, service: type) -> None:
    said = numbers_in(section)
    parameters = inspect.signature(service).parameters
    assert said == {name: parameters[name].default for name in said}
    assert said


@pytest.mark.parametrize("service", [SMTPReceiver, LMTPReceiver, QueueReceiver, Relay, Outbox], ids=lambda each: each.__name__)
def test_whatever_can_be_set_has_its_place(service: type) -> None:
    known = {name for name, each in inspect.signature(service).parameters.items() if each.kind is not inspect.Parameter.VAR_KEYWORD}
    assert known - words_in_code("docs/settings.md") == set()


def test_the_settings_of_a_new_project_have_their_place() -> None:
    settings = (ROOT / "lamson/data/prototype/config/settings.py").read_text("utf-8")
    assert set(re.findall(r"^(\w+) = ", settings, re.MULTILINE)) - words_in_code("docs/settings.md") == set()


def words_in_code(page: str) -> set[str]:
    """What stands between backticks."""
    text = (ROOT / page).read_text("utf-8")
    return {word for code in re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL) for word in re.findall(r"\w+", code)}


def test_python_that_the_pages_ask_for_is_what_the_package_asks_for() -> None:
    """README, CONTRIBUTING, scripts and pyproject.toml name one version."""
    asked = re.search(r'requires-python = ">=(\d+\.\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert asked
    for name in ("README.md", "CONTRIBUTING.md", "demo", "check", "scripts/setup.sh"):
        assert f"Python {asked.group(1)} or newer" in (ROOT / name).read_text("utf-8"), name
    assert sys.version_info >= tuple(map(int, asked.group(1).split(".")))
