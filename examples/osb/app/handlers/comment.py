"""Comments: mail to USER-AT-DOMAIN-POSTNAME-comment@ stands below that author's post.

A reader's first comment waits for the answer to a question, as an author's first post does. The spam filter looks at each comment before
anything is asked or published: who sends spam is in SPAMMING from then on, and is not heard again.
"""

from app.model import blog
from config import settings
from config.settings import confirmation, relay
from lamson import view
from lamson.routing import route, route_like
from lamson.server import SMTPError
from lamson.spam import spam_filter


@route("(author)-(post_name)-comment@(host)")
@route("(number)-comment@(host)")
@route("(number)-comment-confirm-(secret)@(host)")
def SPAMMING(message, **captures):
    """Swallows everything. `lamson states -for ADDRESS -reset` lets somebody out who does not belong here."""
    return SPAMMING


unless_spam = spam_filter(settings.database, settings.spam_config, settings.spam_dir, next_state=SPAMMING)


@route("(author)-(post_name)-comment@(host)")
@route("(number)-comment@(host)")
@unless_spam
def START(message, author=None, post_name=None, number=None, host=None):
    """Keeps the comment, and asks its sender."""
    post = wanted(author, post_name, number)
    asked = confirmation.send(relay, f"{post.id}-comment", message, "confirm/comment.msg", locals())
    return CONFIRMING if asked else None


@route_like(START)
@route("(number)-comment-confirm-(secret)@(host)")
def CONFIRMING(message, author=None, post_name=None, number=None, secret=None, host=None):
    """Waits for the answer. A comment on another post until then has a question of its own."""
    if secret is None:
        return START(message, author=author, post_name=post_name, number=number, host=host)
    return confirm(message, number, secret, host)


@route_like(CONFIRMING)
def COMMENTING(message, author=None, post_name=None, number=None, secret=None, host=None):
    """Publishes at once; and takes the answers to what else was asked before."""
    if secret is not None:
        return confirm(message, number, secret, host)
    if message.is_automatic():
        return None
    return publish_unless_spam(message, wanted(author, post_name, number), host)


def confirm(message, number, secret, host):
    """Publishes what waited, if this answers the question. A vacation message does not: `verify` looks."""
    post = wanted(number=number)
    original = confirmation.verify(f"{number}-comment", message.route_from, secret)
    if original is None:
        relay.deliver(view.respond("letter/late.msg", locals()))
        return None
    return publish(original, post, host)


def publish(message, post, host):
    """Puts the comment below the post, and tells who wrote it."""
    blog.comment(message, post)
    relay.deliver(view.respond("letter/commented.msg", locals()))
    return COMMENTING


publish_unless_spam = unless_spam(publish)


def wanted(author=None, post_name=None, number=None):
    """The post that the address names; the sender's server hears that there is none."""
    post = blog.find_to_comment(author, post_name, number)
    if post is None:
        raise SMTPError(550, "There is no such post here")
    return post
