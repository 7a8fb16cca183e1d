"""A ready-made handler that logs each message and answers nobody: `Router.load(["lamson.handlers.log"])`, or `lamson log`."""

from __future__ import annotations

import logging
from typing import Any

from lamson.routing import route, stateless

log = logging.getLogger("lamson.handlers.log")


@route("(to)@(host)", to=".+", host=".+")
@stateless
def START(message: Any, to: str, host: str) -> None:
    """One line for each recipient."""
    log.info("from %r to %r, subject %r, %d bytes", message.From, f"{to}@{host}", message["subject"], len(message.raw))
