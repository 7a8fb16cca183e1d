"""That the templates can be filled, whatever a stranger writes."""

from config import testing  # first, so that everything goes to the tests' own queue and database
from lamson import view
from lamson.mail import MailRequest


def test_welcome_repeats_the_subject_and_nothing_else():
    raw = b"Message-ID: <1@example.com>\r\nSubject: {{ 7 * 7 }} and =?utf-8?q?two=0Alines?=\r\n\r\nHello.\r\n"
    message = MailRequest("127.0.0.1", "writer@example.com", "test@test.com", raw)
    answer = view.respond("welcome.msg", {"message": message, "address": "test", "host": "test.com"})
    assert answer["To"] == "writer@example.com"
    assert answer["Subject"] == "Welcome. Re: {{ 7 * 7 }} and two lines"
    assert answer["In-Reply-To"] == "<1@example.com>"
