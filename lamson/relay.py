"""Handing mail on: `Relay` to the next server or to each recipient's own, `QueueRelay` into a Maildir.

Inside a delivery `deliver` only has the mail held; the delivery's commit puts it into the outbox, which calls `hand_over` later. Outside
one it is handed over at once, and a failure is raised. Here it is decided, too, what an automatic answer is and who gets none (RFC 3834),
and a relayed message gets its `Received` line. How SMTP is spoken is for `smtp.client`, when to try again for `outbox`.
"""

from __future__ import annotations

import email.message
import email.utils
import ipaddress
import logging
import os
import re
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

from lamson import address, delivery, encoding
from lamson.delivery import Delivery, Outgoing
from lamson.encoding import MailBase
from lamson.errors import EncodingError, PermanentError, QueueError, RelayError, TransientError, failure
from lamson.mail import BLIND, MailRequest, MailResponse
from lamson.queue import Queue
from lamson.smtp.client import Client, check_options, own_name
from lamson.smtp.exchange import Exchanges, Resolver, Target

__all__ = ["PermanentError", "QueueRelay", "Relay", "RelayError", "TransientError"]

log = logging.getLogger("lamson.relay")

#: What `deliver` takes.
Sendable = MailRequest | MailResponse | MailBase | email.message.Message | str | bytes

#: A message with more Received lines is in a loop. RFC 5321 §6.3 would let it go round a hundred times.
HOPS = 50

_RECIPIENT_HEADERS = ("To", "Cc", "Bcc")
_BLIND_LINES = re.compile(rb"(?im)^(?:%s):.*\r\n(?:[ \t].*\r\n)*" % "|".join(BLIND).encode("ascii"))
_NATURE = re.compile(rb"(?im)^(auto-submitted|list-id|precedence):[ \t]*([^\r\n;]*)")
_HELO = re.compile(r"[A-Za-z0-9._-]+|\[[A-Za-z0-9.:]+\]")
_TRACE_WORD = re.compile(r"[A-Za-z0-9._:@+=-]{1,254}")


class BaseRelay:
    """What all relays have in common: everything but the handing over.

    `name`: by which the outbox knows it again, also in another process. `helo`: this machine's name; None for the one it has.
    """

    def __init__(self, name: str, helo: str | None = None) -> None:
        if helo is not None and not _HELO.fullmatch(helo):
            raise ValueError(f"helo is a host name or an address in brackets, not {helo!r}.")
        self.name = name
        self._helo = helo

    @property
    def helo(self) -> str:
        """This machine's name as it stands in Received."""
        return self._helo or own_name() or "localhost"

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        """Sends now. Returns the recipients that were not taken, each with why; empty when all were. Never raises `RelayError`."""
        raise NotImplementedError

    def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
        """The same for several of one destination, in order; each is sent when what became of it is asked for."""
        return map(self.hand_over, mails)

    def destination(self, rcpt_to: str) -> str:
        """The server that this recipient's mail goes to, or what stands for it: what is paused as a whole when it fails."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of what it keeps open; it may be used again."""

    def close_idle(self) -> None:
        """Lets go of what it has not used for a while."""

    # -- what applications call

    def deliver(self, message: Sendable, To: str | Iterable[str] | None = None, From: str | None = None) -> None:
        """Sends a message: inside a delivery when that is committed, outside one at once.

        `To`, `From`: the envelope. Without them a `MailRequest` goes to its own recipient from its own sender, anything else to its To,
        Cc and Bcc from its From. `From` "" is the null sender. Bcc is never sent, but in text or bytes with `To` given, which
        go as they are; their LF become CRLF.

        An answer that an application gives to the sender of what it is handling is automatic (RFC 3834): it gets `Auto-Submitted:
        auto-replied`, and is dropped, with a line in the log, where that was automatic itself. What says `Auto-Submitted: no`, or is of a
        list (`List-Id`, `Precedence`), is no answer.

        Raises `ValueError` when there is nobody to send to or from, `EncodingError` for a bare CR, `PermanentError` 5.4.6 for a message in
        a loop; outside a delivery the first failure, `TransientError` or `PermanentError`, its `recipients` being all that were not taken.
        """
        held = delivery.current()
        mail = self._outgoing(message, To, From, held)
        if held is None:
            self._hand_over_now(mail)
            return
        if not isinstance(message, MailRequest):
            mail = _as_answer(mail, held)
        if mail.rcpt_tos:
            held.hold_mail(self, mail)

    def reply(self, original: MailRequest, From: str, Subject: str, Body: str) -> MailResponse | None:
        """Answers a message, threaded, to its Reply-To or From; returns what it sent.

        None, and a line in the log that says why, for what must not be answered: automatic mail, the null sender, ourselves.
        """
        answer = original.reply(Body, From, Subject)
        if answer is None:
            log.info("no answer to %s: %s", original.reply_to or "nobody", original.unanswerable(ourselves=From))
        else:
            self.deliver(answer)
        return answer

    def send(self, To: str | Iterable[str], From: str, Subject: str, Body: str) -> None:
        """Sends a plain text."""
        self.deliver(MailResponse(To=To, From=From, Subject=Subject, Body=Body))

    # -- how

    def _hand_over_now(self, mail: Outgoing) -> None:
        failed = self.hand_over(mail)
        if failed:
            error = next(iter(failed.values()))
            raise type(error)(error.reply, tuple(failed)) from error
        log.info("sent from <%s> to %s", mail.mail_from, ", ".join(mail.rcpt_tos))

    def _outgoing(self, message: Sendable, To: str | Iterable[str] | None, From: str | None, held: Delivery | None) -> Outgoing:
        data = _rendered(message)
        recipients = _bare(To) if To is not None else _recipients(message, held)
        sender = _sender(message, From)
        if not recipients:
            why = "give deliver() To, or the message a To header" if To is None else "To is empty"
            raise ValueError(f"There is nobody to send this to: {why}.")
        if sender is None:
            raise ValueError("There is nobody this is from: give deliver() From, or the message a From header.")
        if isinstance(message, MailRequest):
            data = self._received(message, recipients, held) + data
        elif type(message) is not MailResponse and (To is None or not isinstance(message, str | bytes)):
            data = _without_blind(data)
        return Outgoing(sender, tuple(recipients), data)

    def _received(self, message: MailRequest, recipients: Sequence[str], held: Delivery | None) -> bytes:
        """The trace line of RFC 5321 §4.4. Whatever could be more than one word of it is left out."""
        hops = len(message.get_all("Received"))
        if hops > HOPS:
            raise failure(554, f"The message has passed {hops} servers: it is in a loop", "5.4.6")
        words = [f"from {_peer(message.Peer)}" if _peer(message.Peer) else "", f"by {self.helo}"]
        words.append(f"id {held.id}" if held is not None and _TRACE_WORD.fullmatch(held.id) else "")
        words.append(f"for <{recipients[0]}>" if len(recipients) == 1 and _TRACE_WORD.fullmatch(recipients[0]) else "")
        line = "\r\n\t".join(filter(None, words))
        return f"Received: {line};\r\n\t{email.utils.formatdate(localtime=True)}\r\n".encode("ascii")


# -- from what is given to bytes and an envelope


def _rendered(message: Sendable) -> bytes:
    """Its bytes, with CRLF line ends."""
    if type(message) is MailResponse:
        return bytes(message)  # with CRLF and without Bcc; a class made of it may write what it likes
    if isinstance(message, str):
        data = message.encode("utf-8", "surrogateescape")
    elif isinstance(message, email.message.Message):
        data = message.as_bytes(policy=message.policy.clone(linesep="\r\n", mangle_from_=False))
    elif isinstance(message, MailBase):
        data = encoding.to_bytes(message)
    else:
        data = bytes(message)
    return _with_crlf(data, mixed=not isinstance(message, MailRequest))


def _with_crlf(data: bytes, mixed: bool) -> bytes:
    """A file's LF become CRLF. `mixed`: also where there are CRLF besides; in received mail such a LF is data, which no server takes."""
    ends = data.count(b"\r\n")
    lone_lf, lone_cr = data.count(b"\n") - ends, data.count(b"\r") - ends
    if lone_cr or (lone_lf and ends and not mixed):
        what = rb"\r(?!\n)" if lone_cr else rb"(?<!\r)\n"
        found = re.search(what, data)
        line = data.count(b"\n", 0, found.start()) + 1 if found else 0
        raise EncodingError(f"The message has a bare {'CR' if lone_cr else 'LF'} in line {line}: no server takes that. Remove it.")
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") if lone_lf else data


def _without_blind(data: bytes) -> bytes:
    """Without Bcc headers (RFC 5322 §3.6.3)."""
    head = _head(data)
    return _BLIND_LINES.sub(b"", head) + data[len(head) :]


def _head(data: bytes) -> bytes:
    """The header lines."""
    if data.startswith(b"\r\n"):
        return b""
    end = data.find(b"\r\n\r\n")
    return data[: end + 2] if end >= 0 else data


def _recipients(message: Sendable, held: Delivery | None) -> list[str]:
    """A request goes where its envelope says: inside a delivery to the one recipient of that. Anything else goes to all that it names."""
    if not isinstance(message, MailRequest):
        return _bare(_texts(message, *_RECIPIENT_HEADERS))
    given = _bare(message.To if message.To is not None else message.headers.raw_texts("To"))
    if held is None or message.recipient != held.recipient:
        return given
    return [each for each in given if address.normalise(each) == held.recipient] or [held.recipient]


def _sender(message: Sendable, From: str | None) -> str | None:
    if From is None and isinstance(message, MailRequest):
        From = message.From
    if From is None:
        return next(iter(_bare(_texts(message, "From"))), None)
    return address.NULL if From.strip() in ("", "<>") else next(iter(_bare(From)), None)


def _bare(value: str | Iterable[str]) -> list[str]:
    """Bare addresses as they are written, each once. Not lower-cased: the case of a local part is its owner's (RFC 5321 §2.4)."""
    found: dict[str, str] = {}
    for text in [value] if isinstance(value, str) else value:
        for each in address.parse(text):
            if bare := each.bare:
                found.setdefault(address.normalise(bare), bare)
    return list(found.values())


def _texts(message: Sendable, *names: str) -> list[str]:
    """The values of these headers, their encoded words as they are where they were received."""
    if isinstance(message, MailResponse):
        headers = message.headers
        return [text for name in names for text in headers.get_all(name)]
    if isinstance(message, email.message.Message):
        return [str(value) for name in names for value in message.get_all(name, [])]
    source = MailRequest(Data=message) if isinstance(message, str | bytes) else message
    return [text for name in names for text in source.headers.raw_texts(name)]


def _peer(peer: Any) -> str:
    """The client as a word of a trace line: `[192.0.2.1]`, or a name; "" when it is neither."""
    text = str(peer[0]) if isinstance(peer, tuple | list) and peer else peer if isinstance(peer, str) else ""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text if _TRACE_WORD.fullmatch(text) else ""
    return f"[IPv6:{ip}]" if ip.version == 6 else f"[{ip}]"


# -- automatic answers


def _as_answer(mail: Outgoing, held: Delivery) -> Outgoing:
    """The mail without the recipients that must not get an automatic answer, and marked as one where it is one.

    A list's copy to the author of a post is no answer: it says so by its List-Id (RFC 2919 §3), or by Precedence as lists did before.
    """
    answered = [rcpt for rcpt in mail.rcpt_tos if _asked(address.normalise(rcpt), held)]
    if not answered:
        return mail
    nature = {found[1].lower(): found[2].strip().lower() for found in _NATURE.finditer(_head(mail.data))}
    submitted = nature.pop(b"auto-submitted", None)
    if submitted == b"no" or nature:
        return mail
    refused = {rcpt: why for rcpt in answered if (why := _unanswerable(held, rcpt))}
    for rcpt, why in refused.items():
        log.info("no answer to %s: %s", rcpt, why)
    data = mail.data if submitted else b"Auto-Submitted: auto-replied\r\n" + mail.data
    return Outgoing(mail.mail_from, tuple([rcpt for rcpt in mail.rcpt_tos if rcpt not in refused]), data)


def _asked(rcpt: str, held: Delivery) -> bool:
    """This is who wrote what is being handled: by its envelope, or by its headers."""
    return rcpt == held.sender or (held.message is not None and rcpt in _askers(held.message))


def _unanswerable(held: Delivery, rcpt: str) -> str | None:
    """Why what is being handled must get no automatic answer; None when it may."""
    message = held.message if held.message is not None else MailRequest()
    return message.unanswerable(rcpt, held.recipient)


def _askers(message: MailRequest) -> list[str]:
    return address.bare_addresses([text for name in ("From", "Reply-To", "Sender") for text in message.headers.raw_texts(name)])


# -- into a Maildir


class QueueRelay(BaseRelay):
    """Puts mail into a Maildir instead of sending it, with its envelope: for tests, and for another program that sends."""

    def __init__(self, queue_dir: str | os.PathLike[str], name: str = "default") -> None:
        super().__init__(name)
        self.queue = Queue(queue_dir)

    def __repr__(self) -> str:
        return f"QueueRelay({self.queue.queue_dir!r})"

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        """One message in the queue, whatever the number of recipients."""
        try:
            self.queue.push(mail.data, mail_from=mail.mail_from, rcpt_tos=mail.rcpt_tos)
        except QueueError as error:
            return dict.fromkeys(mail.rcpt_tos, failure(452, str(error), "4.3.1"))
        return {}

    def destination(self, rcpt_to: str) -> str:
        return self.queue.queue_dir


# -- to a server


class Relay(BaseRelay):
    """Hands mail to one server, the smart host, or with `host=None` to the servers of each recipient's domain.

    `host`: a name, an IP address or the path of a Unix socket. `port`, `username`, `password`, `ssl`, `starttls`, `lmtp`, `verify`,
    `insecure_auth`, `timeout`, `talk`, `debug`: as `smtp.client.Client` has them. `name`: see the outbox; no two relays of an outbox
    have the same. `helo`: our own name.

    With `host=None` the mail goes in order of the domain's MX records, or to its address where it has none; STARTTLS is taken where it is
    offered, without looking at certificates, and `starttls=True` insists on it with a good certificate. `resolver`: looks
    names up instead of dnspython's.

    Connections are kept for `idle_seconds` and used again: at most `connections` to one server at a time.
    """

    def __init__(
        self,
        host: str | None = "127.0.0.1",
        port: int = 25,
        username: str | None = None,
        password: str | None = None,
        ssl: bool = False,
        starttls: bool = False,
        debug: int = 0,
        lmtp: bool = False,
        name: str = "default",
        *,
        verify: bool | str | None = None,
        insecure_auth: bool = False,
        helo: str | None = None,
        timeout: float | None = None,
        talk: Callable[[str], None] | None = None,
        connections: int = 10,
        idle_seconds: float = 30.0,
        resolver: Resolver | None = None,
    ) -> None:
        super().__init__(name, helo)
        check_options(host, port, ssl, starttls, lmtp)
        if host is None and (ssl or lmtp or username is not None):
            raise TypeError("Without a host mail goes to the servers of strangers, which know no ssl, lmtp or username: give a host.")
        self.host, self.port, self.username, self.password = host, port, username, password
        self.ssl, self.starttls, self.debug, self.lmtp = ssl, starttls, debug, lmtp
        self.verify, self.insecure_auth, self.timeout, self.talk = verify, insecure_auth, timeout, talk
        self.exchanges = Exchanges(resolver)
        self._pool = Pool(self._client_maker(), connections, idle_seconds)
        weakref.finalize(self, self._pool.drop).atexit = False  # a forked child would take leave in our name

    @property
    def hostname(self) -> str | None:
        """The host, as 1.x named it."""
        return self.host

    def __repr__(self) -> str:
        return f"Relay({self.host!r}, {self.port})"

    def destination(self, rcpt_to: str) -> str:
        return f"{self.host}:{self.port}" if self.host is not None else address.domain_of(rcpt_to)

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        if self.host is not None:
            (failed,) = self._over_one_connection(self.host, [mail])
            return failed
        failed = {}
        domains: dict[str, list[str]] = {}
        for rcpt in mail.rcpt_tos:
            domains.setdefault(address.domain_of(rcpt), []).append(rcpt)
        for domain, rcpts in domains.items():
            try:
                failed |= self._hand_to(self.exchanges.of(domain), rcpts, mail)
            except RelayError as error:
                failed |= dict.fromkeys(rcpts, error)
        return failed

    def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
        """To a smart host over one connection; an application's own `hand_over` is asked for each."""
        if self.host is None or getattr(self.hand_over, "__func__", None) is not Relay.hand_over:
            return super().hand_over_all(mails)
        return self._over_one_connection(self.host, mails)

    def _over_one_connection(self, host: str, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
        with self._pool.client(Target(host, host)) as client:
            yield from client.send_all((mail.mail_from, mail.rcpt_tos, mail.data) for mail in mails)

    def close(self) -> None:
        """Takes leave of all servers that nobody talks to just now."""
        self._pool.close()

    def close_idle(self) -> None:
        """Takes leave of those that were not used for `idle_seconds`. Every sending does so as well."""
        self._pool.close_idle()

    def _hand_to(self, targets: Sequence[Target], rcpts: Sequence[str], mail: Outgoing) -> dict[str, RelayError]:
        """To the first of these servers that can be reached."""
        failed: dict[str, RelayError] = {}
        for target in targets:
            with self._pool.client(target) as client:
                try:
                    client.open()
                except TransientError as error:
                    log.info("%s: %s", target.name, error.reply)
                    failed = dict.fromkeys(rcpts, error)
                    continue
                return client.send(mail.mail_from, rcpts, mail.data)
        return failed

    def _client_maker(self) -> Callable[[Target], Client]:
        """Makes clients without knowing this relay, so that the pool does not keep it alive."""
        port, options = self.port, dict[str, Any](ssl=self.ssl, lmtp=self.lmtp, debug=self.debug, talk=self.talk, timeout=self.timeout)
        options |= {"username": self.username, "password": self.password, "verify": self.verify, "insecure_auth": self.insecure_auth}
        options |= {"starttls": self.starttls or (None if self.host is None else False), "helo": self._helo}

        def make(target: Target) -> Client:
            return Client(target.host, port, server_name=target.name, **options)

        return make


@dataclass(slots=True, eq=False)
class _Kept:
    """How many clients of one server are in use, and those that are not, each with since when."""

    used: int = 0
    idle: list[tuple[float, Client]] = field(default_factory=list)


class Pool:
    """Clients that are kept between two messages.

    `size`: how many to one server may be in use at a time; who wants more waits for one. `idle_seconds`: an idle one is closed after.
    """

    def __init__(self, make: Callable[[Target], Client], size: int, idle_seconds: float) -> None:
        self._make, self._size, self._idle_seconds = make, size, idle_seconds
        self._changed = threading.Condition()
        self._kept: defaultdict[Target, _Kept] = defaultdict(_Kept)
        self._look_at = inf  # no client has been idle for too long before

    @contextmanager
    def client(self, target: Target) -> Iterator[Client]:
        """A client of this server for this thread alone, connected or not yet."""
        self.close_idle()
        client = self._take(target)
        try:
            yield client
        finally:
            self._give(target, client)

    def close_idle(self) -> None:
        """Closes those that were idle for too long."""
        now = time.monotonic()
        if now >= self._look_at:
            self._close(self._remove(now - self._idle_seconds))

    def close(self) -> None:
        """Closes all that are idle."""
        self._close(self._remove(inf))

    def drop(self) -> None:
        """The same without a word to the servers."""
        for client in self._remove(inf):
            client.drop()

    def _close(self, clients: Sequence[Client]) -> None:
        for client in clients:
            client.close()

    def _take(self, target: Target) -> Client:
        with self._changed:
            while (kept := self._kept[target]).used >= self._size:
                self._changed.wait()
            client = kept.idle.pop()[1] if kept.idle else self._make(target)
            kept.used += 1
            return client

    def _give(self, target: Target, client: Client) -> None:
        with self._changed:
            kept = self._kept[target]
            kept.used -= 1
            if client.connected:
                now = time.monotonic()
                kept.idle.append((now, client))
                self._look_at = min(self._look_at, now + self._idle_seconds)
            elif not kept.used and not kept.idle:
                del self._kept[target]
            self._changed.notify_all()  # whoever waits for another server would take the one call and leave it

    def _remove(self, since: float) -> list[Client]:
        """Those that are idle for longer than since then."""
        with self._changed:
            gone = []
            self._look_at = inf
            for target, kept in list(self._kept.items()):
                gone += [client for began, client in kept.idle if began < since]
                kept.idle = [each for each in kept.idle if each[0] >= since]
                if kept.idle:
                    self._look_at = min(self._look_at, kept.idle[0][0] + self._idle_seconds)
                elif not kept.used:
                    del self._kept[target]
            return gone
