"""What the tests have in common: a blog that nobody has written to, people who write, and pages as the INDEXER makes them."""

import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import delete

from config import settings, testing  # before the application, so that everything goes to the tests' own queue and database
from app.model import Base, blog, site
from lamson.mail import MailRequest
from lamson.queue import Queue
from lamson.routing import Router
from lamson.testing import RouterConversation, queue

POST, COMMENT, DELETE = "app.handlers.post", "app.handlers.comment", "app.handlers.delete"

HELLO = "hello@oneshotblog.com"
COMMENT_ON_HELLO = "ann-at-example.com-hello-comment@oneshotblog.com"

ann = RouterConversation("ann@example.com", "My first post")
bob = RouterConversation("bob@example.com", "Re: My first post")


def begin():
    """Everything as on the first day."""
    ann.begin()
    settings.confirmation.clear()
    for each in (settings.index, Queue(settings.spam_dir), Router.UNDELIVERABLE_QUEUE):
        each.clear()
    shutil.rmtree(settings.site_dir, ignore_errors=True)
    with settings.database.transaction() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))


def publish(client=ann, to=HELLO, body="Hello, *world*."):
    """Has somebody publish for the first time. Returns what they are told."""
    question = client.say(to, body, expect="Confirmation required")
    return client.say(question["From"], "Yes, it was me.", expect="Published")


def comment(client=bob, to=COMMENT_ON_HELLO, body="Well said."):
    """Has somebody comment for the first time. Returns what they are told."""
    question = client.say(to, body, expect="Confirmation required")
    return client.say(question["From"], "Yes, it was me.", expect="Your comment")


def send(message, to=HELLO, sender="ann@example.com"):
    """Delivers a message that is more than text: a `MailResponse`, or bytes."""
    outcomes = Router.deliver(MailRequest("127.0.0.1", sender, to, bytes(message)))
    settings.outbox.drain(10)
    return outcomes


def sent():
    """All that was sent since the beginning."""
    return [queue().get(key) for key in queue().keys()]


def index():
    """What the INDEXER does with the notes that wait."""
    for key in settings.index.keys():
        note = settings.index.get(key)
        with settings.database.transaction():
            site.update(note.route_from, note.recipient.partition("@")[0])
        settings.index.remove(key)


def page(path):
    """A page, once the INDEXER is through; None when there is none."""
    index()
    place = Path(settings.site_dir, path)
    return place.read_text("utf-8") if place.exists() else None


def hello():
    """The page of Ann's post."""
    return page("by/ann@example.com/hello/index.html")


def titles():
    """The titles of all posts, the newest first."""
    with settings.database.transaction():
        return [post.title for post in blog.latest(100)]


@contextmanager
def handlers(names):
    """The routes of a process that loads other handlers, as config.queue and config.forward do."""
    before = Router.UNDELIVERABLE_QUEUE
    load_anew(names)
    try:
        yield
    finally:
        Router.UNDELIVERABLE_QUEUE = before
        load_anew(settings.handlers)


def load_anew(names):
    Router.clear_routes()
    for name in names:
        sys.modules.pop(name, None)  # a module that is imported already would register nothing
    Router.load(names)
