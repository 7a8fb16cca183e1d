"""The watch over what tests leave behind sees what it must see, and nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamson.routing import Router, RoutingBase
from tests import leaks
from tests.leaks import Snapshot


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 0.05)


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """Threads of these tests wait for this and end with the test."""
    event = threading.Event()
    yield event
    event.set()


def test_nothing_left_is_nothing_said() -> None:
    assert Snapshot.take().left_since() == []


def test_a_thread_that_runs_on_is_named(hold: threading.Event) -> None:
    before = Snapshot.take()
    threading.Thread(target=hold.wait, name="forgotten").start()
    assert before.left_since() == ["the thread 'forgotten' still runs"]


def test_a_daemon_thread_of_ours_counts_and_of_others_does_not(hold: threading.Event) -> None:
    before = Snapshot.take()
    threading.Thread(target=hold.wait, name="somebody's", daemon=True).start()
    threading.Thread(target=hold.wait, name="lamson-listener", daemon=True).start()
    assert before.left_since() == ["the thread 'lamson-listener' still runs"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open sockets are listed only where there is /proc")
def test_an_open_socket_is_seen_and_a_closed_one_is_not() -> None:
    before = Snapshot.take()
    with socket.socket():
        assert "is still open" in "".join(before.left_since())
    assert before.left_since() == []


def test_a_thread_that_is_just_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 5.0)
    before = Snapshot.take()
    threading.Timer(0.1, lambda: None).start()
    assert before.left_since() == []


def test_a_changed_default_router_is_seen(default_router: RoutingBase) -> None:
    before = Snapshot.take()
    default_router.defaults(host="test")
    assert "default router" in "".join(before.left_since())


def test_a_route_left_on_the_default_router_is_seen(default_router: RoutingBase) -> None:
    before = Snapshot.take()

    @default_router.route("x@y")
    def START(message: object) -> None: ...

    assert "default router" in "".join(before.left_since())


def test_the_fixture_gives_the_default_router_as_new(default_router: RoutingBase) -> None:
    assert default_router is Router
    assert default_router.routes == ()
    default_router.seal()  # the watch over this very test sees that it is unsealed again
