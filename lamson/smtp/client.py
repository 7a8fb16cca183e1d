"""The client side of SMTP and LMTP: hands messages to the next server over one kept connection.

`Client.send` is all that most callers need: it opens the connection when there is none, opens a new one when the kept one has died
meanwhile, and answers with the recipients that were not taken and why. Failures are of two types, `TransientError` and
`PermanentError`, and each owns a reply: the server's own where it said something, ours where it did not.

Knows nothing of relays, queues or what is in a message. On a message's way it is the last step: whoever calls `send` keeps the mail until
this has answered.
"""

from __future__ import annotations

import binascii
import hmac
import logging
import re
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from ssl import CERT_NONE, PROTOCOL_TLS_CLIENT, SSLContext, create_default_context
from typing import Self

from lamson import address
from lamson.errors import AddressError, PermanentError, RelayError, TransientError, failure
from lamson.smtp.wire import BLOCK, ConnectionLost, Silent, Talk, TLSFailed, Wire, wire_form
from lamson.status import Reply

log = logging.getLogger("lamson.smtp.client")

#: Recipients of one transaction, at most: what every server must take (RFC 5321 §4.5.3.1.8). More go in further transactions.
RECIPIENTS = 100

_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")

_NEVER = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
#: What can stand between `<` and `>` without ending it. Laxer than `address.check`: whether `a..b@` exists is for its server to say.
_SENDABLE = re.compile(rf'(?:"(?:[^"\\{_NEVER}]|\\[^{_NEVER}])*+"|[^\s<>"@{_NEVER}]++)(?:@[^\s<>"@{_NEVER}]++)?')


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait at each step (RFC 5321 §4.5.3.2). `block` is for each 128 kB of data; `final` for the answer to the last dot."""

    connect: float = 60
    greeting: float = 300
    command: float = 300
    data: float = 120
    block: float = 180
    final: float = 600

    @classmethod
    def all(cls, seconds: float) -> Timeouts:
        """The same for every step."""
        return cls(*[seconds] * 6)


def extensions(lines: Iterable[str]) -> dict[str, str]:
    """What a server offers, from the lines of its answer to EHLO after the first: keyword in capitals -> its parameters."""
    offered: dict[str, str] = {}
    for line in lines:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword.upper().startswith("AUTH="):  # as servers said it before RFC 2554
            keyword, _, first = keyword.partition("=")
            parameters = f"{first} {parameters}"
        offered[keyword.upper()] = f"{offered.get(keyword.upper(), '')} {parameters}".strip()
    return offered


@cache
def own_name() -> str:
    """This machine's full host name; "" when it has none that another server would believe (RFC 5321 §2.3.5)."""
    name = socket.getfqdn()
    return name if _HOST_NAME.fullmatch(name) else ""


# -- the client


class Client:
    """One kept connection to one server. Used by one thread at a time.

    `host`: a name, an IP address, or the path of a Unix socket (it begins with `/`). `port`: of TCP.
    `ssl`: TLS from the first octet (RFC 8314 §3). `starttls`: True insists on STARTTLS; None takes it where it is offered, without
    looking at certificates, which is what servers on the internet do among themselves (RFC 7435); False never asks.
    `verify`: True checks the certificate against the system's authorities and the server's name; a path is a file of
    authorities to trust instead; False checks nothing. None is True, but for a server on this machine, which needs no certificate.
    `username`, `password`: for AUTH, which is done only under TLS or with this machine unless `insecure_auth` is set.
    `helo`: our name in EHLO; None for this machine's. `server_name`: the name that a certificate must have, where it is not `host`.
    `timeout`: seconds for every step instead of those in `Timeouts`.
    `talk`: called with each line that is said. `debug`: 1 or more logs these lines.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 25,
        *,
        ssl: bool = False,
        starttls: bool | None = False,
        lmtp: bool = False,
        username: str | None = None,
        password: str | None = None,
        verify: bool | str | None = None,
        insecure_auth: bool = False,
        helo: str | None = None,
        server_name: str | None = None,
        timeout: float | None = None,
        talk: Talk | None = None,
        debug: int = 0,
    ) -> None:
        check_options(host, port, ssl, starttls, lmtp)
        self.host, self.port, self.ssl, self.starttls, self.lmtp = host, port, ssl, starttls, lmtp
        self.username, self.password, self.verify, self.insecure_auth = username, password, verify, insecure_auth
        self.helo = helo
        self.server_name = server_name or host
        self.timeouts = Timeouts() if timeout is None else Timeouts.all(timeout)
        self.talk = talk or (log.info if debug else None)
        self._wire: Wire | None = None
        #: An envelope may go behind a message. Not in LMTP, where a missing verdict could not be told from the next reply.
        self._goes_ahead = not lmtp
        self._asked: _Transaction | None = None  # whose envelope was sent, and whose replies are still to be read

    @property
    def connected(self) -> bool:
        """There is a connection, as far as we know."""
        return self._wire is not None and not self._wire.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes leave of the server, if connected. The next `send` connects again."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.quit()

    def send(self, mail_from: str, rcpt_tos: Iterable[str], data: bytes) -> dict[str, RelayError]:
        """Hands one message over. Returns the recipients that were not taken, each with why. Never raises `RelayError`.

        `mail_from` "" is the null sender. `data` has CRLF line ends; a bare CR or LF is refused here (5.6.0). Mail with 8-bit octets is
        sent as it is even where the server does not offer 8BITMIME: RFC 6152 §3 wants it rewritten or sent back, but rewriting breaks
        signatures and all servers in use take it.

        Where the connection is lost after the final dot, nobody knows whether the message was taken: a `TransientError` that says so.
        """
        (failed,) = self.send_all([(mail_from, rcpt_tos, data)])
        return failed

    def send_all(self, mails: Iterable[tuple[str, Iterable[str], bytes]]) -> Iterator[dict[str, RelayError]]:
        """The same for several, in order; each is sent when its answer is asked for. Where the server offers PIPELINING, the next envelope
        goes with the end of the message before it (RFC 2920 §3.1), which spares each message half of its waiting."""
        prepared = [_prepared(*mail) for mail in mails]
        for part, following in pairwise([part for mail in prepared for part in mail.parts]):
            part.following = following
        try:
            for mail in prepared:
                yield self._send_parts(mail)
        finally:
            if self._asked is not None:  # nobody will read the replies to it
                self.drop()

    def _send_parts(self, mail: _Prepared) -> dict[str, RelayError]:
        failed = dict(mail.refused)
        for at, part in enumerate(mail.parts):
            try:
                failed |= self._send(part)
            except TransientError as error:  # the way to the host fails: the others need not try it
                return failed | {rcpt: error for left in mail.parts[at:] for rcpt in left.rcpt_tos}
        return failed

    def _send(self, part: _Part) -> dict[str, RelayError]:
        """One transaction, and once more on a new connection where a kept one was dead: nothing had been accepted then."""
        asked, self._asked = self._asked, None
        if asked is not None and asked.part is not part:  # another message was sent meanwhile: the replies to come are not about it
            self.drop()
        kept = self.connected
        wire = self.open()
        transaction = asked if asked is not None and asked.wire is wire else _Transaction(wire, self.timeouts, self.lmtp, part)
        following = self._following(wire, part)
        try:
            failed = transaction.run(following)
        except ConnectionLost as lost:
            self.drop()
            if not kept or wire.consents:
                raise
            if transaction.asked and isinstance(lost, Silent):  # it may forget what comes behind a message
                self._goes_ahead = False
            return self._send(part)
        except BaseException:  # half said: what comes next over it might be taken for more of this
            self.drop()
            raise
        if following is not None and following.asked:
            self._asked = following
        return failed

    def _following(self, wire: Wire, part: _Part) -> _Transaction | None:
        """What may be asked for with the end of this part."""
        after = part.following
        if after is None or not self._goes_ahead or "PIPELINING" not in wire.offers or len(part.message.stuffed) > BLOCK:
            return None
        following = _Transaction(wire, self.timeouts, self.lmtp, after)
        return following if following.paths else None

    def drop(self) -> None:
        """Closes without a word to the server."""
        self._asked = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    # -- opening

    def open(self) -> Wire:
        """Connects, introduces itself, begins TLS and logs in, unless that was done. Raises `TransientError`.

        Also where the server's refusal is a 5xx: it is about us or the server, never about a message, and tomorrow may be otherwise.
        """
        if self._wire is None or self._wire.closed:
            self._wire = self._open()
        return self._wire

    def _open(self) -> Wire:
        try:
            return self._greet(self.starttls)
        except TLSFailed as error:
            if self.starttls is not None:
                raise
            log.info("%s; going on without TLS.", error.reply.text)
            return self._greet(starttls=False)

    def _greet(self, starttls: bool | None) -> Wire:
        wire = Wire(self._dial(), self.host, self.talk)
        try:
            if self.ssl:
                wire.begin_tls(self._context(wire), self.server_name, self.timeouts.connect)
            self._introduce(wire, starttls)
        except BaseException:
            wire.close()
            raise
        return wire

    def _dial(self) -> socket.socket:
        try:
            if self.host.startswith("/"):
                return self._dial_unix()
            sock = socket.create_connection((self.host, self.port), self.timeouts.connect)
            with suppress(OSError):  # it is gone already; reading from it will say so
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except socket.gaierror as error:
            raise failure(451, f"The address of {self.host} is not to be found: {error.strerror}", "4.4.3") from error
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise failure(451, f"No connection to {self.host} port {self.port}: {why}", "4.4.1") from error

    def _dial_unix(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.timeouts.connect)
            sock.connect(self.host)
        except BaseException:
            sock.close()
            raise
        return sock

    def _introduce(self, wire: Wire, starttls: bool | None) -> None:
        greeting = wire.read(self.timeouts.greeting)
        if greeting.code != 220:
            raise TransientError(greeting)
        wire.offers = self._hello(wire)
        if starttls or (starttls is None and "STARTTLS" in wire.offers):
            self._start_tls(wire)
            wire.offers = self._hello(wire)  # RFC 3207 §4.2: what was said before is forgotten
        if self.username is not None:
            self._log_in(wire)

    def _hello(self, wire: Wire) -> dict[str, str]:
        name = self.helo = self.helo or own_name() or _literal(wire.sock)
        answer = wire.ask(f"{'LHLO' if self.lmtp else 'EHLO'} {name}", self.timeouts.command)
        offered = extensions(answer.text.split("\n")[1:])
        if answer.permanent and not self.lmtp:  # RFC 5321 §3.2: a server of before 1995
            answer, offered = wire.ask(f"HELO {name}", self.timeouts.command), {}
        if answer.code != 250:
            raise TransientError(answer)
        return offered

    def _start_tls(self, wire: Wire) -> None:
        if "STARTTLS" not in wire.offers:
            raise failure(454, f"{self.host} does not offer STARTTLS, which the setting starttls insists on", "4.7.4")
        answer = wire.ask("STARTTLS", self.timeouts.command)
        if answer.code != 220:
            raise TLSFailed(answer)
        wire.begin_tls(self._context(wire), self.server_name, self.timeouts.connect)

    def _context(self, wire: Wire) -> SSLContext:
        verify = self.verify
        if verify is None:
            verify = self.starttls is not None and not wire.local
        if verify is not False:
            return create_default_context(cafile=verify if isinstance(verify, str) else None)
        context = SSLContext(PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = CERT_NONE
        return context

    # -- AUTH (RFC 4954)

    def _log_in(self, wire: Wire) -> None:
        safe = wire.encrypted or wire.local
        if not safe and not self.insecure_auth:
            raise failure(454, f"A password is sent to {self.host} only under TLS: set ssl or starttls", "4.7.11")
        known = ("PLAIN", "LOGIN", "CRAM-MD5") if safe else ("CRAM-MD5", "PLAIN", "LOGIN")
        offered = wire.offers.get("AUTH", "").upper().split()
        mechanism = next((name for name in known if name in offered), None)
        if mechanism is None:
            raise failure(454, f"{self.host} offers no way to log in that is known here ({', '.join(known)})", "4.7.4")
        answer = self._authenticate(wire, mechanism)
        if answer.code != 235:
            raise TransientError(answer)

    def _authenticate(self, wire: Wire, mechanism: str) -> Reply:
        user, password = (self.username or "").encode("utf-8"), (self.password or "").encode("utf-8")
        if mechanism == "PLAIN":
            return self._say_secret(wire, "AUTH PLAIN ", b"\0" + user + b"\0" + password)
        answer = wire.ask(f"AUTH {mechanism}", self.timeouts.command)
        if mechanism == "LOGIN":
            if answer.code == 334:
                answer = self._say_secret(wire, "", user)
            return self._say_secret(wire, "", password) if answer.code == 334 else answer
        return self._say_secret(wire, "", user + b" " + _cram_md5(wire, password, answer.text)) if answer.code == 334 else answer

    def _say_secret(self, wire: Wire, prefix: str, secret: bytes) -> Reply:
        return wire.ask(prefix + b64encode(secret).decode("ascii"), self.timeouts.command, shown=f"{prefix}****")


def check_options(host: str | None, port: int, ssl: bool, starttls: bool | None, lmtp: bool) -> None:
    """Refuses what cannot be together (`TypeError`) and ports that are none (`ValueError`)."""
    if ssl and starttls:
        raise TypeError("ssl is TLS from the start, starttls begins it later: set one of them.")
    if ssl and lmtp:
        raise TypeError("LMTP has no TLS from the start: use starttls, or leave ssl out.")
    if not isinstance(port, int):
        raise TypeError(f"The port of {host or 'the relay'} is a number, as 25, and not {port!r}.")
    if not 0 < port < 65536:
        raise ValueError(f"The port of {host or 'the relay'} must be between 1 and 65535, not {port}.")


def _literal(sock: socket.socket) -> str:
    """Our end's address as a domain (RFC 5321 §4.1.3)."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "localhost"
    ip = sock.getsockname()[0].partition("%")[0]
    return f"[IPv6:{ip}]" if ":" in ip else f"[{ip}]"


def _cram_md5(wire: Wire, password: bytes, challenge: str) -> bytes:
    """The digest of RFC 2195."""
    try:
        return hmac.new(password, b64decode(challenge, validate=True), "md5").hexdigest().encode("ascii")
    except (binascii.Error, ValueError) as error:
        raise wire.nonsense(f"{challenge[:60]!r}, which is no challenge: {error}") from error


# -- the transaction


@dataclass(frozen=True, slots=True)
class _Message:
    mail_from: str
    stuffed: bytes
    size: int  # octets before dots were doubled: what SIZE means (RFC 1870 §5)
    ascii: bool


@dataclass(slots=True)
class _Part:
    """A message for so many recipients as go in one transaction, and what goes after it."""

    message: _Message
    rcpt_tos: Sequence[str]
    following: _Part | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is to be sent of one message, and who cannot have it."""

    parts: Sequence[_Part]
    refused: Mapping[str, RelayError]


def _prepared(mail_from: str, rcpt_tos: Iterable[str], data: bytes) -> _Prepared:
    everyone = list(dict.fromkeys(rcpt_tos))
    try:
        message = _Message(mail_from, wire_form(data), len(data), data.isascii())
    except PermanentError as error:
        return _Prepared([], dict.fromkeys(everyone, error))
    return _Prepared([_Part(message, everyone[at : at + RECIPIENTS]) for at in range(0, len(everyone), RECIPIENTS)], {})


class _Transaction:
    """MAIL, RCPT, DATA for one message and at most `RECIPIENTS` recipients.

    `failed`: recipients that this server cannot be told. `asked`: its commands were sent behind the message before it.
    """

    def __init__(self, wire: Wire, timeouts: Timeouts, lmtp: bool, part: _Part) -> None:
        self.wire, self.timeouts, self.lmtp, self.part, self.message = wire, timeouts, lmtp, part, part.message
        self.asked = False
        self.paths, self.failed = self._paths(part.rcpt_tos)
        #: All that is said before the data.
        self.commands = [self._mail_command(), *[f"RCPT TO:<{path}>" for path in self.paths.values()], "DATA"] if self.paths else []

    def run(self, following: _Transaction | None = None) -> dict[str, RelayError]:
        """Recipients that were not taken. Raises `ConnectionLost` where no recipient can have been taken. `following`: what comes next
        on this connection, and is asked for with the end of this one."""
        if not self.paths:
            return self.failed
        self._begin()
        answers, data = self._ask_envelope()
        taken = []
        for rcpt, answer in zip(self.paths, answers, strict=True):
            error = self._judge(answer)
            if error is None:
                taken.append(rcpt)
            else:
                self.failed[rcpt] = error
        return self.failed | self._hand_data(taken, data, following)

    def _begin(self) -> None:
        wire = self.wire
        wire.consents = 0
        if wire.unfinished:
            answer = wire.ask("RSET", self.timeouts.command)
            wire.consents = 0
            if answer.code != 250:
                raise wire.nonsense(f"{answer} to RSET")
        wire.unfinished = True

    # -- what is said in MAIL and RCPT

    def _paths(self, rcpt_tos: Sequence[str]) -> tuple[dict[str, str], dict[str, RelayError]]:
        """Recipient -> how it is written to this server; and those that cannot be."""
        paths: dict[str, str] = {}
        failed: dict[str, RelayError] = {}
        try:
            self._check_size()
            self._sender = self.message.mail_from and self._path(self.message.mail_from, "5.1.7")
        except PermanentError as refused:
            return {}, dict.fromkeys(rcpt_tos, refused)
        for rcpt in rcpt_tos:
            try:
                paths[rcpt] = self._path(rcpt, "5.1.3")
            except PermanentError as error:
                failed[rcpt] = error
        return paths, failed

    def _path(self, path: str, status: str) -> str:
        if not _SENDABLE.fullmatch(path):
            raise failure(553, f"{path!r} is not an address", status)
        if path.isascii() or "SMTPUTF8" in self.wire.offers:
            return path
        try:
            path = address.to_ascii_domain(path)
        except AddressError as error:
            raise failure(553, f"{path}: {error}", "5.6.7") from error
        if not path.isascii():
            raise failure(553, f"{path} is not ASCII, and {self.wire.host} does not take such addresses", "5.6.7")
        return path

    def _check_size(self) -> None:
        limit = self.wire.offers.get("SIZE", "")
        if limit.isascii() and limit.isdigit() and 0 < int(limit[:20]) < self.message.size:
            raise failure(552, f"The message has {self.message.size} octets, {self.wire.host} takes {limit}", "5.3.4")

    def _mail_command(self) -> str:
        offers = self.wire.offers
        command = f"MAIL FROM:<{self._sender}>"
        if "SIZE" in offers:
            command += f" SIZE={self.message.size}"
        if not self.message.ascii and "8BITMIME" in offers:
            command += " BODY=8BITMIME"
        if not "".join([self._sender, *self.paths.values()]).isascii():
            command += " SMTPUTF8"
        return command

    # -- the conversation

    def _ask_envelope(self) -> tuple[list[Reply], Reply | None]:
        """The answers to each RCPT (MAIL's, where that was refused) and to DATA (None where it was not asked)."""
        ask, seconds = self.wire.ask, self.timeouts.command
        if "PIPELINING" in self.wire.offers:
            said = [self.wire.read(seconds) for _ in self.commands] if self.asked else self.wire.ask_all(self.commands, seconds)
            begun, *answers, data = said
            return (answers if begun.code < 300 else [begun] * len(answers)), data
        mail, *rcpts, _ = self.commands
        begun = ask(mail, seconds)
        answers = [ask(rcpt, seconds) if begun.code < 300 else begun for rcpt in rcpts]
        wanted = any(answer.code < 300 for answer in answers)
        return answers, ask("DATA", self.timeouts.data) if wanted else None

    def _judge(self, answer: Reply) -> RelayError | None:
        """None for a yes; what is neither yes nor no is nonsense."""
        if answer.code < 300:
            return None
        if answer.code < 400:
            raise self.wire.nonsense(f"{answer}")
        return (TransientError if answer.transient else PermanentError)(answer)

    def _hand_data(self, taken: list[str], answer: Reply | None, following: _Transaction | None) -> dict[str, RelayError]:
        if answer is None or answer.code >= 400:
            return {rcpt: error for rcpt in taken if answer and (error := self._judge(answer))}
        if answer.code != 354:
            raise self.wire.nonsense(f"{answer} to DATA")
        if not taken:
            self._hand_nothing()
            return {}
        try:
            self.wire.write_data(self.message.stuffed, self.timeouts.block, following.commands if following is not None else ())
        except ConnectionLost as lost:
            return self._cut_short(taken, lost)
        if following is not None:
            following.asked = True
        return self._read_verdicts(taken)

    def _hand_nothing(self) -> None:
        """The server wants data though it took no recipient, which it may when DATA was pipelined (RFC 2920 §3.1)."""
        self.wire.write_data(b".\r\n", self.timeouts.block)
        if self.lmtp:  # no recipient, no answer (RFC 2033 §4.2): we cannot know when it is done
            raise self.wire.nonsense("354 without a recipient")
        self.wire.read(self.timeouts.final)
        self.wire.unfinished = False

    def _cut_short(self, taken: list[str], lost: ConnectionLost) -> dict[str, RelayError]:
        """The server would not read to the end; it may have said why."""
        word = self.wire.last_word()
        self.wire.close()
        error = self._judge(word) if word else None
        return dict.fromkeys(taken, error or lost)

    def _read_verdicts(self, taken: list[str]) -> dict[str, RelayError]:
        """The answer after the final dot; LMTP gives one for each recipient (RFC 2033 §4.2)."""
        failed: dict[str, RelayError] = {}
        for at, rcpt in enumerate(taken):
            try:
                error = self._judge(self.wire.read(self.timeouts.final))
            except ConnectionLost as lost:
                self.wire.close()
                return failed | dict.fromkeys(taken[at:], _in_doubt(lost))
            if not self.lmtp:
                failed = dict.fromkeys(taken, error) if error else {}
                break
            if error:
                failed[rcpt] = error
        self.wire.unfinished = False
        return failed


def _in_doubt(lost: ConnectionLost) -> TransientError:
    said = lost.reply
    if said.code == 421:
        return lost
    return TransientError(Reply(said.code, f"{said.text}; whether it took the message is not known", said.status))
