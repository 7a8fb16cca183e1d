"""Deleting: mail to POSTNAME-delete@ removes one's own post, after a question each time."""

from app.model import blog
from config.settings import confirmation, relay
from lamson import view
from lamson.routing import route, route_like
from lamson.server import SMTPError


@route("(post_name)-delete@(host)")
def START(message, post_name=None, host=None):
    """Asks the author whether the post shall go."""
    post = blog.find(message.route_from, post_name)
    if post is None:
        raise SMTPError(550, f"There is no post {post_name} of yours here")
    asked = confirmation.send(relay, f"{post_name}-delete", message, "confirm/delete.msg", locals())
    return DELETING if asked else None


@route_like(START)
@route("(post_name)-delete-confirm-(secret)@(host)")
def DELETING(message, post_name=None, secret=None, host=None):
    """Waits for answers. There may be several, each with its own secret, so it stays."""
    if secret is None:
        return START(message, post_name=post_name, host=host)
    post = blog.find(message.route_from, post_name)
    if confirmation.verify(f"{post_name}-delete", message.route_from, secret) is None or post is None:
        relay.deliver(view.respond("letter/late.msg", locals()))
        return None
    blog.delete(post)
    relay.deliver(view.respond("letter/deleted.msg", locals()))
    return DELETING
