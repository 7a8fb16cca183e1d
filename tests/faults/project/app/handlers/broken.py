"""A handler that raises, after it has caused all that it can: none of it may come to be."""

from config.settings import database, relay

from app.model.rows import Handled
from lamson import view
from lamson.routing import route


@route("broken@(host)")
def START(message, host=None):
    mark, sender = message["X-Mark"], message.route_from
    database.session.add(Handled(mark=mark, sender=sender, recipient=message.recipient, state="START"))
    relay.deliver(view.respond("answer.msg", {"message": message, "mark": mark, "sender": sender}))
    raise RuntimeError("a handler that fails")
