"""Mail to the people who keep the blog: the addresses that every host must have (RFC 5321 §4.5.1, RFC 2142). Asked before all others."""

from app.handlers import bounce
from lamson.bounce import bounce_to
from lamson.routing import Router, route


@route("(name)@(host)", name="postmaster|abuse|hostmaster|webmaster|mailer-daemon")
@route("(name)", name="postmaster")
@bounce_to(soft=bounce.SOFT, hard=bounce.HARD)
def START(message, name=None, host=None):
    """Puts it with the mail that no one handled, which config.forward hands on to a person."""
    Router.UNDELIVERABLE_QUEUE.push(message, reason=f"mail for {name}")
    return START
