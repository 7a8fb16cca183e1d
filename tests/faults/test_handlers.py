"""Handlers that hang, and an exception at each line: the quick forms."""

from __future__ import annotations

import pytest

from tests.faults import hang, lines


@pytest.mark.parametrize(("database", "when"), [("sqlite", "before"), ("postgresql", "after")])
def test_a_handler_that_hangs_holds_up_no_other(database: str, when: str) -> None:
    figures = hang.run(database, when, hanging=4, seconds=5, deadline=1.5, messages=40)
    assert "40 messages, all 250" in str(figures["others"])


def test_an_exception_at_each_line_of_the_handler() -> None:
    assert lines.run(only_handler=True)["lines at which an exception was raised"] == 6


def test_an_exception_at_lines_of_lamson() -> None:
    assert int(str(lines.run(step=23)["lines at which an exception was raised"])) > 40
