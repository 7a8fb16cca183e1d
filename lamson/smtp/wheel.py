"""The wheel: one thread that waits for all sockets, and others for what takes its time. Knows neither connections nor mail.

Only the thread at the wheel reacts to sockets, so what it touches needs no lock, and a thousand silent clients cost no thread. What may
take its time is a `Step`:

- Quick steps run right there, at the wheel. Handing one to another thread and back costs more than most of them do.
- While such steps are slow, they run in a pool of threads, which give them back through the inbox.
- A deputy watches. When one step holds up the wheel for more than `PATIENCE`, the deputy takes the wheel and serves the others; the
  thread that lost it ends with its step, and gives it back like any other.

The alternatives and what they cost are in docs/design.md.
"""

from __future__ import annotations

import logging
import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

log = logging.getLogger("lamson.smtp.wheel")

#: What a socket may be ready for.
READ, WRITE = select.POLLIN, select.POLLOUT
#: Linux's way to wait for sockets, or that of other systems, and its unit of time in seconds. `selectors` would make several objects for
#: each socket that is ready, at every look.
POLL, UNIT = (select.epoll, 1.0) if hasattr(select, "epoll") else (select.poll, 0.001)

#: Seconds that one step may hold up everybody else before the deputy takes the wheel. It may be twice that until he looks.
PATIENCE = 0.005
#: Steps that need more than this many seconds on average run in the pool: about what the way there and back costs.
QUICK = 0.0003
#: More than this counts as this much: a step among quick ones that took long was itself held up, by a busy machine.
SLOW = 4 * QUICK
#: The average looks back over about so many steps.
LOOKS_BACK = 8
#: What is kept of the average with each step in the pool, so that now and then one is tried at the wheel again.
FADING = 0.995

React = Callable[[Any], None]


@dataclass(slots=True, eq=False)
class Step:
    """`run(argument)` on behalf of a subject, begun or ordered at `began` on the monotonic clock, and its result once it is done."""

    subject: Any
    run: Callable[[Any], Any]
    argument: Any
    began: float
    result: Any = None
    pooled: bool = False


Take = Callable[[Step], None]


class Wheel:
    """Turns until it is told not to. Its owner gives it three functions and the size of the pool.

    `perform(step)` does a step, in any thread, and must not raise. `resume(step)` is called at the wheel when a step comes back. `turn()`
    is called at the wheel before each look at the sockets, and says whether to go on.
    """

    def __init__(self, perform: Take, resume: Take, turn: Callable[[], bool], threads: int) -> None:
        self._perform, self._resume, self._go_on, self._most_workers = perform, resume, turn, threads
        self._poll: Any = POLL()
        self._reacts: dict[int, tuple[React, Any]] = {}  # by the descriptors that are watched
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._rung = False
        self.watch(self._ear, READ, self._hear, None)

        self._holder = 0  # the thread that has the wheel
        self._at: Step | None = None  # the step that it is at, and may lose the wheel with
        self._lock = threading.Lock()  # of these two
        self._turning = threading.Event()  # so the deputy shall look
        self._watched = False  # the same, and cheaper to ask
        self._deputy = self._over = False
        self._pace = 0.0  # seconds that steps took of late

        self._threads: list[threading.Thread] = []
        self._numbers = count(1)
        self._workers = self._pooled = 0  # threads of the pool, and steps that it has
        self._jobs: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._inbox: deque[Step] = deque()
        #: Seconds that the wheel waits for sockets at most; None: for as long as it takes.
        self.timeout: float | None = None

    # -- from any thread

    def start(self) -> None:
        """Begins to turn."""
        if not self._spawn("wheel", self._turn_first):
            raise RuntimeError("This process can have no more threads.")

    def ring(self) -> None:
        """Makes it turn now."""
        self._rung = True
        with suppress(OSError):  # full: it rings already; closed: it is over
            self._bell.send(b"!")

    def join(self, until: float) -> None:
        """Waits for all its threads, at most until then on the monotonic clock. Those that are still in a step are left behind."""
        while (others := self._others()) and time.monotonic() < until:
            others[0].join(max(0.0, until - time.monotonic()))
        for thread in others:
            log.error("%s does not end and is left behind.", thread.name)

    def _others(self) -> list[threading.Thread]:
        return [thread for thread in self._threads if thread.is_alive() and thread is not threading.current_thread()]

    # -- at the wheel

    @property
    def mine(self) -> bool:
        """The calling thread has the wheel."""
        return self._holder == threading.get_ident()

    def watch(self, sock: socket.socket, events: int, react: React, subject: Any) -> None:
        """From now on `react(subject)` is called when the socket is ready for one of the events, or broken."""
        self._poll.register(sock.fileno(), events)  # first: it may raise, and then nothing is kept
        self._reacts[sock.fileno()] = react, subject

    def forget(self, sock: socket.socket) -> None:
        """It is watched no more."""
        self._poll.unregister(sock.fileno())
        del self._reacts[sock.fileno()]

    def do(self, step: Step, anywhere: bool = True) -> bool:
        """Does the step here, or in the pool where `anywhere` will do and its like were slow of late. True: it is done. False: it will be,
        and then comes to `resume`; the caller may not have the wheel any more."""
        if anywhere and self._pace > QUICK:
            self._hand_over(step)
            return False
        self._at = step
        if not self._watched:
            self._have_it_watched()
        self._perform(step)
        with self._lock:
            kept = self._at is step
            if kept:
                self._at = None
        if not kept:
            self._give_back(step)
        elif anywhere:
            self._pace += (min(time.monotonic() - step.began, SLOW) - self._pace) / LOOKS_BACK
        return kept

    def _turn_first(self) -> None:
        self._holder = threading.get_ident()
        self._turn()

    def _turn(self) -> None:
        """Until it is over, or the wheel is lost."""
        self.see_to_deputy()
        self._hear(None)
        while self.mine:
            going = self._go_on()
            if going and self.mine:
                self._look()
            elif self.mine:
                return self._finish()

    def _look(self) -> None:
        """Waits for sockets, and reacts to those that are ready."""
        me = threading.get_ident()
        for descriptor, _ in self._poll.poll(None if self.timeout is None else self.timeout / UNIT):
            reaction = self._reacts.get(descriptor)
            if reaction is not None:  # else it was forgotten since
                react, subject = reaction
                react(subject)
                if self._holder != me:
                    return

    def see_to_deputy(self) -> None:
        """Makes sure that there is one: the system may have had no thread to give."""
        if not self._deputy:
            self._deputy = self._spawn("wheel", self._stand_by)

    def _hear(self, _: None) -> None:
        """Takes up what was done elsewhere."""
        with suppress(BlockingIOError):
            self._ear.recv(4096)
        self._rung = False
        while self._inbox and self.mine:
            step = self._inbox.popleft()
            if step.pooled:
                self._pooled -= 1
                self._pace *= FADING
            self._resume(step)

    def _finish(self) -> None:
        """Sends everyone home."""
        self._over = True
        self._turning.set()
        for _ in range(self._workers):
            self._jobs.put(None)
        self._reacts.clear()
        if hasattr(self._poll, "close"):
            self._poll.close()
        self._ear.close()
        self._bell.close()

    # -- the other threads

    def _spawn(self, role: str, run: Callable[[], None]) -> bool:
        """Starts a thread; False when the system has none to give."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=run, name=f"lamson-{role}-{next(self._numbers)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.error("No thread for %s: %s.", thread.name, error)
            return False
        self._threads.append(thread)
        return True

    def _stand_by(self) -> None:
        """The deputy: takes the wheel when it is held up, and has it from then on."""
        while not self._over:
            self._turning.wait()
            step = self._at
            time.sleep(PATIENCE)
            if self._take_from(step):
                return self._turn()
            if step is None and self._at is None:
                self._rest()

    def _take_from(self, step: Step | None) -> bool:
        with self._lock:
            if step is None or self._at is not step:
                return False
            self._at, self._holder = None, threading.get_ident()
        self._deputy = False
        self._pace = 1.0
        return True

    def _rest(self) -> None:
        """There is nothing to watch until the next step. One that began just now has seen the event still set, so look again."""
        self._turning.clear()
        self._watched = False
        if self._at is not None or self._over:
            self._have_it_watched()

    def _have_it_watched(self) -> None:
        self._watched = True
        self._turning.set()

    def _hand_over(self, step: Step) -> None:
        step.pooled = True
        self._pooled += 1
        if self._workers < min(self._pooled, self._most_workers):
            self._workers += self._spawn("handler", self._work)
        self._jobs.put(step)

    def _work(self) -> None:
        """A thread of the pool."""
        while (step := self._jobs.get()) is not None:
            self._perform(step)
            self._give_back(step)

    def _give_back(self, step: Step) -> None:
        self._inbox.append(step)
        if not self._rung:
            self.ring()
