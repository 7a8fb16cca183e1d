"""Bounces: reports by the book first, then signs; ordinary mail is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamson import address, bounce
from lamson.mail import MailRequest
from lamson.routing import RoutingBase
from tests.cost import assert_costs_less

CORPUS = Path(__file__).parents[2] / "shared/corpus"

REPORT = """\
From: Mail Delivery System <MAILER-DAEMON@mx.example.com>
To: list@example.org
Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

I am sorry, your message could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com
Arrival-Date: Mon, 1 Jan 2024 00:00:00 +0000

Final-Recipient: rfc822; joe@example.com
Original-Recipient: rfc822;joe@example.com
Action: failed
Status: 5.1.1
Remote-MTA: dns; mail.example.com
Diagnostic-Code: smtp; 550 5.1.1 <joe@example.com>:
    Recipient address rejected

Final-Recipient: rfc822; ann@example.com
Action: delivered
Status: 2.0.0
--b
Content-Type: message/rfc822

From: list@example.org
Subject: the original
Message-ID: <1@example.org>

hello
--b--
"""


def read(text: str, sender: str | None = None) -> bounce.BounceAnalyzer:
    return MailRequest("peer", sender, None, text.replace("\n", "\r\n").encode()).bounce


def test_a_report_by_the_book() -> None:
    found = read(REPORT)
    assert found.score == 1.0
    assert found.probable()
    assert found.is_hard()
    assert not found.is_soft()
    assert found.status == "5.1.1"
    assert found.primary_status == (5, "Permanent failure")
    assert found.secondary_status == (1, "Addressing status")
    assert found.combined_status == (11, "Bad destination mailbox address")
    assert found.final_recipient == "joe@example.com"
    assert found.final_recipients == ["joe@example.com"]
    assert found.action == "failed"
    assert found.reporting_mta == "mx.example.com"
    assert found.remote_mta == "mail.example.com"
    assert found.diagnostic_codes == ["550 5.1.1 <joe@example.com>: Recipient address rejected"]
    assert found.headers["status"] == "5.1.1"
    assert len(found.report) == 3
    assert found.notification == "I am sorry, your message could not be delivered."
    assert found.original["Subject"] == "the original"
    assert len(found.content_parts) == 3
    assert found.error_for_humans() == (
        "Mail to joe@example.com failed (Permanent failure: Bad destination mailbox address). "
        "The server said: 550 5.1.1 <joe@example.com>: Recipient address rejected"
    )


def test_a_delay_is_soft() -> None:
    found = read(REPORT.replace("Action: failed", "Action: delayed").replace("5.1.1", "4.4.1"))
    assert found.is_soft()
    assert not found.is_hard()
    assert found.primary_status == (4, "Persistent transient failure")


def test_mail_that_was_given_up_after_a_delay_is_hard() -> None:
    found = read(REPORT.replace("Status: 5.1.1", "Status: 4.4.7"))
    assert found.is_hard()
    assert found.combined_status == (47, "Delivery time expired")


def test_a_report_of_success_is_no_bounce() -> None:
    found = read(REPORT.replace("Action: failed", "Action: relayed").replace("Status: 5.1.1", "Status: 2.0.0"))
    assert found.score == 0.0
    assert not found.is_hard()
    assert not found.is_soft()


def test_several_recipients_and_the_failed_ones_first() -> None:
    found = read(REPORT.replace("Action: delivered\nStatus: 2.0.0", "Action: delayed\nStatus: 4.2.2"))
    assert found.final_recipients == ["joe@example.com", "ann@example.com"]
    assert found.is_hard()


def test_the_address_that_we_had_mailed_to_counts() -> None:
    found = read(REPORT.replace("Final-Recipient: rfc822; joe@example.com", "Final-Recipient: rfc822; x123@inside.example.com"))
    assert found.final_recipients == ["joe@example.com"]


@pytest.mark.parametrize(
    ("status", "combined"),
    [
        ("5.7.26", (726, "Multiple authentication checks failed")),
        ("5.1.10", (110, "Recipient address has null MX")),
        ("5.99.1", (991, "Unknown")),
    ],
)
def test_new_and_unknown_codes_are_described(status: str, combined: tuple[int, str]) -> None:
    found = read(REPORT.replace("Status: 5.1.1", f"Status: {status}"))
    assert found.combined_status == combined
    assert found.error_for_humans()


@pytest.mark.parametrize("status", ["", "nonsense", "5", "5.1.1.1.1", "99.1.1"])
def test_a_report_without_a_status_is_read(status: str) -> None:
    found = read(REPORT.replace("Status: 5.1.1", f"Status: {status}").replace("550 5.1.1 ", ""))
    assert found.is_hard()
    assert found.primary_status[0] == 5


def test_headers_of_the_original_as_text() -> None:
    found = read(REPORT.replace("message/rfc822", "text/rfc822-headers"))
    assert "the original" in found.original.body


def test_a_report_inside_an_enclosed_message_is_not_ours() -> None:
    inner = REPORT.replace("boundary=b", "boundary=c").replace("--b", "--c")
    head = "From: joe@example.com\nSubject: what is this?\nContent-Type: multipart/mixed; boundary=o\n\n"
    assert read(f"{head}--o\n\nwhat is this?\n--o\nContent-Type: message/rfc822\n\n{inner}\n--o--\n").score == 0.0


QMAIL = """\
From: MAILER-DAEMON@example.net
Subject: failure notice

Hi. This is the qmail-send program.

<joe@example.com>:
Sorry, no mailbox here by that name. (#5.1.1)

--- Below this line is a copy of the message.

To: <other@example.com>
"""

EXIM = """\
From: Mail Delivery System <Mailer-Daemon@example.net>
Subject: Mail delivery failed: returning message to sender
X-Failed-Recipients: joe@example.com, ann@example.com

A message that you sent could not be delivered.

  who@example.com
"""

EXIM_LATE = """\
From: Mail Delivery System <Mailer-Daemon@example.net>
Subject: Warning: message 1x delayed 24 hours

This message has not yet been delivered:

  joe@example.com
"""

UNKNOWN_USER = """\
From: Postmaster <postmaster@example.net>
To: list@example.org
Subject: Undeliverable Mail

Your message from list@example.org
User unknown: joe@example.com
"""

HTML_ONLY = """\
From: postmaster@example.net
Subject: delivery failure
Content-Type: text/html

<p>User <b>joe@example.com</b> unknown</p>
"""

SENDMAIL = """\
From: Mail Delivery Subsystem <MAILER-DAEMON@mx.example.com>
To: lists@example.org
Subject: Returned mail: see transcript for details

   ----- The following addresses had permanent fatal errors -----
joe@home.example.com
    (expanded from: <joe@example.com>)
"""

EXIM_ALIAS = """\
From: Mail Delivery System <Mailer-Daemon@example.net>
Subject: Mail delivery failed: returning message to sender

The following address(es) failed:

  an undisclosed address
    (generated from joe@example.com)
"""

COPY_ONLY = """\
From: MAILER-DAEMON@example.com
To: lists@example.org

I'm afraid I wasn't able to deliver the following message.

Subject: [List] hello
To: joe@example.com

---Below this line is a copy of the message.
"""

OTHER_LANGUAGE = "From: MAILER-DAEMON@example.com\nSubject: 邮件发送失败!\n\n邮件无法发送到您指定的地址。\n\n<joe@example.com>:\n"

REFUSED_SENDER = """\
From: MAILER-DAEMON@example.com
To: lists-bounces@example.org
Subject: Mail Delivery Problem

Your mail could not be delivered: joe is not accepting mail from lists@example.org.
"""

EXCHANGE = """\
From: System Administrator <postmaster@example.com>
To: lists@example.org
Subject: Undeliverable: hello

Your message

  To:      'joe@example.com'
  Subject: hello
  Sent:    Mon, 1 Jan 2001 00:00:00 +0000

did not reach the following recipient(s):

'joe@example.com' on Mon, 1 Jan 2001 00:00:01 +0000
    The recipient name is not recognized
"""

GMAIL = """\
From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>
To: me@x.org
Subject: Delivery Status Notification (Failure)
X-Failed-Recipients: joe@example.com

Delivery to the following recipient failed permanently:

     joe@example.com

Technical details of permanent failure:
Google tried to deliver your message, but it was rejected by the server for the recipient domain example.com by mx.example.com. [192.0.2.1].

The error that the other server returned was:
550 5.1.1 User unknown

----- Original message -----

To: joe@example.com
"""

NOTES = """\
From: Postmaster@example.com
To: me@x.org
Subject: DELIVERY FAILURE: User joe (joe@example.com) not listed in Domino Directory

Your message

  Subject: hello

was not delivered to:

  joe@example.com

because:

  User joe (joe@example.com) not listed in Domino Directory
"""

STILL_TRIED = """\
From: Mail Delivery System <MAILER-DAEMON@mx.example.com>
To: me@x.org
Subject: Delayed Mail (still being retried)

####################################################################
# THIS IS A WARNING ONLY.  YOU DO NOT NEED TO RESEND YOUR MESSAGE. #
####################################################################

Your message could not be delivered for more than 4 hour(s).
It will be retried until it is 5 day(s) old.

<joe@example.com>: host mx[1.2.3.4] said: 452 4.2.2 mailbox full
"""

OFFICE = """\
From: Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@example.onmicrosoft.com>
Return-Path: <>
To: me@x.org
Subject: Undeliverable: hello
Content-Type: text/html

<html><body><p>Your message to <a href="mailto:joe@example.com">joe@example.com</a> couldn't be delivered.</p>
<p><b>joe</b> wasn't found at <b>example.com</b>.</p></body></html>
"""

TALK = """\
From: MAILER-DAEMON@mx.example.com
To: me@x.org
Subject: Mail could not be delivered

****** Message from InterScan Messaging Security Suite ******

Sent <<< RCPT TO:<joe@example.com>
Received >>> 550 5.1.1 <joe@example.com>... User unknown

Unable to deliver message to <joe@example.com>.

************************     End of message     **********************
"""

GERMAN = """\
From: MAILER-DAEMON@web.de
To: me@x.org
Subject: Unzustellbare Mail

Diese Nachricht konnte nicht zugestellt werden:

joe@example.com
    550 Benutzer unbekannt
"""

FRENCH = """\
From: postmaster@example.fr
To: me@x.org
Return-Path: <>
Subject: Notification d'échec de remise

Le message n'a pas pu être remis à joe@example.com : boite inconnue.
"""

NO_NAMES = "From: postmaster@example.net\nSubject: delivery failure\n\nIt could not be delivered.\n"


@pytest.mark.parametrize(
    ("text", "recipients", "kind"),
    [
        (QMAIL, ["joe@example.com"], "hard"),
        (EXIM, ["joe@example.com", "ann@example.com"], "hard"),
        (EXIM_LATE, ["joe@example.com"], "soft"),
        (UNKNOWN_USER, ["joe@example.com"], "hard"),
        (HTML_ONLY, ["joe@example.com"], "hard"),
        (SENDMAIL, ["joe@home.example.com", "joe@example.com"], "hard"),
        (EXIM_ALIAS, ["joe@example.com"], "hard"),
        (COPY_ONLY, ["joe@example.com"], "hard"),
        (OTHER_LANGUAGE, ["joe@example.com"], "hard"),
        (REFUSED_SENDER, [], "hard"),
        (EXCHANGE, ["joe@example.com"], "hard"),
        (GMAIL, ["joe@example.com"], "hard"),
        (NOTES, ["joe@example.com"], "hard"),
        (STILL_TRIED, ["joe@example.com"], "soft"),
        (OFFICE, ["joe@example.com"], "hard"),
        (TALK, ["joe@example.com"], "hard"),
        (GERMAN, ["joe@example.com"], "hard"),
        (FRENCH, ["joe@example.com"], "hard"),
        (NO_NAMES, [], "hard"),
    ],
    ids=[
        *("qmail", "exim", "late", "unknown", "html"),
        *("sendmail", "exim alias", "copy only", "language", "refused sender", "exchange"),
        *("gmail", "notes", "quota soft", "o365 html", "interscan", "german", "french", "no names"),
    ],
)
def test_bounces_without_a_report(text: str, recipients: list[str], kind: str) -> None:
    found = read(text)
    assert 0.3 < found.score <= 1.0
    assert found.final_recipients == recipients
    assert ("hard" if found.is_hard() else "soft") == kind
    assert found.error_for_humans()


AWAY = """\
From: joe@example.com
Return-Path: <>
Subject: Out of office
Auto-Submitted: auto-replied

My mailbox is unavailable until Monday, and your message was not delivered to me. Write to ann@example.com.
"""

RECEIPT = """\
From: joe@example.com
Return-Path: <>
Subject: Not read: mail delivery failed
Content-Type: multipart/report; report-type=disposition-notification; boundary=b

--b
Content-Type: text/plain

Your message was deleted unread.
--b
Content-Type: message/disposition-notification

Final-Recipient: rfc822;joe@example.com
Disposition: automatic-action/MDN-sent-automatically; deleted
--b--
"""

ABUSE = """\
From: postmaster@example.com
Return-Path: <>
Subject: Abuse report: undeliverable
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
Original-Rcpt-To: joe@example.com
--b
Content-Type: message/rfc822

To: joe@example.com

hello
--b--
"""


@pytest.mark.parametrize(
    "text",
    [
        "From: joe@example.com\nSubject: hello\n\nhow are you?\n",
        "From: joe@example.com\nSubject: delivery failure\n\nMy parcel was late.\n",
        "From: postmaster@example.com\nSubject: planned work\n\nWe are moving house.\n",
        "From: joe@example.com\nReturn-Path: <>\nSubject: Out of office\nAuto-Submitted: auto-replied\n\nI am away.\n",
        AWAY,
        RECEIPT,
        ABUSE,
        "",
    ],
)
def test_ordinary_mail_is_no_bounce(text: str) -> None:
    found = read(text)
    assert not found.probable()
    assert not found.is_hard()
    assert not found.is_soft()
    assert found.primary_status == found.secondary_status == found.combined_status == (0, "Unknown")
    assert found.final_recipient is found.action is found.status is found.remote_mta is found.reporting_mta is None
    assert found.error_for_humans() == "This is no delivery report."


def test_the_null_sender_of_the_envelope_is_a_sign() -> None:
    text = "From: joe@example.com\nSubject: delivery failure\n\nSee below.\n"
    assert not read(text).probable()
    assert read(text, sender="").probable()


WRAPPED = """\
From: postmaster@example.com
To: lists@example.org
Subject: Delivery Status Notification (Failure)
Content-Type: multipart/mixed; boundary=w

--w
Content-Type: message/rfc822

{}
--w--
"""


def test_a_report_that_a_virus_scanner_wrapped_is_read() -> None:
    found = read(WRAPPED.format(REPORT))
    assert found.final_recipients == read(REPORT).final_recipients
    assert found.is_hard()
    assert found.score == 1.0


def test_a_server_that_refuses_by_a_receipt_is_understood() -> None:
    text = RECEIPT.replace("joe@example.com\nReturn", "Mail Delivery Subsystem <admin@example.com>\nReturn")
    found = read(text.replace("deleted unread", "sent to <joe@example.com> and rejected: quota exceeded"))
    assert (found.is_hard(), found.final_recipients) == (True, ["joe@example.com"])


@pytest.mark.parametrize(
    "headers",
    [
        "To: joe@example.com\nCc: ann@example.com",
        "To: joe@example.com\nList-Id: <list.example.org>",
        "To: joe@example.com\nPrecedence: list",
        "To: joe@example.org",
        "To: lists@example.org",
        "Subject: hello",
    ],
)
@pytest.mark.parametrize("form", ["message/rfc822", "text/rfc822-headers", "copied"])
def test_nobody_is_accused_on_the_word_of_a_copy(headers: str, form: str) -> None:
    """Where the failed message was written to several, to a list, or to somebody here, its To does not say who did not get it."""
    text = "From: MAILER-DAEMON@example.com\nTo: lists@example.org\nSubject: failure notice\n"
    if form == "copied":
        found = read(f"{text}\nIt failed.\n\n--- Below this line is a copy of the message.\n\n{headers}\n")
    else:
        kind = "Content-Type: multipart/mixed; boundary=b\n"
        found = read(f"{text}{kind}\n--b\n\nIt failed.\n--b\nContent-Type: {form}\n\n{headers}\n\nhello\n--b--\n")
    assert found.probable()
    assert found.final_recipients == []


def test_applications_may_add_matchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bounce.BOUNCE_MATCHERS, "X-Our-Gateway", bounce.re.compile("bounced"))
    assert read("From: postmaster@example.net\nX-Our-Gateway: bounced\n\nx\n").probable()


# -- for handlers


def message(text: str) -> MailRequest:
    return MailRequest("peer", "", "joe-bounce@example.org", text.replace("\n", "\r\n").encode())


SOFT = REPORT.replace("Action: failed", "Action: delayed").replace("5.1.1", "4.4.1")
ORDINARY = "From: joe@example.com\n\nhello\n"


def test_bounce_to_runs_the_state_that_fits() -> None:
    def BOUNCED_SOFT(message: Any, user: str | None = None) -> tuple[str, str | None]:
        return "soft", user

    def BOUNCED_HARD(message: Any) -> str:
        return "hard"

    @bounce.bounce_to(soft=BOUNCED_SOFT, hard=BOUNCED_HARD)
    def START(message: Any, user: str | None = None, host: str | None = None) -> tuple[str, str | None, str | None]:
        return "start", user, host

    captures = {"user": "joe", "host": "example.org"}
    assert START(message(REPORT), **captures) == "hard"
    assert START(message(SOFT), **captures) == ("soft", "joe")
    assert START(message(ORDINARY), **captures) == ("start", "joe", "example.org")
    assert START.__name__ == "START"


def test_bounce_to_hands_all_captures_to_a_function_that_takes_all() -> None:
    @bounce.bounce_to(hard=lambda message, **captures: captures)
    def START(message: Any, **captures: str) -> str:
        return "start"

    assert START(message(REPORT), user="joe") == {"user": "joe"}
    assert START(message(SOFT), user="joe") == "start"


def test_bounce_to_keeps_to_its_threshold() -> None:
    @bounce.bounce_to(soft=lambda message: "soft", hard=lambda message: "hard", threshold=1.0)
    def START(message: Any) -> str:
        return "start"

    assert START(message(REPORT)) == "start"


def test_bounce_to_and_routes_in_either_order() -> None:
    router = RoutingBase()

    def BOUNCED(message: Any) -> None:
        ran.append("bounced")

    @router.route("below-(user)@(host)", user=".+", host=".+")
    @router.stateless
    @bounce.bounce_to(hard=BOUNCED)
    def BELOW(message: Any, user: str | None = None, host: str | None = None) -> None:
        ran.append("below")

    @router.route("joe-(user)@(host)", user=".+", host=".+")
    @bounce.bounce_to(hard=BOUNCED)
    @router.stateless
    def MIDDLE(message: Any, user: str | None = None, host: str | None = None) -> None:
        ran.append("middle")

    ran: list[str] = []
    router.deliver(MailRequest("peer", "a@x.org", "below-x@example.org", REPORT))
    router.deliver(MailRequest("peer", "a@x.org", "joe-x@example.org", REPORT))
    router.deliver(MailRequest("peer", "a@x.org", "joe-x@example.org", ORDINARY))
    assert ran == ["bounced", "bounced", "middle"]


# -- real and hostile bounces


def test_the_corpus_of_bounces() -> None:
    """All but three: one names a box without its domain, two tell of other addresses that one might try."""
    if not CORPUS.exists():
        pytest.skip(f"the corpus is not here: {CORPUS}")
    expected = json.loads((CORPUS / "bounces/expected.json").read_text())
    found = {name: MailRequest(None, None, None, (CORPUS / "bounces" / name).read_bytes()).bounce for name in expected}
    wrong = {
        name
        for name, truth in expected.items()
        if set(found[name].final_recipients) != {recipient.lower() for recipient in truth["recipients"]}
    }
    assert wrong <= {"aol_01.txt", "llnl_01.txt", "yale_01.txt"}
    kinds = {name: "hard" if found[name].is_hard() else "soft" if found[name].is_soft() else "none" for name in expected}
    assert kinds == {name: truth.get("kind", kinds[name]) for name, truth in expected.items()}


def test_ordinary_mail_of_the_corpus_is_no_bounce() -> None:
    if not CORPUS.exists():
        pytest.skip(f"the corpus is not here: {CORPUS}")
    reports = {"01542.ed72bf2cd81ccd4c076533fb0af004e5.eml"}  # a virus scanner's notice to the sender: it did refuse the mail
    files = [path for folder in ("ham", "spam") for path in (CORPUS / folder).iterdir()]
    assert [path.name for path in files if path.name not in reports and MailRequest(None, None, None, path.read_bytes()).is_bounce()] == []


SCRAPS = ["From: MAILER-DAEMON\n", "Subject: failure notice\n", "Content-Type: message/delivery-status\n"]
SCRAPS += ["Final-Recipient: rfc822; a@b.c\n", "Action: failed\n", "Status: 5.1.1\n", "\n", " ", "a@b.c"]
SCRAPS += ["x", ":", ";", "<", ">", "550 ", "Original-Recipient:", "unknown user"]


@given(st.lists(st.sampled_from(SCRAPS), max_size=40).map("".join))
@settings(max_examples=200, deadline=None)
def test_anything_is_analysed(text: str) -> None:
    found = read(text, sender="")
    assert 0.0 <= found.score <= 1.0
    assert found.error_for_humans()
    assert found.is_hard() + found.is_soft() == found.probable()


HOSTILE = ["a@" * 100_000, "a" * 500_000, "\n " * 200_000, "5.1." * 100_000, "a@b.c\n" * 50_000, "a:" * 100_000, "<p" * 200_000]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body[:6]))
@pytest.mark.parametrize("kind", ["text/plain", "text/html", "message/delivery-status"])
def test_hostile_bounces_cost_little(body: str, kind: str) -> None:
    text = f"From: MAILER-DAEMON\nSubject: failure notice\nContent-Type: {kind}\n\n{body}"
    assert_costs_less(1, lambda: read(text, sender="").error_for_humans())


# -- addresses that name the recipient

KEY = b"a secret of the application"


@pytest.mark.parametrize("recipient", ["joe@example.net", "Joe+tag@Example.net", "a=b@x.org", "o'neil-jr@sub.example.net", "a+b=c+d@x.org"])
def test_a_bounce_address_names_its_recipient(recipient: str) -> None:
    made = bounce.verp_address("Bounces@lists.example", recipient, KEY)
    assert address.check(made) == made
    assert made.startswith("bounces+")
    assert bounce.verp_recipient(made, KEY) == recipient.lower()
    assert bounce.verp_recipient(made.upper(), KEY) == recipient.lower()
    assert bounce.verp_recipient(made, b"another key") is None
    assert bounce.verp_recipient(made.replace("lists.example", "other.example"), KEY) is None


@pytest.mark.parametrize("recipient", ["x" * 60 + "@example.net", "jose\u0301@example.net", '"a b"@example.net', "no-domain", ""])
def test_a_recipient_that_does_not_fit_leaves_the_address_as_it_is(recipient: str) -> None:
    assert bounce.verp_address("bounces@lists.example", recipient, KEY) == "bounces@lists.example"


FORGED = [None, "", "bounces@lists.example", "bounces+joe=example.net@lists.example", f"b+joe=x.org+{'a' * 16}@x"]


@pytest.mark.parametrize("forged", FORGED)
def test_an_address_that_was_not_signed_names_nobody(forged: str | None) -> None:
    assert bounce.verp_recipient(forged, KEY) is None


def test_a_bounce_address_needs_a_key() -> None:
    with pytest.raises(ValueError, match="key"):
        bounce.verp_address("bounces@lists.example", "joe@example.net", b"")
