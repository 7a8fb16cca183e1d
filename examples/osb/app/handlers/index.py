"""The INDEXER: makes pages in a process of its own, `lamson start -boot config.queue`, one note after another out of run/index."""

from app.model import site
from lamson.routing import route, stateless


@route("(post_name)@(host)")
@stateless
def INDEXER(message, post_name=None, host=None):
    """A note says which post has changed, and nothing else: the pages are made of what the database has now.

    Where this fails, because the disk is full or a template is wrong, the note stays in the queue and comes again.
    """
    site.update(message.route_from, post_name)
