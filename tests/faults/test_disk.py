"""The disk: its order, its errors, its end. The quick forms."""

from __future__ import annotations

import pytest

from tests.faults import disk_errors, disk_full, disk_order


@pytest.mark.parametrize("database", ["sqlite", "maildir", "postgresql", "mariadb"])
def test_order_on_disk(database: str) -> None:
    assert disk_order.run(database, messages=4)["messages"] == 4


@pytest.mark.parametrize(
    ("call", "error"), [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("fsync", "EIO"), ("rename", "EIO")], ids=lambda word: word.lower()
)
def test_no_250_for_what_is_not_durable(call: str, error: str) -> None:
    assert disk_errors.run(call, error, messages=40)["answered 250, and there once after kill -9"] == 40


@pytest.mark.parametrize("what", ["queue", "database", "log"])
def test_a_full_disk_truncates_nothing(what: str) -> None:
    assert disk_full.run(what, seconds=1, messages=120)["there once, and whole"] == 120
