"""What is kept, and that it is kept together with everything else."""

from config import settings, testing  # first, so that everything goes to the tests' own queue and database
from app.model import blog
from lamson.testing import queue
from tests.blogging import HELLO, ann, begin, comment, publish, sent


def test_a_post_its_state_and_its_note_are_one_commit():
    begin()
    publish()
    comment()
    with settings.database.transaction():
        post = blog.find("ann@example.com", "hello")
        assert (post.title, post.text.strip(), post.is_html) == ("My first post", "Hello, *world*.", False)
        assert [(each.address, each.text.strip()) for each in post.comments] == [("bob@example.com", "Well said.")]
        assert blog.find("bob@example.com", "hello") is None
        assert blog.find("ann@example.com", "other") is None
    assert [settings.index.get(key)["To"] for key in settings.index.keys()] == [HELLO, HELLO]


def test_what_is_too_long_is_cut():
    begin()
    publish()
    ann.say(HELLO, "Text.", expect="Published", Subject="Long " * 500)
    with settings.database.transaction():
        assert blog.find("ann@example.com", "hello").title == ("Long " * 500)[:300]
    assert len(sent()) == 3
    assert queue().count() == 3
