"""Handlers that are not well until the file run/well is there, and one that hands on to a queue."""

from pathlib import Path

from config.settings import database

from app.model.rows import Handled
from lamson.queue import Queue
from lamson.routing import route, stateless
from lamson.server import SMTPError


def keep(message, state):
    database.session.add(Handled(mark=message["X-Mark"], sender=message.route_from, recipient=message.recipient, state=state))


@route("(name)@moods\\.test", name="well|later|broken")
@stateless
def START(message, name=None):
    keep(message, name)
    if name == "later" and not Path("run/well").exists():
        raise SMTPError(451, "Not now")
    if name == "broken" and not Path("run/well").exists():
        raise RuntimeError("not mended yet")


@route("middle@moods\\.test")
@stateless
def MIDDLE(message):
    keep(message, "pushed")
    Queue("run/middle").push(message)
