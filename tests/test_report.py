"""Delivery reports, read back by the module that reads them and by the standard library."""

from __future__ import annotations

import email
import email.policy

import pytest

from lamson import report
from lamson.mail import MailRequest
from lamson.smtp.wire import bare_line_end
from lamson.status import Reply

ORIGINAL = b"From: me@example.com\r\nTo: you@example.net\r\nSubject: hello\r\nMessage-ID: <1@example.com>\r\n\r\nHello.\r\n"
UNKNOWN = Reply(550, "no such user", "5.1.1")
FULL = Reply(452, "mailbox full\ntry later", "4.2.2")


def made(original: bytes = ORIGINAL, failures: dict[str, Reply] | None = None, host: str = "mx.example.org") -> bytes:
    """A report."""
    written = report.bounce(original, "me@example.com", failures or {"you@example.net": UNKNOWN}, host)
    assert written is not None
    return written


def test_a_report_is_read_back() -> None:
    message = MailRequest("peer", "", "me@example.com", made(failures={"you@example.net": UNKNOWN, "her@example.net": FULL}))
    found = message.bounce
    assert message.is_bounce()
    assert found.is_hard()
    assert found.final_recipients == ["you@example.net", "her@example.net"]
    assert (found.final_recipient, found.action, found.reporting_mta) == ("you@example.net", "failed", "mx.example.org")
    assert "550 5.1.1 no such user" in found.diagnostic_codes[0]
    assert found.original is not None
    assert found.original["Subject"] == "hello"
    assert message.defects == []


def test_a_report_is_read_by_the_standard_library() -> None:
    parsed = email.message_from_bytes(made(), policy=email.policy.default)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    text, status, original = parsed.iter_parts()
    assert "<you@example.net>:\r\n    550 5.1.1 no such user" in text.get_content()
    assert status.get_content_type() == "message/delivery-status"
    blocks = [dict(block.items()) for block in status.get_payload()]
    assert blocks[0] == {"Reporting-MTA": "dns; mx.example.org"}
    assert blocks[1] == {
        "Final-Recipient": "rfc822; you@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
    }
    assert original.get_content_type() == "message/rfc822"
    assert not parsed.defects


def test_the_head_of_a_report() -> None:
    message = MailRequest(Data=made())
    assert message["From"] == "Mail Delivery System <mailer-daemon@mx.example.org>"
    assert message["To"] == "<me@example.com>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<1@example.com>"
    assert message["Message-ID"].endswith("@mx.example.org>")
    assert message["Date"]
    assert message.is_automatic()


@pytest.mark.parametrize("sender", ["", "<>", " <> ", "\r\n"])
def test_the_null_sender_gets_no_report(sender: str) -> None:
    assert report.bounce(ORIGINAL, sender, {"you@example.net": UNKNOWN}, "mx.example.org") is None


def test_no_failures_no_report() -> None:
    assert report.bounce(ORIGINAL, "me@example.com", {}, "mx.example.org") is None


def test_of_a_large_message_only_the_headers_come_back() -> None:
    written = made(ORIGINAL + b"x" * 70 + b"\r\n" * report.RETURNED)
    assert len(written) < 3000
    assert b"Content-Type: text/rfc822-headers\r\n\r\nFrom: me@example.com\r\n" in written
    assert b"The headers of your message follow." in written
    assert MailRequest(Data=written).bounce.final_recipients == ["you@example.net"]


def test_of_endless_headers_only_some_come_back() -> None:
    written = made(b"".join(b"X-%d: y\r\n" % number for number in range(100_000)))
    assert len(written) < report.RETURNED + 3000


@pytest.mark.parametrize("original", [b"Subject: a\n\nb\n", b"Subject: a\rX: b\r\n\r\nc", b"", b"\0\xff", b"Subject: a\r\n\r\n.\n.\r\n"])
def test_what_came_damaged_goes_back_clean(original: bytes) -> None:
    written = made(original)
    assert bare_line_end(written) is None
    assert MailRequest(Data=written).bounce.final_recipients == ["you@example.net"]


def test_an_eight_bit_original_comes_back_as_it_was() -> None:
    original = ORIGINAL + "Grüße\r\n".encode("latin-1")
    written = made(original)
    assert original in written
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n" in written


def test_an_address_beyond_ascii() -> None:
    written = made(failures={"josé+x@exämple.net": Reply(553, "not ASCII", "5.6.7")})
    assert rb"Final-Recipient: utf-8; jos\x{E9}\x{2B}x@ex\x{E4}mple.net" in written
    assert "<josé+x@exämple.net>" in written.decode()


@pytest.mark.parametrize("evil", ["no\r\nBcc: all@example.com", "no\n\nmore", "no\u2028x", "\x1b[2J", "é" * 5000, "x" * 5000])
def test_what_a_server_said_cannot_become_a_line(evil: str) -> None:
    written = made(failures={"you@example.net": Reply(550, evil, None)}, host="evil\r\nhost")
    assert b"\nBcc:" not in written
    assert bare_line_end(written) is None
    status = written.split(b"message/delivery-status", 1)[1].split(b"\r\n--=_", 1)[0]
    assert status.isascii()
    assert max(len(line) for line in written.split(b"\r\n")) < 998
    assert b"Reporting-MTA: dns; localhost\r\n" in status
    assert b"Status: 5.0.0\r\n" in status


def test_an_evil_recipient_cannot_become_a_line() -> None:
    written = made(failures={"you@example.net>\r\nAction: delivered": UNKNOWN})
    assert b"\nAction: delivered" not in written


def test_a_boundary_is_not_in_what_it_parts() -> None:
    once, twice = made(), made(made())
    assert MailRequest(Data=twice).all_parts()[2].content_type == "message/rfc822"
    assert once not in twice, "each report has a boundary of its own"
