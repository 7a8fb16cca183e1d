"""Posts: mail to POSTNAME@ makes a page.

An author's first message waits until they have answered a question, so that nobody publishes under the address of somebody who never
heard of this. From then on every message publishes at once.
"""

from app.handlers import bounce
from app.model import blog
from config.settings import confirmation, relay
from lamson import view
from lamson.bounce import bounce_to
from lamson.routing import route, route_like


@route("(post_name)@(host)")
@bounce_to(soft=bounce.SOFT, hard=bounce.HARD)
def START(message, post_name=None, host=None):
    """Keeps the message, and asks its sender."""
    asked = confirmation.send(relay, post_name, message, "confirm/post.msg", locals())
    return CONFIRMING if asked else None  # machines are not asked, and stay here


@route_like(START)
@route("(post_name)-confirm-(secret)@(host)")
def CONFIRMING(message, post_name=None, secret=None, host=None):
    """Waits for the answer. Another post until then has a question of its own."""
    if secret is None:
        return START(message, post_name=post_name, host=host)
    return confirm(message, post_name, secret, host)


@route_like(CONFIRMING)
def POSTING(message, post_name=None, secret=None, host=None):
    """Publishes at once; and takes the answers to what else was asked before."""
    if secret is not None:
        return confirm(message, post_name, secret, host)
    if message.is_automatic():
        return None
    return publish(message, post_name, host)


def confirm(message, post_name, secret, host):
    """Publishes what waited, if this answers the question. A vacation message does not: `verify` looks."""
    original = confirmation.verify(post_name, message.route_from, secret)
    if original is None:
        relay.deliver(view.respond("letter/late.msg", locals()))
        return None
    return publish(original, post_name, host)


def publish(message, post_name, host):
    """Makes the post, and tells its author, who may be somebody else than who sent it."""
    post = blog.publish(message, post_name)
    relay.deliver(view.respond("letter/published.msg", locals()))
    return POSTING
