"""Mail for the people behind the blog."""

from config import testing  # first, so that everything goes to the tests' own queue and database
from lamson.routing import Router
from tests.blogging import ann, begin, sent, titles


def test_mail_for_postmaster_is_kept_for_a_person():
    begin()
    for address in ("postmaster@oneshotblog.com", "Abuse@oneshotblog.com", "postmaster"):
        ann.say(address, "Somebody writes in my name.")
    kept = Router.UNDELIVERABLE_QUEUE
    assert [kept.envelope(key)["reason"] for key in kept.keys()] == ["mail for postmaster", "mail for abuse", "mail for postmaster"]
    assert sent() == []
    assert titles() == []
