"""The conversation of SMTP (RFC 5321) and LMTP (RFC 2033) as a state machine: bytes in, replies and envelopes out.

Between the listener, which owns the socket, and the receiver, which owns the routes. The session does no I/O and knows no threads, no
clock and no routes: the listener feeds it what it read and writes what `take_output` gives; what is to be decided is asked of the callables
in `Rules`. Only one thread may be inside a session at a time.

What nearly all clients send, one plain command at a time or a whole message, has a short way (`feed_plain`, `answer_plain`) beside the
long one, which says and does the same.

Two tables say what is legal. The *stage* is where the conversation stands; each stage lists the commands that it obeys, and a command that
is not listed is refused with the stage's refusal. The *step* is what the next bytes are: a command line, a line of an AUTH exchange, the
message, a chunk of it, or nothing that will be read. Every reply of the long way leaves through `_say`.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from lamson.errors import Fault, SMTPError
from lamson.smtp import command
from lamson.smtp.data import Chunks, DotStream, Limits
from lamson.status import Reply, reply

T = TypeVar("T")
R = TypeVar("R")

#: Octets that every message reserves at MAIL; more is reserved as they come.
FIRST_OCTETS = 64 * 1024


def _no_id() -> str:
    return ""


def _accept_any(recipient: str, mail_from: str) -> Reply | None:
    return None


def _reserve_any(octets: int) -> bool:
    return True


def _release_any(octets: int) -> None:
    return None


@dataclass(frozen=True)
class Rules:
    """What a session grants, and whom it asks. One object may serve many sessions; the callables are called from many threads.

    Octets: `size` of a message, `line` of a command with its CRLF, `header_bytes`, `pipelined` (what may be sent while a message is
    being answered). Seconds: `data_seconds` for a whole message, `idle_seconds` of silence; the listener's clock keeps them.
    Counts: `recipients` of a message, `received` lines of its header, `errors` and `commands` since the last message that was taken, so
    that a connection which delivers never reaches them, `auth_failures` of a connection.
    """

    hostname: str
    lmtp: bool = False
    size: int = 32 * 1024 * 1024
    recipients: int = 1000
    commands: int = 2500
    errors: int = 10
    auth_failures: int = 3
    line: int = command.LINE_OCTETS
    header_bytes: int = 256 * 1024
    received: int = 50
    pipelined: int = 1024 * 1024
    data_seconds: float = 600
    idle_seconds: float = 300
    tls_available: bool = False
    require_tls: bool = False
    require_auth: bool = False
    keep_bare_line_ends: bool = False
    #: (recipient, mail_from): None or a 2xx reply takes the recipient, another reply refuses it.
    accept_recipient: Callable[[str, str], Reply | None] = _accept_any
    #: It may wait for something (a database, a server), so it must not be asked where others wait for it.
    accept_waits: bool = True
    #: (user, password): whether they belong together. None: AUTH is not offered.
    authenticate: Callable[[str, str], bool] | None = None
    #: Octets of messages in flight: whether so many more fit, and that so many are gone. Each that was reserved is released once. These two
    #: and `new_id` neither raise nor wait.
    reserve: Callable[[int], bool] = _reserve_any
    release: Callable[[int], None] = _release_any
    #: The id of the next envelope.
    new_id: Callable[[], str] = _no_id


@dataclass(slots=True)  # not frozen: that would make it five times as dear
class Envelope:
    """A message that was received whole and awaits its answer. Nobody changes it.

    `peer` is the client's IP address, "" over a unix socket. `mail_from` "" is the null sender. `rcpt_tos` are bare, as given and in order,
    each once. `data` is the message with CRLF line ends, as it was before dots were doubled. `body` is what MAIL declared, "7BIT" or
    "8BITMIME"; nothing is altered for it. `user` None: not authenticated.
    """

    peer: str
    helo: str
    mail_from: str
    rcpt_tos: tuple[str, ...]
    data: bytes
    id: str
    utf8: bool
    body: str
    tls: bool
    user: str | None


#: What is to be called with received bytes: `feed`, or what is shorter and may give the reply to be written.
Feed = Callable[[bytes], Envelope | bytes | None]
#: What is to be called with the replies to a message: `answer`.
Answer = Callable[[Sequence[Reply]], Envelope | None]


class Session:
    """One connection's conversation. `feed` it; write `take_output`; look at `closed`, `wants_tls`, `collecting`, `pending`, `between`."""

    def __init__(self, rules: Rules, peer: str, tls: bool = False) -> None:
        self.rules = rules
        self.peer = peer
        self.tls = tls
        self.helo = ""
        self.user: str | None = None
        #: 220 for STARTTLS is in the output: once it is written, wrap the socket and call `tls_started`.
        self.wants_tls = False
        #: Once the output is written, close the connection.
        self.closed = False
        #: A message is on its way: `data_seconds` applies, not `idle_seconds`.
        self.collecting = False
        self._buffer = bytearray()
        self._output = bytearray()
        self._step: Callable[[Session], bool] = Session._too_early
        self._stage = NEW
        self._limits = Limits(rules.size, rules.header_bytes, rules.received, rules.keep_bare_line_ends)
        self._exchange: Exchange | None = None
        self._mail: command.Mail | None = None
        self._rcpts: list[str] = []  # each RCPT that was taken, also one given twice
        self._message: DotStream | Chunks | None = None
        self._pending: Envelope | None = None
        self._flooded = False
        self._reserved = 0
        self._commands = self._errors = self._auth_failures = 0

    # What the listener calls.

    def greet(self) -> None:
        """Queue the greeting (RFC 5321 §3.1). Nothing happens where the client spoke before it."""
        if not self.closed:
            self._step = Session._read_line
            self._say(Reply(220, f"{self.rules.hostname} {'LMTP' if self.rules.lmtp else 'ESMTP'} Lamson"))

    def feed(self, data: bytes) -> Envelope | None:
        """Take received bytes. An `Envelope` when a message is whole: answer it with `answer`; until then further bytes only wait."""
        if self._pending is not None:
            self._hold(data)
            return None
        self._buffer += data
        return self._go_on()

    def feed_plain(self, data: bytes) -> bytes | Envelope | Feed:
        """As `feed`, in short, for what nearly all clients send at a time: one plain command, or the whole of a message.

        Returns the reply to be written, or the envelope; or, having done nothing, the function to call with these bytes, which may take
        its time, and gives an envelope or a reply to be written, or None, with what is to be said in the output.
        """
        if self._step is Session._read_message:
            return self._message_plainly(data)
        obey = self._stage.plain.get(data[:4])
        if obey is None or self._step is not Session._read_line or self._buffer or self._output:
            return self.feed
        if self._commands >= self.rules.commands or len(data) > self.rules.line:
            return self.feed
        return obey(self, data)

    def answer(self, replies: Sequence[Reply]) -> Envelope | None:
        """Answer the pending envelope and go on with what was sent behind it; the next envelope if that was one.

        One reply; in LMTP one for each of `rcpt_tos` (`ValueError` for another number). Ignored where the client heard an answer already
        (`abandon`, `shut_down`).
        """
        if self._pending is None:
            return None
        spoken = self._spoken(self._pending, replies)
        self._forget_transaction()
        if any(one.ok for one in replies):
            self._commands = self._errors = 0
        self._step = Session._read_line
        for one in spoken:
            self._say(_with_status(one))
        if self._flooded:
            self._say(FLOODED)
        return self._go_on()

    def answer_plain(self, replies: Sequence[Reply]) -> bytes | Answer:
        """As `answer`, in short, for one good reply to a message with nothing sent behind it. Returns the reply to be written; or, having
        done nothing, the function to call with these replies, which may take its time."""
        if len(replies) != 1 or self._buffer or self._output or self._flooded or self._pending is None or self.rules.lmtp:
            return self.answer
        good = replies[0]
        if not good.ok or not good.status:
            return self.answer
        self._forget_transaction()
        self._step, self._commands, self._errors = Session._read_line, 0, 0
        return bytes(good)

    def take_output(self) -> bytes:
        """The replies to be written now; empty when there are none."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def tls_started(self) -> None:
        """The socket is wrapped. All that was said before is forgotten, all that was sent is dropped (RFC 3207 §4.2)."""
        self._buffer.clear()
        self.tls, self.wants_tls = True, False
        self.helo, self.user = "", None
        self._stage, self._step = NEW, Session._read_line

    def timed_out(self) -> None:
        """The client was silent for too long (RFC 5321 §4.5.3.2.7)."""
        self._give_up(TIMED_OUT)

    def shut_down(self) -> None:
        """The server ends (RFC 5321 §3.8). What is pending hears 421 as well."""
        self._give_up(SHUTTING_DOWN)

    def failed(self) -> None:
        """Something on this side broke, and nobody knows how far it got."""
        self._give_up(BROKEN)

    def abandon(self) -> None:
        """The pending envelope gets no answer in time: 451 for each of its recipients, and the end. Its late answer is ignored."""
        if self._pending is not None:
            self._give_up(TOO_SLOW)

    def end(self) -> None:
        """The connection is gone: release what is held. May be called at any time, and more than once."""
        self.closed, self.collecting = True, False
        self._step = Session._ignore
        self._buffer.clear()
        self._exchange = None
        self._forget_transaction()

    @property
    def pending(self) -> bool:
        """An envelope awaits its answer."""
        return self._pending is not None

    @property
    def between(self) -> bool:
        """No transaction is begun: nothing is lost by ending here."""
        return self._mail is None

    # What is plain: the short way of the commands and the message of nearly every client, a third of what the long one costs. It does what
    # the long way does, or nothing and leaves it to that. Refusals are left to it.

    def _hello_plainly(self, line: bytes) -> bytes | Feed:
        name, end = line[5:-2].decode("ascii", "replace"), line[-2:]
        if line[4:5] != b" " or end != b"\r\n" or self.rules.lmtp or not command.is_host(name):
            return self.feed
        self._commands += 1
        return bytes(self._hello(name, self._extensions()))

    def _mail_plainly(self, line: bytes) -> bytes | Feed:
        mail = command.plain_mail(line)
        if mail is None or mail.size > min(self.rules.size, FIRST_OCTETS) or not self.rules.reserve(FIRST_OCTETS):
            return self.feed
        self._commands += 1
        self._mail, self._stage, self._reserved = mail, MAILED, FIRST_OCTETS
        return RENDERED[id(SENDER_OK)]

    def _rcpt_plainly(self, line: bytes) -> bytes | Feed:
        recipient = command.plain_rcpt(line)
        if recipient is None:
            return self.feed
        if self.rules.accept_waits:
            return lambda _: self._ask_plainly(recipient)
        return self._ask_plainly(recipient) or self._said

    def _ask_plainly(self, recipient: str) -> bytes | None:
        self._commands += 1
        answer = self._answer_of(Session._take_recipient, recipient)
        if answer is RECIPIENT_OK:
            return RENDERED[id(RECIPIENT_OK)]
        self._conclude(answer)
        return None

    def _said(self, line: bytes) -> None:
        """Nothing is left to be done with this line: its answer is in the output."""

    def _data_plainly(self, line: bytes) -> bytes | Feed:
        if line[4:] != b"\r\n":
            return self.feed
        self._commands += 1
        return RENDERED[id(self._begin_data())]

    def _message_plainly(self, data: bytes) -> Envelope | Feed:
        message = self._message
        if not isinstance(message, DotStream) or len(data) > self._reserved:
            return self.feed
        try:
            whole = message.take_at_once(data)
        except SMTPError:
            whole = None
        return self.feed if whole is None else self._complete(whole)

    # Steps: what the next bytes are. Each says whether it got anywhere.

    def _go_on(self) -> Envelope | None:
        while self._buffer and self._step(self):
            pass
        return self._pending

    def _too_early(self) -> bool:
        self._close(Reply(554, "The server speaks first"))  # in the greeting's place, so without a status (RFC 5321 §4.3.1, RFC 2034 §4)
        return False

    def _read_line(self) -> bool:
        return self._on_line(Session._obey)

    def _read_auth_line(self) -> bool:
        return self._on_line(Session._respond)

    def _skip_line(self) -> bool:
        """The rest of a line that was refused. A CR at the end may be half of what is looked for."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            del self._buffer[:-1]
            return False
        del self._buffer[: end + 2]
        self._step = Session._read_line
        return True

    def _read_message(self) -> bool:
        message = self._message
        assert message is not None
        if message.kept > self._reserved:
            self._reserve_for(message)
        try:
            data = message.take()
        except SMTPError as refused:
            self._refuse_message(message, refused.reply)
            return True
        if data is not None:
            self._complete(data)
            return False
        if message.whole:
            self._expect_command()
            self._say(CHUNK_OK)
        return message.whole

    def _wait(self) -> bool:
        return False

    def _ignore(self) -> bool:
        self._buffer.clear()
        return False

    # Lines.

    def _on_line(self, act: Callable[[Session, bytes], Reply | None]) -> bool:
        """Let `act` have the next line, and say its answer. False when no line is whole."""
        try:
            line = self._next_line()
        except SMTPError as refused:
            self._conclude(refused.reply)
            return True
        if line is None:
            return False
        answer = self._answer_of(act, line)
        if answer is not None:
            self._conclude(answer)
        return True

    def _answer_of(self, act: Callable[[Session, T], R], given: T) -> R | Reply:
        """What `act` returns, or the reply that it raises."""
        try:
            return act(self, given)
        except SMTPError as refused:
            return refused.reply
        except Fault:
            return LOCAL_ERROR

    def _next_line(self) -> bytes | None:
        """A line without its CRLF; None when it is not whole yet. Raises `SMTPError` for what is no line."""
        buffer = self._buffer
        end = buffer.find(b"\r\n")
        line = bytes(buffer[:end] if end >= 0 else buffer)
        if end < 0 or end + 2 > self.rules.line or b"\n" in line or b"\r" in line:
            self._refuse_odd_line(line, end >= 0)
            if end < 0:
                return None
        del buffer[: end + 2]
        self._commands += 1
        if self._commands > self.rules.commands:
            raise SMTPError(421, "Too many commands and no message", "4.7.0")
        return line

    def _refuse_odd_line(self, line: bytes, whole: bool) -> None:
        """What is wrong is said as soon as it is seen (who types into netcat sends bare LFs, and waits), however the bytes were cut."""
        limit = self._line_limit(line)
        if b"\n" in line[:limit]:  # RFC 5321 §2.3.8
            wrong = SMTPError(500, "A line ends in CRLF; this one has a bare LF", "5.5.2")
        elif len(line) > limit - (2 if whole else 1):  # RFC 5321 §4.5.3.1.10, RFC 4954 §6
            wrong = SMTPError(500, f"A line has {limit} octets at most", "5.5.2" if limit == self.rules.line else "5.5.6")
        elif whole and b"\r" in line:
            wrong = SMTPError(500, "A line ends in CRLF; this one has a bare CR", "5.5.2")
        else:
            return
        self._exchange = None
        self._step = Session._skip_line
        raise wrong

    def _line_limit(self, line: bytes) -> int:
        """Octets with the CRLF. Lines of an AUTH exchange may be longer than others (RFC 4954 §4)."""
        authenticating = self._exchange is not None or line[:5].upper() == b"AUTH "
        return max(self.rules.line, command.AUTH_LINE_OCTETS) if authenticating else self.rules.line

    def _obey(self, line: bytes) -> Reply | None:
        verb, argument = command.parse(line)
        obey = self._stage.commands.get(verb)
        if obey is not None:
            return obey(self, argument)
        return self._stage.refusal if verb in VERBS else UNKNOWN_COMMAND

    # Commands. Each returns its reply or raises it; None where the reply was said or comes later.

    def _ehlo(self, argument: str) -> Reply:
        return SAY_LHLO if self.rules.lmtp else self._hello(argument, self._extensions())

    def _helo(self, argument: str) -> Reply:
        return SAY_LHLO if self.rules.lmtp else self._hello(argument, [])

    def _lhlo(self, argument: str) -> Reply:
        return self._hello(argument, self._extensions()) if self.rules.lmtp else UNKNOWN_COMMAND

    def _hello(self, argument: str, extensions: list[str]) -> Reply:
        """As RSET, and the client has a name (RFC 5321 §4.1.4). These replies have no enhanced status (RFC 2034 §4)."""
        if not command.is_host(argument):
            return Reply(501, "Say your domain name or your address literal")
        self.helo = argument
        self._forget_transaction()
        return Reply(250, "\n".join([self.rules.hostname, *extensions]))

    def _extensions(self) -> list[str]:
        offered = ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", f"SIZE {self.rules.size}"]
        if self.rules.tls_available and not self.tls:  # RFC 3207 §4.2: not again under TLS
            offered.append("STARTTLS")
        if self._may_authenticate():
            offered.append("AUTH " + " ".join(MECHANISMS))
        return offered

    def _mail_from(self, argument: str) -> Reply:
        mail = command.mail(argument)
        if mail.auth is not None and self.rules.authenticate is None:
            return reply(555, "AUTH is not offered", "5.5.4")
        if mail.size > self.rules.size:
            return reply(552, f"A message has {self.rules.size} octets at most", "5.3.4")  # RFC 1870 §6.1
        if not self._reserve_first(mail.size):
            return NO_ROOM
        self._mail, self._stage = mail, MAILED
        return SENDER_OK

    def _rcpt_to(self, argument: str) -> Reply:
        assert self._mail is not None
        self._stage = ADDRESSED if self._rcpts else REFUSED  # also where what comes is no address
        return self._take_recipient(command.rcpt(argument, self._mail.utf8))

    def _take_recipient(self, recipient: str) -> Reply:
        assert self._mail is not None
        self._stage = ADDRESSED if self._rcpts else REFUSED
        if len(self._rcpts) >= self.rules.recipients:
            return TOO_MANY_RECIPIENTS  # RFC 5321 §4.5.3.1.10
        answer = self.rules.accept_recipient(recipient, self._mail.mail_from)
        if answer is not None and not answer.ok:
            return _with_status(answer)
        self._rcpts.append(recipient)
        self._stage = ADDRESSED
        return RECIPIENT_OK if answer is None else _with_status(answer)

    def _data(self, argument: str) -> Reply | None:
        if self._buffer:
            self._refuse_haste()
            return None
        command.nothing(argument)
        return self._begin_data()

    def _begin_data(self) -> Reply:
        self._message = DotStream(self._buffer, self._limits)
        self._step, self.collecting = Session._read_message, True
        return GO_AHEAD

    def _data_out_of_place(self, argument: str) -> Reply | None:
        if self._buffer:
            self._refuse_haste()
            return None
        return self._refusal_of_message()

    def _refuse_haste(self) -> None:
        """What stands behind DATA was sent without waiting for 354 (RFC 2920 §3.1): a message, or commands that were slipped into one."""
        self._close(reply(503, "Wait for the answer to DATA", "5.5.1"))

    def _refusal_of_message(self) -> Reply:
        return NO_RECIPIENTS if self._stage is REFUSED else self._stage.refusal

    def _bdat(self, argument: str) -> None:
        if self._stage is ADDRESSED:
            self._message, self._stage = Chunks(self._buffer, self._limits), CHUNKED
        assert isinstance(self._message, Chunks)
        self._read_chunk(self._message, argument)

    def _bdat_out_of_place(self, argument: str) -> None:
        """The chunk is read and dropped before it is refused, or it would be taken for commands (RFC 3030 §2)."""
        self._message = stray = Chunks(self._buffer, self._limits)
        refusal = self._refusal_of_message()
        stray.refuse(SMTPError(refusal.code, refusal.text, refusal.status))
        self._read_chunk(stray, argument)

    def _read_chunk(self, chunks: Chunks, argument: str) -> None:
        try:
            chunks.begin(*command.bdat(argument))
        except SMTPError as refused:  # nobody knows how many octets follow that are not commands
            self._close(refused.reply)
            return
        self._step, self.collecting = Session._read_message, True
        self._read_message()  # at once, for a chunk may have no octets

    def _rset(self, argument: str) -> Reply:
        command.nothing(argument)
        self._forget_transaction()
        return OK

    def _noop(self, argument: str) -> Reply:
        return OK

    def _vrfy(self, argument: str) -> Reply:
        """Whom we know is nobody's business (RFC 5321 §7.3), which §3.5.3 puts into 252."""
        return CANNOT_VERIFY if argument else reply(501, "VRFY needs a name", "5.5.4")

    def _help(self, argument: str) -> Reply:
        return HELP

    def _quit(self, argument: str) -> None:
        command.nothing(argument)
        self._close(BYE)

    def _not_implemented(self, argument: str) -> Reply:
        return NOT_IMPLEMENTED

    def _http(self, argument: str) -> None:
        """A browser was tricked into talking to us: what follows is a page's text and none of it shall be obeyed."""
        self._close(reply(500, "This is a mail server", "5.5.1"))

    def _starttls(self, argument: str) -> Reply:
        command.nothing(argument)  # RFC 3207 §4
        if self.tls:
            return reply(503, "TLS is active", "5.5.1")
        if not self.rules.tls_available:
            return NOT_IMPLEMENTED
        self.wants_tls = True
        self._buffer.clear()  # RFC 3207 §4.2: what was sent in the clear behind STARTTLS is never obeyed
        self._step = Session._ignore
        return BEGIN_TLS

    # Authentication (RFC 4954).

    def _may_authenticate(self) -> bool:
        """AUTH is offered where no one can listen: under TLS, or to a client on this machine. And once (RFC 4954 §4)."""
        return self.rules.authenticate is not None and self.user is None and (self.tls or _is_local(self.peer))

    def _auth(self, argument: str) -> Reply:
        mechanism, initial = command.auth(argument)
        if self.rules.authenticate is None:
            return NOT_IMPLEMENTED
        if self.user is not None:
            return reply(503, "You are authenticated", "5.5.1")
        if not self._may_authenticate():
            return reply(538, "Say STARTTLS first: no password in the clear", "5.7.11")
        if mechanism not in MECHANISMS:
            return reply(504, "This mechanism is not offered", "5.5.4")
        self._exchange = MECHANISMS[mechanism](initial)
        return self._converse(None)

    def _respond(self, line: bytes) -> Reply:
        return self._converse(line.decode("ascii", "replace"))

    def _converse(self, response: str | None) -> Reply:
        """One turn of the exchange: the next challenge, or the outcome."""
        exchange = self._exchange
        assert exchange is not None
        self._exchange, self._step = None, Session._read_line
        try:
            challenge = next(exchange) if response is None else exchange.send(response)
        except StopIteration as over:
            return self._log_in(*over.value)
        self._exchange, self._step = exchange, Session._read_auth_line
        return Reply(334, base64.b64encode(challenge.encode()).decode()) if challenge else NO_CHALLENGE

    def _log_in(self, user: str, password: str) -> Reply:
        assert self.rules.authenticate is not None
        try:
            known = bool(user and password) and self.rules.authenticate(user, password)
        except Fault:
            return reply(454, status="4.7.0")
        if known:
            self.user = user
            self._stage = self._idle_stage()
            return WELCOME
        self._auth_failures += 1
        return BAD_PASSWORD if self._auth_failures < self.rules.auth_failures else TOO_MANY_ERRORS

    # The transaction.

    def _idle_stage(self) -> Stage:
        if not self.helo:
            return NEW
        if self.rules.require_tls and not self.tls:
            return UNENCRYPTED
        if self.rules.require_auth and self.user is None:
            return ANONYMOUS
        return READY

    def _forget_transaction(self) -> None:
        if self._reserved:
            self.rules.release(self._reserved)
            self._reserved = 0
        self._mail = self._message = self._pending = None
        self._rcpts = []
        self._stage = self._idle_stage()

    def _reserve_first(self, size: int) -> bool:
        """Whether a message of this declared size fits now. But what is held grows with what comes: a promise costs a client nothing."""
        wanted = max(size, FIRST_OCTETS)
        if not self.rules.reserve(wanted):
            return False
        self._reserved = FIRST_OCTETS
        if wanted > FIRST_OCTETS:
            self.rules.release(wanted - FIRST_OCTETS)
        return True

    def _reserve_for(self, message: DotStream | Chunks) -> None:
        more = message.kept - self._reserved + FIRST_OCTETS
        if self.rules.reserve(more):
            self._reserved += more
        else:
            message.refuse(SMTPError(NO_ROOM.code, NO_ROOM.text, NO_ROOM.status))

    def _expect_command(self) -> None:
        self._step, self.collecting = Session._read_line, False

    def _refuse_message(self, message: DotStream | Chunks, answer: Reply) -> None:
        """At the end of DATA or of a chunk. The transaction is over when the message is (RFC 5321 §4.1.1.4)."""
        self._expect_command()
        if not (message.last and self._rcpts):
            self._conclude(answer)
            return
        due = self._due()
        self._forget_transaction()
        for _ in range(due):
            self._say(answer)

    def _complete(self, data: bytes) -> Envelope:
        mail = self._mail
        assert mail is not None
        self._step, self.collecting = Session._wait, False
        self._pending = Envelope(
            peer=self.peer,
            helo=self.helo,
            mail_from=mail.mail_from,
            rcpt_tos=tuple(dict.fromkeys(self._rcpts)),
            data=data,
            id=self.rules.new_id(),
            utf8=mail.utf8,
            body=mail.body,
            tls=self.tls,
            user=self.user,
        )
        return self._pending

    def _hold(self, data: bytes) -> None:
        """Bytes while an envelope is pending. Who sends too many loses them, and the connection after the answer."""
        if self._flooded or len(self._buffer) + len(data) > self.rules.pipelined:
            self._flooded = True
            self._buffer.clear()
        else:
            self._buffer += data

    # Replies and ends.

    def _due(self) -> int:
        """Replies that a message needs: in LMTP one for each RCPT that was taken (RFC 2033 §4.2)."""
        return len(self._rcpts) if self.rules.lmtp else 1

    def _spoken(self, envelope: Envelope, replies: Sequence[Reply]) -> Sequence[Reply]:
        """The replies as they are to be said: in LMTP a recipient that was given twice hears its reply twice (RFC 2033 §4.2)."""
        if self.rules.lmtp:
            of = dict(zip(envelope.rcpt_tos, replies, strict=True))
            return [of[recipient] for recipient in self._rcpts]
        if len(replies) != 1:
            raise ValueError(f"An SMTP message has one answer, not {len(replies)}.")
        return replies

    def _conclude(self, answer: Reply) -> None:
        """Say the reply to a command; faults are counted."""
        if answer.code in FAULTS:
            self._errors += 1
            if self._errors >= self.rules.errors:
                answer = TOO_MANY_ERRORS
        self._say(answer)

    def _say(self, answer: Reply) -> None:
        """Where replies leave that are not plain. 421 is the last one (RFC 5321 §3.8)."""
        self._output += RENDERED.get(id(answer)) or bytes(answer)
        if answer.code == 421:
            self.end()

    def _close(self, answer: Reply) -> None:
        self._say(answer)
        self.end()

    def _give_up(self, answer: Reply) -> None:
        if not self.closed:
            for _ in range(self._due() if self._pending is not None else 1):
                self._say(answer)
            self.end()


def _with_status(answer: Reply) -> Reply:
    """An application's reply may lack the enhanced status that RFC 2034 §4 wants."""
    return answer if answer.status else reply(answer.code, answer.text)


def _is_local(peer: str) -> bool:
    """The client is on this machine: a unix socket (""), 127.0.0.0/8 or ::1."""
    try:
        ip = ipaddress.ip_address(peer or "::1")
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


# The mechanisms of AUTH: each yields challenges, is sent responses, and returns user and password.

Exchange = Generator[str, str, tuple[str, str]]


def _plain(initial: str | None) -> Exchange:
    """RFC 4616 §2. To act for someone else is not possible: who asks for it is no user."""
    words = command.response(initial if initial is not None else (yield "")).split("\0")
    if len(words) != 3:
        raise SMTPError(501, "This is no PLAIN response", "5.5.2")
    acting_for, user, password = words
    return (user if acting_for in ("", user) else ""), password


def _login(initial: str | None) -> Exchange:
    """Never a standard, spoken everywhere (draft-murchison-sasl-login)."""
    user = command.response(initial if initial is not None else (yield "Username:"))
    return user, command.response((yield "Password:"))


MECHANISMS: Mapping[str, Callable[[str | None], Exchange]] = {"PLAIN": _plain, "LOGIN": _login}


# What is said.

OK = reply(250, "OK", "2.0.0")
SENDER_OK = reply(250, "Sender OK", "2.1.0")
RECIPIENT_OK = reply(250, "Recipient OK", "2.1.5")
GO_AHEAD = reply(354)
CHUNK_OK = reply(250, "Chunk taken", "2.0.0")
BYE = reply(221, "Bye", "2.0.0")
HELP = reply(214, "See RFC 5321", "2.0.0")
CANNOT_VERIFY = reply(252, status="2.0.0")
NO_CHALLENGE = Reply(334)
BEGIN_TLS = reply(220, "Begin TLS", "2.0.0")
WELCOME = reply(235, status="2.7.0")
BAD_PASSWORD = reply(535, status="5.7.8")
UNKNOWN_COMMAND = reply(500, "This command is not known", "5.5.1")
NOT_IMPLEMENTED = reply(502, "This command is not offered", "5.5.1")
SAY_LHLO = Reply(500, "This is LMTP: say LHLO")  # RFC 2033 §4.1; as an answer to EHLO it has no status (RFC 2034 §4)
NO_RECIPIENTS = reply(554, "No valid recipients", "5.5.1")  # RFC 5321 §3.3
TOO_MANY_RECIPIENTS = reply(452, "Too many recipients", "4.5.3")
NO_ROOM = reply(452, "Too many messages are on their way, try again later", "4.3.1")
LOCAL_ERROR = reply(451, status="4.3.0")
TOO_SLOW = reply(451, "This took too long, try again later", "4.3.2")
TIMED_OUT = reply(421, "Nothing came for too long", "4.4.2")
BROKEN = reply(421, "Local error, try again later", "4.3.0")
SHUTTING_DOWN = reply(421, "The server is stopping, try again later", "4.3.2")
TOO_MANY_ERRORS = reply(421, "Too many errors", "4.7.0")
FLOODED = reply(421, "Too much was sent before its turn", "4.7.0")

#: The wire form of what is said most often, by the constant's identity; and of the empty challenge, in which a text would be taken for
#: base64 (RFC 4954 §4).
RENDERED: Mapping[int, bytes] = {
    **{id(said): bytes(said) for said in (OK, SENDER_OK, RECIPIENT_OK, GO_AHEAD, CHUNK_OK, BYE)},
    id(NO_CHALLENGE): b"334 \r\n",
}

#: Replies that count as the client's errors: what it said was wrong, not what it wished for.
FAULTS = frozenset({500, 501, 502, 503, 504, 555})


# What is legal, and when.


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a conversation stands: the commands obeyed there, and the refusal of those that belong elsewhere."""

    refusal: Reply
    commands: Mapping[str, Callable[[Session, str], Reply | None]]
    #: By a line's first four octets, in capitals or as Python's smtplib writes them: what obeys it where it is plain.
    plain: Mapping[bytes, Callable[[Session, bytes], bytes | Envelope | Feed]] = field(default_factory=dict)


_HTTP = dict.fromkeys(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI"), Session._http)

_ANYTIME: Mapping[str, Callable[[Session, str], Reply | None]] = {
    "EHLO": Session._ehlo,
    "HELO": Session._helo,
    "LHLO": Session._lhlo,
    "RSET": Session._rset,
    "NOOP": Session._noop,
    "VRFY": Session._vrfy,
    "HELP": Session._help,
    "QUIT": Session._quit,
    "EXPN": Session._not_implemented,
    "DATA": Session._data_out_of_place,
    "BDAT": Session._bdat_out_of_place,
    **_HTTP,
}

#: No EHLO yet (RFC 5321 §4.1.4), or forgotten with STARTTLS.
NEW = Stage(reply(503, "Say hello first", "5.5.1"), _ANYTIME, {b"EHLO": Session._hello_plainly, b"ehlo": Session._hello_plainly})
#: The rules want TLS and there is none (RFC 3207 §4).
UNENCRYPTED = Stage(reply(530, "Say STARTTLS first", "5.7.0"), {**_ANYTIME, "STARTTLS": Session._starttls})
#: The rules want a user and there is none (RFC 4954 §6).
ANONYMOUS = Stage(reply(530, status="5.7.0"), {**_ANYTIME, "STARTTLS": Session._starttls, "AUTH": Session._auth})
#: Between two transactions.
READY = Stage(
    reply(503, "MAIL comes first", "5.5.1"),
    {**ANONYMOUS.commands, "MAIL": Session._mail_from},
    {**NEW.plain, b"MAIL": Session._mail_plainly, b"mail": Session._mail_plainly},
)
#: MAIL was said.
MAILED = Stage(
    reply(503, "RCPT comes next, or RSET", "5.5.1"),
    {**_ANYTIME, "RCPT": Session._rcpt_to},
    {b"RCPT": Session._rcpt_plainly, b"rcpt": Session._rcpt_plainly},
)
#: RCPT was said and none was taken.
REFUSED = Stage(MAILED.refusal, MAILED.commands, MAILED.plain)
#: There is a recipient (RFC 5321 §4.1.4, RFC 3030 §2).
ADDRESSED = Stage(
    reply(503, "RCPT or the message comes next, or RSET", "5.5.1"),
    {**_ANYTIME, "RCPT": Session._rcpt_to, "DATA": Session._data, "BDAT": Session._bdat},
    {**MAILED.plain, b"DATA": Session._data_plainly, b"data": Session._data_plainly},
)
#: Chunks came and the last one did not; DATA does not mix with them (RFC 3030 §2).
CHUNKED = Stage(reply(503, "BDAT comes next, or RSET", "5.5.1"), {**_ANYTIME, "BDAT": Session._bdat})

#: Every command that is obeyed somewhere.
VERBS = frozenset(verb for stage in (NEW, UNENCRYPTED, ANONYMOUS, READY, MAILED, ADDRESSED, CHUNKED) for verb in stage.commands)
