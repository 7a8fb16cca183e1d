"""The delivery without a database: held, then in order, or not at all. (The committing one: test_database.py.)"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lamson import delivery
from lamson.delivery import Delivery, Outgoing
from lamson.errors import Fault, QueueError, RelayError, TransientError
from lamson.state import MemoryStorage
from lamson.status import reply

MAIL = Outgoing("a@x", ("b@x",), b"hello")


class Carrier:
    name = "default"

    def __init__(self, did: list[str], failure: RelayError | None = None) -> None:
        self.did = did
        self.failure = failure

    def close(self) -> None: ...

    def close_idle(self) -> None: ...

    def destination(self, rcpt_to: str) -> str:
        return ""

    def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
        return map(self.hand_over, mails)

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        self.did.append("sent")
        return {"b@x": self.failure} if self.failure else {}


class Push:
    queue_dir, key = "q", "k"

    def __init__(self, did: list[str]) -> None:
        self.did = did

    def finish(self) -> None:
        self.did.append("finished")

    def undo(self) -> None:
        self.did.append("undone")


@pytest.fixture
def did() -> list[str]:
    return []


def fill(held: Delivery, did: list[str], failure: RelayError | None = None) -> None:
    held.set_state("m", "a@x", "NEXT")
    held.hold_push(Push(did))
    held.hold_mail(Carrier(did, failure), MAIL)


def test_what_is_held_happens_in_order_at_the_end(did: list[str]) -> None:
    states = MemoryStorage()
    with delivery.begin(states) as held:
        fill(held, did)
        assert (did, states.get("m", "a@x"), held.get_state("m", "a@x")) == ([], "START", "NEXT")
    assert did == ["sent", "finished"]
    assert states.get("m", "a@x") == "NEXT"


def test_a_handler_that_raises_lets_nothing_happen(did: list[str]) -> None:
    states = MemoryStorage()
    with pytest.raises(ValueError, match="mine"), delivery.begin(states) as held:
        fill(held, did)
        raise ValueError("mine")
    assert did == ["undone"]
    assert states.get("m", "a@x") == "START"


def test_mail_that_is_not_taken_means_a_fault_and_no_state(did: list[str]) -> None:
    states = MemoryStorage()
    with pytest.raises(Fault, match="TransientError"), delivery.begin(states) as held:
        fill(held, did, TransientError(reply(451)))
    assert did == ["sent", "undone"]
    assert states.get("m", "a@x") == "START"


def test_a_full_disk_is_a_fault_and_a_misused_queue_is_the_handlers() -> None:
    held = Delivery(MemoryStorage())
    full = QueueError("cannot write")
    full.__cause__ = OSError(28, "No space left on device")
    assert isinstance(held.diagnose(full), Fault)
    misused = QueueError("no such key")
    assert held.diagnose(misused) is misused


def test_each_thread_has_its_own_and_none_outside() -> None:
    seen: list[Any] = []
    with delivery.begin(MemoryStorage()) as held:
        assert delivery.current() is held
        thread = threading.Thread(target=lambda: seen.append(delivery.current()))
        thread.start()
        thread.join()
        with pytest.raises(TypeError, match="inside another"), delivery.begin(MemoryStorage()):
            pass
        assert delivery.current() is held
    assert seen == [None]
    assert delivery.current() is None
