"""Answers that come too late, and bounces of what we asked."""

from config import settings, testing  # first, so that everything goes to the tests' own queue and database
from lamson import report
from lamson.status import reply
from lamson.testing import assert_in_state
from tests.blogging import HELLO, POST, ann, begin, publish, send, sent, titles


def bounce_of(question, code="5.1.1"):
    """The report of a mail server that could not deliver it."""
    said = {"ann@example.com": reply(int(code[0]) * 110, "There is no such mailbox", code)}
    return report.bounce(question.raw, question.route_from or question["From"], said, "mx.example.com")


def test_who_was_asked_nothing_is_told_so():
    begin()
    told = ann.say("hello-confirm-abc@oneshotblog.com", "Yes.", expect="Nothing waits")
    assert told["To"] == "ann@example.com"
    ann.say("hello-delete-confirm-abc@oneshotblog.com", "Yes.", expect="Nothing waits")
    ann.say("7-comment-confirm-abc@oneshotblog.com", "Yes.", expect="Nothing waits")


def test_a_question_that_nobody_got_is_given_up():
    begin()
    question = ann.say(HELLO, "Hello, world.", expect="Confirmation required")
    assert settings.confirmation.pending.count() == 1
    send(bounce_of(question), to=question["From"], sender="")
    assert settings.confirmation.pending.count() == 0
    assert len(sent()) == 1, "nobody answers a bounce"
    ann.say(question["From"], "Yes.", expect="Nothing waits")
    question = ann.say(HELLO, "Hello again.", expect="Confirmation required")
    ann.say(question["From"], "Yes.", expect="Published")


def test_a_delay_gives_up_nothing():
    begin()
    question = ann.say(HELLO, "Hello, world.", expect="Confirmation required")
    delayed = bounce_of(question).replace(b"Action: failed", b"Action: delayed").replace(b"Status: 5.1.1", b"Status: 4.4.1")
    send(delayed, to=question["From"], sender="")
    assert settings.confirmation.pending.count() == 1
    ann.say(question["From"], "Yes.", expect="Published")


def test_a_forged_bounce_gives_up_nothing():
    begin()
    question = ann.say(HELLO, "Hello, world.", expect="Confirmation required")
    send(bounce_of(question), to="hello-confirm-guess@oneshotblog.com", sender="")
    assert settings.confirmation.pending.count() == 1


def test_a_bounce_is_no_post():
    begin()
    told = publish()
    before = len(sent())
    send(bounce_of(told), to=HELLO, sender="")
    send(bounce_of(told), to="postmaster@oneshotblog.com", sender="")
    assert titles() == ["My first post"]
    assert len(sent()) == before
    assert_in_state(POST, HELLO, "ann@example.com", "POSTING")
