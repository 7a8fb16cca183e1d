"""What the pages show is done: files written, commands typed, and what they say compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import Reader, matches
from tests.test_docs import ROOT


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    yield made
    made.stop()


def test_getting_started(reader: Reader) -> None:
    reader.follow(ROOT / "docs" / "getting-started.md")


def test_what_a_page_shows_is_compared() -> None:
    said = "From: a@example.com\nTo: b@example.com\n\nHello.\n"
    assert matches("From: ...@example.com\n...\nHello.\n", said)
    assert not matches("Hello.\nFrom: a@example.com\n", said)
    assert not matches("From: a@example\n", said)


@pytest.mark.parametrize("page", ["state-machines", "routing", "state", "views", "html", "relaying", "queues", "testing"])
def test_a_guide_works_in_a_new_project(page: str, reader: Reader) -> None:
    """Its handlers are loaded, and the tests that it shows are well."""
    reader.begin_project()
    reader.follow(ROOT / "docs" / f"{page}.md")
    reader.type("nosetests")
    reader.check_status()
    assert "Ran" in reader.said
