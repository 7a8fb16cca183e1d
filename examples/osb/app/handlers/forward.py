"""Hands what no one handled on to the person who keeps the blog: `lamson start -boot config.forward`, out of run/undeliverable."""

from config import settings
from lamson.routing import route, stateless


@route("(anything)", anything=".*")
@stateless
def FORWARD(message, anything=None):
    """As it came. From the null sender, so that nobody who wrote to us hears of it if this fails."""
    settings.relay.deliver(message, To=settings.keeper, From="")
