"""Answers everything that it gets, and repeats in the answer all that the stranger wrote: what a careless application does."""

from config.settings import database, relay

from app.model.rows import Handled
from lamson import view
from lamson.routing import route, stateless


@route("echo@(host)")
@route("(who)@echo\\.test", who=".+")
@stateless
def START(message, who=None, host=None):
    mark, sender = message["X-Mark"] or "", message.route_from or ""
    row = Handled(mark=mark[:100], sender=sender, recipient=message.recipient, state="START", note=message.body() or "")
    database.session.add(row)
    variables = {"message": message, "sender": sender, "mark": mark, "name": message["From"], "subject": message["Subject"]}
    if sender:
        relay.deliver(view.respond("echo.msg", variables))
