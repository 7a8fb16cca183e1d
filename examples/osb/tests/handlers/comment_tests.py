"""Comments, seen by readers, by the author, and by somebody who sells pills."""

from config import settings, testing  # first, so that everything goes to the tests' own queue and database
from app.model import blog
from lamson.mail import MailRequest, MailResponse
from lamson.queue import Queue
from lamson.server import SMTPError
from lamson.spam import Filter
from lamson.testing import RouterConversation, assert_in_state
from tests.blogging import COMMENT, COMMENT_ON_HELLO, HELLO, ann, begin, bob, comment, hello, publish, send, sent

seller = RouterConversation("seller@pills.example", "Cheap pills, best price")
SPAM = "Buy cheap pills online now! Best price, free shipping, no prescription: http://pills.example/buy"
HAM = "I have read this twice and I agree with what you say about the world. Thank you for writing it down."


def begin_with_a_post():
    begin()
    publish()


def in_state(state, who="bob@example.com"):
    assert_in_state(COMMENT, COMMENT_ON_HELLO, who, state)


def train():
    """Shows the spam filter what is spam and what is not."""
    judge = Filter(settings.database, settings.spam_config)
    for number in range(10):
        judge.train_spam(letter(f"s{number}@pills.example", f"Cheap pills, best price {number}", SPAM))
        judge.train_ham(letter(f"reader{number}@example.com", f"Re: My post {number}", HAM))


def letter(sender, subject, body):
    return MailRequest("127.0.0.1", sender, HELLO, bytes(MailResponse(To=HELLO, From=sender, Subject=subject, Body=body)))


def refused(client, to):
    try:
        client.say(to, "Well said.")
    except SMTPError as error:
        return error.reply.code
    raise AssertionError(f"{client.From} was not refused at {to}")


# -- START and CONFIRMING


def test_the_first_comment_waits_for_an_answer():
    begin_with_a_post()
    question = bob.say(COMMENT_ON_HELLO, "Well *said*.", expect="Confirmation required")
    assert question["To"] == "bob@example.com"
    assert "My first post" in question.body()
    in_state("CONFIRMING")
    assert "Well" not in hello()
    told = bob.say(question["From"], "Yes.", expect="Your comment on: My first post")
    assert "http://localhost:8888/by/ann%40example.com/hello/" in told.body()
    in_state("COMMENTING")
    assert "<p>Well <em>said</em>.</p>" in hello()
    assert "1 comment" in hello()


def test_the_number_of_a_post_is_an_address_too():
    begin_with_a_post()
    with settings.database.transaction():
        number = blog.find("ann@example.com", "hello").id
    comment(to=f"{number}-comment@oneshotblog.com")
    assert "Well said." in hello()


def test_a_comment_on_nothing_is_refused():
    begin_with_a_post()
    assert refused(bob, "ann-at-example.com-other-comment@oneshotblog.com") == 550
    assert refused(bob, "eve-at-example.com-hello-comment@oneshotblog.com") == 550
    assert refused(bob, "999999999-comment@oneshotblog.com") == 550
    in_state("START")


def test_a_post_that_was_deleted_meanwhile_has_no_comments():
    begin_with_a_post()
    question = bob.say(COMMENT_ON_HELLO, "Well said.", expect="Confirmation required")
    deletion = ann.say("hello-delete@oneshotblog.com", "Away with it.", expect="Confirmation required")
    ann.say(deletion["From"], "Yes.", expect="Deleted")
    assert refused(bob, question["From"]) == 550
    in_state("CONFIRMING")


def test_a_wrong_secret_publishes_nothing():
    begin_with_a_post()
    question = bob.say(COMMENT_ON_HELLO, "Well said.", expect="Confirmation required")
    wrong = question["From"].partition("-confirm-")[0] + "-confirm-guess@oneshotblog.com"
    bob.say(wrong, "Yes.", expect="Nothing waits")
    in_state("CONFIRMING")
    assert "Well said" not in hello()


def test_machines_are_asked_nothing_and_confirm_nothing():
    begin_with_a_post()
    before = len(sent())
    message = MailResponse(To=COMMENT_ON_HELLO, From="bob@example.com", Subject="On holiday", Body="Until Monday.")
    message["Auto-Submitted"] = "auto-replied"
    send(message, to=COMMENT_ON_HELLO, sender="bob@example.com")
    in_state("START")
    assert len(sent()) == before
    question = bob.say(COMMENT_ON_HELLO, "Well said.", expect="Confirmation required")
    send(message, to=question["From"], sender="bob@example.com")
    in_state("CONFIRMING")
    bob.say(question["From"], "Yes.", expect="Your comment")
    send(message, to=COMMENT_ON_HELLO, sender="bob@example.com")
    assert "Until Monday" not in hello()


# -- COMMENTING


def test_afterwards_every_comment_is_published_at_once():
    begin_with_a_post()
    comment()
    bob.say(COMMENT_ON_HELLO, "One more thing.", expect="Your comment")
    in_state("COMMENTING")
    assert "One more thing." in hello()
    assert "2 comments" in hello()


def test_two_comments_may_wait_and_each_has_its_answer():
    begin_with_a_post()
    ann.say("other@oneshotblog.com", "Another.", expect="Published", Subject="Other")
    first = bob.say(COMMENT_ON_HELLO, "On the first.", expect="Confirmation required")
    second = bob.say("ann-at-example.com-other-comment@oneshotblog.com", "On the second.", expect="Confirmation required")
    bob.say(second["From"], "Yes.", expect="Your comment on: Other")
    bob.say(first["From"], "Yes.", expect="Your comment on: My first post")
    assert "On the first." in hello()
    assert refused(bob, "ann-at-example.com-nothing-comment@oneshotblog.com") == 550


def test_what_a_comment_quotes_is_left_out():
    begin_with_a_post()
    comment(body="I agree.\n\nOn Mon, 23 Nov 2026 at 10:00, Ann <ann@example.com> wrote:\n> Hello, world.\n")
    assert "I agree." in hello()
    assert "wrote:" not in hello()


# -- SPAMMING


def test_spam_is_kept_and_its_sender_not_heard_again():
    begin_with_a_post()
    train()
    before = len(sent())
    seller.say(COMMENT_ON_HELLO, SPAM)
    in_state("SPAMMING", "seller@pills.example")
    spam = Queue(settings.spam_dir)
    assert [spam.get(key).body().strip() for key in spam.keys()] == [SPAM]
    assert "spam" in spam.envelope(spam.keys()[0])["reason"]
    for address in (COMMENT_ON_HELLO, "1-comment@oneshotblog.com", "1-comment-confirm-guess@oneshotblog.com"):
        seller.say(address, "I am a serious person now.")
    assert len(sent()) == before, "a spammer hears nothing"
    assert settings.confirmation.pending.count() == 0
    assert "No comments yet" in hello()
    assert spam.count() == 1


def test_readers_pass_the_trained_filter():
    begin_with_a_post()
    train()
    comment(body=HAM)
    in_state("COMMENTING")


def test_who_begins_to_send_spam_later_is_swallowed_too():
    begin_with_a_post()
    train()
    comment(seller, body=HAM)
    in_state("COMMENTING", "seller@pills.example")
    seller.say(COMMENT_ON_HELLO, SPAM)
    in_state("SPAMMING", "seller@pills.example")
    assert "pills.example/buy" not in hello()


def test_a_spammer_among_the_comments_may_still_write_posts():
    begin_with_a_post()
    train()
    seller.say(COMMENT_ON_HELLO, SPAM)
    seller.say("shop@oneshotblog.com", "About my shop.", expect="Confirmation required")
