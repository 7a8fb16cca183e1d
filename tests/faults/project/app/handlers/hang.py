"""Handlers that hang for as long as the message says: before they touch the database, or after."""

import time

from config.settings import database

from app.model.rows import Handled
from lamson.routing import route


@route("hang-(when)@(host)", when="before|after")
def START(message, when=None, host=None):
    if when == "before":
        time.sleep(float(message["Subject"]))
    database.session.add(Handled(mark=message["X-Mark"], sender=message.route_from, recipient=message.recipient, state="START"))
    database.session.flush()
    if when == "after":
        time.sleep(float(message["Subject"]))
