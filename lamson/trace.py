"""The thread of a message through the log: the current delivery's id on every line.

Knows nothing of deliveries but that they have an `id`. `lamson.delivery` sets `CURRENT` while one runs.
"""

from __future__ import annotations

import logging
import random
from contextvars import ContextVar
from typing import Any

#: What this thread is working on: anything with an `id`. None between messages.
CURRENT: ContextVar[Any] = ContextVar("lamson_current", default=None)


def new_id() -> str:
    """A short id that no other message of this machine has: 12 hexadecimal digits of chance. No secret: it can be foreseen."""
    return f"{random.getrandbits(48):012x}"  # the system's randomness costs a call of the system, and other threads run meanwhile


class working_on:
    """`with working_on(thing)`: lines logged inside carry `thing.id`. A class, as it stands three times on every message's way."""

    __slots__ = ("_thing", "_token")

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __enter__(self) -> None:
        self._token = CURRENT.set(self._thing)

    def __exit__(self, *error: object) -> None:
        CURRENT.reset(self._token)


class DeliveryFilter(logging.Filter):
    """Gives each log record an attribute `delivery`: the current delivery's id, `-` outside one, for formats with `%(delivery)s`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.delivery = getattr(CURRENT.get(), "id", "-")
        return True


class DeliveryFormatter(logging.Formatter):
    """A formatter with `%(delivery)s`, for `logging.conf` files, which cannot name filters."""

    def format(self, record: logging.LogRecord) -> str:
        if not hasattr(record, "delivery"):
            DeliveryFilter().filter(record)
        return super().format(record)
