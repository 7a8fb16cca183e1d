"""A ready-made handler that keeps each message in the queue `run/queue`: `Router.load(["lamson.handlers.queue"])`, or `lamson log`.

With two recipients here it is kept twice, once for each, as each recipient is a delivery.
"""

from __future__ import annotations

from typing import Any

from lamson.queue import Queue
from lamson.routing import route, stateless


@route("(to)@(host)", to=".+", host=".+")
@stateless
def START(message: Any, to: str, host: str) -> None:
    """Pushes it, byte for byte, with its envelope."""
    Queue("run/queue").push(message)
