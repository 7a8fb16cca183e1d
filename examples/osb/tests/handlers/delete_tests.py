"""Deleting a post, seen by its author and by others."""

from config import testing  # first, so that everything goes to the tests' own queue and database
from lamson.mail import MailResponse
from lamson.server import SMTPError
from lamson.testing import assert_in_state
from tests.blogging import DELETE, HELLO, ann, begin, bob, comment, hello, page, publish, send, sent, titles

DELETE_HELLO = "hello-delete@oneshotblog.com"


def in_state(state, who="ann@example.com"):
    assert_in_state(DELETE, DELETE_HELLO, who, state)


def refused(client, to):
    try:
        client.say(to, "Away with it.")
    except SMTPError as error:
        return error.reply.code
    raise AssertionError(f"{client.From} was not refused at {to}")


# -- START


def test_a_post_is_deleted_after_an_answer():
    begin()
    publish()
    comment()
    assert hello()
    question = ann.say(DELETE_HELLO, "Away with it.", expect="Confirmation required")
    in_state("DELETING")
    assert "My first post" in question.body()
    assert titles() == ["My first post"]
    ann.say(question["From"], "Yes.", expect="Deleted: My first post")
    assert titles() == []
    assert hello() is None
    assert page("by/ann@example.com/index.html") is None
    assert "Nothing here yet" in page("index.html")


def test_nobody_deletes_what_is_not_theirs():
    begin()
    publish()
    assert refused(bob, DELETE_HELLO) == 550
    assert refused(ann, "other-delete@oneshotblog.com") == 550
    in_state("START")
    in_state("START", "bob@example.com")
    assert titles() == ["My first post"]


def test_a_machine_is_asked_nothing():
    begin()
    publish()
    before = len(sent())
    message = MailResponse(To=DELETE_HELLO, From="ann@example.com", Subject="Gone", Body="")
    message["Auto-Submitted"] = "auto-generated"
    send(message, to=DELETE_HELLO)
    in_state("START")
    assert len(sent()) == before


# -- DELETING


def test_somebody_who_writes_in_the_authors_name_deletes_nothing():
    begin()
    publish()
    ann.say(DELETE_HELLO, "From a stranger who says that it is Ann.", expect="Confirmation required")
    ann.say("hello-delete-confirm-guess@oneshotblog.com", "Yes.", expect="Nothing waits")
    assert titles() == ["My first post"]
    in_state("DELETING")


def test_a_vacation_message_deletes_nothing():
    begin()
    publish()
    question = ann.say(DELETE_HELLO, "Away with it.", expect="Confirmation required")
    answer = MailResponse(To=question["From"], From="ann@example.com", Subject="I am on holiday", Body="Until Monday.")
    answer["Auto-Submitted"] = "auto-replied"
    send(answer, to=question["From"])
    assert titles() == ["My first post"]


def test_a_confirmation_of_a_post_deletes_none():
    begin()
    publish()
    ann.say(DELETE_HELLO, "Away with it.", expect="Confirmation required")
    question = bob.say(HELLO, "Hello from Bob.", expect="Confirmation required")
    secret = question["From"].partition("-confirm-")[2]
    ann.say(f"hello-delete-confirm-{secret}", "Yes.", expect="Nothing waits")
    assert titles() == ["My first post"]


def test_several_posts_may_wait_to_be_deleted():
    begin()
    publish()
    ann.say("other@oneshotblog.com", "Another.", expect="Published", Subject="Other")
    first = ann.say(DELETE_HELLO, "Away with it.", expect="Confirmation required")
    second = ann.say("other-delete@oneshotblog.com", "And with that.", expect="Confirmation required")
    ann.say(first["From"], "Yes.", expect="Deleted: My first post")
    ann.say(second["From"], "Yes.", expect="Deleted: Other")
    assert titles() == []


def test_an_answer_that_comes_twice_is_told_that_nothing_waits():
    begin()
    publish()
    question = ann.say(DELETE_HELLO, "Away with it.", expect="Confirmation required")
    ann.say(question["From"], "Yes.", expect="Deleted")
    ann.say(question["From"], "Yes!", expect="Nothing waits")


def test_the_author_may_publish_under_that_name_again():
    begin()
    publish()
    question = ann.say(DELETE_HELLO, "Away with it.", expect="Confirmation required")
    ann.say(question["From"], "Yes.", expect="Deleted")
    ann.say(HELLO, "A new beginning.", expect="Published")
    assert "A new beginning." in hello()
