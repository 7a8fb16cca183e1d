"""`lamson spam`: teaching from every kind of mailbox, asking, and moving what was learnt elsewhere."""

from __future__ import annotations

import json
import mailbox
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamson.bayes import BayesScorer
from lamson.database import configure_database
from lamson.queue import Queue
from tests.commands.conftest import Type
from tests.test_bayes import ADS, TALK, written

DB = "run/spam.db"


@pytest.fixture
def here(run_folder: Path) -> Path:
    return run_folder


def make_mbox(path: Path, kind: str, numbers: range) -> None:
    box = mailbox.mbox(path)
    for number in numbers:
        box.add(mailbox.mboxMessage(written(kind, number)))
    box.close()


def make_folder(path: Path, kind: str, numbers: range) -> None:
    path.mkdir()
    for number in numbers:
        (path / f"{number}.eml").write_text(written(kind, number))


def make_maildir(path: Path, kind: str, numbers: range) -> None:
    queue = Queue(path)
    for number in numbers:
        queue.push(written(kind, number))


def counts() -> tuple[int, int]:
    database = configure_database({"url": f"sqlite:///{DB}"})
    try:
        return BayesScorer(database).learnt()
    finally:
        database.dispose()


@pytest.mark.parametrize("make", [make_mbox, make_folder, make_maildir])
def test_every_kind_of_mailbox(lamson: Type, here: Path, make: Callable[[Path, str, range], None]) -> None:
    make(here / "good", "ham", range(12))
    make(here / "bad", "spam", range(13))
    assert lamson("spam", "-db", DB, "-ham", "good").out == "Learnt 12 messages as ham; 0 known as that already.\n"
    assert lamson("spam", "-db", DB, "-spam", "bad").out == "Learnt 13 messages as spam; 0 known as that already.\n"
    assert lamson("spam", "-db", DB, "-spam", "bad").out == "Learnt 0 messages as spam; 13 known as that already.\n"
    assert lamson("spam", "-db", DB).out == lamson("spam", "-db", DB, "-counts").out == "Learnt from 13 spam and 12 ham.\n"
    assert lamson("spam", "-db", DB, "-untrain", "bad").out == "Took back 13 messages; 0 had not been learnt.\n"
    assert counts() == (0, 12)


@pytest.fixture
def learnt(lamson: Type, here: Path) -> Path:
    """A database that has learnt, and a message of each kind that it does not know."""
    make_folder(here / "good", "ham", range(15))
    make_mbox(here / "bad", "spam", range(15))
    lamson("spam", "-db", DB, "-ham", "good")
    lamson("spam", "-db", DB, "-spam", "bad")
    (here / "ham.eml").write_text(f"From: new@works.example\nSubject: {TALK[0]}\n\n{' '.join(TALK)}\n")
    (here / "spam.eml").write_text(f"From: new@shop.example\nSubject: {ADS[0]}\n\n{' '.join(ADS)}\n")
    return here


@pytest.mark.parametrize(("text", "number"), [("", 0), ("\n\nFrom ann@example.com Mon Jan  1 00:00:00 2024\nSubject: x\n\nOne.\n", 1)])
def test_an_mbox_without_mail_and_one_below_blank_lines(lamson: Type, here: Path, text: str, number: int) -> None:
    Path("mbox").write_text(text)
    assert lamson("spam", "-db", DB, "-ham", "mbox").status == 0
    assert counts() == (0, number)


def test_a_score_and_its_words(lamson: Type, learnt: Path) -> None:
    said = lamson("spam", "-db", DB, "-score", "spam.eml").out.splitlines()
    assert said[0].startswith("spam, 1.000, by ")
    strongest = said[1].split()
    assert (strongest[2], strongest[4]) == ("spam,", "ham")
    assert float(strongest[0]) > 0.9
    assert lamson("spam", "-db", DB, "-score", "-", stdin=(learnt / "ham.eml").read_bytes()).out.startswith("ham, 0.000, by ")


def test_scoring_before_anything_was_learnt(lamson: Type, here: Path) -> None:
    (here / "one.eml").write_text(written("ham", 1))
    said = lamson("spam", "-db", DB, "-score", "one.eml").out
    assert said.startswith("unsure, 0.500, by 0 words\n")
    assert "0 spam and 0 ham, which is too few" in said


def test_one_message_changes_sides(lamson: Type, learnt: Path) -> None:
    assert lamson("spam", "-db", DB, "-ham", "spam.eml").out == "Learnt 1 message as ham; 0 known as that already.\n"
    assert counts() == (15, 16)
    assert lamson("spam", "-db", DB, "-spam", "spam.eml").out == "Learnt 1 message as spam; 0 known as that already.\n"
    assert counts() == (16, 15)


def test_what_was_learnt_moves_elsewhere(lamson: Type, learnt: Path) -> None:
    assert lamson("spam", "-db", DB, "-export", "words.jsonl").out == "Wrote words.jsonl.\n"
    assert lamson("spam", "-db", "run/other.db", "-import", "words.jsonl").out == "Learnt from 15 spam and 15 ham.\n"
    assert lamson("spam", "-db", "run/other.db", "-export", "-").out == Path("words.jsonl").read_text("utf-8")
    score = lamson("spam", "-db", DB, "-score", "spam.eml").out
    assert lamson("spam", "-db", "run/other.db", "-score", "spam.eml").out == score
    assert lamson("spam", "-db", "run/other.db", "-spam", "bad").out == "Learnt 0 messages as spam; 15 known as that already.\n"


def test_it_is_not_learnt_twice(lamson: Type, learnt: Path) -> None:
    lamson("spam", "-db", DB, "-export", "words.jsonl")
    done = lamson("spam", "-db", DB, "-import", "words.jsonl")
    assert (done.status, counts()) == (1, (15, 15))
    assert "Forget it first: lamson spam -clear" in done.err
    assert lamson("spam", "-db", DB, "-clear").out == "Forgot 15 spam and 15 ham.\n"
    assert lamson("spam", "-db", DB, "-import", "words.jsonl").status == 0
    assert counts() == (15, 15)


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["rubbish"], 1),
        (['["token", 1, 2]'], 1),
        (['{"lamson spam": 2}'], 1),
        (['{"lamson spam": 1}', '["", 3, 3]', '["token", -1, 2]'], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', '["token", 1]'], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', json.dumps(["x" * 300, 1, 1])], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', '["abc", true]'], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', json.dumps(["x" * 64, True])], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', '["free", 2147483648, 0]'], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', f'["free", {"9" * 100}, 0]'], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', r'["\ud800", 1, 1]'], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', r'["\u0000", 1, 1]'], 3),
        (['{"lamson spam": 1}', '["", 3, 3]', "[" * 100_000], 3),
    ],
)
def test_a_file_that_is_none_is_taken_in_not_at_all(lamson: Type, here: Path, lines: list[str], number: int) -> None:
    Path("words").write_text("\n".join(lines) + "\n")
    done = lamson("spam", "-db", DB, "-import", "words")
    assert done.status == 1
    assert f"Line {number} is none of what lamson spam -export writes" in done.err
    assert counts() == (0, 0)


def test_a_file_that_is_no_text(lamson: Type, here: Path) -> None:
    Path("words").write_bytes(b"\xff\xfe\x00")
    assert lamson("spam", "-db", DB, "-import", "words").status == 1


@pytest.mark.parametrize("verb", ["-ham", "-spam", "-untrain", "-score", "-import"])
def test_a_file_that_is_not_there(lamson: Type, here: Path, verb: str) -> None:
    done = lamson("spam", "-db", DB, verb, "nowhere")
    assert done.status == 1
    assert "nowhere" in done.err


def test_a_message_that_cannot_be_read_is_named(lamson: Type, here: Path) -> None:
    make_maildir(here / "good", "ham", range(3))
    next((here / "good" / "new").iterdir()).unlink()
    (here / "good" / "new" / "5.gone").symlink_to(here)  # a folder, not to be read
    make_folder(here / "folder", "ham", range(2))
    done = lamson("spam", "-db", DB, "-ham", "good")
    assert (done.status, counts()) == (0, (0, 2))


def test_one_at_a_time(lamson: Type, here: Path) -> None:
    done = lamson("spam", "-export", "x", "-import", "y")
    assert (done.status, done.err) == (2, "lamson spam: One at a time: -export or -import. See: lamson help -for spam\n")


@pytest.fixture
def project(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (here / "config").mkdir()
    (here / "config" / "__init__.py").touch()
    (here / "config" / "settings.py").write_text("database_config = {'url': 'sqlite:///run/lamson.db'}\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield here
    for name in [name for name in sys.modules if name.split(".")[0] == "config"]:
        del sys.modules[name]


def test_the_database_of_the_project(lamson: Type, project: Path) -> None:
    assert "They are made by: lamson start" in lamson("spam").err
    lamson("db", "-upgrade")
    make_folder(project / "good", "ham", range(3))
    assert lamson("spam", "-ham", "good").status == 0
    assert lamson("spam").out == "Learnt from 0 spam and 3 ham.\n"
