"""What no one handled reaches a person, as in the process of config.forward."""

from config import settings, testing  # first, so that everything goes to the tests' own queue and database
from lamson.routing import Router
from lamson.server import QueueReceiver
from lamson.testing import queue
from tests.blogging import ann, begin, handlers, sent


def test_what_no_one_handled_goes_to_the_keeper():
    begin()
    ann.say("postmaster@oneshotblog.com", "Somebody writes in my name.")
    undeliverable = Router.UNDELIVERABLE_QUEUE
    assert undeliverable.count() == 1
    with handlers(["app.handlers.forward"]):
        Router.UNDELIVERABLE_QUEUE = None
        QueueReceiver(undeliverable.queue_dir, workers=1).start(one_shot=True)
    settings.outbox.drain(10)
    (forwarded,) = sent()
    assert forwarded.body().strip() == "Somebody writes in my name."
    assert forwarded["From"] == "ann@example.com"
    envelope = queue().envelope(queue().keys()[0])
    assert (envelope["mail_from"], envelope["rcpt_tos"]) == ("", [settings.keeper])
    assert undeliverable.count() == 0
