"""`lamson cleanse` writes canonical mail and touches nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamson.queue import Queue
from tests.commands.conftest import Type

MBOX = b"""From one Sat Jan  3 01:05:34 1996
Subject: =?iso-8859-1?q?caf=E9?=

one

From two Sat Jan  3 01:05:34 1996
Subject: two

two
"""


def written(folder: str) -> list[bytes]:
    queue = Queue(folder)
    return [message.raw for message in map(queue.get, queue.keys()) if message]


def test_an_mbox(lamson: Type, run_folder: Path) -> None:
    Path("old.mbox").write_bytes(MBOX)
    done = lamson("cleanse", "-input", "old.mbox", "-output", "clean")
    assert (done.status, done.out) == (0, "Wrote 2 messages, 0 failed.\n"), done.err
    first, second = written("clean")
    assert b"utf-8" in first.lower()
    assert first.endswith(b"\r\n\r\none\r\n")
    assert b"Subject: two\r\n" in second
    assert Path("old.mbox").read_bytes() == MBOX


def test_a_maildir(lamson: Type, run_folder: Path) -> None:
    Queue("old").push(b"Subject: x\n\ny\n")
    before = sorted(Path("old").rglob("*"))
    assert lamson("cleanse", "-input", "old", "-output", "clean").out == "Wrote 1 messages, 0 failed.\n"
    assert b"Subject: x\r\n" in written("clean")[0]
    assert sorted(Path("old").rglob("*")) == before


def test_what_cannot_be_read_is_counted(lamson: Type, run_folder: Path) -> None:
    Queue("old").push(b"Subject: x\n\ny\n")
    Path("old/new/2.gone").symlink_to("nowhere")
    Path("old/cur/1.secret:2,").mkdir()
    assert lamson("cleanse", "-input", "old", "-output", "clean").out == "Wrote 1 messages, 0 failed.\n"


def test_damaged_mail_is_written_too(lamson: Type, run_folder: Path) -> None:
    Queue("old").push(b"Subject: \xff\xfe\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\0\n")
    done = lamson("cleanse", "-input", "old", "-output", "clean")
    assert (done.status, done.out) == (0, "Wrote 1 messages, 0 failed.\n"), done.err


@pytest.mark.parametrize(
    ("input", "complaint"),
    [
        ("nowhere", "There is no mailbox nowhere"),
        ("run", "run is no Maildir"),
        ("text", "text is no mbox file"),
    ],
)
def test_what_is_no_mailbox(lamson: Type, run_folder: Path, input: str, complaint: str) -> None:
    Path("text").write_text("Dear diary,\n")
    done = lamson("cleanse", "-input", input, "-output", "clean")
    assert done.status == 1
    assert complaint in done.err
    assert not Path("clean").exists()


def test_into_itself(lamson: Type, run_folder: Path) -> None:
    Queue("old")
    assert "the same mailbox" in lamson("cleanse", "-input", "old", "-output", "run/../old").err
