"""The listener: connections, their time-outs and caps, TLS, and an orderly stop. It knows no mail: a session turns bytes into envelopes,
and `handle` is whoever takes them. Step 1 of a message's way, and the carrier of steps 2, 3 and 11.

Everything here happens at the wheel (`smtp.wheel`), in one thread: accept, read, feed the session, write its replies, look at the
clock. What asks the application, and so may take its time, is a step of the wheel: `handle`, and a session's `feed` and `answer`, which
ask about recipients and passwords. What is plain and asks nobody needs no step. A connection whose step is done elsewhere is left alone
until the step comes back.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamson.smtp.endpoint import Address, Certificate, bind, own_address
from lamson.smtp.session import Envelope, Session
from lamson.smtp.wheel import READ, WRITE, Step, Wheel
from lamson.status import Reply, reply

__all__ = ["Address", "Listener", "bind"]

log = logging.getLogger("lamson.smtp.listener")

#: Seconds between two looks at the deadlines.
TICK = 0.5
#: Seconds that a connection which we ended is still read from. Closing it with bytes unread would send a reset, and the client might lose
#: our last reply (RFC 1122 §4.2.2.13).
LINGERING = 2.0
#: The same, and the time between two looks, when the listener stops.
HURRY = 0.1
#: Octets read at a time. More than a TLS record has, so that none of it stays behind in the TLS layer, where the wheel cannot see it; and
#: less than the 128 kB from which on glibc maps memory anew each time.
READ_SIZE = 120 * 1024

NOTHING = 0  # instead of READ or WRITE
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

FULL = reply(421, "Too many connections, try again later", "4.3.2")
FULL_FOR_YOU = reply(421, "Too many connections from your address, try again later", "4.7.0")

Run = Callable[[Any], Any]


@dataclass(slots=True, eq=False)
class Connection:
    """One client. `source` is by what it is counted; `session` is None until the handshake of implicit TLS is done; `step` is what is being
    done for the client, None while it is the client's turn; `deadline` is when we lose patience with the client, on the monotonic clock."""

    sock: socket.socket
    peer: str
    source: str
    deadline: float
    session: Session | None = None
    events: int = NOTHING
    react: Callable[[Connection], None] | None = None
    step: Step | None = None
    unsent: bytes = b""
    collecting: bool = False
    broken: bool = False
    gone: bool = False

    #: The session, where there must be one.
    talk: Session = field(init=False)

    def __str__(self) -> str:
        return self.peer or "a local client"


def source(peer: str) -> str:
    """By which clients are counted: the address; of IPv6 the network of 64 bits, which a single customer has (RFC 6177 §2)."""
    return peer if ":" not in peer else str(ipaddress.IPv6Network((peer.partition("%")[0], 64), strict=False))


class Listener:
    """Takes connections, lets their sessions talk, and hands each envelope to `handle`, whose replies are the answer to the client.

    `connections` and `per_peer`: how many clients may be connected, in all and from one `source`. `threads`: how many slow handlers run
    at once. `handler_seconds`: then the client hears 451, and what the handler says later is dropped. `idle_seconds`: for the
    client's next command. `data_seconds`: for a whole message. `send_seconds`: for a client to read our replies, or to shake hands. `sock`:
    a socket that listens already. `mode`: the permissions of a unix socket.
    """

    def __init__(
        self,
        address: Address,
        make_session: Callable[[str, bool], Session],
        handle: Callable[[Envelope], Sequence[Reply]],
        *,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        implicit_tls: bool = False,
        connections: int = 1000,
        per_peer: int = 100,
        threads: int = 32,
        handler_seconds: float = 300.0,
        idle_seconds: float = 300.0,
        data_seconds: float = 600.0,
        send_seconds: float = 60.0,
        sock: socket.socket | None = None,
        mode: int = 0o660,
    ) -> None:
        if implicit_tls and certificate is None:
            raise TypeError("implicit_tls needs a certificate")
        self.address = address
        self._make_session, self._handle = make_session, handle
        self._certificate = None if certificate is None else Certificate(certificate, key)
        self._implicit_tls = implicit_tls
        self._most_connections, self._most_per_peer, self._threads = connections, per_peer, threads
        self._handler_seconds, self._idle_seconds = handler_seconds, idle_seconds
        self._data_seconds, self._send_seconds = data_seconds, send_seconds
        self._given, self._mode = sock, mode
        self._wheel: Wheel
        self._started = False
        self._connections: set[Connection] = set()
        self._peers: dict[str, int] = {}  # connections by source
        self._next_tick = 0.0
        self._listening = True  # until the stop has begun
        self._accepting = False  # watching for connections: not when there is no descriptor left for them
        self._stopping: float | None = None  # when what still goes on then is cut short

    # -- start and stop

    def start(self) -> None:
        """Returns when connections are taken; afterwards `address` has the real port. `ConfigError` says why not, and what to do."""
        if self._started:
            raise TypeError("a listener is started once")
        self._socket = self._given or bind(self.address, self._mode)
        self._socket.setblocking(False)
        self.address = own_address(self._socket)
        self._wheel = Wheel(self._perform, self._resume, self._turn, self._threads)
        self._accept_more()
        self._wheel.start()
        self._started = True

    def stop(self, deadline: float = 30.0) -> None:
        """Takes no more connections, ends the idle ones with 421, and waits up to `deadline` seconds for messages that are being received
        or handled; they are answered. What lasts longer hears 421 or 451. Returns when all threads are gone; one whose handler does
        not end even then is named in the log and left behind."""
        if not self._started:
            return
        if self._stopping is None:
            self._stopping = time.monotonic() + deadline
            self._wheel.ring()
        self._wheel.join(self._stopping + LINGERING + 2 * TICK)

    def _turn(self) -> bool:
        """What the wheel does between two looks at the sockets; False when it was the last."""
        now = time.monotonic()
        if self._stopping is not None and self._listening:
            self._begin_to_stop()
        if now >= self._next_tick:
            self._tick(now)
        idle = self._accepting and not self._connections
        self._wheel.timeout = None if idle else max(0.0, self._next_tick - now)
        return bool(self._connections) or self._listening  # not: `_stopping`, which another thread may have set since

    def _begin_to_stop(self) -> None:
        if self._accepting:
            self._wheel.forget(self._socket)
            self._accepting = False
        self._listening, self._next_tick = False, 0.0
        if self._given is None and isinstance(self.address, str):
            with suppress(OSError):
                os.unlink(self.address)  # while the name is surely ours
        self._socket.close()
        for connection in tuple(self._connections):
            if connection.session is None:
                self._close(connection)
            elif connection.step is None and connection.react == self._read:
                self._serve(connection, self._settle, connection)

    # -- taking connections

    def _accept_more(self) -> None:
        self._wheel.watch(self._socket, READ, self._accept, None)
        self._accepting = True

    def _accept(self, _: None) -> None:
        """Takes one connection. One a turn: so processes that share a socket share what comes."""
        try:
            sock, address = self._socket.accept()
        except OSError as error:
            return self._rest(error) if error.errno in EXHAUSTED else None
        sock.setblocking(False)
        peer = str(address[0]).removeprefix("::ffff:") if isinstance(address, tuple) else ""
        if len(self._connections) >= self._most_connections:
            return self._refuse(sock, peer, FULL)
        of = source(peer)
        others = self._peers.get(of, 0)
        if peer and others >= self._most_per_peer:
            return self._refuse(sock, peer, FULL_FOR_YOU)
        connection = Connection(sock, peer, of, time.monotonic() + self._idle_seconds)
        self._connections.add(connection)
        self._peers[of] = others + 1
        self._serve(connection, self._begin_tls if self._implicit_tls else self._greet, connection)

    def _rest(self, error: OSError) -> None:
        """Out of descriptors or memory: those who knock wait in the backlog until the next tick."""
        log.error("No connections are taken for a moment: %s.", error.strerror)
        self._wheel.forget(self._socket)
        self._accepting = False
        self._next_tick = time.monotonic() + TICK

    def _refuse(self, sock: socket.socket, peer: str, why: Reply) -> None:
        log.warning("Refused %s: %s", peer or "a local client", why)
        with sock, suppress(OSError):
            if not self._implicit_tls:
                sock.send(bytes(why))

    def _greet(self, connection: Connection) -> None:
        """Says 220, unless the client has spoken first (RFC 5321 §3.1)."""
        tls = isinstance(connection.sock, ssl.SSLSocket)
        session = connection.session = connection.talk = self._make_session(connection.peer, tls)
        if not tls:
            with suppress(OSError):  # nothing is there, or nobody
                session.feed(connection.sock.recv(READ_SIZE))
        session.greet()
        self._settle(connection)

    # -- steps

    def _serve(self, connection: Connection, react: Callable[[Any], None] | None = None, argument: Any = None) -> None:
        """Does `react(argument)` on behalf of one connection; without them, as the wheel calls it, what the connection waits for. The
        connection barrier: whatever is raised for one client ends that client's connection and nothing else."""
        try:
            if react is not None:
                react(argument)
            elif connection.react is not None:
                connection.react(connection)
        except Exception:
            self._break(connection)
        if connection.broken and self._wheel.mine:
            self._apologise(connection)

    def _break(self, connection: Connection) -> None:
        log.exception("Serving %s failed; its connection is closed.", connection)
        connection.broken = True

    def _read(self, connection: Connection) -> None:
        if connection.step is not None:  # done elsewhere: not listened to until then
            return self._await(connection, NOTHING, None)
        try:
            data = connection.sock.recv(READ_SIZE)
        except BLOCKED:
            return
        except OSError:
            data = b""
        if not data:
            return self._close(connection)
        heard = connection.talk.feed_plain(data)
        if isinstance(heard, bytes):
            self._write(connection, heard)
        elif isinstance(heard, Envelope):
            self._advance(connection, self._handle, heard)
        else:
            self._advance(connection, heard, data)

    def _advance(self, connection: Connection, run: Run | None, argument: Any) -> None:
        """Feeds, handles, answers, until it is the client's turn, or a step comes back later."""
        while run is not None:
            step = connection.step = Step(connection, run, argument, time.monotonic())
            if not self._wheel.do(step, run is self._handle):
                return
            run, argument = self._next(step)

    def _perform(self, step: Step) -> None:
        """Does a step, in any thread, unless it was given up while it waited for one. Behind the same barrier."""
        if step.subject.step is step:
            try:
                step.result = step.run(step.argument)
            except Exception:
                self._break(step.subject)

    def _resume(self, step: Step) -> None:
        """A step comes back."""
        if step.subject.step is step:
            self._serve(step.subject, self._go_on, step)
        else:  # given up: only now is nobody inside the session any more
            step.subject.talk.end()

    def _go_on(self, step: Step) -> None:
        connection: Connection = step.subject
        if connection.react is None and not connection.gone:  # a plain reply, other than `_settle`, leaves it as it is
            self._await(connection, READ, self._read)
        self._advance(connection, *self._next(step))

    def _next(self, step: Step) -> tuple[Run | None, Any]:
        """What comes after a step, as function and argument; None when it is the client's turn."""
        connection: Connection = step.subject
        connection.step = None
        if connection.broken:
            return None, None
        if step.run is self._handle:
            return self._answer(connection, step.result)
        if isinstance(step.result, Envelope):
            self._flush(connection)
            return self._handle, step.result
        if isinstance(step.result, bytes):
            self._write(connection, step.result)
        else:
            self._settle(connection)
        return None, None

    def _answer(self, connection: Connection, replies: Sequence[Reply]) -> tuple[Run | None, Any]:
        """What comes after a message was handled; as `_next`."""
        answer = connection.talk.answer if self._stopping is not None else connection.talk.answer_plain(replies)
        if not isinstance(answer, bytes):
            return answer, replies
        self._write(connection, answer)
        return None, None

    # -- reading and writing

    def _flush(self, connection: Connection) -> None:
        """Writes what the session has to say."""
        session = connection.talk
        said = session.take_output()
        if said or connection.unsent or session.collecting is not connection.collecting:
            self._write(connection, said)

    def _write(self, connection: Connection, said: bytes) -> None:
        """Writes this, behind what is unsent, as far as the client takes it, and the rest when the client takes more. Sets the time for
        what comes next."""
        output = connection.unsent + said
        connection.collecting = collecting = connection.talk.collecting
        connection.deadline = time.monotonic() + (self._data_seconds if collecting else self._idle_seconds)
        if not output:
            return
        try:
            sent = connection.sock.send(output)
        except BLOCKED:
            sent = 0
        except OSError:
            return self._close(connection)
        connection.unsent = output[sent:]
        if connection.unsent:
            connection.deadline = time.monotonic() + self._send_seconds
            self._await(connection, WRITE, self._settle)

    def _settle(self, connection: Connection) -> None:
        """Ends a turn of ours: writes, then waits for the client, or parts from it."""
        if connection.step is not None:  # done elsewhere: not written to until then
            return self._await(connection, NOTHING, None)
        session = connection.talk
        if self._stopping is not None and session.between and not session.closed:
            session.shut_down()
        self._flush(connection)
        if connection.gone or connection.unsent:
            return
        if session.closed:
            self._part(connection)
        elif session.wants_tls:
            self._begin_tls(connection)
        elif connection.react != self._read:
            self._await(connection, READ, self._read)

    def _await(self, connection: Connection, events: int, react: Callable[[Connection], None] | None) -> None:
        """From now on `react(connection)` is called when the client can be read from, or written to."""
        if connection.events != events:
            if connection.events:
                self._wheel.forget(connection.sock)
            if events:
                self._wheel.watch(connection.sock, events, self._serve, connection)
        connection.events, connection.react = events, react

    # -- endings

    def _end(self, connection: Connection, last_words: Callable[[], None]) -> None:
        """Ends the connection with the session's last words, which close it."""
        connection.step = None
        last_words()
        self._settle(connection)

    def _apologise(self, connection: Connection) -> None:
        """After a failure of ours: 451 for a message that waits for its answer, 421 otherwise."""
        session, connection.broken = connection.session, False
        if session is None or session.closed or connection.gone:
            return self._close(connection)
        last_words = session.abandon if session.pending else session.failed
        try:
            self._end(connection, last_words)
        except Exception:
            self._break(connection)
            self._close(connection)

    def _part(self, connection: Connection) -> None:
        """Says that nothing more will come, and waits a moment for the client to hear it."""
        try:
            if isinstance(connection.sock, ssl.SSLSocket):
                with suppress(ssl.SSLError):  # the client's own farewell is not waited for
                    connection.sock.unwrap()
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return self._close(connection)
        connection.deadline = time.monotonic() + (LINGERING if self._stopping is None else HURRY)
        self._await(connection, READ, self._discard)

    def _discard(self, connection: Connection) -> None:
        try:
            gone = not connection.sock.recv(READ_SIZE)
        except BLOCKED:
            return
        except OSError:
            gone = True
        if gone:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        if connection.gone:
            return
        self._await(connection, NOTHING, None)
        connection.sock.close()
        connection.gone = True
        self._connections.discard(connection)
        others = self._peers.pop(connection.source) - 1
        if others:
            self._peers[connection.source] = others
        if connection.session is not None and connection.step is None:
            connection.session.end()
        connection.step = None

    # -- TLS

    def _begin_tls(self, connection: Connection) -> None:
        assert self._certificate is not None, "STARTTLS was offered without a certificate"
        self._await(connection, NOTHING, None)
        connection.deadline = time.monotonic() + self._send_seconds
        context = self._certificate.context()
        try:
            connection.sock = context.wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
        except OSError as error:  # ssl.SSLError is one
            return self._no_tls(connection, error)
        self._shake_hands(connection)

    def _shake_hands(self, connection: Connection) -> None:
        assert isinstance(connection.sock, ssl.SSLSocket)
        try:
            connection.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._await(connection, READ, self._shake_hands)
        except ssl.SSLWantWriteError:
            self._await(connection, WRITE, self._shake_hands)
        except OSError as error:
            self._no_tls(connection, error)
        else:
            self._secured(connection)

    def _no_tls(self, connection: Connection, error: OSError) -> None:
        log.info("No TLS with %s: %s", connection, error)
        self._close(connection)

    def _secured(self, connection: Connection) -> None:
        if connection.session is None:
            return self._greet(connection)
        connection.session.tls_started()
        self._settle(connection)

    # -- the clock

    def _tick(self, now: float) -> None:
        """Looks at every deadline, and at what could not be had a moment ago."""
        self._next_tick = now + (TICK if self._stopping is None else HURRY)
        for connection in tuple(self._connections):
            if self._is_overdue(connection, now):
                self._serve(connection, self._overdue, connection)
        self._wheel.see_to_deputy()
        if not self._accepting and self._stopping is None:
            self._accept_more()

    def _is_overdue(self, connection: Connection, now: float) -> bool:
        if self._stopping is not None and now > self._stopping and connection.react != self._discard:
            return True
        step = connection.step
        return now > (connection.deadline if step is None else step.began + self._handler_seconds)

    def _overdue(self, connection: Connection) -> None:
        session, step = connection.session, connection.step
        if session is not None and step is not None and step.run is self._handle:
            log.error("A message of %s is not handled in time; its client hears 451.", connection)
            self._end(connection, session.abandon)
        elif session is not None and step is None and connection.react == self._read:
            self._end(connection, session.timed_out if self._stopping is None else session.shut_down)
        else:  # it does not take our replies, shakes no hands, or its session is stuck in another thread
            self._close(connection)
