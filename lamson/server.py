"""Receivers: where mail comes in, by SMTP, by LMTP, or out of a queue, and is handed to the router.

Steps 4 and 11 of a message's way. A receiver makes a `MailRequest` of an envelope, lets the router handle it for each recipient, and makes
the answer of what became of them. It knows nothing of sockets, which are the listener's, and nothing of states.
"""

from __future__ import annotations

import inspect
import logging
import os
import socket as network
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

from lamson import address, delivery, report, routing, trace
from lamson.delivery import Carrier, Outgoing
from lamson.errors import LamsonError, QueueError, SMTPError
from lamson.mail import MailRequest
from lamson.queue import Claim, Queue
from lamson.relay import Relay
from lamson.routing import Outcome, RoutingBase
from lamson.smtp.listener import Address, Listener
from lamson.smtp.session import Envelope, Rules, Session
from lamson.status import Reply, reply

__all__ = ["LMTPReceiver", "QueueReceiver", "Relay", "SMTPError", "SMTPReceiver", "make_fake_settings", "undeliverable_message"]

log = trace.logger("lamson.server")

#: Octets of the messages that a receiver has in hand at once.
BUDGET = 256 * 1024 * 1024
#: How many clients a receiver remembers the rules of, for most come again.
CLIENTS = 256
#: Ids of deliveries that fit into one reply (RFC 5321 §4.5.3.1.5: 512 octets).
IDS_IN_A_REPLY = 20
#: Seconds that a message which fails for now waits in its queue at most until it is tried again.
LONGEST_PAUSE = 3600.0

NO_SUCH_ADDRESS = reply(550, "There is no such address here", "5.1.1")
TRY_AGAIN = reply(451, "Local error, try again later", "4.3.0")

#: What is not for keywords to say, but for the receiver.
OWN_RULES = {"lmtp", "tls_available", "accept_waits"}
#: The limits that a receiver's keywords may set: those of a session, and those of the listener.
SESSION_LIMITS = {field.name for field in fields(Rules) if field.type in ("int", "float", "bool")} - OWN_RULES
LISTENER_LIMITS = {"connections", "per_peer", "handler_seconds", "idle_seconds", "data_seconds", "send_seconds", "mode"}


class Receiver:
    """What all receivers do with a message that is whole: let the router handle it, and see that nobody's copy gets lost.

    `relay`: by which a sender is told of a recipient that was refused after others were taken. Without it only the undeliverable queue
    knows.
    """

    def __init__(self, router: RoutingBase | None, relay: Carrier | None, hostname: str | None) -> None:
        self.router = routing.Router if router is None else router
        self.relay = relay
        self.hostname = hostname or ""

    def _begin(self) -> None:
        """Finds its name and closes the route table. Raises `RoutingError` for a wrong route."""
        self.hostname = self.hostname or network.getfqdn()
        self.router.seal()

    def _one_answer(self, message: MailRequest, outcomes: Sequence[Outcome]) -> Reply:
        """The answer for all recipients. One failed for now: try again, and receipts keep those that are done from being done twice. All
        refused: the first refusal. Some refused: 250, if the refused copies are kept."""
        if len(outcomes) == 1:
            return outcomes[0].reply
        for each in outcomes:
            if each.reply.transient:
                return each.reply
        taken = [each for each in outcomes if each.reply.ok]
        refused = [each for each in outcomes if not each.reply.ok]
        if refused and not (taken and self._keep(message, refused)):
            return refused[0].reply
        if len(taken) > IDS_IN_A_REPLY:
            return taken[0].reply
        return reply(250, f"OK, deliveries {' '.join(each.delivery for each in taken)}")

    def _keep(self, message: MailRequest, refused: Sequence[Outcome]) -> bool:
        """Keeps the copies of these recipients in the undeliverable queue and tells their sender, both or neither. False: there is no
        queue, and nobody to tell. Raises `LamsonError` when it failed."""
        why = {each.recipient: each.reply for each in refused}
        reason = "; ".join(f"{recipient}: {said}" for recipient, said in why.items())
        sender, queue = message.route_from or "", self.router.UNDELIVERABLE_QUEUE
        told = report.bounce(message.raw, sender, why, self.hostname) if self.relay is not None else None
        if queue is None and told is None:
            return False
        with delivery.begin(self.router.STATE_STORE, refused[0].recipient, "", refused[0].delivery) as held:
            if queue is not None:
                peer = str(message.Peer or "")
                queue.push(message.copy(), mail_from=message.From, rcpt_tos=list(why), peer=peer, reason=f"refused: {reason}")
            if told is not None and self.relay is not None:
                held.hold_mail(self.relay, Outgoing("", (sender,), told))
            for each in refused:
                if each.receipt:  # a client that did not hear us comes again
                    held.hold_receipt(each.receipt[0], reply(250, f"Kept for the postmaster, delivery {each.delivery}"), each.receipt[1])
        held.call_after_commit()
        log.warning("kept as undeliverable what was refused: %s", reason)
        return True


class SMTPReceiver(Receiver):
    """Takes mail by SMTP and hands it to the router.

    `port` 0 is any free one; `address` has it once started. `certificate`, `key`: PEM files; with them STARTTLS is offered, or with
    `implicit_tls` spoken from the first octet. `authenticate(user, password)`: AUTH is offered, under TLS or to this machine, and
    this decides. `take_unrouted`: mail that no route fits is taken for the undeliverable queue, as 1.x did; otherwise RCPT is
    refused with 550. `handlers`: how many messages are handled at once. `budget`: octets of all messages in hand; beyond them 452.
    `hostname`: our name in the greeting. Other keywords are limits: `size`, `recipients`, `errors`, `idle_seconds` and the other numbers of
    `smtp.session.Rules`, and `connections`, `per_peer`, `handler_seconds`, `send_seconds` of `smtp.listener.Listener`.
    """

    lmtp = False

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8825,
        *,
        router: RoutingBase | None = None,
        relay: Carrier | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        implicit_tls: bool = False,
        authenticate: Callable[[str, str], bool] | None = None,
        take_unrouted: bool = False,
        handlers: int = 32,
        budget: int = BUDGET,
        hostname: str | None = None,
        **limits: Any,
    ) -> None:
        super().__init__(router, relay, hostname)
        unknown = sorted(limits.keys() - SESSION_LIMITS - LISTENER_LIMITS)
        if unknown:
            own = [name for name in inspect.signature(SMTPReceiver).parameters if name != "limits"]
            known = ", ".join([*own, *sorted(SESSION_LIMITS | LISTENER_LIMITS)])
            raise TypeError(f"{type(self).__name__} knows no {', '.join(unknown)}. It takes {known}.")
        self.host, self.port = host, port
        self.take_unrouted = take_unrouted
        self._wanted: Address = (host, port)
        self._certificate, self._key, self._implicit_tls = certificate, key, implicit_tls
        self._authenticate, self._handlers, self._limits = authenticate, handlers, limits
        self._turns: SimpleQueue[None] = SimpleQueue()  # a semaphore in C: that of `threading` is Python
        for _ in range(handlers):
            self._turns.put(None)
        self._budget = Budget(budget)
        self._listener: Listener | None = None

    @property
    def address(self) -> Address:
        """Where it takes mail: (host, port) or a path; the real port once it is started."""
        return self._wanted if self._listener is None else self._listener.address

    def start(self, sockets: Mapping[Address, network.socket] | None = None) -> None:
        """Returns when mail can be taken. `sockets`: those that the process has bound already, by address. Raises `ConfigError` or
        `RoutingError`, which say what is wrong."""
        if self._listener is not None:
            raise TypeError("This receiver is started already.")
        self._begin()
        try:
            self._listener = self._listen((sockets or {}).get(self._wanted))
        except BaseException:
            self.router.unseal()
            raise
        log.info("%s takes mail on %s", type(self).__name__, _words(self.address))

    def stop(self, deadline: float = 30.0) -> None:
        """Takes no more mail; what is being received or handled is finished and answered, within `deadline` seconds."""
        if self._listener is not None:
            self._listener.stop(deadline)
            log.info("%s has stopped on %s", type(self).__name__, _words(self.address))
            self._listener = None
            self.router.unseal()

    def process_message(self, Peer: Any, From: str | None, To: str | Iterable[str] | None, Data: str | bytes) -> str | None:
        """Handles one message as if it had come in by SMTP. None: it is taken; else the text of the refusal."""
        answer = self._receive(MailRequest(Peer, From, To, Data))
        return None if answer.ok else str(answer)

    def _listen(self, sock: network.socket | None) -> Listener:
        rules_for = lru_cache(CLIENTS)(partial(self._rules_for, self._rules()))
        listener = Listener(
            self._wanted,
            lambda peer, tls: Session(rules_for(peer), peer, tls),
            self._handle,
            certificate=self._certificate,
            key=self._key,
            implicit_tls=self._implicit_tls,
            threads=self._handlers,
            sock=sock,
            **{name: limit for name, limit in self._limits.items() if name in LISTENER_LIMITS},
        )
        listener.start()
        return listener

    def _rules(self) -> Rules:
        return Rules(
            hostname=self.hostname,
            lmtp=self.lmtp,
            accept_waits=type(self.router).match is not RoutingBase.match,  # that looks at a table, and waits for nothing
            tls_available=self._certificate is not None and not self._implicit_tls,
            reserve=self._budget.reserve,
            release=self._budget.release,
            new_id=trace.new_id,
            **{name: limit for name, limit in self._limits.items() if name in SESSION_LIMITS},
        )

    def _rules_for(self, rules: Rules, peer: str) -> Rules:
        """With the questions that only we can answer, and whose refusals the log tells with the peer."""
        log_in = None if self._authenticate is None else partial(self._log_in, peer)
        return replace(rules, accept_recipient=partial(self._accept, peer), authenticate=log_in)

    def _accept(self, peer: str, recipient: str, mail_from: str) -> Reply | None:
        """The route table's answer to RCPT; None takes it. What is asked for is the address that the delivery will have."""
        known = address.bare_address(recipient)
        if known and (self.take_unrouted or self.router.match(known)):
            return None
        log.info("refused from %s: <%s> to %s: no route takes this address", peer or "local", mail_from, recipient)
        return NO_SUCH_ADDRESS

    def _log_in(self, peer: str, user: str, password: str) -> bool:
        """The application's answer to AUTH."""
        assert self._authenticate is not None
        known = self._authenticate(user, password)
        if not known:
            log.warning("refused from %s: AUTH as %r", peer or "local", user)
        return known

    def _handle(self, envelope: Envelope) -> Sequence[Reply]:
        """The envelope's replies: one, and in LMTP one for each recipient."""
        before = trace.CURRENT.set(envelope)
        try:
            told = log.isEnabledFor(logging.INFO)  # else nothing is joined
            if told:
                peer, to = envelope.peer or "local", ", ".join(envelope.rcpt_tos)
                log.info("received from %s: <%s> to %s, %d octets", peer, envelope.mail_from, to, len(envelope.data))
            replies = self._replies(envelope, MailRequest(envelope.peer, envelope.mail_from, envelope.rcpt_tos, envelope.data))
            if told:
                log.info("answered: %s", "; ".join(map(str, replies)))
        finally:
            trace.CURRENT.reset(before)
        return replies

    def _replies(self, envelope: Envelope, message: MailRequest) -> list[Reply]:
        return [self._receive(message)]

    def _receive(self, message: MailRequest) -> Reply:
        outcomes = self._outcomes(message)
        try:
            return self._one_answer(message, outcomes)
        except LamsonError as error:
            log.error("What was refused could not be kept, so the client is to try again: %s", error)
            return TRY_AGAIN

    def _outcomes(self, message: MailRequest) -> list[Outcome]:
        self._turns.get()
        try:
            return self.router.outcomes(message, receipts=True)
        finally:
            self._turns.put(None)


class LMTPReceiver(SMTPReceiver):
    """Takes mail by LMTP (RFC 2033), which answers for each recipient. `socket`: the path of a unix socket, used instead of host and port;
    `mode` are its permissions. Else as `SMTPReceiver`."""

    lmtp = True

    def __init__(self, host: str = "127.0.0.1", port: int = 8824, socket: str | os.PathLike[str] | None = None, **more: Any) -> None:
        super().__init__(host, port, **more)
        if socket is not None:
            self._wanted = os.fspath(socket)

    def _replies(self, envelope: Envelope, message: MailRequest) -> list[Reply]:
        """Each recipient hears for itself, so no refused copy has to be kept here."""
        said = {each.recipient: each.reply for each in self._outcomes(message)}
        return [said[address.bare_address(recipient) or ""] for recipient in envelope.rcpt_tos]


class Budget:
    """Octets that may be in memory at once, shared by all connections of a receiver."""

    def __init__(self, octets: int) -> None:
        self.left = octets
        self._lock = threading.Lock()

    def reserve(self, octets: int) -> bool:
        """Takes so many if they are left."""
        with self._lock:
            enough = octets <= self.left
            self.left -= octets if enough else 0
            return enough

    def release(self, octets: int) -> None:
        """Gives them back."""
        with self._lock:
            self.left += octets


class QueueReceiver(Receiver):
    """Handles the messages of a queue, with the envelopes that they were pushed with.

    A message leaves the queue only when it is owned elsewhere: handled, or kept in the undeliverable queue. One that fails for now
    stays, and is tried again after a pause that grows from `sleep` seconds to an hour. `sleep`: seconds until an empty queue is
    looked at again. `size_limit`, `oversize_dir`: see `Queue`. `workers`: messages handled at once. Several processes may share a queue.
    """

    def __init__(
        self,
        queue_dir: str | os.PathLike[str],
        sleep: float = 10,
        size_limit: int = 0,
        oversize_dir: str | None = None,
        workers: int = 10,
        *,
        router: RoutingBase | None = None,
        relay: Carrier | None = None,
        hostname: str | None = None,
    ) -> None:
        super().__init__(router, relay, hostname)
        self.queue = Queue(queue_dir, pop_limit=size_limit, oversize_dir=oversize_dir)
        self.queue_dir = self.queue.queue_dir
        self.sleep, self.workers = sleep, workers
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._pauses: dict[str, tuple[float, float]] = {}  # key -> (seconds, until when on the monotonic clock)

    def start(self, one_shot: bool = False, sockets: object = None) -> None:
        """Returns when its workers run; with `one_shot` when the queue is empty but for messages that failed for now."""
        if self._threads:
            raise TypeError("This receiver is started already.")
        self._begin()
        self._stopping.clear()
        wait = None if one_shot else self.sleep
        names = [f"lamson-queue-{number + 1}" for number in range(self.workers)]
        self._threads = [threading.Thread(target=self._work, args=(wait,), name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()
        log.info("QueueReceiver takes mail from %s", self.queue_dir)
        if one_shot:
            for thread in self._threads:
                thread.join()
            self.stop()

    def stop(self, deadline: float = 30.0) -> None:
        """Takes no more messages, and waits up to `deadline` seconds for those in hand. One that is not finished stays in the queue."""
        until = time.monotonic() + deadline
        self._stopping.set()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                log.error("%s still runs a handler and is left behind; its message stays in the queue.", thread.name)
        self._threads = []
        self.router.unseal()

    def process_message(self, message: MailRequest, key: str = "") -> Reply:
        """Handles one message, under a receipt of queue and key. The reply is what became of it: 250 when it is owned elsewhere."""
        outcomes = self.router.outcomes(message, receipts=f"{os.path.abspath(self.queue_dir)}:{key}" if key else False)
        refused = [each for each in outcomes if each.reply.permanent]
        if len(refused) == len(outcomes) and self._keep(message, refused):  # no client will tell the sender
            return reply(250, "Refused, and kept")
        return self._one_answer(message, outcomes)

    def _work(self, wait: float | None) -> None:
        """The life of a worker. `wait`: seconds between two looks at a queue with nothing to do; None ends it then."""
        while not self._stopping.is_set():
            claim = self._claim()
            if claim is not None:
                with claim:
                    self._attempt(claim)
            elif wait is None:
                return
            else:
                self._stopping.wait(wait)

    def _claim(self) -> Claim | None:
        """The next message that is due; None when there is none. One round at most, or paused messages would keep it busy."""
        for _ in range(len(self._pauses) + 1):
            try:
                claim = self.queue.claim()
            except QueueError as error:
                log.error("%s", error)
                self._pause(str(error.data))
                continue
            if claim is None or self._is_due(claim.key):
                return claim
            claim.release()
        return None

    def _attempt(self, claim: Claim) -> None:
        """The barrier of the queue loop: whatever is raised, the message stays in the queue."""
        try:
            answer = self.process_message(claim.message, claim.key)
            if answer.ok:
                claim.remove()
                self._pauses.pop(claim.key, None)
                return
            log.info("%s stays in %s: %s", claim.key, self.queue_dir, answer)
        except Exception:
            log.exception("The message %s stays in %s", claim.key, self.queue_dir)
        self._pause(claim.key)

    def _is_due(self, key: str) -> bool:
        return self._pauses.get(key, (0.0, 0.0))[1] <= time.monotonic()

    def _pause(self, key: str) -> None:
        with self._lock:
            seconds = min(self._pauses.get(key, (self.sleep / 2, 0.0))[0] * 2, LONGEST_PAUSE)
            self._pauses[key] = (seconds, time.monotonic() + seconds)


def make_fake_settings(host: str, port: int) -> SimpleNamespace:
    """Settings with a receiver there and a relay to `localhost:8825`, for a server that runs outside a project, as that of `lamson log`."""
    return SimpleNamespace(receiver=SMTPReceiver(host, port), relay=Relay("127.0.0.1", 8825))


def undeliverable_message(raw: bytes | str, why: str) -> str | None:
    """Keeps a message in the undeliverable queue of the default router, with the reason, and returns its key; None, and a line in the log,
    where there is no such queue."""
    queue = routing.Router.UNDELIVERABLE_QUEUE
    if queue is None:
        log.error("No undeliverable queue to keep a message in: %s", why)
        return None
    key = str(queue.push(raw, reason=why))
    log.warning("kept as undeliverable %s: %s", key, why)
    return key


def _words(where: Address) -> str:
    return where if isinstance(where, str) else f"{where[0]}:{where[1]}"
