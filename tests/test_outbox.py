"""What waits is sent, tried again, given up; what a dead process claimed is sent by the next."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from email import message_from_bytes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from lamson import outbox
from lamson.database import Database, Message, OutboxRow, PushRow, Receipt, now
from lamson.delivery import Outgoing, begin
from lamson.errors import Conflict, Fault, PermanentError, QueueError, RelayError, TransientError
from lamson.outbox import Outbox
from lamson.queue import HeldPush, Queue
from lamson.status import reply
from tests import databases
from tests.smtp.talk import wait_until

MAIL = b"From: list@test.com\r\nTo: ann@ex.org\r\nMessage-ID: <1@test.com>\r\nSubject: hi\r\n\r\nhello\r\n"
REFUSED = PermanentError(reply(550, "no such user", "5.1.1"))
LATER = TransientError(reply(451, "greylisted", "4.7.1"))
UNREACHABLE = TransientError(reply(421, "connection refused", "4.4.1"))


class Carrier:
    """A relay whose next server answers as told: recipient -> error."""

    def __init__(self, name: str = "default", answer: Callable[[str], RelayError | None] = lambda rcpt: None) -> None:
        self.name = name
        self.answer = answer
        self.sent: list[Outgoing] = []
        self.tried: list[Outgoing] = []

    def close(self) -> None: ...

    def close_idle(self) -> None: ...

    def destination(self, rcpt_to: str) -> str:
        return rcpt_to.rpartition("@")[2]

    def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
        return map(self.hand_over, mails)

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        self.tried.append(mail)
        failed = {rcpt: error for rcpt in mail.rcpt_tos if (error := self.answer(rcpt))}
        taken = tuple(rcpt for rcpt in mail.rcpt_tos if rcpt not in failed)
        if taken:
            self.sent.append(Outgoing(mail.mail_from, taken, mail.data))
        return failed


@pytest.fixture(params=databases.KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with databases.opened(request.param, tmp_path) as database:
        yield database


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    with databases.opened("sqlite", tmp_path) as database:
        yield database


def post(database: Database, carrier: Any, *rcpt_tos: str, mail_from: str = "list@test.com", data: bytes = MAIL) -> None:
    with begin(database.states, "list@test.com", "ann@ex.org") as held:
        held.hold_mail(carrier, Outgoing(mail_from, rcpt_tos, data))


def count(database: Database, model: Any) -> int:
    with database.connected() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(model)).scalar() or 0)


def test_what_waits_is_sent_once_and_forgotten(database: Database) -> None:
    carrier = Carrier()
    post(database, carrier, "ann@ex.org", "bob@ex.org", "eve@else.org")
    assert Outbox(database, [carrier]).drain()
    assert sorted(carrier.sent, key=lambda mail: mail.rcpt_tos) == [
        Outgoing("list@test.com", ("ann@ex.org", "bob@ex.org"), MAIL),
        Outgoing("list@test.com", ("eve@else.org",), MAIL),
    ]
    assert (count(database, OutboxRow), count(database, Message)) == (0, 0)
    assert Outbox(database, [carrier]).drain()
    assert len(carrier.sent) == 2


def test_a_transient_failure_waits_for_growing_pauses_and_says_why(database: Database) -> None:
    carrier = Carrier(answer=lambda rcpt: LATER if rcpt == "ann@ex.org" else None)
    box = Outbox(database, [carrier], pauses=(100, 200))
    post(database, carrier, "ann@ex.org", "bob@ex.org")
    pauses = []
    for _ in range(3):
        box.drain()
        (row,) = outbox.waiting(database)
        pauses.append(round((row.due - _now(database)) / 10) * 10)
        outbox.retry(database)
    assert pauses == [100, 200, 200]
    assert (row.rcpt_to, row.attempts, row.reply, row.owner) == ("ann@ex.org", 3, "451 4.7.1 greylisted", None)
    assert [mail.rcpt_tos for mail in carrier.tried] == [("ann@ex.org", "bob@ex.org"), ("ann@ex.org",), ("ann@ex.org",)]
    carrier.answer = lambda rcpt: None
    assert box.drain()
    assert count(database, Message) == 0


def _now(database: Database) -> float:
    with database.connected() as connection:
        return float(connection.execute(sa.select(now())).scalar() or 0)


def test_a_permanent_failure_is_kept_with_its_reason_and_reported(database: Database, tmp_path: Path) -> None:
    carrier = Carrier(answer=lambda rcpt: REFUSED if rcpt == "ann@ex.org" else None)
    queue = Queue(str(tmp_path / "undeliverable"))
    post(database, carrier, "ann@ex.org")
    assert Outbox(database, [carrier], queue, hostname="mx.test.com").drain()
    (key,) = queue.keys()
    envelope = queue.envelope(key)
    assert envelope
    assert (envelope["mail_from"], envelope["rcpt_tos"], envelope["reason"]) == (
        "list@test.com",
        ["ann@ex.org"],
        "ann@ex.org: 550 5.1.1 no such user",
    )
    (report,) = carrier.sent
    assert (report.mail_from, report.rcpt_tos) == ("", ("list@test.com",))
    assert message_from_bytes(report.data).get_content_type() == "multipart/report"
    assert (count(database, OutboxRow), count(database, Message)) == (0, 0)


def test_a_report_that_cannot_be_sent_makes_no_report(sqlite: Database, tmp_path: Path) -> None:
    carrier = Carrier(answer=lambda rcpt: REFUSED)
    queue = Queue(str(tmp_path / "undeliverable"))
    post(sqlite, carrier, "ann@ex.org")
    assert Outbox(sqlite, [carrier], queue).drain()
    assert len(carrier.tried) == 2
    assert queue.count() == 2


def test_without_a_queue_what_fails_for_good_stays_parked(sqlite: Database) -> None:
    carrier = Carrier(answer=lambda rcpt: REFUSED)
    post(sqlite, carrier, "ann@ex.org")
    assert Outbox(sqlite, [carrier]).drain()
    (row,) = outbox.waiting(sqlite)
    assert (row.parked, row.reply) == (True, "550 5.1.1 no such user")


def test_what_fails_for_too_long_has_failed_for_good(sqlite: Database, tmp_path: Path) -> None:
    carrier = Carrier(answer=lambda rcpt: LATER if rcpt == "ann@ex.org" else None)
    queue = Queue(str(tmp_path / "undeliverable"))
    post(sqlite, carrier, "ann@ex.org")
    assert Outbox(sqlite, [carrier], queue, give_up=-1).drain()
    envelope = queue.envelope(queue.keys()[0])
    assert envelope
    assert "4.4.7 given up after" in envelope["reason"]


def test_a_destination_that_cannot_be_reached_is_paused_and_others_go_on(sqlite: Database) -> None:
    carrier = Carrier(answer=lambda rcpt: UNREACHABLE if rcpt.endswith("dead.org") else None)
    for number in range(5):
        post(sqlite, carrier, f"a{number}@dead.org")
        post(sqlite, carrier, f"a{number}@ex.org")
    Outbox(sqlite, [carrier]).drain()
    assert len([mail for mail in carrier.tried if mail.rcpt_tos[0].endswith("dead.org")]) == 1
    assert len(carrier.sent) == 5
    assert len(outbox.waiting(sqlite)) == 5


def test_a_person_who_wants_it_tried_now_need_not_wait_for_the_pause(sqlite: Database) -> None:
    carrier = Carrier(answer=lambda rcpt: UNREACHABLE)
    box = Outbox(sqlite, [carrier])
    post(sqlite, carrier, "ann@ex.org")
    box.drain()
    carrier.answer = lambda rcpt: None
    box.drain()
    assert len(outbox.waiting(sqlite)) == 1
    outbox.retry(sqlite)
    box.drain()
    assert [mail.rcpt_tos for mail in carrier.sent] == [("ann@ex.org",)]


def test_rows_of_a_relay_that_this_process_has_not_are_left_alone(sqlite: Database) -> None:
    post(sqlite, Carrier("elsewhere"), "ann@ex.org")
    assert Outbox(sqlite, [Carrier()]).drain()
    assert len(outbox.waiting(sqlite)) == 1


def test_two_relays_of_one_name_are_refused(sqlite: Database) -> None:
    with pytest.raises(TypeError, match="same name"):
        Outbox(sqlite, [Carrier(), Carrier()])


def test_a_claim_that_comes_too_late_takes_no_row_of_the_same_number(sqlite: Database) -> None:
    """Two processes on SQLite look at one row; before the slower one claims it the faster has sent it, and its number is given to other
    mail. That mail was claimed, taken for the first, and deleted unsent."""
    carrier = Carrier()
    fast, slow = Outbox(sqlite, [carrier]), Outbox(sqlite, [carrier])
    post(sqlite, carrier, "ann@ex.org")
    first = outbox.waiting(sqlite)[0].id
    looked: list[str] = []

    def be_faster(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("SELECT lamson_outbox") and not looked:
            looked.append(statement)
            assert fast.drain()
            post(sqlite, carrier, "bob@ex.org", data=MAIL + b"other")

    sa.event.listen(sqlite.engine, "after_cursor_execute", be_faster)
    slow._send_batch()
    assert slow.drain()
    assert [(mail.rcpt_tos, mail.data) for mail in carrier.sent] == [(("ann@ex.org",), MAIL), (("bob@ex.org",), MAIL + b"other")]
    post(sqlite, carrier, "eve@ex.org")
    assert outbox.waiting(sqlite)[0].id > first, "a number is never used again"


def test_several_senders_send_each_message_once(database: Database) -> None:
    carrier = Carrier()
    boxes = [Outbox(database, [carrier], batch=3) for _ in range(3)]
    for number in range(60):
        post(database, carrier, f"a{number}@ex.org")
    threads = [threading.Thread(target=box.drain, args=(30,)) for box in boxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(mail.rcpt_tos[0] for mail in carrier.sent) == sorted(f"a{number}@ex.org" for number in range(60))


def test_started_it_sends_what_commits(sqlite: Database) -> None:
    sent = threading.Event()

    class Telling(Carrier):
        def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
            sent.set()
            return {}

    box = Outbox(sqlite, [Telling()], poll=60, senders=2)
    box.start()
    try:
        for _ in range(10):
            post(sqlite, Telling(), "ann@ex.org")
            assert sent.wait(5)
            sent.clear()
    finally:
        box.stop()
    assert count(sqlite, OutboxRow) == 0


@contextmanager
def running(database: Database, *carriers: Any, **options: Any) -> Iterator[Outbox]:
    """An outbox that has had its first look at the database, and takes another one only when something tells it to."""
    box = Outbox(database, carriers, **{"poll": 60.0} | options)
    box.start()
    try:
        wait_until(lambda: box._looked > 0)
        yield box
    finally:
        box.stop()


class Held(Carrier):
    """Hands nothing over before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
        assert self.may.wait(10)
        return super().hand_over(mail)


def test_what_it_claims_at_the_commit_nobody_has_to_look_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = Held()
    with running(database, carrier) as box:
        monkeypatch.setattr(box, "_claim", lambda: pytest.fail("it looked"))
        post(database, carrier, "ann@ex.org", "bob@ex.org", "eve@else.org")
        assert {(row.rcpt_to, row.owner) for row in outbox.waiting(database)} == {
            (rcpt_to, box.owner) for rcpt_to in ("ann@ex.org", "bob@ex.org", "eve@else.org")
        }
        other = Outbox(database, [carrier])
        assert other.drain(1)
        assert not carrier.tried, "another outbox leaves it alone"
        carrier.may.set()
        wait_until(lambda: count(database, OutboxRow) == 0)
    assert sorted(mail.rcpt_tos for mail in carrier.sent) == [("ann@ex.org", "bob@ex.org"), ("eve@else.org",)]
    assert count(database, Message) == 0


def test_what_it_claimed_and_was_not_committed_is_not_sent(database: Database) -> None:
    carrier = Carrier()
    with running(database, carrier) as box:
        with pytest.raises(Conflict), begin(database.states, "list@test.com", "ann@ex.org") as held:
            held.hold_mail(carrier, Outgoing("list@test.com", ("ann@ex.org",), MAIL))
            assert held.get_state("m", "ann@ex.org") == "START"
            held.set_state("m", "ann@ex.org", "NEXT")
            move_elsewhere(database)
        assert not box._sending
        post(database, carrier, "bob@ex.org")
        wait_until(lambda: bool(carrier.sent))
    assert [mail.rcpt_tos for mail in carrier.sent] == [("bob@ex.org",)]


def move_elsewhere(database: Database) -> None:
    """As another process does between our look at the state and our commit; not waiting for our lock on the row."""
    if database.is_sqlite:
        thread = threading.Thread(target=database.states.set, args=("m", "ann@ex.org", "ELSEWHERE"))
        thread.start()
        thread.join()
    else:
        raise Conflict("as the database says to the later of two")


def test_a_commit_that_said_it_failed_and_holds_is_found(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = Carrier()
    with running(sqlite, carrier) as box:
        commit = sqlite.writer.commit

        def break_afterwards(writes: Any) -> None:
            commit(writes)
            raise Fault("the disk says no, and did it")

        monkeypatch.setattr(sqlite.writer, "commit", break_afterwards)
        with pytest.raises(Fault):
            post(sqlite, carrier, "ann@ex.org")
        monkeypatch.undo()
        box.wake()
        wait_until(lambda: count(sqlite, OutboxRow) == 0)
    assert [mail.rcpt_tos for mail in carrier.sent] == [("ann@ex.org",)]


def test_beyond_what_it_may_claim_mail_waits_in_the_database_and_nothing_overtakes_it(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "READY", 3)
    carrier = Held()
    with running(sqlite, carrier, senders=1, batch=2) as box:
        for number in range(8):
            post(sqlite, carrier, f"a{number}@ex.org")
        assert [row.owner == box.owner for row in outbox.waiting(sqlite)] == [True] * 3 + [False] * 5
        carrier.may.set()
        wait_until(lambda: len(carrier.sent) == 8)
        wait_until(lambda: not box._behind and not box._sending)
        post(sqlite, carrier, "later@ex.org")
        wait_until(lambda: len(carrier.sent) == 9)
    assert [mail.rcpt_tos[0] for mail in carrier.sent] == [*(f"a{number}@ex.org" for number in range(8)), "later@ex.org"]


def test_what_a_stopped_outbox_has_claimed_is_anybodys(sqlite: Database) -> None:
    carrier = Held()
    box = Outbox(sqlite, [carrier], senders=1, batch=1, poll=60, lease=1000)
    box.start()
    for number in range(4):
        post(sqlite, carrier, f"a{number}@ex.org")
    threading.Timer(0.2, carrier.may.set).start()
    box.stop()
    assert {row.owner for row in outbox.waiting(sqlite)} <= {None}
    other = Carrier()
    assert Outbox(sqlite, [other]).drain()
    assert sorted(mail.rcpt_tos[0] for mail in [*carrier.sent, *other.sent]) == [f"a{number}@ex.org" for number in range(4)]


def test_what_cannot_be_given_back_is_sent_by_the_next_start(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database is gone while the server is told to end."""
    carrier = Held()
    box = Outbox(sqlite, [carrier], senders=1, batch=1, poll=60, lease=1000)
    box.start()
    wait_until(lambda: box._looked > 0)
    post(sqlite, carrier, "a@ex.org")
    wait_until(lambda: box._busy == 1)
    post(sqlite, carrier, "b@ex.org")

    def gone() -> Any:
        raise Fault("no database")

    monkeypatch.setattr(sqlite, "connected", gone)
    threading.Timer(0.1, carrier.may.set).start()
    box.stop()
    monkeypatch.undo()
    assert "could not be given back" in caplog.text
    assert not box._sending, "or its lease would be renewed for ever"
    with running_again(box):
        wait_until(lambda: len(carrier.sent) == 2)


@contextmanager
def running_again(box: Outbox) -> Iterator[None]:
    box._looked = 0.0
    box.start()
    try:
        yield
    finally:
        box.stop()


def test_mail_that_is_committed_while_a_sender_looks_does_not_wait_for_the_next_look(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = Carrier()
    with running(sqlite, carrier) as box:
        claim = box._claim

        def look_too_early() -> list[Any]:
            rows = claim()
            monkeypatch.setattr(box, "_claim", claim)
            post(sqlite, carrier, "ann@ex.org")
            return rows

        monkeypatch.setattr(box, "_claim", look_too_early)
        box.wake()
        wait_until(lambda: bool(carrier.sent))


def test_what_was_claimed_and_could_not_be_read_is_sent_at_the_next_look(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = Carrier()
    post(sqlite, carrier, "ann@ex.org")
    box = Outbox(sqlite, [carrier], poll=0.02, lease=1000)
    read = box._read

    def fail_at_first(rows: Any) -> Any:
        monkeypatch.setattr(box, "_read", read)
        raise Fault("the disk could not be read")

    monkeypatch.setattr(box, "_read", fail_at_first)
    box.start()
    try:
        wait_until(lambda: bool(carrier.sent))
    finally:
        box.stop()
    assert not box._sending


def test_what_another_process_has_taken_over_meanwhile_is_left_to_it(database: Database) -> None:
    """The database was gone for longer than a lease: what we could not write down is another's now."""
    carrier = Carrier()
    post(database, carrier, "ann@ex.org")
    (row,) = outbox.waiting(database)
    other, box = Outbox(database, [carrier], lease=1000), Outbox(database, [carrier])
    other._identify()
    assert [claimed.id for claimed in other._claim()] == [row.id]
    box.forget([row])  # type: ignore[list-item]
    assert box.drain()
    assert not carrier.tried


def test_what_is_being_sent_is_not_claimed_again_when_its_lease_ends(sqlite: Database) -> None:
    """Leases cannot be renewed while the database is gone, and end when somebody sets the clock."""
    carrier = Held()
    with running(sqlite, carrier, senders=2) as box:
        post(sqlite, carrier, "ann@ex.org")
        wait_until(lambda: box._busy == 1)
        with sqlite.connected() as connection:
            connection.execute(sa.update(OutboxRow).values(lease=1.0))
        looked = box._looked
        box.wake()
        wait_until(lambda: box._looked > looked)
        carrier.may.set()
        wait_until(lambda: count(sqlite, OutboxRow) == 0)
    assert len(carrier.tried) == 1


def test_mail_is_due_at_once_though_the_databases_clock_is_a_little_behind(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamson.database.time", SimpleNamespace(time=lambda: time.time() + 0.5, time_ns=time.time_ns))
    carrier = Carrier()
    post(database, carrier, "ann@ex.org")
    assert Outbox(database, [carrier]).drain()
    assert carrier.sent


@pytest.mark.parametrize("conflicts", [4, 5])
def test_conflicts_keep_it_neither_from_starting_nor_from_writing_down_what_was_sent(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch, conflicts: int
) -> None:
    """As deadlocks on MariaDB while others send; one that does not end is told."""
    carrier = Carrier()
    post(sqlite, carrier, "ann@ex.org")
    box = Outbox(sqlite, [carrier])

    def deadlocked(step: Callable[..., None]) -> Callable[..., None]:
        left = [Conflict("deadlock")] * conflicts

        def attempt(*arguments: Any) -> None:
            if left:
                raise left.pop()
            step(*arguments)

        return attempt

    for owner, name in ((box, "purge"), (sqlite, "write")):
        monkeypatch.setattr(owner, name, deadlocked(getattr(owner, name)))
    for step in (box.recover, box.drain):
        with pytest.raises(Conflict) if conflicts == 5 else nullcontext():
            step()
    assert len(carrier.sent) == 1
    assert count(sqlite, OutboxRow) == (conflicts == 5)


def test_leases_are_renewed_in_spite_of_a_conflict(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    carrier = Held()
    with running(sqlite, carrier, lease=0.6) as box:
        renew, attempts, renewed = box._renew, iter([Conflict("deadlock")]), threading.Event()

        def deadlocked_at_first() -> None:
            for conflict in attempts:
                raise conflict
            renew()
            renewed.set()

        monkeypatch.setattr(box, "_renew", deadlocked_at_first)
        post(sqlite, carrier, "ann@ex.org")
        assert renewed.wait(5)
        carrier.may.set()
    assert "could not renew" not in caplog.text


def test_a_sender_that_is_held_up_holds_up_no_other_letter(sqlite: Database) -> None:
    slow, quick = Held(), Carrier()
    slow.name = "slow"
    with running(sqlite, slow, quick, senders=2) as box:
        post(sqlite, slow, "ann@ex.org")
        wait_until(lambda: box._busy == 1)
        post(sqlite, quick, "bob@ex.org")
        wait_until(lambda: bool(quick.sent))
        slow.may.set()
        wait_until(lambda: bool(slow.sent))


def test_a_letter_that_breaks_the_relay_waits_and_holds_up_no_other(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Carrier):
        def hand_over(self, mail: Outgoing) -> dict[str, RelayError]:
            if mail.rcpt_tos == ("ann@ex.org",):
                raise RuntimeError("a bug")
            return super().hand_over(mail)

    carrier = Broken()
    post(sqlite, carrier, "ann@ex.org")
    post(sqlite, carrier, "bob@ex.org")
    assert Outbox(sqlite, [carrier]).drain()
    assert [mail.rcpt_tos for mail in carrier.sent] == [("bob@ex.org",)]
    assert "a bug" in caplog.text
    assert [(row.attempts, row.owner) for row in outbox.waiting(sqlite)] == [(1, None)]


def test_letters_of_one_destination_are_handed_over_together(sqlite: Database) -> None:
    class Counting(Carrier):
        def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
            groups.append([rcpt for mail in mails for rcpt in mail.rcpt_tos])
            return super().hand_over_all(mails)

    groups: list[list[str]] = []
    carrier = Counting()
    for rcpt in ("ann@ex.org", "bob@ex.org", "eve@else.org", "joe@ex.org"):
        post(sqlite, carrier, rcpt)
    assert Outbox(sqlite, [carrier]).drain()
    assert groups == [["ann@ex.org", "bob@ex.org"], ["eve@else.org"], ["joe@ex.org"]]


@pytest.mark.parametrize("how", ["raises", "ends"])
def test_of_letters_together_one_breaks_the_relay_and_the_others_go_once(sqlite: Database, how: str) -> None:
    class Breaking(Carrier):
        def hand_over_all(self, mails: Sequence[Outgoing]) -> Iterator[dict[str, RelayError]]:
            for mail in mails:
                if mail.rcpt_tos == ("bob@ex.org",):
                    if how == "ends":
                        return
                    raise RuntimeError("a bug")
                yield self.hand_over(mail)

    carrier = Breaking()
    for name in ("ann", "bob", "eve", "joe"):
        post(sqlite, carrier, f"{name}@ex.org")
    assert Outbox(sqlite, [carrier]).drain()
    assert [mail.rcpt_tos for mail in carrier.tried] == [("ann@ex.org",), ("eve@ex.org",), ("joe@ex.org",)]
    assert [row.rcpt_to for row in outbox.waiting(sqlite)] == ["bob@ex.org"]


def test_of_letters_together_none_is_tried_after_the_way_has_failed(sqlite: Database) -> None:
    carrier = Carrier(answer=lambda rcpt: UNREACHABLE if rcpt == "bob@ex.org" else None)
    for name in ("ann", "bob", "eve", "joe"):
        post(sqlite, carrier, f"{name}@ex.org")
    assert Outbox(sqlite, [carrier]).drain()
    assert [mail.rcpt_tos for mail in carrier.tried] == [("ann@ex.org",), ("bob@ex.org",)]
    assert {row.rcpt_to: row.attempts for row in outbox.waiting(sqlite)} == {"bob@ex.org": 1, "eve@ex.org": 0, "joe@ex.org": 0}


def test_what_could_not_be_written_down_is_sent_again(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = Carrier()
    box = Outbox(sqlite, [carrier])
    post(sqlite, carrier, "ann@ex.org")
    monkeypatch.setattr(box, "_finish", lambda letters: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        box.drain()
    assert [row.owner for row in outbox.waiting(sqlite)] == [box.owner]
    monkeypatch.undo()
    assert box.drain()
    assert len(carrier.sent) == 2


def test_the_threads_survive_a_database_that_fails(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = threading.Event()
    carrier = Carrier(answer=lambda rcpt: sent.set())
    box = Outbox(sqlite, [carrier], poll=0.02)
    claim = box._claim
    calls = []

    def fail_at_first() -> list[Any]:
        calls.append(1)
        if len(calls) < 4:
            raise OSError("gone")
        return claim()

    monkeypatch.setattr(box, "_claim", fail_at_first)
    box.start()
    try:
        post(sqlite, carrier, "ann@ex.org")
        assert sent.wait(5)
    finally:
        box.stop()
    assert "tries again" in caplog.text


def test_claims_of_a_dead_process_are_freed_at_the_start(database: Database) -> None:
    carrier = Carrier()
    post(database, carrier, "ann@ex.org")
    show_pid = [sys.executable, "-c", "import os; print(os.getpid())"]
    gone = subprocess.run(show_pid, capture_output=True, text=True, check=True).stdout.strip()
    box = Outbox(database, [carrier])
    box._identify()
    host = box.owner.rsplit("/", 3)[0]
    ours = f"{host}/{os.getpid()}/1/x"  # its pid is ours by chance: it began at another time
    for owner, freed in ((f"{host}/{gone}/1/x", True), (ours, True), (box.owner, False), (f"{host}x/1/1/x", False)):
        with database.connected() as connection:
            connection.execute(sa.update(OutboxRow).values(owner=owner, lease=now() + 1000))
        box.recover()
        (row,) = outbox.waiting(database)
        assert (row.owner is None) == freed, owner
    assert carrier.tried == []


def test_a_process_of_another_container_with_our_name_may_live() -> None:
    assert outbox._alive(f"{socket.gethostname()}:1/{os.getpid()}/1/x")
    assert not outbox._alive(f"{outbox._machine()}/{os.getpid()}/1/x")


def test_a_process_that_nobody_has_buried_is_dead() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        owner = f"{outbox._machine()}/{process.pid}/{outbox._started(process.pid)}/x"
        assert outbox._alive(owner)
        assert process.stdin
        process.stdin.close()
        wait_until(lambda: not outbox._alive(owner))
        assert process.returncode is None


def test_a_lease_that_ended_is_taken_over_and_a_renewed_one_is_not(database: Database) -> None:
    carrier = Carrier()
    post(database, carrier, "ann@ex.org")
    with database.connected() as connection:
        connection.execute(sa.update(OutboxRow).values(owner="other/1/1/1", lease=now() + 1000))
    box = Outbox(database, [carrier])
    assert box.drain()
    assert carrier.tried == []
    with database.connected() as connection:
        connection.execute(sa.update(OutboxRow).values(lease=now() - 1))
    assert box.drain()
    assert len(carrier.sent) == 1


def test_a_push_that_was_committed_and_not_renamed_is_finished(sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(str(tmp_path / "posts"))
    monkeypatch.setattr(HeldPush, "finish", lambda push: None)  # the process dies right after its commit
    with begin(sqlite.states):
        key = queue.push(MAIL)
    monkeypatch.undo()
    assert queue.keys() == []
    Outbox(sqlite, []).recover()
    assert queue.keys() == [key]
    with begin(sqlite.states):
        queue.push(MAIL)
    assert count(sqlite, PushRow) == 1


def test_purge_forgets_expired_receipts_and_orphaned_bytes(sqlite: Database) -> None:
    for id, seconds in (("old", -1), ("new", 60)):
        with begin(sqlite.states) as held:
            held.hold_receipt(id, reply(250), seconds)
    with sqlite.transaction() as session:
        session.add(Message(id="orphan", data=b"x"))
    Outbox(sqlite, []).purge()
    assert (count(sqlite, Receipt), count(sqlite, Message)) == (1, 0)


def test_meddling_from_the_command_line(sqlite: Database) -> None:
    carrier = Carrier()
    post(sqlite, carrier, "ann@ex.org", "bob@ex.org")
    assert outbox.park(sqlite, "ann@ex.org") == 1
    Outbox(sqlite, [carrier]).drain()
    assert [mail.rcpt_tos for mail in carrier.sent] == [("bob@ex.org",)]
    assert [row.rcpt_to for row in outbox.waiting(sqlite, "ann@ex.org")] == ["ann@ex.org"]
    assert outbox.park(sqlite, "ann@ex.org", parked=False) == 1
    assert outbox.remove(sqlite, "eve@ex.org") == 0
    assert outbox.remove(sqlite, "ann@ex.org") == 1
    assert (count(sqlite, OutboxRow), count(sqlite, Message)) == (0, 0)


def test_an_undeliverable_queue_that_fails_has_nothing_sent_twice(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = Carrier(answer=lambda rcpt: REFUSED if rcpt == "gone@ex.org" else None)
    queue = Queue(str(tmp_path / "undeliverable"))
    post(sqlite, carrier, "ann@ex.org", "gone@ex.org")
    post(sqlite, carrier, "bob@ex.org")

    def full(*args: Any, **more: Any) -> str:
        raise QueueError("full") from OSError(28, "full")

    monkeypatch.setattr(queue, "push", full)
    assert Outbox(sqlite, [carrier], queue).drain()
    assert [mail.rcpt_tos for mail in carrier.sent] == [("ann@ex.org",), ("bob@ex.org",)]
    (row,) = outbox.waiting(sqlite)
    assert (row.rcpt_to, row.attempts, row.owner, row.reply) == ("gone@ex.org", 1, None, "550 5.1.1 no such user")
    monkeypatch.undo()
    outbox.retry(sqlite)
    assert Outbox(sqlite, [carrier], queue).drain()
    assert queue.count() == 1
    assert not outbox.waiting(sqlite)


def test_what_was_sent_is_written_down_whatever_becomes_of_the_rest(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = Carrier(answer=lambda rcpt: LATER if rcpt == "ann@ex.org" else None)
    box = Outbox(sqlite, [carrier])
    post(sqlite, carrier, "ann@ex.org", "bob@ex.org")
    monkeypatch.setattr(box, "_postpone", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        box.drain()
    assert [(row.rcpt_to, row.owner) for row in outbox.waiting(sqlite)] == [("ann@ex.org", box.owner)]
    monkeypatch.undo()
    box.drain()
    assert [mail.rcpt_tos for mail in carrier.tried] == [("ann@ex.org", "bob@ex.org"), ("ann@ex.org",)]


def test_mail_whose_bytes_are_missing_holds_up_no_other(sqlite: Database, tmp_path: Path) -> None:
    carrier = Carrier()
    queue = Queue(str(tmp_path / "undeliverable"))
    post(sqlite, carrier, "ann@ex.org", mail_from="")
    with sqlite.transaction() as session:
        session.execute(sa.delete(Message))
    post(sqlite, carrier, "bob@ex.org")
    assert Outbox(sqlite, [carrier], queue).drain()
    assert [mail.rcpt_tos for mail in carrier.sent] == [("bob@ex.org",)]
    envelope = queue.envelope(queue.keys()[0])
    assert envelope
    assert envelope["reason"] == "ann@ex.org: 554 5.3.0 its bytes are missing from the database"


def test_of_large_messages_one_at_a_time_is_in_memory(database: Database, tmp_path: Path) -> None:
    """Twenty of 32 MB for each of four senders would end the process, and its successor at the same place."""
    large = MAIL + b"x" * (4 * 1024 * 1024)
    carrier = Carrier(answer=lambda rcpt: REFUSED if rcpt == "gone@ex.org" else None)
    carrier.hand_over = lambda mail: (sizes.append(len(mail.data)), Carrier.hand_over(carrier, Outgoing("", mail.rcpt_tos, b"")))[1]  # type: ignore[method-assign]
    sizes: list[int] = []
    queue = Queue(str(tmp_path / "undeliverable"))
    for number in range(8):
        post(database, carrier, f"ann{number}@ex.org", data=large)
    post(database, carrier, "gone@ex.org", data=large)
    tracemalloc.start()
    try:
        assert Outbox(database, [carrier], queue, batch=8)._send_batch() == 8
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [len(large)] * 8
    assert most < 4 * len(large)
    assert Outbox(database, [carrier], queue).drain()
    kept = queue.get(queue.keys()[0])
    assert kept
    assert kept.raw == large


def test_senders_pause_destinations_while_others_look(sqlite: Database) -> None:
    """One look used to fail when a destination was added meanwhile, and what had been sent just before was sent again."""
    box, over = Outbox(sqlite, []), threading.Event()
    failed: list[RuntimeError] = []

    def look() -> None:
        while not over.is_set():
            try:
                box._paused_now()
            except RuntimeError as error:
                failed.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=look) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for number in range(3000):
            box._pause(("default", f"{number % 400}.example"), 0.01)
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for thread in threads:
            thread.join()
    assert not failed
