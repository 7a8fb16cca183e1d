"""The wheel alone: who does a step, who has the wheel afterwards, and what comes back."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lamson.smtp import wheel
from lamson.smtp.wheel import Step, Wheel
from tests.smtp.talk import PATIENCE, wait_until


class Mill:
    """A wheel that does the steps it is given. `done` are the steps that ended at the wheel or came back to it."""

    def __init__(self, threads: int = 4) -> None:
        self.orders: list[tuple[Callable[[], object], bool]] = []
        self.done: list[Step] = []
        self.threads: list[threading.Thread] = []  # that were at the wheel
        self.stopping = False
        self.wheel = Wheel(self.perform, self.done.append, self.turn, threads)

    def perform(self, step: Step) -> None:
        step.result = step.run(step.argument)

    def turn(self) -> bool:
        here = threading.current_thread()
        if here not in self.threads:
            self.threads.append(here)
        while self.orders and self.wheel.mine:
            run, anywhere = self.orders.pop(0)
            step = Step(self, lambda order: order(), run, time.monotonic())
            if self.wheel.do(step, anywhere):
                self.done.append(step)
        return not self.stopping

    def order(self, run: Callable[[], object], anywhere: bool = True) -> None:
        self.orders.append((run, anywhere))
        self.wheel.ring()

    def stop(self) -> None:
        self.stopping = True
        self.wheel.ring()
        self.wheel.join(time.monotonic() + PATIENCE)


@pytest.fixture(params=[(select.poll, 0.001), (wheel.POLL, wheel.UNIT)], ids=["poll", "the system's own"])
def mill(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mill]:
    poll, unit = request.param
    monkeypatch.setattr(wheel, "POLL", poll)
    monkeypatch.setattr(wheel, "UNIT", unit)
    mill = Mill()
    mill.wheel.start()
    yield mill
    mill.stop()


def test_quick_steps_are_done_at_the_wheel(mill: Mill) -> None:
    doers: list[threading.Thread] = []

    def a_hundred_at_the_wheel() -> bool:  # on a busy machine one of them may have to wait for its turn, and then is not quick
        ordered = len(mill.done) + 100
        doers.clear()
        for _ in range(100):
            mill.order(lambda: doers.append(threading.current_thread()))
        wait_until(lambda: len(mill.done) == ordered)
        return set(doers) <= set(mill.threads)

    wait_until(a_hundred_at_the_wheel)


def test_of_a_socket_that_cannot_be_watched_nothing_is_kept(mill: Mill) -> None:
    sock = socket.socket()
    sock.close()
    watched = set(mill.wheel._reacts)
    with pytest.raises((ValueError, OSError)):
        mill.wheel.watch(sock, wheel.READ, print, "its subject")
    assert set(mill.wheel._reacts) == watched


def test_a_step_that_holds_up_the_wheel_loses_it_and_comes_back(mill: Mill) -> None:
    go_on = threading.Event()
    mill.order(lambda: (go_on.wait(PATIENCE), "held up")[1])
    mill.order(lambda: "after it")
    wait_until(lambda: mill.done)
    assert [step.result for step in mill.done] == ["after it"]
    first, second = mill.threads
    go_on.set()
    wait_until(lambda: len(mill.done) == 2)
    assert mill.done[1].result == "held up"
    first.join(PATIENCE)
    assert not first.is_alive(), "who lost the wheel ends with the step"
    assert second.is_alive()


def test_many_steps_in_a_row_hold_up_the_wheel(mill: Mill) -> None:
    """What is not to be done anywhere is never left to the pool: each gets a thread of its own, and the wheel turns on."""
    go_on = threading.Event()
    for _ in range(20):
        mill.order(lambda: go_on.wait(PATIENCE), anywhere=False)
    mill.order(lambda: "after them", anywhere=False)
    wait_until(lambda: mill.done)
    assert mill.done[0].result == "after them"
    go_on.set()
    wait_until(lambda: len(mill.done) == 21)


def test_slow_steps_go_to_the_pool_and_quick_ones_return_to_the_wheel(mill: Mill) -> None:
    doers: list[threading.Thread] = []

    def slow() -> None:
        doers.append(threading.current_thread())
        time.sleep(0.002)

    for _ in range(60):
        mill.order(slow)
    wait_until(lambda: len(mill.done) == 60)
    pool = [thread for thread in doers if "handler" in thread.name]
    assert len(pool) > 20, "a busy machine may take the wheel from a step that waits for its turn"
    assert 1 < len(set(pool)) <= 4

    def at_the_wheel_again() -> bool:
        ordered, before = len(mill.done) + 200, len(doers)
        for _ in range(200):
            mill.order(lambda: doers.append(threading.current_thread()))
        wait_until(lambda: len(mill.done) == ordered)
        return any(doer in mill.threads for doer in doers[before:])

    wait_until(at_the_wheel_again)


def test_one_slow_step_among_quick_ones_sends_none_to_the_pool(mill: Mill) -> None:
    """On a busy machine the slow one was itself held up; what follows is as quick at the wheel as ever."""
    doers: list[threading.Thread] = []

    def all_at_the_wheel() -> bool:
        ordered = len(mill.done) + 81
        doers.clear()
        for number in range(81):
            mill.order(lambda number=number: (doers.append(threading.current_thread()), number == 40 and time.sleep(0.003)))
        wait_until(lambda: len(mill.done) == ordered)
        return set(doers) <= set(mill.threads)

    wait_until(all_at_the_wheel)


def test_the_deputy_rests_while_nothing_is_done(mill: Mill) -> None:
    mill.order(lambda: None)
    wait_until(lambda: mill.done)
    wait_until(lambda: not mill.wheel._turning.is_set())
    go_on = threading.Event()
    mill.order(lambda: go_on.wait(PATIENCE))  # and wakes again
    mill.order(lambda: "after it")
    wait_until(lambda: len(mill.done) == 2)
    go_on.set()


def test_without_threads_the_wheel_turns_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A system that has no thread to give costs speed, and no step."""
    start, given = threading.Thread.start, []

    def once(thread: threading.Thread) -> None:
        if thread.name.startswith("lamson-") and given:
            raise RuntimeError("can't start new thread")
        given.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    mill = Mill()
    mill.wheel.start()
    try:
        mill.order(lambda: time.sleep(4 * wheel.PATIENCE))
        mill.order(lambda: "after it")
        wait_until(lambda: mill.done)
        monkeypatch.undo()
        mill.order(mill.wheel.see_to_deputy, anywhere=False)
        mill.order(lambda: "in the pool at last")
        wait_until(lambda: len(mill.done) == 4)
    finally:
        mill.stop()
    assert "can't start new thread" in caplog.text


def test_a_wheel_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def never(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    mill = Mill()
    monkeypatch.setattr(threading.Thread, "start", never)
    with pytest.raises(RuntimeError, match="no more threads"):
        mill.wheel.start()
    monkeypatch.undo()
    mill.wheel._finish()
