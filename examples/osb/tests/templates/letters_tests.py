"""That every letter can be written, in plain words and short lines."""

from pathlib import Path

from config import testing  # first, so that everything goes to the tests' own queue and database
from lamson.testing import spelling
from tests.blogging import HELLO, ann, begin, comment, publish, sent


def every_letter():
    """Has the blog write all its letters."""
    begin()
    publish()
    comment()
    question = ann.say("hello-delete@oneshotblog.com", "Away.", expect="Confirmation required")
    ann.say(question["From"], "Yes.", expect="Deleted")
    ann.say(question["From"], "Yes!", expect="Nothing waits")
    return sent()


def test_every_letter_is_complete():
    letters = every_letter()
    templates = [*Path("app/templates/confirm").iterdir(), *Path("app/templates/letter").iterdir()]
    assert len(letters) == len(templates)
    for letter in letters:
        assert all([letter["From"], letter["To"], letter["Subject"]])
        assert letter["Auto-Submitted"] == "auto-replied"
        assert "{{" not in letter.body()
        assert max(map(len, letter.body().splitlines())) <= 78


def test_letters_are_spelt_right():
    for letter in every_letter():
        words = letter.body().replace("oneshotblog", "one").replace("http", "").replace("postmaster", "post master")
        text = "\n".join(line for line in words.splitlines() if "@" not in line and "://" not in line)
        assert spelling(letter["Subject"], text)
