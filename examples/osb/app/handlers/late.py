"""What is late: answers to questions that nobody waits for any more, and the bounces of our questions. Asked after all others."""

from app.handlers import bounce
from config.settings import relay
from lamson import view
from lamson.bounce import bounce_to
from lamson.routing import route


@route("(target)-confirm-(secret)@(host)")
@bounce_to(soft=bounce.SOFT, hard=bounce.HARD)
def START(message, target=None, secret=None, host=None):
    """No other machine is in a state that takes this answer: says so."""
    relay.deliver(view.respond("letter/late.msg", locals()))
    return START
