"""Makes a file for each recipient and each sender, named after the address: where a careless name would lead out of the folder."""

import os

from config.settings import database

from app.model.rows import Handled
from lamson import address
from lamson.queue import Queue
from lamson.routing import route, stateless


@route("(who)@files\\.test", who="(?s:.+)")
@stateless
def START(message, who=None):
    os.makedirs("run/files", exist_ok=True)
    for each in (message.recipient, message.route_from):
        with open(os.path.join("run/files", address.file_name(each)), "ab") as file:
            file.write(b"x")
    Queue("run/people").push(message)
    Queue(os.path.join("run/files", address.file_name(message.recipient) + ".queue")).push(message)
    database.session.add(Handled(mark=message["X-Mark"], sender=message.route_from, recipient=message.recipient, state="START"))
