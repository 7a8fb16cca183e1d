"""A message that was signed (DKIM) is still signed after a queue, a relay, the outbox and a list have had it in their hands.

The signatures are real ones: made and checked by dkimpy, over headers that are repeated, folded oddly and spelt in every case, and over a
body of 8-bit text, dots and trailing space.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lamson.database import configure_database
from lamson.mail import MailRequest, MailResponse
from lamson.outbox import Outbox
from lamson.queue import Queue
from lamson.relay import Relay
from lamson.routing import RoutingBase
from lamson.server import SMTPReceiver
from tests.smtp.server_script import ScriptedServer
from tests.test_server import Running

LETTER = (
    "Received: from b.example by c.example;\r\n\tMon, 1 Jan 2024 00:00:01 +0000\r\n"
    "received: from a.example by b.example;\r\n  Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    "FROM:  =?iso-8859-1?q?Andr=E9?=   <andre@example.com>\r\n"
    "to: list@test.com,\r\n\t\"Team, the\"  <team@test.com>\r\n"
    "Subject:   Grüße  an\r\n   alle \r\n"
    "X-Twice: one\r\nX-Twice:two\r\n"
    "Message-ID: <1@example.com>\r\n"
    "Content-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    "\r\n"
    ".leading dot\r\n..two\r\nGrüße   \t\r\nFrom here on\r\n\r\n\r\n"
).encode()

SIGNED = [b"From", b"To", b"Subject", b"X-Twice", b"X-Twice", b"Message-ID", b"Content-Type", b"Content-Transfer-Encoding"]

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
RECORD = b"v=DKIM1; k=rsa; p=" + base64.b64encode(PUBLIC)


def signed(how: bytes) -> bytes:
    """The letter with two signatures over it. `how`: `simple` forgives no changed space or fold, `relaxed` is the usual form."""
    data = LETTER
    for _ in range(2):
        data = dkim.sign(data, b"s", b"example.com", PRIVATE, canonicalize=(how, how), include_headers=SIGNED) + data
    return data


def is_signed(data: bytes) -> bool:
    """Both signatures hold."""
    signatures = dkim.DKIM(data)
    try:
        return all(signatures.verify(idx=at, dnsfunc=lambda name, timeout=5: RECORD) for at in range(2))
    except dkim.ValidationError:  # of the body
        return False


@pytest.fixture(params=[b"simple", b"relaxed"], ids=["simple", "relaxed"])
def letter(request: pytest.FixtureRequest) -> bytes:
    data = signed(request.param)
    assert is_signed(data)
    return data


def test_a_change_breaks_a_signature(letter: bytes) -> None:
    """So that the tests below prove something."""
    message = MailRequest(Data=letter)
    message["Subject"] = "another"
    assert not is_signed(bytes(message))
    assert not is_signed(letter.replace(b".leading", b"leading"))


def test_a_queue_keeps_it(letter: bytes, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    kept = queue.get(queue.push(MailRequest(Data=letter)))
    assert kept is not None
    assert is_signed(bytes(kept))
    assert is_signed(bytes(kept.copy()))


def test_headers_that_nobody_signed_come_and_go(letter: bytes) -> None:
    message = MailRequest(Data=letter)
    message["List-Id"] = "The list <list.test.com>"
    message["X-Spam"] = "Grüße " * 40
    message.base.append_header("List-Post", "<mailto:list@test.com>")
    message["X-Spam"] = "no"
    del message["List-Post"]
    assert is_signed(bytes(message))


def forward(relay: Relay, message: MailRequest) -> None:
    relay.deliver(message)


def post(relay: Relay, message: MailRequest) -> None:
    """What a list does with a post."""
    message["List-Id"] = "The list <list.test.com>"
    message["Precedence"] = "list"
    relay.deliver(message, To=["ann@example.net", "bob@example.net"], From="list-bounces@test.com")


@pytest.fixture
def next_server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.mark.parametrize("handle", [forward, post])
def test_it_holds_from_client_to_next_server(
    letter: bytes, handle: Callable[[Relay, MailRequest], None], router: RoutingBase, next_server: ScriptedServer, tmp_path: Path
) -> None:
    """By SMTP in, through a handler, the commit and the outbox, and by SMTP out."""
    relay = Relay(*next_server.address[:2], timeout=5, helo="here.example.org")
    database = configure_database({"url": f"sqlite:///{tmp_path}/test.db"}, also_create=True)
    router.STATE_STORE = database.states

    def START(message: MailRequest, **_: Any) -> None:
        handle(relay, message)

    router.route("list@test\\.com")(START)
    with Running(SMTPReceiver(port=0, router=router)) as smtp:
        (answer,) = smtp.send("list@test.com", data=letter.replace(b"\r\n.", b"\r\n.."), mail_from="andre@example.com")
    assert answer.startswith("250")
    assert Outbox(database, [relay]).drain(10)
    relay.close()
    database.dispose()
    (sent,) = next_server.messages
    data = sent.data.replace(b"\r\n..", b"\r\n.")
    assert data.startswith(b"Received: ")
    assert is_signed(data)


def test_a_message_that_encloses_it_gives_it_back(letter: bytes) -> None:
    """An attached copy is what came, octet for octet."""
    answer = MailResponse(To="ann@example.net", From="list@test.com", Subject="Forwarded", Body="See below.")
    answer.attach(filename="mail.eml", content_type="message/rfc822", data=letter)
    (_, part) = MailRequest(Data=bytes(answer)).all_parts()
    assert is_signed(part.data)
