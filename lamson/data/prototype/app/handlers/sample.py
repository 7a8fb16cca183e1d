"""The sample: it greets whoever writes for the first time, and forwards everything.

A function with a route is a state of a conversation. Every sender starts in START; a function that returns another one moves the
sender there, and from then on that one gets the sender's mail. Where each sender is, the database remembers.
"""

from config.settings import relay
from lamson import view
from lamson.routing import route, route_like


@route("(address)@(host)", address=".+")
def START(message, address=None, host=None):
    """The first message of a sender: answered, unless a machine wrote it. Then it is forwarded like all that follow."""
    if not message.is_automatic():
        relay.deliver(view.respond("welcome.msg", locals()))
    return FORWARD(message, address=address, host=host)


@route_like(START)
def FORWARD(message, address=None, host=None):
    """Every other message: forwarded as it came."""
    relay.deliver(message)
    return FORWARD
