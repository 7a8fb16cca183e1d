"""`kill -9` under load: the quick forms."""

from __future__ import annotations

import pytest

from tests.faults import kill


@pytest.mark.parametrize(("database", "workers"), [("sqlite", 1), ("sqlite", 2), ("postgresql", 1)])
def test_every_message_is_handled_exactly_once(database: str, workers: int) -> None:
    figures = kill.run(kills=2, messages=120, senders=12, workers=workers, database=database)
    assert figures["rows"] == figures["moves of state"] == figures["answers"] == 120
