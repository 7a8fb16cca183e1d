"""What the pages show is done: files written, commands typed, and what they say compared."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import Reader, blocks, matches
from tests.project import Project
from tests.test_docs import ROOT

UPGRADING = ROOT / "docs" / "upgrading.md"

#: Many commands, each of which makes a database on a disk that others may keep busy.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    yield made
    made.stop()


def test_getting_started(reader: Reader) -> None:
    reader.follow(ROOT / "docs" / "getting-started.md")


def test_thirty_seconds_of_the_readme(reader: Reader) -> None:
    (typed,) = [each for each in blocks(ROOT / "README.md") if "lamson gen" in each.text]
    reader.do(typed)
    reader.check_status()
    assert reader.said.count("Stopped process") == 2
    assert "START -> FORWARD" in (reader.folder / "logs" / "lamson.log").read_text("utf-8")


def test_what_a_page_shows_is_compared() -> None:
    said = "From: a@example.com\nTo: b@example.com\n\nHello.\n"
    assert matches("From: ...@example.com\n...\nHello.\n", said)
    assert not matches("Hello.\nFrom: a@example.com\n", said)
    assert not matches("From: a@example\n", said)


@pytest.mark.parametrize("page", ["state-machines", "routing", "state", "views", "html", "relaying", "queues", "spam", "testing"])
def test_a_guide_works_in_a_new_project(page: str, reader: Reader) -> None:
    """Its handlers are loaded, and the tests that it shows are well."""
    reader.begin_project()
    reader.follow(ROOT / "docs" / f"{page}.md")
    reader.type("nosetests")
    reader.check_status()
    assert "Ran" in reader.said


def test_imports_of_1x_still_work() -> None:
    (shown,) = [each.text for each in blocks(UPGRADING) if "from lamson.view import" in each.text]
    exec(compile(shown, "upgrading.md", "exec"), {})


def test_what_is_said_to_have_gone_has_gone() -> None:
    gone = UPGRADING.read_text("utf-8").partition("have gone")[2].partition("**3.")[0]
    found = re.findall(r"^\| `(?:lamson\.(\w+)\.)(\w+)`", gone, re.MULTILINE)
    assert found
    for module, name in found:
        assert not hasattr(importlib.import_module(f"lamson.{module}"), name)
    assert importlib.util.find_spec("lamson.args") is None


def test_a_boot_module_of_1x_works(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (boot,) = [each.text for each in blocks(UPGRADING) if each.path == "config/boot.py"]
    project.write("config/boot.py", boot)
    project.start_log()
    try:
        project.start()
        project.send("ann@example.com", "test@test.com")
        assert sorted(str(each["Subject"]) for each in project.messages("run/queue", 2)) == ["A test", "Welcome. Re: A test"]
    finally:
        project.stop()
