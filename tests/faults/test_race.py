"""Many messages of one sender at once, to two processes: the quick forms."""

from __future__ import annotations

import pytest

from tests.faults import race


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_count_is_exact(database: str) -> None:
    assert race.run(messages=200, threads=40, database=database)["counted"] == 200
