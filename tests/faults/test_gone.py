"""The next server or the database is gone for a while: the quick forms."""

from __future__ import annotations

import pytest

from tests.faults import database_gone, relay_gone


def test_a_relay_that_refuses_then_defers_then_works() -> None:
    figures = relay_gone.run(refused=2, later=1.5, pause=0.2)
    assert figures["answers"] == figures["messages taken"] == 140


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_250_while_the_database_is_gone(database: str) -> None:
    figures = database_gone.run(database, seconds=2.5, messages=300)
    assert figures["rows"] == 300
