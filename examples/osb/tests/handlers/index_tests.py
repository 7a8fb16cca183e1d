"""The INDEXER, fed by its queue as in the process of config.queue."""

from pathlib import Path

from config import settings, testing  # first, so that everything goes to the tests' own queue and database
from app.model import site
from lamson.routing import Router
from lamson.server import QueueReceiver
from tests.blogging import ann, begin, handlers, hello, publish


def run_indexer():
    """What the second process does until its queue is empty."""
    with handlers(["app.handlers.index"]):
        Router.UNDELIVERABLE_QUEUE = None  # as in config.queue
        QueueReceiver(settings.index_dir, workers=1).start(one_shot=True)


def test_a_note_makes_the_pages_and_is_gone():
    begin()
    publish()
    assert settings.index.count() == 1
    run_indexer()
    assert settings.index.count() == 0
    assert site.place_of("by/ann@example.com/hello/index.html").exists()
    assert site.place_of("feed.xml").exists()


def test_a_note_stays_until_the_pages_are_made():
    begin()
    publish()
    write, site.write = site.write, lambda path, data: Path("/nowhere/at/all").write_bytes(data)
    try:
        run_indexer()
    finally:
        site.write = write
    assert settings.index.count() == 1
    run_indexer()
    assert settings.index.count() == 0
    assert "world" in hello()


def test_notes_in_any_number_lead_to_what_the_database_has_now():
    begin()
    publish()
    ann.say("hello@oneshotblog.com", "The second.", expect="Published")
    ann.say("hello@oneshotblog.com", "The last.", expect="Published")
    run_indexer()
    assert "The last." in hello()
