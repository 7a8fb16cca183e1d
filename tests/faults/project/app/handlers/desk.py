"""A conversation of three states. Each message leaves one row, moves the sender, and is answered."""

from config.settings import database, relay

from app.model.rows import Handled
from lamson import view
from lamson.routing import route, route_like


@route("desk@(host)")
def START(message, host=None):
    take(message, "START")
    return MIDDLE


@route_like(START)
def MIDDLE(message, host=None):
    take(message, "MIDDLE")
    return LAST


@route_like(START)
def LAST(message, host=None):
    take(message, "LAST")
    return START


def take(message, state):
    mark = message["X-Mark"]
    sender = message.route_from
    database.session.add(Handled(mark=mark, sender=sender, recipient=message.recipient, state=state))
    relay.deliver(view.respond("answer.msg", {"message": message, "mark": mark, "sender": sender}))
