"""What the sample does, seen by somebody who writes to it."""

from config import testing  # first, so that everything goes to the tests' own queue and database
from lamson.testing import RouterConversation, assert_in_state, queue

writer = RouterConversation("writer@example.com", "A test of mine")


def test_the_first_message_is_answered_and_forwarded():
    writer.begin()
    answer = writer.say("test@test.com", "Hello there.", expect="Welcome")
    assert answer["From"] == "test@test.com"
    assert answer["Subject"] == "Welcome. Re: A test of mine"
    assert bodies() == ["Hello there."]
    assert_in_state("app.handlers.sample", "test@test.com", "writer@example.com", "FORWARD")


def test_later_messages_are_forwarded_only():
    writer.begin()
    writer.say("test@test.com", "The first.", expect="Welcome")
    writer.say("test@test.com", "The second.")
    assert bodies() == ["The first.", "The second."]


def test_each_sender_has_a_conversation_of_their_own():
    writer.begin()
    writer.say("test@test.com", "Hello there.", expect="Welcome")
    other = RouterConversation("other@example.com", "From somebody else")
    assert other.say("test@test.com", "Hello, too.", expect="Welcome")["To"] == "other@example.com"


def bodies():
    """The text of all that was forwarded, in order."""
    messages = [queue().get(key) for key in queue().keys()]
    return [message.body().strip() for message in messages if message["Auto-Submitted"] is None]
