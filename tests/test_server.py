"""Receivers with the real router, queue, database and listener: what becomes of a message, and what the client hears of it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from lamson import server
from lamson.database import configure_database
from lamson.delivery import current
from lamson.errors import ConfigError, LamsonError, QueueError, RoutingError, SMTPError
from lamson.mail import MailRequest
from lamson.queue import Queue
from lamson.relay import QueueRelay, Relay
from lamson.routing import Match, Router, RoutingBase
from lamson.server import LMTPReceiver, QueueReceiver, SMTPReceiver, make_fake_settings, undeliverable_message
from lamson.trace import DeliveryFilter
from tests.smtp.certificate import self_signed
from tests.smtp.talk import PATIENCE, Talker, wait_until

MESSAGE = b"Message-ID: <1@client.example>\r\nSubject: Hello\r\n\r\nText.\r\n"

Behave = Callable[[MailRequest], Any]


@pytest.fixture
def seen(router: RoutingBase) -> list[MailRequest]:
    """What the handler of `(box)@test.com` was given. A box's name says what the handler does."""
    seen: list[MailRequest] = []
    tries: dict[str, int] = {}

    def START(message: MailRequest, box: str) -> None:
        seen.append(message)
        tries[box] = tries.get(box, 0) + 1
        if box.startswith("refused"):
            raise SMTPError(554, f"{box} takes nothing")
        if box.startswith("later"):
            raise SMTPError(450, f"{box} is full")
        if box.startswith("second") and tries[box] == 1:
            raise SMTPError(450, "come again")
        if box.startswith("broken"):
            raise RuntimeError("the secret of the house")

    START.__module__ = "boxes"
    router.route("(box)@test\\.com", box="[a-z0-9]+")(START)
    return seen


@pytest.fixture
def kept(router: RoutingBase, tmp_path: Path) -> Queue:
    router.UNDELIVERABLE_QUEUE = Queue(tmp_path / "undeliverable")
    return router.UNDELIVERABLE_QUEUE


@pytest.fixture
def receipts(router: RoutingBase, tmp_path: Path) -> Iterator[None]:
    """A database, so that there are receipts."""
    database = configure_database({"url": f"sqlite:///{tmp_path}/test.db"}, also_create=True)
    router.STATE_STORE = database.states
    yield
    database.dispose()


class Running:
    """A receiver that runs for the length of a `with`, and a client of it."""

    def __init__(self, receiver: SMTPReceiver) -> None:
        self.receiver = receiver

    def __enter__(self) -> Running:
        self.receiver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.receiver.stop(5)

    def send(self, *recipients: str, data: bytes = MESSAGE, mail_from: str = "a@client.example", answers: int = 1) -> list[str]:
        """The answers to the message; to RCPT where none was taken."""
        with Talker(self.receiver.address) as client:
            client.say("LHLO here" if self.receiver.lmtp else "EHLO here")
            client.say(f"MAIL FROM:<{mail_from}>")
            said = [client.say(f"RCPT TO:<{recipient}>") for recipient in recipients]
            if not any(one.startswith("2") for one in said):
                return said
            assert client.say("DATA").startswith("354")
            client.send(data + b".\r\n")
            return [client.reply() for _ in range(answers)]


@pytest.fixture
def smtp(router: RoutingBase, seen: list[MailRequest]) -> Iterator[Running]:
    with Running(SMTPReceiver(port=0, router=router, hostname="server.example")) as running:
        yield running


# -- what the handler sees, and what is said


def test_a_message_arrives_as_it_was_sent(smtp: Running, seen: list[MailRequest]) -> None:
    (answer,) = smtp.send("One@test.com")
    assert answer.startswith("250 2.0.0 OK, delivery ")
    (message,) = seen
    assert message.raw == MESSAGE
    assert (message.Peer, message.From, list(message.To)) == ("127.0.0.1", "a@client.example", ["One@test.com"])
    assert (message.recipient, message.route_from) == ("one@test.com", "a@client.example")


def test_the_null_sender_stays_null(smtp: Running, seen: list[MailRequest]) -> None:
    assert smtp.send("one@test.com", mail_from="")[0].startswith("250")
    assert seen[0].From == ""


def test_the_way_of_a_message_is_in_the_log(smtp: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    smtp.send("one@test.com", "two@test.com")
    assert f"received from 127.0.0.1: <a@client.example> to one@test.com, two@test.com, {len(MESSAGE)} octets" in caplog.text
    assert "answered: 250 2.0.0 OK, deliveries " in caplog.text


def test_each_line_carries_the_id_of_what_is_worked_on(smtp: Running, caplog: pytest.LogCaptureFixture) -> None:
    """The envelope's outside deliveries, and inside one the delivery's, which is also in the answer."""
    caplog.set_level(logging.INFO)
    carrying = DeliveryFilter()
    caplog.handler.addFilter(carrying)
    try:
        (answer,) = smtp.send("one@test.com", "refused@test.com", "two@test.com")
    finally:
        caplog.handler.removeFilter(carrying)
    said = [(record.getMessage().split()[0], record.__dict__["delivery"]) for record in caplog.records if record.name != "lamson.smtp"]
    (received,) = [id for word, id in said if word == "received"]
    (answered,) = [id for word, id in said if word == "answered:"]
    matched = [id for word, id in said if word == "matched"]
    (refused,) = [id for word, id in said if word == "refused"]
    assert received == answered != "-"
    assert len({received, *matched}) == 4
    assert refused == matched[1]
    assert answer.startswith("554")


def test_each_recipient_is_a_delivery(smtp: Running, seen: list[MailRequest]) -> None:
    (answer,) = smtp.send("one@test.com", "two@test.com")
    deliveries = answer.removeprefix("250 2.0.0 OK, deliveries ").split()
    assert len(set(deliveries)) == 2
    assert [message.recipient for message in seen] == ["one@test.com", "two@test.com"]
    assert all(list(message.To) == ["one@test.com", "two@test.com"] for message in seen)


def test_a_reply_stays_short_with_many_recipients(smtp: Running) -> None:
    (answer,) = smtp.send(*(f"box{number}@test.com" for number in range(60)))
    assert answer.startswith("250")
    assert len(answer) < 510


def test_a_stranger_is_refused_at_rcpt(smtp: Running, seen: list[MailRequest]) -> None:
    assert smtp.send("one@elsewhere.example") == ["550 5.1.1 There is no such address here"]
    assert seen == []


def test_a_stranger_is_taken_where_the_setting_says_so(router: RoutingBase, seen: list[MailRequest], kept: Queue) -> None:
    with Running(SMTPReceiver(port=0, router=router, take_unrouted=True)) as smtp:
        assert smtp.send("one@elsewhere.example")[0].startswith("250")
    (key,) = kept.keys()
    assert kept.get(key).raw == MESSAGE


@pytest.mark.parametrize("kind", [SMTPReceiver, LMTPReceiver])
def test_no_recipient_is_taken_that_no_delivery_would_have(kind: type[SMTPReceiver], router: RoutingBase) -> None:
    """`=?utf-8?q?a?=@test.com` is an address by RFC 5321, and an encoded word to whoever reads headers."""
    seen: list[str | None] = []

    def START(message: MailRequest, box: str) -> None:
        seen.append(message.recipient)

    router.route("(box)@test\\.com", box=".+")(START)
    for unrouted in (False, True):
        with Running(kind(port=0, router=router, take_unrouted=unrouted)) as running:
            assert running.send("=?utf-8?q?a?=@test.com")[0].startswith("550 5.1.1")
            assert running.send("=?utf-8?q?a?=@test.com", "ann@test.com")[0].startswith("250")
            assert running.send('"ann"@test.com')[0].startswith("250")
    assert seen == ["ann@test.com"] * 4


def test_the_handlers_refusal_is_the_answer(smtp: Running) -> None:
    assert smtp.send("refused@test.com") == ["554 5.0.0 refused takes nothing"]
    assert smtp.send("later@test.com") == ["450 4.0.0 later is full"]


def test_what_a_handler_raises_is_never_said(smtp: Running, caplog: pytest.LogCaptureFixture) -> None:
    (answer,) = smtp.send("broken@test.com")
    assert answer.startswith("451")
    assert "secret" not in answer
    assert "secret" in caplog.text


def test_a_handler_that_raises_has_its_message_kept(smtp: Running, kept: Queue, caplog: pytest.LogCaptureFixture) -> None:
    assert smtp.send("broken@test.com")[0].startswith("250")
    (key,) = kept.keys()
    assert kept.get(key).raw == MESSAGE
    assert "RuntimeError" in kept.envelope(key)["reason"]


@pytest.mark.usefixtures("caplog")
def test_with_log_exceptions_off_the_client_hears_451_all_the_same(smtp: Running, router: RoutingBase) -> None:
    router.LOG_EXCEPTIONS = False
    assert smtp.send("broken@test.com")[0].startswith("451")
    assert smtp.send("one@test.com")[0].startswith("250")


# -- several recipients


def test_one_failed_for_now_and_the_others_are_not_done_twice(smtp: Running, seen: list[MailRequest], receipts: None) -> None:
    recipients = ["one@test.com", "second@test.com", "three@test.com"]
    assert smtp.send(*recipients) == ["450 4.0.0 come again"]
    assert smtp.send(*recipients)[0].startswith("250")
    assert sorted(message.recipient for message in seen) == ["one@test.com", "second@test.com", "second@test.com", "three@test.com"]


def test_a_message_that_comes_again_is_answered_and_not_handled(smtp: Running, seen: list[MailRequest], receipts: None) -> None:
    first, again = smtp.send("one@test.com"), smtp.send("one@test.com")
    assert first == again
    assert len(seen) == 1


def test_all_refused_is_the_first_refusal(smtp: Running, kept: Queue) -> None:
    assert smtp.send("refused1@test.com", "refused2@test.com") == ["554 5.0.0 refused1 takes nothing"]
    assert len(kept) == 0


def test_refused_for_good_and_failed_for_now_is_tried_again(smtp: Running, kept: Queue) -> None:
    assert smtp.send("refused@test.com", "later@test.com") == ["450 4.0.0 later is full"]
    assert smtp.send("refused@test.com", "one@test.com", "later@test.com") == ["450 4.0.0 later is full"]
    assert len(kept) == 0, "nothing is settled yet"


@pytest.fixture
def reports(tmp_path: Path) -> QueueRelay:
    return QueueRelay(tmp_path / "reports")


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("with_database", [True, False])
def test_one_refused_while_others_were_taken(
    router: RoutingBase, kept: Queue, reports: QueueRelay, with_database: bool, request: pytest.FixtureRequest
) -> None:
    if with_database:
        request.getfixturevalue("receipts")
    with Running(SMTPReceiver(port=0, router=router, relay=reports, hostname="server.example")) as smtp:
        assert smtp.send("one@test.com", "refused@test.com")[0].startswith("250 2.0.0 OK, deliveries ")
    (key,) = kept.keys()
    assert kept.get(key).raw == MESSAGE
    envelope = kept.envelope(key)
    assert (envelope["mail_from"], envelope["rcpt_tos"]) == ("a@client.example", ["refused@test.com"])
    assert envelope["reason"] == "refused: refused@test.com: 554 5.0.0 refused takes nothing"
    if with_database:  # the report waits in the outbox
        with router.STATE_STORE.database.engine.connect() as connection:
            rows = connection.exec_driver_sql("select mail_from, rcpt_to from lamson_outbox").all()
        assert rows == [("", "a@client.example")]
    else:
        (told,) = reports.queue.keys()
        assert reports.queue.envelope(told)["rcpt_tos"] == ["a@client.example"]
        report = message_from_bytes(reports.queue.get(told).raw)
        assert report.get_content_type() == "multipart/report"
        assert "refused@test.com" in report.as_string()


@pytest.mark.usefixtures("receipts")
def test_a_refused_copy_is_kept_once_though_the_client_comes_again(
    router: RoutingBase, seen: list[MailRequest], kept: Queue, reports: QueueRelay
) -> None:
    with Running(SMTPReceiver(port=0, router=router, relay=reports)) as smtp:
        for _ in range(2):
            assert smtp.send("one@test.com", "refused@test.com", "refused2@test.com")[0].startswith("250")
    assert (len(seen), len(kept)) == (3, 1)
    with router.STATE_STORE.database.engine.connect() as connection:
        assert connection.exec_driver_sql("select count(*) from lamson_outbox").scalar() == 1


@pytest.mark.usefixtures("seen")
def test_the_null_sender_is_told_nothing(router: RoutingBase, kept: Queue, reports: QueueRelay) -> None:
    with Running(SMTPReceiver(port=0, router=router, relay=reports)) as smtp:
        assert smtp.send("one@test.com", "refused@test.com", mail_from="")[0].startswith("250")
    assert len(kept) == 1
    assert len(reports.queue) == 0


def test_a_refused_copy_that_nobody_could_keep_is_refused(smtp: Running) -> None:
    """Neither an undeliverable queue nor a relay: 250 would lose it, so the client tells the sender."""
    assert smtp.send("one@test.com", "refused@test.com") == ["554 5.0.0 refused takes nothing"]


class FullQueue(Queue):
    def push(self, *_: Any, **__: Any) -> str:
        raise QueueError("The queue cannot be written: No space left on device; make room on that disk.")


def test_a_refused_copy_that_could_not_be_kept_is_tried_again(
    smtp: Running, router: RoutingBase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    router.UNDELIVERABLE_QUEUE = FullQueue(tmp_path / "full")
    assert smtp.send("one@test.com", "refused@test.com")[0].startswith("451 4.3.0")
    assert "make room on that disk" in caplog.text


# -- LMTP


@pytest.fixture
def lmtp(router: RoutingBase, seen: list[MailRequest]) -> Iterator[Running]:
    with Running(LMTPReceiver(port=0, router=router)) as running:
        yield running


def test_lmtp_answers_for_each_recipient(lmtp: Running, kept: Queue) -> None:
    one, refused, later = lmtp.send("One@test.com", "refused@test.com", "later@test.com", answers=3)
    assert one.startswith("250 2.0.0 OK, delivery ")
    assert refused == "554 5.0.0 refused takes nothing"
    assert later == "450 4.0.0 later is full"
    assert len(kept) == 0


def test_lmtp_answers_twice_for_one_mailbox_in_two_spellings(lmtp: Running, seen: list[MailRequest]) -> None:
    first, second = lmtp.send("One@test.com", "one@TEST.com", answers=2)
    assert first == second
    assert first.startswith("250")
    assert len(seen) == 1


def test_lmtp_over_a_unix_socket(router: RoutingBase, seen: list[MailRequest], tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "lmtp")
    with Running(LMTPReceiver(socket=path, router=router, mode=0o666)) as lmtp:
        assert lmtp.receiver.address == path
        assert lmtp.send("one@test.com")[0].startswith("250")
    assert seen[0].Peer == ""
    assert not os.path.exists(path)


# -- start and stop


def test_a_port_that_is_taken(smtp: Running, router: RoutingBase) -> None:
    host, port = smtp.receiver.address
    other = SMTPReceiver(host, port, router=RoutingBase())
    with pytest.raises(ConfigError, match="another program has this port"):
        other.start()
    other.router.route("late@test\\.com")(lambda message: None)  # its route table is open again


def test_a_wrong_route_is_told_at_the_start(router: RoutingBase) -> None:
    def START(message: MailRequest, nothing: str) -> None: ...

    router.route("(nothing)@test\\.com")(START)
    with pytest.raises(RoutingError, match="nothing"):
        SMTPReceiver(port=0, router=router).start()


def test_routes_are_closed_while_it_runs(smtp: Running, router: RoutingBase) -> None:
    def LATE(message: MailRequest) -> None: ...

    with pytest.raises(LamsonError):
        router.route("late@test\\.com")(LATE)
    smtp.receiver.stop()
    router.route("late@test\\.com")(LATE)


def test_a_receiver_can_be_started_again(smtp: Running) -> None:
    with pytest.raises(TypeError, match="started already"):
        smtp.receiver.start()
    smtp.receiver.stop()
    smtp.receiver.stop()
    smtp.receiver.start()
    assert smtp.send("one@test.com")[0].startswith("250")


def test_a_router_whose_match_waits_holds_up_nobody(router: RoutingBase, seen: list[MailRequest]) -> None:
    """One of the application's own may ask a database; `RoutingBase.match` looks at a table and is asked at the wheel."""
    go_on, inside = threading.Event(), threading.Event()
    told: list[bool] = []

    class Waiting(RoutingBase):
        def match(self, address: str) -> list[Match]:
            if address.startswith("slow@"):
                inside.set()
                told.append(go_on.wait(PATIENCE))
            return router.match(address)

    with Running(SMTPReceiver(port=0, router=Waiting())) as running, Talker(running.receiver.address) as slow:
        slow.say("EHLO here")
        slow.say("MAIL FROM:<a@client.example>")
        slow.send(b"RCPT TO:<slow@test.com>\r\n")
        assert inside.wait(PATIENCE)
        with Talker(running.receiver.address) as other:
            other.say("EHLO here")
            other.say("MAIL FROM:<a@client.example>")
            assert other.say("RCPT TO:<one@test.com>").startswith("250")
        go_on.set()
        assert slow.reply().startswith("250")
    assert all(told)


def test_a_socket_that_the_process_has_bound(router: RoutingBase, seen: list[MailRequest]) -> None:
    sock = server.network.create_server(("127.0.0.1", 0))
    receiver = SMTPReceiver("127.0.0.1", 25, router=router)
    receiver.start(sockets={("127.0.0.1", 25): sock})
    try:
        assert receiver.address == sock.getsockname()
        assert Running(receiver).send("one@test.com")[0].startswith("250")
    finally:
        receiver.stop()


def test_a_limit_that_nobody_knows() -> None:
    with pytest.raises(TypeError, match=r"SMTPReceiver knows no colour, sise\. It takes host, port, .* size"):
        SMTPReceiver(sise=1, colour="red")


def test_limits_reach_session_and_listener(router: RoutingBase, seen: list[MailRequest]) -> None:
    running = Running(SMTPReceiver(port=0, router=router, size=1000, connections=1, idle_seconds=0.2))
    with running as smtp, Talker(smtp.receiver.address) as first, Talker(smtp.receiver.address) as second:
        assert "SIZE 1000" in first.say("EHLO here")
        assert second.greeting.startswith("421")
        assert first.reply().startswith("421 4.4.2")


def test_octets_in_flight_are_limited_for_all_together(router: RoutingBase, seen: list[MailRequest]) -> None:
    with Running(SMTPReceiver(port=0, router=router, budget=100_000)) as smtp:
        with Talker(smtp.receiver.address) as first, Talker(smtp.receiver.address) as second:
            first.say("EHLO here")
            assert first.say("MAIL FROM:<a@client.example> SIZE=90000").startswith("250")
            second.say("EHLO here")
            assert second.say("MAIL FROM:<a@client.example> SIZE=90000").startswith("452 4.3.1")
            assert first.say("RSET").startswith("250")
            assert second.say("MAIL FROM:<a@client.example> SIZE=90000").startswith("250")
        wait_until(lambda: smtp.receiver._budget.left == 100_000)
        for _ in range(5):
            assert smtp.send("one@test.com", data=MESSAGE + b"x" * 50_000 + b"\r\n")[0].startswith("250")
        wait_until(lambda: smtp.receiver._budget.left == 100_000)


def test_no_more_handlers_run_at_once_than_allowed(router: RoutingBase) -> None:
    inside, most, lock = 0, 0, threading.Lock()
    go_on = threading.Event()

    def START(message: MailRequest) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        assert go_on.wait(PATIENCE)
        with lock:
            inside -= 1

    router.nolocking(router.route("one@test\\.com")(START))
    with Running(SMTPReceiver(port=0, router=router, handlers=3)) as smtp:
        threads = [threading.Thread(target=smtp.send, args=("one@test.com",), kwargs={"mail_from": f"a{n}@x.example"}) for n in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: inside == 3)
        go_on.set()
        for thread in threads:
            thread.join()
    assert most == 3


def test_tls_and_passwords(router: RoutingBase, seen: list[MailRequest], tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)

    def authenticate(user: str, password: str) -> bool:
        return (user, password) == ("a", "b")

    receiver = SMTPReceiver(port=0, router=router, certificate=certificate, authenticate=authenticate, require_auth=True)
    with Running(receiver) as smtp, Talker(smtp.receiver.address) as client:
        client.say("EHLO here")
        assert client.say("STARTTLS").startswith("220")
        client.start_tls(certificate)
        client.say("EHLO here")
        assert client.say("MAIL FROM:<a@client.example>").startswith("530")
        assert client.say("AUTH PLAIN AGEAYg==").startswith("235")
        assert client.say("MAIL FROM:<a@client.example>").startswith("250")


def test_the_log_tells_who_was_refused(router: RoutingBase, seen: list[MailRequest], caplog: pytest.LogCaptureFixture) -> None:
    """A refusal at RCPT or AUTH never becomes a delivery, so nothing else would tell of it."""
    caplog.set_level(logging.INFO)
    receiver = SMTPReceiver(port=0, router=router, authenticate=lambda user, password: False)
    with Running(receiver) as smtp, Talker(smtp.receiver.address) as client:
        client.say("EHLO here")
        assert client.say("AUTH PLAIN AGEAYg==").startswith("535")
        client.say("MAIL FROM:<a@client.example>")
        assert client.say("RCPT TO:<nobody@elsewhere.example>").startswith("550")
    assert "refused from 127.0.0.1: AUTH as 'a'" in caplog.messages
    assert "refused from 127.0.0.1: <a@client.example> to nobody@elsewhere.example: no route takes this address" in caplog.messages


def test_process_message_gives_none_or_the_refusal(router: RoutingBase, seen: list[MailRequest]) -> None:
    receiver = SMTPReceiver(router=router)
    assert receiver.process_message(("127.0.0.1", 1234), "a@client.example", "one@test.com", MESSAGE) is None
    assert receiver.process_message(None, "a@client.example", ["refused@test.com"], MESSAGE.decode()) == "554 5.0.0 refused takes nothing"
    assert [message.recipient for message in seen] == ["one@test.com", "refused@test.com"]


def test_a_message_to_itself_from_a_handler(router: RoutingBase) -> None:
    """A handler that talks to its own server waits for nobody but itself."""

    def START(message: MailRequest) -> None:
        answers.extend(smtp.send("inner@test.com", mail_from="b@client.example"))

    def INNER(message: MailRequest) -> None: ...

    answers: list[str] = []
    router.route("outer@test\\.com")(START)
    router.stateless(INNER)
    router.route("inner@test\\.com")(INNER)
    with Running(SMTPReceiver(port=0, router=router)) as smtp:
        assert smtp.send("outer@test.com")[0].startswith("250")
    assert answers[0].startswith("250")


# -- out of a queue


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def receive_all(queue: Queue, router: RoutingBase, **more: Any) -> QueueReceiver:
    receiver = QueueReceiver(queue.queue_dir, sleep=0.05, workers=3, router=router, hostname="server.example", **more)
    receiver.start(one_shot=True)
    return receiver


def test_a_queue_is_emptied(queue: Queue, router: RoutingBase, seen: list[MailRequest]) -> None:
    for number in range(20):
        queue.push(MESSAGE, mail_from=f"a{number}@client.example", rcpt_tos=[f"box{number}@test.com"], peer="192.0.2.1")
    receive_all(queue, router)
    assert len(queue) == 0
    assert {(message.From, message.recipient, message.Peer) for message in seen} == {
        (f"a{number}@client.example", f"box{number}@test.com", "192.0.2.1") for number in range(20)
    }
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lamson-queue")]


def test_without_an_envelope_the_headers_serve(queue: Queue, router: RoutingBase, seen: list[MailRequest]) -> None:
    queue.push("From: a@client.example\nTo: one@test.com\n\nText.\n")
    receive_all(queue, router)
    assert [message.recipient for message in seen] == ["one@test.com"]


def test_mail_that_comes_while_it_runs(queue: Queue, router: RoutingBase, seen: list[MailRequest]) -> None:
    receiver = QueueReceiver(queue.queue_dir, sleep=0.02, workers=2, router=router)
    receiver.start()
    try:
        with pytest.raises(TypeError, match="started already"):
            receiver.start()
        queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
        wait_until(lambda: seen and len(queue) == 0)
    finally:
        receiver.stop()


def test_what_fails_for_now_stays_and_is_tried_again_after_a_pause(queue: Queue, router: RoutingBase, seen: list[MailRequest]) -> None:
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["second@test.com"])
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    receiver = receive_all(queue, router)
    assert len(queue) == 1
    assert [message.recipient for message in seen].count("second@test.com") == 1, "no hot loop"
    wait_until(lambda: receiver._is_due(queue.keys()[0]))
    receiver.start(one_shot=True)
    assert len(queue) == 0
    assert receiver._pauses == {}


def test_pauses_grow_to_an_hour(queue: Queue, router: RoutingBase) -> None:
    receiver = QueueReceiver(queue.queue_dir, sleep=10, router=router)
    pauses = []
    for _ in range(12):
        receiver._pause("key")
        pauses.append(receiver._pauses["key"][0])
    assert pauses[:4] == [10, 20, 40, 80]
    assert pauses[-1] == 3600


def test_what_is_refused_out_of_a_queue_is_kept_and_the_sender_told(
    queue: Queue, router: RoutingBase, seen: list[MailRequest], kept: Queue, tmp_path: Path
) -> None:
    reports = QueueRelay(tmp_path / "reports")
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["refused@test.com"])
    receive_all(queue, router, relay=reports)
    assert (len(queue), len(kept), len(reports.queue)) == (0, 1, 1)


@pytest.mark.usefixtures("receipts")
def test_what_is_refused_and_kept_but_not_removed_is_not_kept_again(
    queue: Queue, router: RoutingBase, seen: list[MailRequest], kept: Queue
) -> None:
    """As after a crash between the two."""
    receiver = QueueReceiver(queue.queue_dir, router=router)
    for _ in range(2):
        assert receiver.process_message(MailRequest(None, "", "refused@test.com", MESSAGE), "key").code == 250
    assert (len(seen), len(kept)) == (1, 1)


def test_what_is_refused_and_cannot_be_kept_stays(queue: Queue, router: RoutingBase, seen: list[MailRequest]) -> None:
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["refused@test.com"])
    receive_all(queue, router)
    assert len(queue) == 1


def test_what_nobody_takes_is_kept_as_undeliverable(queue: Queue, router: RoutingBase, kept: Queue) -> None:
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@elsewhere.example"])
    queue.push(b"no mail at all")
    receive_all(queue, router)
    assert (len(queue), len(kept)) == (0, 2)


@pytest.mark.parametrize("log_exceptions", [True, False])
def test_a_handler_that_raises_leaves_its_message_in_the_queue(
    queue: Queue, router: RoutingBase, seen: list[MailRequest], log_exceptions: bool, caplog: pytest.LogCaptureFixture
) -> None:
    router.LOG_EXCEPTIONS = log_exceptions
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["broken@test.com"])
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    receive_all(queue, router)
    assert len(queue) == 1
    assert "secret" in caplog.text


def test_a_message_that_was_handled_but_not_removed_is_not_handled_again(
    queue: Queue, router: RoutingBase, seen: list[MailRequest], receipts: None
) -> None:
    """As after a crash between the commit and the removal. Another message of the same bytes is another message."""
    key = queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    receiver = QueueReceiver(queue.queue_dir, router=router)
    assert receiver.process_message(queue.get(key), key).ok
    receive_all(queue, router)
    assert len(seen) == 1
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    receive_all(queue, router)
    assert len(seen) == 2


def test_a_file_that_cannot_be_read_keeps_no_other_waiting(
    queue: Queue, router: RoutingBase, seen: list[MailRequest], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["two@test.com"])
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    request = Queue._request

    def torn(self: Queue, key: str, data: bytes) -> MailRequest:
        if key == bad:
            raise OSError(5, "Input/output error")
        return request(self, key, data)

    monkeypatch.setattr(Queue, "_request", torn)
    receive_all(queue, router)
    assert [message.recipient for message in seen] == ["one@test.com"]
    assert queue.keys() == [bad]
    assert "Input/output error" in caplog.text


def test_a_message_that_is_too_large_is_set_aside(queue: Queue, router: RoutingBase, seen: list[MailRequest], tmp_path: Path) -> None:
    queue.push(MESSAGE + b"x" * 5000, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    receive_all(queue, router, size_limit=1000, oversize_dir=str(tmp_path / "oversize"))
    assert (len(queue), len(Queue(tmp_path / "oversize")), seen) == (0, 1, [])


def test_stop_waits_for_the_handler_that_runs(queue: Queue, router: RoutingBase) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def START(message: MailRequest) -> None:
        inside.set()
        assert go_on.wait(PATIENCE)
        assert current() is not None

    router.route("one@test\\.com")(START)
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    receiver = QueueReceiver(queue.queue_dir, workers=1, router=router)
    receiver.start()
    assert inside.wait(PATIENCE)
    stopping = threading.Thread(target=receiver.stop)
    stopping.start()
    go_on.set()
    stopping.join()
    assert len(queue) == 1, "the first was finished, the second not begun"


def test_stop_leaves_a_handler_that_hangs_and_its_message(queue: Queue, router: RoutingBase, caplog: pytest.LogCaptureFixture) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def START(message: MailRequest) -> None:
        inside.set()
        go_on.wait(PATIENCE)
        raise SMTPError(450)

    router.route("one@test\\.com")(START)
    queue.push(MESSAGE, mail_from="a@client.example", rcpt_tos=["one@test.com"])
    receiver = QueueReceiver(queue.queue_dir, workers=1, router=router)
    receiver.start()
    assert inside.wait(PATIENCE)
    receiver.stop(deadline=0.05)
    assert "is left behind" in caplog.text
    go_on.set()
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("lamson-queue")])
    assert len(queue) == 1


def _handle_all(queue_dir: str, out: str) -> None:
    router = RoutingBase()

    def START(message: MailRequest, box: str) -> None:
        with open(out, "a") as file:
            file.write(f"{box}\n")

    router.route("(box)@test\\.com", box="[a-z0-9]+")(START)
    QueueReceiver(queue_dir, workers=4, router=router).start(one_shot=True)


def test_two_processes_share_a_queue(queue: Queue, tmp_path: Path) -> None:
    for number in range(60):
        queue.push(MESSAGE, mail_from=f"a{number}@client.example", rcpt_tos=[f"box{number}@test.com"])
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_handle_all, args=(queue.queue_dir, str(tmp_path / "out"))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
        process.close()
    assert len(queue) == 0
    assert sorted((tmp_path / "out").read_text().split()) == sorted(f"box{number}" for number in range(60))


# -- the names of 1.x


def test_make_fake_settings() -> None:
    settings = make_fake_settings("127.0.0.1", 8899)
    assert settings.receiver.address == ("127.0.0.1", 8899)
    assert isinstance(settings.relay, Relay)


def test_undeliverable_message(default_router: RoutingBase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert undeliverable_message(MESSAGE, "nobody wants it") is None
    assert "nobody wants it" in caplog.text
    assert default_router is Router
    Router.UNDELIVERABLE_QUEUE = Queue(tmp_path / "undeliverable")
    key = undeliverable_message(MESSAGE, "nobody wants it")
    assert Router.UNDELIVERABLE_QUEUE.get(key).raw == MESSAGE
    assert Router.UNDELIVERABLE_QUEUE.envelope(key)["reason"] == "nobody wants it"
