"""Relays: what is sent, from whom to whom, by which server, and what is not sent at all."""

from __future__ import annotations

import email.message
import email.policy
import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.exception
import dns.name
import dns.resolver
import pytest

from lamson import delivery
from lamson.delivery import Delivery, Outgoing
from lamson.encoding import MailBase
from lamson.errors import EncodingError, PermanentError, RelayError, TransientError
from lamson.mail import MailRequest, MailResponse
from lamson.relay import BaseRelay, Pool, QueueRelay, Relay
from lamson.smtp import exchange
from lamson.smtp.client import Client
from lamson.smtp.exchange import Target
from lamson.state import MemoryStorage
from lamson.status import reply
from tests.smtp.server_script import DROP, HANG, ScriptedServer, free_port
from tests.smtp.talk import wait_until

RAW = b"From: Me <Me@example.com>\r\nTo: you@example.net\r\nSubject: hello\r\nMessage-ID: <1@example.com>\r\n\r\n.Hello.\r\n"
ME, YOU, APP = "me@example.com", "you@example.net", "app@example.org"


class Kept(BaseRelay):
    """Keeps what it should hand over, and fails as told."""

    def __init__(self, failures: Mapping[str, RelayError] | None = None) -> None:
        super().__init__("kept", helo="here.example.org")
        self.mail: list[Outgoing] = []
        self.failures = dict(failures or {})

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        self.mail.append(mail)
        return self.failures

    @property
    def only(self) -> Outgoing:
        (mail,) = self.mail
        return mail


@pytest.fixture
def relay() -> Kept:
    return Kept()


@contextmanager
def running(message: MailRequest | None = None, recipient: str = APP, sender: str | None = ME) -> Iterator[Delivery]:
    """A delivery as the router makes it."""
    with delivery.begin(MemoryStorage(), recipient, sender, id="d3adbeef") as held:
        held.message = message
        if message is not None:
            message.recipient = recipient
        yield held


def request(raw: bytes = RAW, From: str | None = ME, To: Any = APP, peer: Any = "192.0.2.7") -> MailRequest:
    return MailRequest(peer, From, To, raw)


def asked(*headers: str, From: str | None = ME) -> MailRequest:
    """A message from ME to the application, with these headers."""
    lines = [f"From: {ME}", f"To: {APP}", "Subject: hello", "Message-ID: <1@example.com>", *headers, "", "Hello.", ""]
    return request("\r\n".join(lines).encode(), From)


# -- what is sent: line ends, Bcc, the rest untouched


def test_a_response(relay: Kept) -> None:
    relay.deliver(MailResponse(To=YOU, From=ME, Subject="Hi", Body="Hello."))
    assert (relay.only.mail_from, relay.only.rcpt_tos) == (ME, (YOU,))
    sent = MailRequest(Data=relay.only.data)
    assert (sent["Subject"], sent.text.strip()) == ("Hi", "Hello.")
    assert sent["Date"]
    assert sent["Message-ID"]
    assert "Received" not in sent
    assert "Auto-Submitted" not in sent


def test_send(relay: Kept) -> None:
    relay.send(YOU, ME, "Hi", "Hello.")
    assert MailRequest(Data=relay.only.data)["To"] == YOU


def test_blind_copies_get_the_mail_and_are_not_named(relay: Kept) -> None:
    response = MailResponse(To=f"You <{YOU}>", From=ME, Subject="Hi", Body="Hello.")
    response["Cc"] = "a@example.com, b@example.com"
    response["Bcc"] = "secret@example.com"
    relay.deliver(response)
    assert relay.only.rcpt_tos == (YOU, "a@example.com", "b@example.com", "secret@example.com")
    assert b"secret" not in relay.only.data
    assert response["Bcc"] == "secret@example.com"


def test_what_is_made_of_a_response_may_write_what_it_likes(relay: Kept) -> None:
    class Careless(MailResponse):
        def __bytes__(self) -> bytes:
            return b"Bcc: secret@example.com\nSubject: x\n\nHello.\n"

    relay.deliver(Careless(To=YOU, From=ME))
    assert relay.only.data == b"Subject: x\r\n\r\nHello.\r\n"


@pytest.mark.parametrize("given", [f"{YOU}, her@example.net", [YOU, "her@example.net"], (f"You <{YOU}>", "Her <her@example.net>", YOU)])
def test_to_overrides_the_headers(relay: Kept, given: Any) -> None:
    relay.deliver(MailResponse(To="else@example.com", From=ME, Body="x"), To=given, From="bounces@example.com")
    assert (relay.only.mail_from, relay.only.rcpt_tos) == ("bounces@example.com", (YOU, "her@example.net"))


def test_the_case_of_an_address_is_its_owners(relay: Kept) -> None:
    relay.deliver(MailResponse(To="You@Example.net, you@example.net", From="Me@example.com", Body="x"))
    assert (relay.only.mail_from, relay.only.rcpt_tos) == ("Me@example.com", ("You@Example.net",))


@pytest.mark.parametrize("null", ["", "<>"])
def test_the_null_sender(relay: Kept, null: str) -> None:
    relay.deliver(MailResponse(To=YOU, From=ME, Body="x"), From=null)
    assert relay.only.mail_from == ""


def test_text_and_bytes_go_as_they_are_but_for_their_line_ends(relay: Kept) -> None:
    text = "From: me@example.com\nTo: you@example.net\nbcc: x@example.com\n\n.Grüße\n\n"
    for given in (text, text.encode(), text.replace("\n", "\r\n").encode()):
        relay.deliver(given, To="other@example.net")
    assert {mail.data for mail in relay.mail} == {text.replace("\n", "\r\n").encode()}
    assert {mail.rcpt_tos for mail in relay.mail} == {("other@example.net",)}
    assert {mail.mail_from for mail in relay.mail} == {ME}


def test_text_without_an_envelope_goes_to_all_that_it_names(relay: Kept) -> None:
    relay.deliver("From: me@example.com\nTo: you@example.net\nBCC: x@example.com,\n\ty@example.com\nSubject: s\n\nBcc: no header\n")
    assert relay.only.rcpt_tos == (YOU, "x@example.com", "y@example.com")
    assert relay.only.data == b"From: me@example.com\r\nTo: you@example.net\r\nSubject: s\r\n\r\nBcc: no header\r\n"


def test_octets_that_are_no_text_survive(relay: Kept) -> None:
    octets = b"From: me@example.com\r\n\r\n\xff\xfe\0\r\n"
    relay.deliver(octets.decode("utf-8", "surrogateescape"), To=YOU)
    assert relay.only.data == octets


@pytest.mark.parametrize(("text", "line"), [("From: me@x\r\n\r\na\rb\r\n", 3), ("From: me@x\n\nab\r", 3), ("From: me@x\r\r\n\r\n", 1)])
def test_a_bare_cr_is_refused_with_its_line(relay: Kept, text: str, line: int) -> None:
    with pytest.raises(EncodingError, match=f"bare CR in line {line}:"):
        relay.deliver(text, To=YOU)
    assert relay.mail == []


def test_a_bare_lf_in_received_mail_is_refused(relay: Kept) -> None:
    """A receiver may be set to keep it as data; nobody sends it on."""
    with pytest.raises(EncodingError, match="bare LF in line 2:"):
        relay.deliver(request(b"From: me@example.com\r\n\n.\n\r\n"))


def test_the_standard_librarys_messages(relay: Kept) -> None:
    for policy in (email.policy.compat32, email.policy.default):
        message = email.message.EmailMessage(policy) if policy is email.policy.default else email.message.Message()
        message["From"], message["To"], message["Bcc"] = ME, YOU, "secret@example.com"
        message.set_payload("From here\nto there\n")
        relay.deliver(message)
    for mail in relay.mail:
        assert (mail.mail_from, mail.rcpt_tos) == (ME, (YOU, "secret@example.com"))
        assert mail.data.endswith(b"\r\n\r\nFrom here\r\nto there\r\n")
        assert b"secret" not in mail.data


def test_a_mail_base(relay: Kept) -> None:
    base = MailBase([("From", ME), ("To", YOU), ("Bcc", "secret@example.com"), ("Subject", "Grüße")])
    base.body = "Hello.\n"
    relay.deliver(base)
    assert (relay.only.mail_from, relay.only.rcpt_tos) == (ME, (YOU, "secret@example.com"))
    assert b"secret" not in relay.only.data
    assert relay.only.data.endswith(b"\r\n\r\nHello.\r\n")


@pytest.mark.parametrize("to", [None, "", [], ","])
def test_nobody_to_send_to(relay: Kept, to: Any) -> None:
    with pytest.raises(ValueError, match="nobody to send this to: " + ("give deliver" if to is None else "To is empty")):
        relay.deliver(MailResponse(From=ME, Body="x"), To=to)


def test_nobody_it_is_from(relay: Kept) -> None:
    with pytest.raises(ValueError, match="nobody this is from"):
        relay.deliver(MailResponse(To=YOU, Body="x"))
    with pytest.raises(ValueError, match="nobody this is from"):
        relay.deliver(request(b"To: you@example.net\r\n\r\n", From=None))


# -- relayed mail


def test_a_relayed_request_gets_one_line_and_no_other_change(relay: Kept) -> None:
    relay.deliver(request())
    assert (relay.only.mail_from, relay.only.rcpt_tos) == (ME, (APP,))
    received, rest = relay.only.data[: -len(RAW)], relay.only.data[-len(RAW) :]
    assert rest == RAW
    lines = received.split(b"\r\n")
    assert lines[:3] == [b"Received: from [192.0.2.7]", b"\tby here.example.org", b"\tfor <app@example.org>;"]
    assert received.count(b"\r\n") == len(lines) - 1
    assert MailRequest(Data=relay.only.data).defects == []


def test_the_delivery_is_named_in_the_received_line(relay: Kept) -> None:
    message = request()
    with running(message):
        relay.deliver(message)
    assert b"\r\n\tid d3adbeef\r\n" in relay.only.data


def test_a_header_that_was_set_goes_along(relay: Kept) -> None:
    message = request()
    message["Subject"] = "changed"
    relay.deliver(message)
    assert relay.only.data.endswith(RAW.replace(b"Subject: hello", b"Subject: changed"))


@pytest.mark.parametrize(
    ("peer", "written"),
    [
        ("192.0.2.7", b"from [192.0.2.7]\r\n"),
        (("192.0.2.7", 4711), b"from [192.0.2.7]\r\n"),
        ("2001:db8::1", b"from [IPv6:2001:db8::1]\r\n"),
        ("fe80::1%eth0", b"from [IPv6:fe80::1]\r\n"),
        ("localhost", b"from localhost\r\n"),
        ("", b"Received: by"),
        (None, b"Received: by"),
        ((), b"Received: by"),
        ("evil\r\nBcc: all@example.com", b"Received: by"),
        ("a b", b"Received: by"),
    ],
)
def test_the_peer_in_the_received_line(relay: Kept, peer: Any, written: bytes) -> None:
    relay.deliver(request(peer=peer))
    assert written in relay.only.data
    assert b"\nBcc" not in relay.only.data


def test_a_recipient_in_the_received_line_stands_alone_and_harmless(relay: Kept) -> None:
    relay.deliver(request(), To=[YOU, "her@example.net"])
    relay.deliver(request(), To='"x> ; y"@example.com')
    assert all(b"\tfor <" not in mail.data for mail in relay.mail)


def test_a_message_in_a_loop_is_refused(relay: Kept) -> None:
    relay.deliver(request(b"Received: x\r\n" * 50 + RAW))
    with pytest.raises(PermanentError) as refused:
        relay.deliver(request(b"Received: x\r\n" * 51 + RAW))
    assert (refused.value.reply.code, refused.value.reply.status) == (554, "5.4.6")
    assert len(relay.mail) == 1


def test_relaying_ends_what_two_relays_send_each_other(relay: Kept) -> None:
    relay.deliver(request())
    with pytest.raises(PermanentError):
        for _ in range(100):
            relay.deliver(request(relay.mail[-1].data))
    assert len(relay.mail) == 51


def test_a_request_goes_to_the_recipient_of_its_delivery_alone(relay: Kept) -> None:
    both = ["App@example.org", "other@example.org"]
    for recipient in ("app@example.org", "other@example.org"):
        message = request(To=both)
        with running(message, recipient):
            relay.deliver(message)
    assert [mail.rcpt_tos for mail in relay.mail] == [("App@example.org",), ("other@example.org",)]


def test_a_request_outside_a_delivery_goes_to_all_of_its_envelope(relay: Kept) -> None:
    relay.deliver(request(To=[APP, "other@example.org"]))
    relay.deliver(request(To=None))
    assert [mail.rcpt_tos for mail in relay.mail] == [(APP, "other@example.org"), (YOU,)]


def test_a_request_of_the_null_sender_stays_that(relay: Kept) -> None:
    relay.deliver(request(From=""))
    relay.deliver(request(From="<>"))
    relay.deliver(request(From=None))
    assert [mail.mail_from for mail in relay.mail] == ["", "", "Me@example.com"]


def test_a_request_from_a_file_with_lf(relay: Kept) -> None:
    relay.deliver(request(RAW.replace(b"\r\n", b"\n")))
    assert relay.only.data.endswith(RAW)


# -- held in a delivery


def test_in_a_delivery_mail_is_held_until_the_commit(relay: Kept) -> None:
    with running() as held:
        relay.send(YOU, APP, "Hi", "Hello.")
        assert relay.mail == []
        ((carrier, mail),) = held.mail
        assert carrier is relay
    assert relay.only is mail


def test_a_delivery_that_fails_sends_nothing(relay: Kept) -> None:
    with pytest.raises(ZeroDivisionError), running():
        relay.send(YOU, APP, "Hi", "Hello.")
        raise ZeroDivisionError
    assert relay.mail == []


def test_what_is_held_is_what_was_delivered(relay: Kept) -> None:
    response = MailResponse(To=YOU, From=APP, Subject="first", Body="x")
    with running():
        relay.deliver(response)
        response["Subject"] = "second"
        relay.deliver(response)
    first, second = (MailRequest(Data=mail.data) for mail in relay.mail)
    assert (first["Subject"], second["Subject"]) == ("first", "second")
    assert first["Message-ID"] == second["Message-ID"]


# -- outside a delivery


def test_outside_a_delivery_the_first_failure_is_raised() -> None:
    relay = Kept({YOU: PermanentError(reply(550)), "her@example.net": TransientError(reply(451))})
    with pytest.raises(PermanentError) as raised:
        relay.send([YOU, "her@example.net", "he@example.net"], ME, "Hi", "Hello.")
    assert raised.value.recipients == (YOU, "her@example.net")
    assert raised.value.reply.code == 550


# -- automatic answers


def answer(relay: BaseRelay, to: str = ME, **headers: str) -> None:
    """What handlers do."""
    response = MailResponse(To=to, From=APP, Subject="Re: hello", Body="Thank you.")
    response.update({name.replace("_", "-"): value for name, value in headers.items()})
    relay.deliver(response)


@pytest.mark.parametrize("to", [ME, "Me@Example.com", f"Me <{ME}>", "reply-here@example.com"])
def test_an_answer_is_marked_as_automatic(relay: Kept, to: str) -> None:
    with running(asked("Reply-To: reply-here@example.com")):
        answer(relay, to)
    assert MailRequest(Data=relay.only.data).get_all("Auto-Submitted") == ["auto-replied"]


def test_mail_to_others_is_not_marked(relay: Kept) -> None:
    with running(asked("Auto-Submitted: auto-generated")):
        answer(relay, YOU)
    assert "Auto-Submitted" not in MailRequest(Data=relay.only.data)


def test_an_answer_without_the_message_at_hand(relay: Kept) -> None:
    with running(None):
        answer(relay)
    assert MailRequest(Data=relay.only.data)["Auto-Submitted"] == "auto-replied"


@pytest.mark.parametrize("given", ["auto-generated", "auto-notified", "auto-replied; x=y"])
def test_what_the_handler_says_about_its_answer_stays(relay: Kept, given: str) -> None:
    with running(asked()):
        answer(relay, Auto_Submitted=given)
    assert MailRequest(Data=relay.only.data).get_all("Auto-Submitted") == [given]


AUTOMATIC = [
    "Auto-Submitted: auto-replied",
    "Auto-Submitted: auto-generated (by cron)",
    "List-Id: <list.example.com>",
    "Precedence: bulk",
    "Precedence: list",
    "Content-Type: multipart/report; report-type=delivery-status; boundary=x",
]


@pytest.mark.parametrize("header", AUTOMATIC)
def test_automatic_mail_gets_no_answer(relay: Kept, header: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lamson.relay"), running(asked(header)) as held:
        answer(relay)
        answer(relay, Auto_Submitted="auto-replied")
        assert held.mail == []
    assert f"no answer to {ME}: it is automatic mail, of a list, or a delivery report" in caplog.messages


def test_the_null_sender_gets_no_answer_at_the_address_in_its_from_header(relay: Kept) -> None:
    with running(asked(From=""), sender=""):
        answer(relay)
    assert relay.mail == []


def test_ourselves_get_no_answer(relay: Kept) -> None:
    forged = request(f"From: {APP}\r\nTo: {APP}\r\n\r\n".encode(), APP)
    with running(forged, sender=APP):
        answer(relay, APP)
    assert relay.mail == []


def test_the_others_get_the_mail_that_the_asker_must_not_get(relay: Kept) -> None:
    with running(asked("Precedence: bulk")):
        answer(relay, f"{ME}, {YOU}")
    assert relay.only.rcpt_tos == (YOU,)


@pytest.mark.parametrize("header", [*AUTOMATIC, "X-Nothing: special"])
@pytest.mark.parametrize("says", [{"Auto_Submitted": "no"}, {"List_Id": "<ours.example.org>"}, {"Precedence": "list"}])
def test_what_is_no_answer_goes_to_whomever(relay: Kept, header: str, says: dict[str, str]) -> None:
    """A list's copy to its author; and what a handler says is no automatic answer."""
    with running(asked(header)):
        answer(relay, **says)
    sent = MailRequest(Data=relay.only.data)
    assert sent.get("Auto-Submitted") == says.get("Auto_Submitted")


def test_a_forwarded_request_is_no_answer(relay: Kept) -> None:
    message = asked("Auto-Submitted: auto-generated")
    with running(message):
        relay.deliver(message, To=ME)
    assert relay.only.data.endswith(message.raw)


def test_text_that_answers_is_an_answer_too(relay: Kept) -> None:
    with running(asked("Precedence: junk")):
        relay.deliver(f"From: {APP}\nTo: {ME}\n\nThank you.\n")
    with running(asked()):
        relay.deliver(f"From: {APP}\nTo: {ME}\n\nauto-submitted: no\n")
    assert MailRequest(Data=relay.only.data).get_all("Auto-Submitted") == ["auto-replied"]


def test_two_applications_that_answer_everything_stop() -> None:
    """A person's message, its answer, and that is not answered again."""
    ours, theirs, sent = "ours@example.org", "theirs@example.net", []
    message = request(f"From: {theirs}\r\nTo: {ours}\r\nSubject: hi\r\n\r\nHello.\r\n".encode(), theirs, ours)
    for _ in range(10):
        relay, me, you = Kept(), message.route_to[0], message.route_from
        with running(message, me, you):
            relay.deliver(MailResponse(To=message["From"], From=me, Subject="Re: hi", Body="Thank you."))
        if not relay.mail:
            break
        sent.append(relay.only)
        message = request(relay.only.data, relay.only.mail_from, relay.only.rcpt_tos[0])
    assert len(sent) == 1


# -- reply


def test_a_reply_is_threaded(relay: Kept) -> None:
    original = asked("References: <a@x> <b@x>", "Reply-To: Reply <reply-here@example.com>")
    sent = relay.reply(original, APP, "Re: hello", "Thank you.")
    assert sent is not None
    message = MailRequest(Data=relay.only.data)
    assert relay.only.rcpt_tos == ("reply-here@example.com",)
    assert (message["In-Reply-To"], message["References"]) == ("<1@example.com>", "<a@x> <b@x> <1@example.com>")
    assert message.get_all("Auto-Submitted") == ["auto-replied"]
    assert (message["From"], message["Subject"], message.text.strip()) == (APP, "Re: hello", "Thank you.")


def test_a_reply_in_a_delivery_is_held(relay: Kept) -> None:
    message = asked()
    with running(message):
        assert relay.reply(message, APP, "Re: hello", "Thank you.") is not None
        assert relay.mail == []
    assert relay.only.rcpt_tos == (ME,)


def test_a_reply_to_a_message_without_an_id(relay: Kept) -> None:
    relay.reply(request(f"From: {ME}\r\n\r\n".encode()), APP, "Re:", "x")
    message = MailRequest(Data=relay.only.data)
    assert "In-Reply-To" not in message
    assert "References" not in message


def test_a_thread_begins_with_in_reply_to_where_there_are_no_references(relay: Kept) -> None:
    relay.reply(asked("In-Reply-To: <0@example.com>"), APP, "Re:", "x")
    assert MailRequest(Data=relay.only.data)["References"] == "<0@example.com> <1@example.com>"


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ("2@example.com", "<2@example.com>"),
        ("junk <2@example.com> junk", "<2@example.com>"),
        ("two words", None),
        ("<a b@example.com>", None),
    ],
)
def test_a_thread_of_broken_ids(relay: Kept, given: str, answered: str | None) -> None:
    message = request(RAW.replace(b"<1@example.com>", given.encode() + b"\r\nReferences: <0@x> junk <> <b c@x>\r\n\t<1@x>"))
    answer = relay.reply(message, APP, "Re: hello", "Hi.")
    assert answer is not None
    assert answer["In-Reply-To"] == answered
    assert answer["References"] == (f"<0@x> <1@x> {answered}" if answered else None)


def test_the_references_of_a_long_thread_are_cut(relay: Kept) -> None:
    relay.reply(asked("References: " + " ".join(f"<{number}@x>" for number in range(1000))), APP, "Re:", "x")
    ids = (MailRequest(Data=relay.only.data)["References"] or "").split()
    assert len(ids) == 20
    assert ids[-1] == "<1@example.com>"


def test_a_reply_goes_to_one_address_only(relay: Kept) -> None:
    relay.reply(asked("Reply-To: " + ", ".join(f"{number}@example.net" for number in range(1000))), APP, "Re:", "x")
    assert relay.only.rcpt_tos == ("0@example.net",)


@pytest.mark.parametrize("evil", ["Message-ID: <a b>\r\n\tBcc: x@example.com", "Message-ID: <é\u2028@x>", "References: <a>\r\n <b\0> <c"])
def test_what_was_received_makes_no_header_of_a_reply(relay: Kept, evil: str) -> None:
    relay.reply(asked(evil), APP, "Re: \r\nBcc: x@example.com", "x")
    assert relay.only.rcpt_tos == (ME,)
    assert b"\nBcc:" not in relay.only.data


@pytest.mark.parametrize("original", [*[asked(header) for header in AUTOMATIC], asked(From="<>"), asked(From="")])
def test_automatic_mail_gets_no_reply(relay: Kept, original: MailRequest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lamson.relay"):
        assert relay.reply(original, APP, "Re:", "x") is None
    assert relay.mail == []
    assert caplog.messages == [f"no answer to {ME}: it is automatic mail, of a list, or a delivery report"]


@pytest.mark.parametrize(
    ("original", "why"),
    [
        (request(f"From: {APP}\r\n\r\n".encode(), APP), "that would be ourselves"),
        (request(b"From: other@example.org\r\n\r\n", "x@y.z", "other@example.org"), "that would be ourselves"),
        (request(b"Subject: nobody\r\n\r\n", None), "it names nobody to answer to"),
    ],
)
def test_whom_else_a_reply_does_not_go_to(relay: Kept, original: MailRequest, why: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lamson.relay"):
        assert relay.reply(original, APP, "Re:", "x") is None
    assert caplog.messages[0].endswith(why)


# -- to a smart host


@contextmanager
def to(server: ScriptedServer, **options: Any) -> Iterator[Relay]:
    """A relay to this server, closed at the end."""
    relay = Relay(*server.address[:2], **{"timeout": 5, "helo": "here.example.org", **options})
    try:
        yield relay
    finally:
        relay.close()


def test_a_relay_sends_and_keeps_its_connection() -> None:
    with ScriptedServer() as server, to(server) as relay:
        for _ in range(3):
            relay.send(YOU, ME, "Hi", "Hello.")
        assert relay.hand_over(Outgoing("", (YOU,), RAW)) == {}
    assert server.connections == 1
    assert [message.mail_from for message in server.messages] == [ME, ME, ME, ""]
    assert server.messages[3].data == RAW.replace(b"\r\n.Hello", b"\r\n..Hello")


def test_a_relay_sends_several_over_one_connection_and_keeps_it() -> None:
    mails = [Outgoing(ME, (f"{number}@example.net",), RAW) for number in range(3)]
    with ScriptedServer() as server, to(server) as relay:
        assert list(relay.hand_over_all(mails)) == [{}, {}, {}]
        results = relay.hand_over_all(mails)
        assert next(results) == {}
        results.close()  # what was begun is given up with its connection
        assert relay.hand_over(mails[2]) == {}
    assert [message.rcpt_tos[0][0] for message in server.messages] == ["0", "1", "2", "0", "2"]
    assert server.messages[0].behind.startswith(b"MAIL")
    assert server.connections == 2


def test_a_hand_over_of_an_applications_own_is_asked_for_each_of_several() -> None:
    class Stamping(Relay):
        def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
            return super().hand_over(Outgoing(mail.mail_from, mail.rcpt_tos, b"Stamped: yes\r\n" + mail.data))

    mails = [Outgoing(ME, (f"{number}@example.net",), RAW) for number in range(2)]
    with ScriptedServer() as server:
        relay = Stamping(*server.address[:2], timeout=5)
        assert list(relay.hand_over_all(mails)) == [{}, {}]
        relay.close()
    assert [message.data[:8] for message in server.messages] == [b"Stamped:"] * 2


def test_a_relays_failures_outside_a_delivery() -> None:
    with ScriptedServer({f"RCPT TO:<{YOU}>": "550 5.1.1 no such user"}) as server, to(server) as relay:
        with pytest.raises(PermanentError, match="no such user") as refused:
            relay.send([YOU, "her@example.net"], ME, "Hi", "Hello.")
        assert refused.value.recipients == (YOU,)
        assert server.messages[0].rcpt_tos == ["her@example.net"]
        server.cut()
        server.refuse()
        with pytest.raises(TransientError):
            relay.send("her@example.net", ME, "Hi", "Hello.")


def test_handing_over_never_raises() -> None:
    failed = Relay("127.0.0.1", free_port(), timeout=1).hand_over(Outgoing(ME, (YOU, "her@example.net"), RAW))
    assert {rcpt: type(error) for rcpt, error in failed.items()} == {YOU: TransientError, "her@example.net": TransientError}
    assert {error.reply.status for error in failed.values()} == {"4.4.1"}


def test_lmtp_and_login() -> None:
    says, offers, login = {"AUTH": "235 welcome"}, ("AUTH PLAIN",), {"username": "me", "password": "secret"}
    with ScriptedServer(says, lmtp=True, offers=offers) as server, to(server, lmtp=True, **login) as relay:
        relay.send(YOU, ME, "Hi", "Hello.")
    assert server.verbs[:2] == ["LHLO", "AUTH"]


def test_the_talk_of_a_relay() -> None:
    said: list[str] = []
    with ScriptedServer() as server, to(server, talk=said.append) as relay:
        relay.send(YOU, ME, "Hi", "Hello.")
    assert said[1] == "C: EHLO here.example.org"


def test_where_mail_goes() -> None:
    assert Relay("mail.example.com", 2525).destination(YOU) == "mail.example.com:2525"
    assert Relay(host=None).destination("x@Example.NET") == "example.net"
    assert Relay("mail.example.com").hostname == "mail.example.com"


@pytest.mark.parametrize(
    "options",
    [
        {"ssl": True, "starttls": True},
        {"ssl": True, "lmtp": True},
        {"host": None, "username": "me"},
        {"host": None, "ssl": True},
        {"host": None, "lmtp": True},
    ],
)
def test_options_that_cannot_be_together(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Relay(**options)


@pytest.mark.parametrize("helo", ["", "two words", "line\r\nend", "[127.0.0.1"])
def test_a_name_for_helo_that_is_none(helo: str) -> None:
    with pytest.raises(ValueError, match="helo"):
        Relay(helo=helo)


def test_a_relay_without_a_name_of_its_own_still_has_a_received_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamson.relay.own_name", lambda: "")
    assert Relay().helo == "localhost"


# -- kept connections


def test_connections_are_bounded_and_shared() -> None:
    with ScriptedServer() as server, to(server, connections=2) as relay:
        threads = [threading.Thread(target=relay.send, args=(YOU, ME, "Hi", str(number))) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(server.messages) == 20
    assert server.connections <= 2


def test_a_connection_idle_for_too_long_is_closed() -> None:
    with ScriptedServer() as server, to(server, idle_seconds=0.0) as relay:
        relay.send(YOU, ME, "Hi", "Hello.")
        relay.close_idle()
        assert server.verbs[-1] == "QUIT"
        relay.send(YOU, ME, "Hi", "Hello.")
        relay.send(YOU, ME, "Hi", "Hello.")
    assert server.connections == 3


def test_a_closed_relay_may_be_used_again() -> None:
    with ScriptedServer() as server, to(server) as relay:
        relay.send(YOU, ME, "Hi", "Hello.")
        relay.close()
        relay.close()
        relay.send(YOU, ME, "Hi", "Hello.")
    assert server.connections == 2


def test_a_forgotten_relay_leaves_no_socket() -> None:
    with ScriptedServer() as server:
        relay = Relay(*server.address[:2], timeout=5)
        relay.send(YOU, ME, "Hi", "Hello.")
        del relay
        gc.collect()


def test_a_broken_connection_is_not_kept() -> None:
    with ScriptedServer({".": ["250 OK", DROP, "250 OK"]}) as server, to(server) as relay:
        for expected in ({}, {YOU: "4.4.2"}, {}):
            failed = relay.hand_over(Outgoing(ME, (YOU,), RAW))
            assert {rcpt: error.reply.status for rcpt, error in failed.items()} == expected
    assert server.connections == 2


# -- to the servers of each domain


def MX(preference: int, name: str) -> Any:
    return SimpleNamespace(preference=preference, exchange=dns.name.from_text(name))


def A(ip: str) -> Any:
    return SimpleNamespace(address=ip)


class FakeResolver:
    """Knows what the test tells it: (name, kind) -> records, or what to raise."""

    def __init__(self, records: Mapping[tuple[str, str], Any]) -> None:
        self.records = dict(records)
        self.asked: list[tuple[str, str]] = []

    def resolve(self, name: str, kind: str, /) -> list[Any]:
        assert name.endswith("."), "the search list must stay out of it"
        self.asked.append((name[:-1], kind))
        found = self.records.get((name[:-1], kind))
        if found is None:
            known = any(each == name[:-1] for each, _ in self.records)
            raise dns.resolver.NoAnswer if known else dns.resolver.NXDOMAIN
        if isinstance(found, Exception):
            raise found
        return list(found)


def targets(domain: str, records: Mapping[tuple[str, str], Any]) -> list[tuple[str, str]]:
    return [(target.name, target.host) for target in exchange.Exchanges(FakeResolver(records)).of(domain)]


def refusal(domain: str, records: Mapping[tuple[str, str], Any]) -> tuple[type, int, str | None]:
    with pytest.raises(RelayError) as refused:
        targets(domain, records)
    return type(refused.value), refused.value.reply.code, refused.value.reply.status


def test_servers_in_order_of_preference() -> None:
    records = {
        ("example.net", "MX"): [MX(20, "b.example.net"), MX(10, "a.example.net"), MX(30, "gone.example.net")],
        ("a.example.net", "A"): [A("192.0.2.1"), A("192.0.2.2")],
        ("b.example.net", "A"): [A("192.0.2.3")],
        ("b.example.net", "AAAA"): [A("2001:db8::3")],
    }
    assert targets("example.net", records) == [
        ("a.example.net", "192.0.2.1"),
        ("a.example.net", "192.0.2.2"),
        ("b.example.net", "192.0.2.3"),
        ("b.example.net", "2001:db8::3"),
    ]


def test_servers_of_one_preference_in_any_order() -> None:
    records: dict[tuple[str, str], Any] = {("example.net", "MX"): [MX(10, f"{name}.example.net") for name in "abc"]}
    records |= {(f"{name}.example.net", "A"): [A(f"192.0.2.{at}")] for at, name in enumerate("abc")}
    assert {targets("example.net", records)[0][0] for _ in range(200)} == {"a.example.net", "b.example.net", "c.example.net"}


def test_not_all_servers_of_a_domain_are_tried() -> None:
    records: dict[tuple[str, str], Any] = {("example.net", "MX"): [MX(at, f"{at}.example.net") for at in range(50)]}
    records |= {(f"{at}.example.net", "A"): [A(f"192.0.2.{at}")] for at in range(50)}
    assert len(targets("example.net", records)) == exchange.EXCHANGES


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_a_domain_without_mx_is_its_own_server(kind: str) -> None:
    ip = {"A": "192.0.2.1", "AAAA": "2001:db8::1"}[kind]
    assert targets("example.net", {("example.net", kind): [A(ip)]}) == [("example.net", ip)]


def test_null_mx() -> None:
    records = {("example.net", "MX"): [MX(0, ".")], ("example.net", "A"): [A("192.0.2.1")]}
    assert refusal("example.net", records) == (PermanentError, 556, "5.1.10")


def test_a_null_mx_beside_others_is_ignored() -> None:
    records = {("example.net", "MX"): [MX(0, "."), MX(10, "a.example.net")], ("a.example.net", "A"): [A("192.0.2.1")]}
    assert targets("example.net", records) == [("a.example.net", "192.0.2.1")]


def test_a_domain_that_does_not_exist() -> None:
    assert refusal("example.net", {}) == (PermanentError, 550, "5.1.2")


def test_a_domain_whose_servers_have_no_address() -> None:
    assert refusal("example.net", {("example.net", "MX"): [MX(10, "gone.example.net")]}) == (PermanentError, 550, "5.4.4")
    assert refusal("example.net", {("example.net", "TXT"): []}) == (PermanentError, 550, "5.4.4")


@pytest.mark.parametrize("trouble", [dns.resolver.NoNameservers(), dns.exception.Timeout(timeout=1), dns.exception.FormError()])
def test_a_dns_that_does_not_answer_is_transient(trouble: Exception) -> None:
    assert refusal("example.net", {("example.net", "MX"): trouble}) == (TransientError, 451, "4.4.3")
    records = {("example.net", "MX"): [MX(10, "a.example.net"), MX(20, "b.example.net")], ("a.example.net", "A"): trouble}
    assert refusal("example.net", records) == (TransientError, 451, "4.4.3")
    assert targets("example.net", {**records, ("b.example.net", "A"): [A("192.0.2.2")]}) == [("b.example.net", "192.0.2.2")]


@pytest.mark.parametrize("domain", ["[192.0.2.1]", "[IPv6:2001:db8::1]", "[ipv6:2001:db8::1]"])
def test_an_address_literal_is_its_own_server(domain: str) -> None:
    assert targets(domain, {})[0][1] in ("192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize("domain", ["[nowhere]", "[192.0.2", "[]", "a" * 64 + ".example", "ä" * 64 + ".example", "a..b", "x" * 300])
def test_what_is_no_domain(domain: str) -> None:
    found: dict[tuple[str, str], Any] = {(domain, "MX"): dns.name.LabelTooLong()}
    assert refusal(domain, found)[::2] == (PermanentError, "5.1.2")


def test_no_domain_at_all() -> None:
    assert refusal("", {}) == (PermanentError, 553, "5.1.3")


def test_a_domain_beyond_ascii_is_looked_up_in_a_labels() -> None:
    records = {("xn--exmple-cua.com", "A"): [A("192.0.2.1")]}
    assert targets("exämple.com", records) == [("xn--exmple-cua.com", "192.0.2.1")]


def test_a_machine_without_a_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "Resolver", none)
    with pytest.raises(TransientError, match="no resolver"):
        exchange.Exchanges().of("example.net")


def test_the_machines_resolver_remembers() -> None:
    resolver: Any = exchange._system_resolver()
    assert resolver.cache is not None


def test_each_domain_to_its_own_server() -> None:
    records: dict[tuple[str, str], Any] = {
        ("one.example", "MX"): [MX(10, "down.one.example"), MX(20, "up.one.example")],
        ("down.one.example", "A"): [A("127.0.0.2")],  # nobody listens there
        ("up.one.example", "A"): [A("127.0.0.1")],
        ("two.example", "A"): [A("127.0.0.1")],
        ("null.example", "MX"): [MX(0, ".")],
    }
    with ScriptedServer() as server:
        relay = Relay(None, server.address[1], timeout=5, resolver=FakeResolver(records))
        failed = relay.hand_over(Outgoing(ME, ("a@one.example", "b@two.example", "c@one.example", "d@null.example", "postmaster"), RAW))
        relay.close()
    assert [message.rcpt_tos for message in server.messages] == [["a@one.example", "c@one.example"], ["b@two.example"]]
    assert {rcpt: error.reply.status for rcpt, error in failed.items()} == {"d@null.example": "5.1.10", "postmaster": "5.1.3"}


def test_a_domain_whose_servers_are_all_down() -> None:
    records = {("one.example", "A"): [A("127.0.0.1"), A("127.0.0.2")]}
    relay = Relay(None, free_port(), timeout=2, resolver=FakeResolver(records))
    failed = relay.hand_over(Outgoing(ME, ("a@one.example",), RAW))
    assert isinstance(failed["a@one.example"], TransientError)
    assert failed["a@one.example"].reply.status == "4.4.1"


def test_a_refusal_is_not_tried_at_the_next_server() -> None:
    records = {("one.example", "A"): [A("127.0.0.1"), A("127.0.0.1")]}
    with ScriptedServer({"RCPT": "550 5.1.1 no such user"}) as server:
        relay = Relay(None, server.address[1], timeout=2, resolver=FakeResolver(records))
        assert isinstance(relay.hand_over(Outgoing(ME, ("a@one.example",), RAW))["a@one.example"], PermanentError)
        relay.close()
    assert server.verbs.count("MAIL") == 1


def test_a_server_that_hangs_in_its_greeting_is_passed_over() -> None:
    records = {("one.example", "A"): [A("127.0.0.1"), A("127.0.0.1")]}
    with ScriptedServer({"connect": [HANG, "220 here"]}) as server:
        relay = Relay(None, server.address[1], timeout=0.2, resolver=FakeResolver(records))
        assert relay.hand_over(Outgoing(ME, ("a@one.example",), RAW)) == {}
        relay.close()


# -- into a queue


def test_a_queue_relay_keeps_mail_with_its_envelope(tmp_path: Path) -> None:
    relay = QueueRelay(tmp_path / "queue", name="test")
    relay.deliver(RAW, To=[YOU, "her@example.net"], From="")
    (key,) = relay.queue.keys()
    envelope = relay.queue.envelope(key)
    assert envelope is not None
    assert (envelope["mail_from"], envelope["rcpt_tos"]) == ("", [YOU, "her@example.net"])
    message = relay.queue.get(key)
    assert message is not None
    assert bytes(message) == RAW
    assert (relay.name, relay.destination(YOU)) == ("test", str(tmp_path / "queue"))
    relay.close()


def test_a_queue_relay_in_a_delivery(tmp_path: Path) -> None:
    relay = QueueRelay(tmp_path / "queue")
    with running():
        relay.send(YOU, APP, "Hi", "Hello.")
        assert relay.queue.count() == 0
    assert relay.queue.count() == 1
    with pytest.raises(ZeroDivisionError), running():
        relay.send(YOU, APP, "Hi", "Hello.")
        raise ZeroDivisionError
    assert relay.queue.count() == 1


def test_a_queue_that_takes_nothing_is_transient(tmp_path: Path) -> None:
    relay = QueueRelay(tmp_path / "queue")
    (tmp_path / "queue" / "tmp").rmdir()
    (tmp_path / "queue" / "tmp").write_text("in the way")
    with pytest.raises(TransientError) as refused:
        relay.deliver(RAW)
    assert refused.value.reply.status == "4.3.1"


def test_a_connection_that_becomes_free_wakes_who_waits_for_it() -> None:
    """And not only the first in the line, who may wait for another server."""
    pool = Pool(lambda target: Client(target.host), size=1, idle_seconds=60)
    ours, theirs = Target("192.0.2.1", "ours"), Target("192.0.2.2", "theirs")
    got = threading.Event()

    def use(target: Target, then: Callable[[], object]) -> None:
        with pool.client(target):
            then()

    patient = threading.Thread(target=use, args=(theirs, bool))
    waiting = threading.Thread(target=use, args=(ours, got.set))
    with pool.client(theirs):
        with pool.client(ours):
            for number, thread in enumerate((patient, waiting), start=1):
                thread.start()
                wait_until(lambda number=number: len(pool._changed._waiters) == number)  # type: ignore[misc,attr-defined]
        assert got.wait(5)
    patient.join(5)
    waiting.join(5)


def test_a_client_that_cannot_be_made_takes_nobodys_place() -> None:
    made = iter([MemoryError(), SimpleNamespace(connected=False)])

    def make(target: Target) -> Any:
        each = next(made)
        if isinstance(each, MemoryError):
            raise each
        return each

    pool, used = Pool(make, size=1, idle_seconds=60), []

    def use() -> None:
        with pool.client(Target("192.0.2.1", "ours")) as client:
            used.append(client)

    with pytest.raises(MemoryError):
        use()
    second = threading.Thread(target=use, daemon=True)  # it would wait for ever
    second.start()
    second.join(5)
    assert len(used) == 1


def test_each_connection_is_closed_when_it_was_idle_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now, closed = [100.0], []

    def make(target: Target) -> Any:
        return SimpleNamespace(connected=True, close=lambda: closed.append(target.name))

    monkeypatch.setattr("lamson.relay.time", SimpleNamespace(monotonic=lambda: now[0]))
    pool = Pool(make, size=2, idle_seconds=30)
    for name, since in (("first", 100.0), ("second", 110.0), ("third", 120.0)):
        now[0] = since
        with pool.client(Target("192.0.2.1", name)):
            pass
    for at, gone in ((129.0, []), (131.0, ["first"]), (139.0, ["first"]), (141.0, ["first", "second"])):
        now[0] = at
        pool.close_idle()
        assert closed == gone
    with pool.client(Target("192.0.2.1", "third")):  # in use again: from now on
        now[0] = 160.0
        pool.close_idle()
    assert closed == ["first", "second"]
    now[0] = 191.0
    pool.close_idle()
    assert closed == ["first", "second", "third"]
    assert not pool._kept
