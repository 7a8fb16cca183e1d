"""What stands behind the queue into which `moods.MIDDLE` pushes."""

from config.settings import database

from app.model.rows import Handled
from lamson.routing import route, stateless


@route("middle@moods\\.test")
@stateless
def BEHIND(message):
    database.session.add(
        Handled(mark=message["X-Mark"], sender=message.route_from, recipient=message.recipient, state="handled")
    )
