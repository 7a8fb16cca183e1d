"""What is measured, in the words of Salmon; ../lamson has the same handlers in ours.

`talk@` is a conversation: each message moves its sender and is answered. `nothing@` is a stateless handler that does nothing.
"""

from config.settings import relay
from salmon import view
from salmon.routing import route, route_like, stateless


def answer(message, address, host):
    sender = message["From"]
    relay.deliver(view.respond(locals(), "answer.txt", From="%(address)s@%(host)s", To="%(sender)s", Subject="Your message"))


@route("(address)@(host)", address="talk")
def START(message, address=None, host=None):
    answer(message, address, host)
    return LISTENING


@route_like(START)
def LISTENING(message, address=None, host=None):
    answer(message, address, host)
    return TALKING


@route_like(START)
def TALKING(message, address=None, host=None):
    answer(message, address, host)
    return LISTENING


@route("(address)@(host)", address="nothing")
@stateless
def NOTHING(message, address=None, host=None):
    pass
