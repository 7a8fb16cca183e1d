"""Posts, seen by somebody who writes them."""

from config import settings, testing  # first, so that everything goes to the tests' own queue and database
from lamson.mail import MailResponse
from lamson.routing import Router
from lamson.testing import RouterConversation, assert_in_state
from tests.blogging import HELLO, POST, ann, begin, bob, hello, index, page, publish, send, sent, titles


def in_state(state, who="ann@example.com"):
    assert_in_state(POST, HELLO, who, state)


# -- START


def test_the_first_post_waits_for_an_answer():
    begin()
    question = ann.say(HELLO, "Hello, world.", expect="Confirmation required")
    assert question["To"] == "ann@example.com"
    assert question["Auto-Submitted"] == "auto-replied"
    assert "My first post" in question.body()
    in_state("CONFIRMING")
    assert settings.confirmation.pending.count() == 1
    assert titles() == []
    assert settings.index.count() == 0


def test_a_machine_is_asked_nothing():
    begin()
    for header, value in (("Auto-Submitted", "auto-replied"), ("Precedence", "bulk"), ("List-Id", "<news.example.com>")):
        message = MailResponse(To=HELLO, From="ann@example.com", Subject="I am on holiday", Body="Until Monday.")
        message[header] = value
        send(message)
    in_state("START")
    assert sent() == []
    assert settings.confirmation.pending.count() == 0


def test_a_name_that_is_none_has_no_address():
    for address in ("Hello World@oneshotblog.com", "a-b@oneshotblog.com", "x" * 21 + "@oneshotblog.com", "../x@oneshotblog.com"):
        assert not Router.match(address), address


# -- CONFIRMING


def test_the_answer_publishes_the_original_message():
    begin()
    told = publish(body="Hello, *world*.")
    in_state("POSTING")
    assert told["To"] == "ann@example.com"
    assert "http://localhost:8888/by/ann%40example.com/hello/" in told.body()
    assert "ann-at-example.com-hello-comment@oneshotblog.com" in told.body()
    assert titles() == ["My first post"]
    assert "<p>Hello, <em>world</em>.</p>" in hello()
    assert settings.confirmation.pending.count() == 0


def test_a_wrong_secret_publishes_nothing():
    begin()
    ann.say(HELLO, "Hello, world.", expect="Confirmation required")
    ann.say("hello-confirm-wrong@oneshotblog.com", "Yes.", expect="Nothing waits")
    in_state("CONFIRMING")
    assert titles() == []


def test_the_secret_of_one_does_not_confirm_for_another():
    begin()
    question = ann.say(HELLO, "Hello, world.", expect="Confirmation required")
    bob.say(HELLO, "Hello from Bob.", expect="Confirmation required")
    bob.say(question["From"], "Yes.", expect="Nothing waits")
    assert titles() == []


def test_a_vacation_message_confirms_nothing():
    begin()
    question = ann.say(HELLO, "Hello, world.", expect="Confirmation required")
    answer = MailResponse(To=question["From"], From="ann@example.com", Subject="I am on holiday", Body="Until Monday.")
    answer["Auto-Submitted"] = "auto-replied"
    send(answer, to=question["From"])
    in_state("CONFIRMING")
    assert titles() == []
    ann.say(question["From"], "Yes.", expect="Published")


def test_two_posts_may_wait_and_each_has_its_answer():
    begin()
    first = ann.say(HELLO, "The first.", expect="Confirmation required", Subject="One")
    second = ann.say("other@oneshotblog.com", "The second.", expect="Confirmation required", Subject="Two")
    ann.say(second["From"], "Yes.", expect="Published: Two")
    ann.say(first["From"], "Yes.", expect="Published: One")
    assert sorted(titles()) == ["One", "Two"]


def test_of_two_messages_to_one_name_the_last_counts():
    begin()
    first = ann.say(HELLO, "The first.", expect="Confirmation required", Subject="One")
    second = ann.say(HELLO, "The second.", expect="Confirmation required", Subject="Two")
    ann.say(first["From"], "Yes.", expect="Nothing waits")
    ann.say(second["From"], "Yes.", expect="Published: Two")
    assert titles() == ["Two"]


# -- POSTING


def test_afterwards_every_message_publishes_at_once():
    begin()
    publish()
    ann.say("second@oneshotblog.com", "And again.", expect="Published: Two", Subject="Two")
    in_state("POSTING")
    assert titles() == ["Two", "My first post"]
    assert "And again." in page("by/ann@example.com/second/index.html")


def test_the_same_name_changes_the_post():
    begin()
    publish()
    ann.say(HELLO, "Better now.", expect="Published: Corrected", Subject="Corrected")
    assert titles() == ["Corrected"]
    assert "Better now." in hello()
    assert "world" not in hello()


def test_the_same_name_by_another_author_is_another_post():
    begin()
    publish()
    publish(bob, body="Bob says hello.")
    assert "world" in hello()
    assert "Bob says hello." in page("by/bob@example.com/hello/index.html")


def test_an_answer_that_comes_twice_is_told_that_nothing_waits():
    begin()
    question = ann.say(HELLO, "Hello, world.", expect="Confirmation required")
    ann.say(question["From"], "Yes.", expect="Published")
    ann.say(question["From"], "Yes!", expect="Nothing waits")
    in_state("POSTING")
    assert titles() == ["My first post"]


def test_a_vacation_message_is_no_post():
    begin()
    publish()
    index()
    message = MailResponse(To=HELLO, From="ann@example.com", Subject="I am on holiday", Body="Until Monday.")
    message["Auto-Submitted"] = "auto-replied"
    send(message)
    assert titles() == ["My first post"]
    assert settings.index.count() == 0


def test_capitals_in_an_address_are_the_same_address():
    begin()
    publish()
    RouterConversation("Ann@Example.COM", "Corrected").say("HELLO@OneShotBlog.com", "Better now.", expect="Published: Corrected")
    assert titles() == ["Corrected"]


# -- all or nothing


def test_a_post_that_fails_leaves_no_trace():
    begin()
    publish()
    index()
    push, settings.index.push = settings.index.push, lambda note: 1 / 0
    try:
        (outcome,) = send(MailResponse(To=HELLO, From="ann@example.com", Subject="Corrected", Body="Better now."))
    finally:
        settings.index.push = push
    assert outcome.kept, "the message is with the undeliverable ones"
    assert titles() == ["My first post"]
    assert len(sent()) == 2, "the question, and that the first one is published"
    in_state("POSTING")
