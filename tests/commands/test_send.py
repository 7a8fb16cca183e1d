"""`lamson send`, `sendmail` and `blast` against a real server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lamson.queue import Queue
from tests.commands.conftest import Sink, Type

MESSAGE = b"From: Me <Me@example.com>\nTo: you@example.com, Them <them@example.com>\nCc: cc@example.com\nBcc: blind@example.com\n\nHello.\n"
HOME = ["-host", "127.0.0.1"]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])


# -- send


def test_send_shows_the_talk(lamson: Type, sink: Sink) -> None:
    words = ["-sender", "me@mydomain.com", "-to", "test@test.com", "-subject", "My test.", "-body", "Hi there.", "-port", sink.port]
    done = lamson("send", *words)
    assert done.status == 0, done.err
    talk = done.err.splitlines()
    assert talk[0].startswith("S: 220 ")
    assert any(line.startswith("C: EHLO ") for line in talk)
    assert any(line.startswith("C: MAIL FROM:<me@mydomain.com>") for line in talk)
    (got,) = sink.envelopes
    assert (got.mail_from, got.rcpt_tos) == ("me@mydomain.com", ("test@test.com",))
    assert b"Subject: My test.\r\n" in got.data
    assert got.data.endswith(b"\r\n\r\nHi there.\r\n") or got.data.endswith(b"\r\n\r\nHi there.")


def test_send_to_several_with_a_file(lamson: Type, sink: Sink, run_folder: Path) -> None:
    Path("notes.txt").write_text("some notes\n")
    to = ["-to", "One <one@example.com>, two@example.com", "-attach", "notes.txt"]
    assert lamson("send", "-sender", "me@example.com", "-port", sink.port, *to).status == 0
    (got,) = sink.envelopes
    assert got.rcpt_tos == ("one@example.com", "two@example.com")
    assert b"notes.txt" in got.data


def test_send_from_the_null_sender(lamson: Type, sink: Sink) -> None:
    assert lamson("send", "-sender", "<>", "-to", "one@example.com", "-port", sink.port).status == 0
    assert sink.envelopes[0].mail_from == ""


def test_send_shows_the_message_with_debug(lamson: Type, sink: Sink) -> None:
    done = lamson("send", "-sender", "a@b.example", "-to", "c@d.example", "-subject", "Seen", "-port", sink.port, "-debug")
    assert "Subject: Seen\n" in done.err


def test_send_tells_who_was_refused(lamson: Type, sink: Sink) -> None:
    done = lamson("send", "-sender", "a@b.example", "-to", "nobody@d.example, c@d.example", "-port", sink.port)
    assert done.status == 1
    assert "lamson: nobody@d.example did not get it: 550 5.1.1 Nobody of that name\n" in done.err
    assert sink.envelopes[0].rcpt_tos == ("c@d.example",)


def test_send_without_a_server(lamson: Type) -> None:
    done = lamson("send", "-sender", "a@b.example", "-to", "c@d.example", "-port", free_port())
    assert done.status == 1
    assert "No connection to 127.0.0.1" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["-to", "c@d.example"], 2, "Missing option -sender"),
        (["-sender", "a@b.example"], 2, "Missing option -to"),
        (["-sender", ",", "-to", "c@d.example"], 2, "is no address"),
        (["-sender", "a@b.example", "-to", "c@d.example", "-ssl", "-starttls"], 2, "-ssl goes neither with -starttls nor with -lmtp"),
        (["-sender", "a@b.example", "-to", "c@d.example", "-attach", "nothing.txt"], 1, "There is no file 'nothing.txt' to attach"),
        (["-sender", "a@b.example", "-to", "c@d.example", "-body", "a\rb"], 1, "-body, line 1: a carriage return without a line feed"),
        (["-sender", "a@b.example", "-to", ","], 2, "is no address"),
    ],
)
def test_what_send_refuses(lamson: Type, run_folder: Path, words: list[str], status: int, complaint: str) -> None:
    done = lamson("send", *words)
    assert done.status == status
    assert complaint in done.err


# -- sendmail


def test_sendmail_changes_line_ends_and_nothing_else(lamson: Type, sink: Sink) -> None:
    done = lamson("sendmail", "-port", sink.port, *HOME, "you@example.com", stdin=MESSAGE)
    assert (done.status, done.out, done.err) == (0, "", "")
    (got,) = sink.envelopes
    assert got.data == MESSAGE.replace(b"\n", b"\r\n")
    assert (got.mail_from, got.rcpt_tos) == ("Me@example.com", ("you@example.com",))


def test_sendmail_takes_the_recipients_from_the_message(lamson: Type, sink: Sink) -> None:
    assert lamson("sendmail", "-t", "-port", sink.port, "extra@example.com", stdin=MESSAGE).status == 0
    (got,) = sink.envelopes
    wanted = ("extra@example.com", "you@example.com", "them@example.com", "cc@example.com", "blind@example.com")
    assert got.rcpt_tos == wanted
    assert b"Bcc" not in got.data
    assert got.data == MESSAGE.replace(b"Bcc: blind@example.com\n", b"").replace(b"\n", b"\r\n")


DOTTED = b"Subject: dots\n\nbefore\n.\nafter\n"


@pytest.mark.parametrize(
    ("words", "end"),
    [([], b"before\r\n"), (["-i"], b"before\r\n.\r\nafter\r\n"), (["-oi"], b"before\r\n.\r\nafter\r\n")],
)
def test_a_dot_ends_the_message_unless_told_otherwise(lamson: Type, sink: Sink, words: list[str], end: bytes) -> None:
    lamson("sendmail", "-port", sink.port, *words, "you@example.com", stdin=DOTTED)
    assert sink.envelopes[0].data == b"Subject: dots\r\n\r\n" + end


@pytest.mark.parametrize(
    ("words", "sender"),
    [
        (["-f", "boss@example.com"], "boss@example.com"),
        (["-fboss@example.com"], "boss@example.com"),
        (["-f", "<boss@example.com>"], "boss@example.com"),
        (["-r", "boss@example.com"], "boss@example.com"),
        (["-f", "<>"], ""),
        (["-f", ""], ""),
    ],
)
def test_the_sender_that_is_given(lamson: Type, sink: Sink, words: list[str], sender: str) -> None:
    assert lamson("sendmail", "-port", sink.port, *words, "you@example.com", stdin=MESSAGE).status == 0
    assert sink.envelopes[0].mail_from == sender


def test_without_any_sender_it_is_this_user(lamson: Type, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    lamson("sendmail", "-port", sink.port, "you@example.com", stdin=b"Subject: x\n\ny\n")
    assert sink.envelopes[0].mail_from.startswith("somebody@")


def test_what_mutt_and_cron_say(lamson: Type, sink: Sink) -> None:
    words = ["-oem", "-oi", "-oQqueue", "-B8BITMIME", "-B", "7BIT", "-F", "Full Name", "-N", "never", "-bm", "-em", "-v", "--"]
    done = lamson("sendmail", f"-port={sink.port}", "--host", "127.0.0.1", *words, "-strange@example.com", stdin=MESSAGE)
    assert done.status == 0, done.err
    assert sink.envelopes[0].rcpt_tos == ("-strange@example.com",)


def test_sendmail_shows_the_talk_when_asked(lamson: Type, sink: Sink) -> None:
    assert "S: 220" in lamson("sendmail", "-debug", "-port", sink.port, "you@example.com", stdin=MESSAGE).err


@pytest.mark.parametrize(
    ("words", "stdin", "status", "complaint"),
    [
        ([], MESSAGE, 2, "Nobody to send it to"),
        (["-t"], b"Subject: x\n\ny\n", 2, "Nobody to send it to"),
        (["-Z", "you@example.com"], MESSAGE, 2, "There is no option -Z"),
        (["-f"], MESSAGE, 2, "-f needs a value"),
        (["-port", "x", "you@example.com"], MESSAGE, 2, "-port 'x' is no port"),
        (["-port", "0", "you@example.com"], MESSAGE, 2, "-port '0' is no port"),
        (["you@example.com"], b"", 1, "There is no message on standard input"),
        (["you@example.com"], b"Subject: x\n\none\ntwo\rthree\n", 1, "standard input, line 4: a carriage return without a line feed"),
    ],
)
def test_what_sendmail_refuses(lamson: Type, words: list[str], stdin: bytes, status: int, complaint: str) -> None:
    done = lamson("sendmail", *words, stdin=stdin)
    assert done.status == status
    assert complaint in done.err
    assert done.err.count("\n") == 1


def test_sendmail_tells_who_was_refused(lamson: Type, sink: Sink) -> None:
    done = lamson("sendmail", "-port", sink.port, "nobody@example.com", stdin=MESSAGE)
    assert done.status == 1
    assert "nobody@example.com did not get it: 550 5.1.1" in done.err


# -- blast


@pytest.fixture
def maildir(run_folder: Path) -> Path:
    for name in ("new", "cur", "tmp"):
        (run_folder / "box" / name).mkdir(parents=True)
    return run_folder / "box"


def test_blast_sends_everything_as_it_is(lamson: Type, sink: Sink, maildir: Path) -> None:
    (maildir / "new" / "1").write_bytes(MESSAGE)
    (maildir / "cur" / "2:2,S").write_bytes(b"To: two@example.com\r\nX-Odd:   spaces\t\r\n\r\n.dot\r\n")
    done = lamson("blast", "-input", "box", "-port", sink.port)
    assert (done.status, done.out) == (0, "Sent 2 messages, 0 failed.\n"), done.err
    first, second = sink.envelopes
    assert first.data == MESSAGE.replace(b"\n", b"\r\n")
    assert first.rcpt_tos == ("you@example.com", "them@example.com", "cc@example.com")
    assert (second.mail_from, second.data) == ("", b"To: two@example.com\r\nX-Odd:   spaces\t\r\n\r\n.dot\r\n")
    assert sorted(path.name for path in maildir.iterdir()) == ["cur", "new", "tmp"], "it is not changed"


def test_blast_sends_an_mbox(lamson: Type, sink: Sink, run_folder: Path) -> None:
    start = b"From joe@example.com Thu Jan  1 00:00:00 1970\n"
    Path("old.mbox").write_bytes(start + MESSAGE + b"\n" + start + b"To: two@example.com\n\nbare\rCR\n\n" + start + MESSAGE)
    done = lamson("blast", "-input", "old.mbox", "-port", sink.port)
    assert (done.status, done.out) == (1, "Sent 2 messages, 1 failed.\n")
    assert "old.mbox, message 2: line 3: a carriage return" in done.err
    assert [envelope.data for envelope in sink.envelopes] == [MESSAGE.replace(b"\n", b"\r\n")] * 2


def test_blast_sends_to_whom_the_queue_says(lamson: Type, sink: Sink, run_folder: Path) -> None:
    Queue("run/queue").push(MESSAGE, mail_from="kept@example.com", rcpt_tos=["kept-to@example.com"])
    assert lamson("blast", "-input", "run/queue", "-port", sink.port).status == 0
    assert (sink.envelopes[0].mail_from, sink.envelopes[0].rcpt_tos) == ("kept@example.com", ("kept-to@example.com",))


def test_blast_counts_what_failed_and_sends_the_rest(lamson: Type, sink: Sink, maildir: Path) -> None:
    (maildir / "new" / "1").write_bytes(b"To: one@example.com\n\nbare\rCR\n")
    (maildir / "new" / "2").write_bytes(b"Subject: to nobody\n\n")
    (maildir / "new" / "3").write_bytes(b"To: nobody@example.com\n\n")
    (maildir / "new" / "4").write_bytes(b"To: four@example.com\n\n")
    done = lamson("blast", "-input", "box", "-port", sink.port)
    assert (done.status, done.out) == (1, "Sent 1 messages, 3 failed.\n")
    assert "box/new/1: line 3: a carriage return" in done.err
    assert "box/new/2: it names no recipient" in done.err
    assert "box/new/3: nobody@example.com: 550 5.1.1" in done.err
    assert [envelope.rcpt_tos for envelope in sink.envelopes] == [("four@example.com",)]


def test_blast_tells_how_far_it_is(lamson: Type, sink: Sink, maildir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamson.commands.sending.LINE_EVERY", 2)
    for number in range(5):
        (maildir / "new" / str(number)).write_bytes(b"To: one@example.com\n\n")
    done = lamson("blast", "-input", "box", "-port", sink.port)
    assert done.err.splitlines() == ["Sending: 2 of 5", "Sending: 4 of 5"]


def test_blast_where_there_is_nothing(lamson: Type, sink: Sink, maildir: Path) -> None:
    assert lamson("blast", "-input", "nowhere", "-port", sink.port).status == 1
    assert "There is no mailbox nowhere" in lamson("blast", "-input", "nowhere", "-port", sink.port).err
    assert lamson("blast", "-input", "box", "-port", sink.port).out == "Sent 0 messages, 0 failed.\n"


def test_blast_without_a_server(lamson: Type, maildir: Path) -> None:
    (maildir / "new" / "1").write_bytes(MESSAGE)
    done = lamson("blast", "-input", "box", "-port", free_port())
    assert done.status == 1
    assert "No connection" in done.err
