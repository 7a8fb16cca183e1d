"""`lamson queue`: what is in it, and what is taken out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamson.queue import Queue
from tests.commands.conftest import Type

MESSAGE = b"From: me@example.com\r\nTo: you@example.com\r\nSubject: Hello\r\n\r\nThere.\r\n"


@pytest.fixture
def queue(run_folder: Path) -> Queue:
    return Queue("run/queue")


def test_count_is_what_it_does_by_itself(lamson: Type, queue: Queue) -> None:
    queue.push(MESSAGE)
    assert lamson("queue").out == lamson("queue", "-count").out == "1\n"


def test_keys_and_get(lamson: Type, queue: Queue) -> None:
    keys = [queue.push(MESSAGE), queue.push(b"second")]
    assert lamson("queue", "-keys").out.split() == keys
    assert lamson("queue", "-get", keys[0]).out == MESSAGE.decode()
    assert queue.count() == 2


def test_pop_prints_the_oldest_and_removes_it(lamson: Type, queue: Queue) -> None:
    queue.push(MESSAGE)
    newest = queue.push(b"second")
    assert lamson("queue", "-pop").out == MESSAGE.decode()
    assert queue.keys() == [newest]


def test_pop_from_an_empty_queue(lamson: Type, queue: Queue) -> None:
    done = lamson("queue", "-pop")
    assert (done.status, done.err) == (1, "lamson queue: The queue run/queue is empty\n")


def test_remove_and_clear(lamson: Type, queue: Queue) -> None:
    key = queue.push(MESSAGE)
    queue.push(b"second")
    queue.push(b"third")
    assert lamson("queue", "-remove", key).out == f"Removed {key}.\n"
    assert lamson("queue", "-clear").out == "Removed 2 messages.\n"
    assert queue.count() == 0
    queue.push(MESSAGE)
    assert lamson("queue", "-clear").out == "Removed 1 message.\n"


def test_list_tells_why(lamson: Type, queue: Queue) -> None:
    key = queue.push(MESSAGE, mail_from="me@example.com", rcpt_tos=["you@example.com"], reason="app.START raised ValueError")
    line = lamson("queue", "-list").out
    assert line == f"{key}  from me@example.com  to you@example.com  Hello  app.START raised ValueError\n"


def test_list_is_a_line_for_each(lamson: Type, queue: Queue) -> None:
    key = queue.push(MESSAGE, mail_from="", rcpt_tos=["you@example.com"], reason="IntegrityError: NOT NULL\n[SQL: INSERT]\n(more)")
    assert lamson("queue", "-list").out == f"{key}  from <>  to you@example.com  Hello  IntegrityError: NOT NULL [SQL: INSERT] (more)\n"


@pytest.mark.parametrize("verb", ["-get", "-remove"])
@pytest.mark.parametrize("key", ["nothing", "../../../etc/passwd", "a/b"])
def test_a_key_that_is_not_there(lamson: Type, queue: Queue, verb: str, key: str) -> None:
    done = lamson("queue", verb, key)
    assert done.status == 1
    assert "There is no message" in done.err


def test_a_wrong_key_to_route_is_told_before_anything_is_booted(lamson: Type, queue: Queue) -> None:
    assert "There is no message nothing" in lamson("queue", "-route", "nothing").err


def test_a_queue_that_is_not_there_is_not_made(lamson: Type, run_folder: Path) -> None:
    done = lamson("queue", "-name", "run/quee", "-count")
    assert done.status == 1
    assert "run/quee is no queue" in done.err
    assert not Path("run/quee").exists()


def test_one_at_a_time(lamson: Type, queue: Queue) -> None:
    done = lamson("queue", "-pop", "-keys")
    assert done.status == 2
    assert "One at a time: -pop or -keys." in done.err
