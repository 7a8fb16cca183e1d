"""Answers with as much as is asked for."""

from config.settings import database, relay

from app.model.rows import Handled
from lamson.mail import MailResponse
from lamson.routing import route


@route("big@(host)")
def START(message, host=None):
    sender = message.route_from
    database.session.add(Handled(mark=message["X-Mark"], sender=sender, recipient=message.recipient, state="START"))
    answer = MailResponse(To=sender, From=message.recipient, Subject="Much", Body="0123456789" * 7 + "\n")
    answer["X-Answers"] = message["X-Mark"]
    answer.attach(filename="much.bin", content_type="application/octet-stream", data=bytes(range(256)) * (int(message["Subject"]) // 256))
    relay.deliver(answer)
