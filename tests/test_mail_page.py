"""docs/mail.md says what is so: its handlers run, and what follows `>>>` gives what stands below it."""

from __future__ import annotations

import doctest
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest

from lamson import view
from lamson.confirm import ConfirmationEngine, ConfirmationStorage
from lamson.mail import MailRequest, MailResponse
from lamson.relay import QueueRelay
from lamson.routing import RoutingBase
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs/mail.md"
ANN = "ann@example.net"

BOUNCE = b"""\
From: MAILER-DAEMON@example.net
Content-Type: multipart/report; report-type=delivery-status; boundary=r

--r
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; bob@example.net
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 no such user
--r--
"""


class Page:
    """What the examples of the page find around them, and what became of it."""

    def __init__(self, router: RoutingBase, folder: Path) -> None:
        self.router = router
        self.relay = QueueRelay(folder / "sent")
        self.confirmations = ConfirmationEngine(str(folder / "pending"), ConfirmationStorage())
        self.subscribed: list[str] = []
        self.unsubscribed: list[str] = []
        self.names: dict[str, Any] = {
            "relay": self.relay,
            "log": logging.getLogger("page"),
            "subscribe": self.subscribed.append,
            "unsubscribe": self.unsubscribed.append,
            "__name__": "page",
        }

    def message(self, data: bytes, To: str = "support@test.com", From: str = "joerg@example.com") -> MailRequest:
        return MailRequest("127.0.0.1", From, To, data)

    def deliver(self, data: bytes, To: str, From: str = ANN) -> None:
        self.router.deliver(self.message(data, To, From))

    def sent(self) -> list[MailRequest]:
        return [found for found in map(self.relay.queue.get, self.relay.queue.keys()) if found]


@pytest.fixture
def page(default_router: RoutingBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """The page's handlers, loaded."""
    page = Page(default_router, tmp_path)
    settings = ModuleType("config.settings")
    settings.__dict__.update(relay=page.relay, confirmations=page.confirmations)
    monkeypatch.setitem(sys.modules, "config", ModuleType("config"))
    monkeypatch.setitem(sys.modules, "config.settings", settings)
    monkeypatch.setitem(sys.modules, "page", ModuleType("page"))
    templates = jinja2.DictLoader({"confirm.txt": "Please answer to {{ confirm_address }}@{{ host }}.\n"})
    monkeypatch.setattr(view, "LOADER", jinja2.Environment(loader=templates, undefined=jinja2.StrictUndefined))
    default_router.defaults(host="test\\.com")
    for example in blocks(PAGE, "python"):
        exec(compile(example, str(PAGE), "exec"), page.names)
    return page


@pytest.fixture
def letter() -> bytes:
    return next(blocks(PAGE, "text")).replace("\n", "\r\n").encode()


def test_what_stands_below_the_prompts_is_so(page: Page, letter: bytes) -> None:
    enclosing = MailResponse(To="support@test.com", From=ANN, Subject="Fwd", Body="look")
    enclosing.attach("mail.eml", data=letter)
    found = {"message": page.message(letter), "forwarded": page.message(bytes(enclosing)), "bounced": page.message(BOUNCE)}
    examples = "\n".join(blocks(PAGE, "pycon"))
    assert examples.count(">>>") > 30
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(examples, {**page.names, **found}, "mail.md", str(PAGE), 0)
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


def test_the_list_posts_and_the_signature_would_hold(page: Page, letter: bytes) -> None:
    page.deliver(letter, "lamps@test.com")
    (sent,) = page.sent()
    assert (sent.route_to, sent.route_from) == ([ANN, "bob@example.net"], "lamps-bounces@test.com")
    assert sent["List-Id"] == "Lamps <lamps.test.com>"
    assert sent.raw.partition(b"\r\nFrom:")[2] == letter.replace(
        b"\r\n\r\n", b"\r\nList-Id: Lamps <lamps.test.com>\r\n\r\n", 1
    ).partition(b"From:")[2]


def test_support_answers_people_and_no_robots(page: Page, letter: bytes) -> None:
    page.deliver(b"Auto-Submitted: auto-replied\r\n" + letter, "support@test.com", "joerg@example.com")
    assert page.sent() == []
    page.deliver(letter, "support@test.com", "joerg@example.com")
    assert [(sent["To"], sent["Subject"], sent["In-Reply-To"]) for sent in page.sent()] == [
        ("joerg@example.com", "Re: It is bröken", "<1@example.com>")
    ]


def test_a_bounce_unsubscribes(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    page.deliver(BOUNCE.replace(b"failed", b"delayed").replace(b"5.1.1", b"4.2.2"), "lamps-bounces@test.com", "<>")
    assert (page.unsubscribed, "bob@example.net" in caplog.text) == ([], True)
    page.deliver(BOUNCE, "lamps-bounces@test.com", "<>")
    assert page.unsubscribed == ["bob@example.net"]


def test_who_confirms_is_subscribed(page: Page) -> None:
    page.deliver(b"From: ann@example.net\r\nSubject: me too\r\n\r\n", "lamps-subscribe@test.com")
    (question,) = page.sent()
    assert page.subscribed == []
    address = question["From"] or ""
    assert re.search(r"Please answer to lamps-confirm-\w+@test\.com\.", question.text)
    page.deliver(b"\r\n", address, "eve@example.net")
    assert page.subscribed == []
    page.deliver(b"\r\n", address)
    page.deliver(b"\r\n", address)
    assert page.subscribed == [ANN]
