"""A ready-made handler that hands each message on, as it is, to the project's relay: `Router.load(["lamson.handlers.forward"])`.

It takes mail for everybody. Put it behind a server that the world can reach and you have an open relay: keep that server on a private
address, or write a route of your own that names your hosts. The relay is `config.settings.relay`, which the boot module makes after it
loads the handlers or before, so it is looked for when a message comes.
"""

from __future__ import annotations

import importlib
from typing import Any

from lamson.routing import route, stateless


@route("(to)@(host)", to=".+", host=".+")
@stateless
def START(message: Any, to: str, host: str) -> None:
    """Relays it to this delivery's recipient, from its own sender."""
    relay = importlib.import_module("config.settings").relay
    relay.deliver(message)
