"""What is measured, in the words of Lamson; ../salmon has the same handlers in Salmon's.

`talk@` is a conversation: each message moves its sender and is answered. `nothing@` is a stateless handler that does nothing.
`forward@` (here alone) hands the message on.
"""

from config.settings import relay

from lamson import view
from lamson.routing import route, route_like, stateless


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


@route("(address)@(host)", address="forward")
@stateless
def FORWARD(message, address=None, host=None):
    relay.deliver(message, To="next@example.com")
