"""Counts the messages of each sender, by reading a number, adding one, and writing it."""

import os

from config.settings import database

from app.model.rows import Counted, Handled
from lamson.routing import route


@route("counter@(host)")
def START(message, host=None):
    sender = message.route_from
    count = database.session.get(Counted, sender)
    if count is None:
        database.session.add(Counted(sender=sender, value=1))
    else:
        count.value = count.value + 1
    here = Handled(mark=message["X-Mark"], sender=sender, recipient=message.recipient, state="START", note=str(os.getpid()))
    database.session.add(here)
