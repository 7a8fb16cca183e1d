"""Mailboxes are gone through one message at a time, whatever their size."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamson.commands import mailbox
from lamson.errors import ConfigError
from tests.mailboxes import measure

START = b"From joe@example.com Thu Jan  1 00:00:00 1970\n"


def read(path: Path) -> list[bytes]:
    box = mailbox.opened(str(path))
    found = [data() for _, data in box.entries]
    assert len(found) == box.count
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (START, [b""]),
        (b"\n\n" + START + b"A: b\n\nc\n", [b"A: b\n\nc\n"]),
        (START + b"A: b\n\nc\n\n" + START + b"D: e\n\nf", [b"A: b\n\nc\n", b"D: e\n\nf"]),
        (START + b"A: b\n\nc\n" + START + b"D: e\n", [b"A: b\n\nc\n", b"D: e\n"]),
        (START + b"A: b\r\n\r\nc\r\n\r\n" + START + b"D: e\r\n\r\n\r\n", [b"A: b\r\n\r\nc\r\n", b"D: e\r\n\r\n"]),
        (b"From joe\nA: b\n\nc\n", [b"A: b\n\nc\n"]),
        (START + b"A: b\n\nFrom what I hear, 5 came.\n\n>From here on\n", [b"A: b\n\nFrom what I hear, 5 came.\n\n>From here on\n"]),
        (START + b"A: b\n\nx " + START, [b"A: b\n\nx " + START]),
    ],
    ids=["empty", "one empty", "blank lines before", "two", "no blank line between", "crlf", "no date", "a sentence", "within a line"],
)
def test_an_mbox_is_cut_at_its_from_lines(data: bytes, expected: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "box").write_bytes(data)
    assert read(tmp_path / "box") == expected


@pytest.mark.parametrize(
    "line",
    [
        b"From - Tue Apr 06 01:02:03 2021\n",
        b"From joe@example.com  Sat Jan  3 01:05:34 1996 +0100\r\n",
        b"From MAILER-DAEMON Sat Jan  3 01:05 EST 1996\n",
        b"From 1234@xxx Mon Mar 14 02:28:44 +0000 2022\n",
    ],
)
def test_from_lines_of_many_programs(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "box").write_bytes(line + b"A: b\n\n" + line + b"C: d\n")
    assert read(tmp_path / "box") == [b"A: b\n", b"C: d\n"]


def test_lines_longer_than_a_piece_are_whole(tmp_path: Path) -> None:
    bodies = [b"x" * length + b"\n" for length in (mailbox.PIECE - 2, mailbox.PIECE - 1, mailbox.PIECE, 3 * mailbox.PIECE)]
    (tmp_path / "box").write_bytes(b"".join(START + body + b"\n" for body in bodies))
    assert read(tmp_path / "box") == bodies


def test_a_maildir_is_gone_through_in_order_with_few_names_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "NAMES", 3)
    for folder in ("new", "cur"):
        (tmp_path / folder).mkdir()
    for number in range(10):
        folder = "cur" if number % 3 else "new"
        (tmp_path / folder / f"{number}.host").write_bytes(b"%d" % number)
    assert read(tmp_path) == [b"%d" % number for number in range(10)]


def test_what_comes_meanwhile_does_not_disturb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "NAMES", 1)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/2").write_bytes(b"2")
    entries = mailbox.opened(str(tmp_path)).entries
    assert next(entries)[1]() == b"2"
    (tmp_path / "new/1").write_bytes(b"late, but older")
    (tmp_path / "new/3").write_bytes(b"3")
    assert [data() for _, data in entries] == [b"3"]


def test_what_is_no_mailbox(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"Dear diary,\n" + START)
    for name, says in (("text", "no mbox file"), ("absent", "There is no mailbox"), (".", "no Maildir")):
        with pytest.raises(ConfigError, match=says):
            mailbox.opened(str(tmp_path / name))


def test_ten_times_the_size_takes_no_more_memory(tmp_path: Path) -> None:
    """The small form of `python -m tests.mailboxes`: six megabytes, of which none stays."""
    for what, small, large in measure(tmp_path, 6.0, size=40_000):
        assert large - small < 3.0, what
