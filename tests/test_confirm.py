"""Confirmation: one question, one answer, once, in time; and all of it part of the delivery."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import sqlalchemy as sa

from lamson import confirm, delivery, view
from lamson.confirm import ConfirmationEngine, ConfirmationStorage, SQLAlchemyConfirmationStorage
from lamson.database import Confirmation, Database
from lamson.errors import Conflict
from lamson.mail import MailRequest, MailResponse
from lamson.queue import Queue
from lamson.relay import QueueRelay
from tests import databases

ANN, TARGET = "ann@example.com", "list-subscribe"
SENT = f"From: Ann <{ANN}>\r\nTo: list@test.com\r\nSubject: Me too\r\nMessage-ID: <1@x>\r\n\r\nPlease.\r\n".encode()


def request(data: bytes = SENT, sender: str | None = ANN) -> MailRequest:
    return MailRequest("127.0.0.1", sender, "list@test.com", data)


@pytest.fixture(params=["memory", *databases.KINDS])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ConfirmationStorage]:
    if request.param == "memory":
        yield ConfirmationStorage()
        return
    with databases.opened(request.param, tmp_path) as database:
        yield SQLAlchemyConfirmationStorage(database)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    with databases.opened("sqlite", tmp_path) as database:
        yield database


@pytest.fixture
def engine(storage: ConfirmationStorage, tmp_path: Path) -> ConfirmationEngine:
    return ConfirmationEngine(str(tmp_path / "pending"), storage)


def secret_of(local: str) -> str:
    found = re.fullmatch(rf"{TARGET}-confirm-([a-z2-7]{{26}})", local)
    assert found, local
    return found[1]


# -- storages


def test_a_storage_gets_what_was_stored(storage: ConfirmationStorage) -> None:
    assert storage.get("t", ANN) == (None, None)
    assert storage.store("t", ANN, "s", "1") is None
    assert storage.store("t", "bob@example.com", "s2", None) is None
    assert storage.get("t", ANN) == ("s", "1")
    assert storage.store("t", ANN, "s3", "2") == "1"
    assert storage.get("t", ANN) == ("s3", "2")
    assert storage.get("other", ANN) == (None, None)
    assert storage.delete("t", ANN) is True
    assert storage.delete("t", ANN) is False
    assert storage.get("t", "bob@example.com") == ("s2", None)
    storage.clear()
    assert storage.get("t", "bob@example.com") == (None, None)


def test_what_is_too_old_is_not_found_and_is_purged(storage: ConfirmationStorage) -> None:
    storage.store("t", ANN, "s", "1", seconds=-1)
    storage.store("t", "bob@example.com", "s", None, seconds=-1)
    storage.store("t", "eve@example.com", "s", "3", seconds=60)
    assert storage.get("t", ANN) == (None, None)
    assert storage.purge() == ["1"]
    assert storage.purge() == []
    assert storage.get("t", "eve@example.com") == ("s", "3")
    assert storage.delete("t", ANN) is False


def test_two_storages_share_nothing_unless_told_to() -> None:
    ConfirmationStorage().store("t", ANN, "s", "1")
    assert ConfirmationStorage().get("t", ANN) == (None, None)
    db: dict[Any, Any] = {}
    ConfirmationStorage(db).store("t", ANN, "s", "1")
    assert ConfirmationStorage(db).get("t", ANN) == ("s", "1")


# -- the engine


def test_the_right_secret_gives_the_message_once(engine: ConfirmationEngine) -> None:
    secret = secret_of(engine.register(TARGET, request()))
    assert engine.pending.count() == 1
    for target, sender, tried in [
        (TARGET, ANN, "0" * 32),
        (TARGET, ANN, ""),
        (TARGET, ANN, "é\udce9"),
        (TARGET, "bob@example.com", secret),
        ("other", ANN, secret),
        (TARGET, "", secret),
    ]:
        assert engine.verify(target, sender, tried) is None
    found = engine.verify(TARGET, f"Ann <{ANN.upper()}>", secret.upper())
    assert found is not None
    assert bytes(found) == SENT
    assert found.route_from == ANN
    assert engine.verify(TARGET, ANN, secret) is None
    assert engine.pending.count() == 0


def test_a_target_that_leaves_no_room_for_the_secret_is_refused_and_nothing_is_kept(engine: ConfirmationEngine) -> None:
    assert len(engine.register("t" * 29, request())) == 64
    with pytest.raises(ValueError, match="too long for an address that confirms it: 29 octets at most"):
        engine.register("t" * 30, request())
    assert engine.pending.count() == 1


def test_a_second_question_replaces_the_first(engine: ConfirmationEngine) -> None:
    first = secret_of(engine.register(TARGET, request()))
    second = secret_of(engine.register(TARGET, request()))
    assert first != second
    assert engine.pending.count() == 1
    assert engine.verify(TARGET, ANN, first) is None
    assert engine.verify(TARGET, ANN, second) is not None


def test_cancelling_takes_the_secret(engine: ConfirmationEngine) -> None:
    secret = secret_of(engine.register(TARGET, request()))
    engine.cancel(TARGET, ANN, "wrong")
    assert engine.pending.count() == 1
    engine.cancel(TARGET, ANN, secret)
    assert engine.pending.count() == 0
    assert engine.verify(TARGET, ANN, secret) is None


def test_an_answer_that_comes_too_late_is_none(storage: ConfirmationStorage, tmp_path: Path) -> None:
    engine = ConfirmationEngine(Queue(tmp_path / "pending"), storage, seconds=-1)
    secret = secret_of(engine.register(TARGET, request()))
    assert engine.verify(TARGET, ANN, secret) is None
    assert engine.pending.count() == 1
    assert engine.purge() == 1
    assert engine.pending.count() == 0
    assert engine.purge() == 0


def test_what_was_removed_meanwhile_is_no_error(engine: ConfirmationEngine) -> None:
    secret = secret_of(engine.register(TARGET, request()))
    engine.pending.clear()
    assert engine.verify(TARGET, ANN, secret) is None
    engine.delete_pending("no such key")
    engine.delete_pending(None)
    assert engine.get_pending("no such key") is None


def test_clear(engine: ConfirmationEngine) -> None:
    secret = secret_of(engine.register(TARGET, request()))
    engine.clear()
    assert engine.pending.count() == 0
    assert engine.verify(TARGET, ANN, secret) is None


@pytest.mark.parametrize("sender", ["", "<>"])
def test_nobody_cannot_be_asked(sender: str, tmp_path: Path) -> None:
    engine = ConfirmationEngine(str(tmp_path), ConfirmationStorage())
    with pytest.raises(ValueError, match="sender"):
        engine.register(TARGET, request(sender=sender))


def test_the_secret_itself_is_kept_nowhere(sqlite: Database, tmp_path: Path) -> None:
    engine = ConfirmationEngine(str(tmp_path / "pending"), SQLAlchemyConfirmationStorage(sqlite))
    secret = secret_of(engine.register(TARGET, request()))
    kept, _ = engine.storage.get(TARGET, ANN)
    assert kept is not None
    assert secret not in kept
    assert len(secret) * 5 >= 128, "base32 has 5 bits a character"


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compared = []
    monkeypatch.setattr(confirm.hmac, "compare_digest", lambda one, other: compared.append((one, other)) or one == other)
    engine = ConfirmationEngine(str(tmp_path), ConfirmationStorage())
    secret = secret_of(engine.register(TARGET, request()))
    engine.verify(TARGET, "nobody@example.com", secret)
    assert engine.verify(TARGET, ANN, secret) is not None
    assert len(compared) == 2  # for an address that nobody asked as well


def test_of_many_answers_at_once_one_is_taken(storage: ConfirmationStorage, tmp_path: Path) -> None:
    engine = ConfirmationEngine(str(tmp_path / "pending"), storage)
    secret = secret_of(engine.register(TARGET, request()))
    together, taken = threading.Barrier(4), []

    def answer() -> None:
        together.wait(10)
        taken.append(engine.verify(TARGET, ANN, secret))

    threads = [threading.Thread(target=answer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len([message for message in taken if message is not None]) == 1


# -- the question


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> str:
    templates = {"confirm.msg": "Please answer, {{ message['From'] }}: {{ confirm_address }}\n"}
    monkeypatch.setattr(view, "LOADER", jinja2.Environment(loader=jinja2.DictLoader(templates), undefined=jinja2.StrictUndefined))
    return "confirm.msg"


def test_the_sender_is_asked(engine: ConfirmationEngine, template: str, tmp_path: Path) -> None:
    relay, message = QueueRelay(tmp_path / "sent"), request()
    question = engine.send(relay, TARGET, message, template, {"host": "test.com", "message": message})
    assert isinstance(question, MailResponse)
    _, sent = relay.queue.pop()
    assert sent is not None
    assert sent["To"] == ANN
    assert sent["From"] == sent["Reply-To"]
    assert sent["Auto-Submitted"] == "auto-replied"
    local = (sent["From"] or "").removesuffix("@test.com")
    assert local in sent.text
    assert engine.verify(TARGET, ANN, secret_of(local)) is not None


@pytest.mark.parametrize(
    "message",
    [request(b"Auto-Submitted: auto-replied\r\n" + SENT), request(b"List-Id: <x>\r\n" + SENT), request(sender=""), request(b"\r\n", None)],
)
def test_robots_are_not_asked(message: MailRequest, template: str, tmp_path: Path) -> None:
    engine, relay = ConfirmationEngine(str(tmp_path / "pending"), ConfirmationStorage()), QueueRelay(tmp_path / "sent")
    assert engine.send(relay, TARGET, message, template, {"host": "test.com"}) is None
    assert (engine.pending.count(), relay.queue.count()) == (0, 0)


# -- part of the delivery


def begin(database: Database) -> delivery.Delivery:
    return delivery.begin(database.states, "list@test.com", ANN)


def confirmations(database: Database) -> int:
    with database.transaction() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Confirmation)) or 0


def test_a_delivery_that_fails_has_asked_nobody(sqlite: Database, template: str, tmp_path: Path) -> None:
    engine = ConfirmationEngine(str(tmp_path / "pending"), SQLAlchemyConfirmationStorage(sqlite))
    relay = QueueRelay(tmp_path / "sent")
    with pytest.raises(RuntimeError), begin(sqlite):
        engine.send(relay, TARGET, request(), template, {"host": "test.com", "message": request()})
        raise RuntimeError
    assert (confirmations(sqlite), engine.pending.count(), relay.queue.count()) == (0, 0, 0)


def test_a_delivery_that_fails_has_used_up_no_secret(sqlite: Database, tmp_path: Path) -> None:
    engine = ConfirmationEngine(str(tmp_path / "pending"), SQLAlchemyConfirmationStorage(sqlite))
    with begin(sqlite):
        secret = secret_of(engine.register(TARGET, request()))
    with pytest.raises(RuntimeError), begin(sqlite):
        assert engine.verify(TARGET, ANN, secret) is not None
        assert engine.verify(TARGET, ANN, secret) is None
        raise RuntimeError
    with begin(sqlite) as held:
        found = engine.verify(TARGET, ANN, secret)
        assert found is not None
        assert engine.pending.count() == 1
    held.call_after_commit()
    assert (confirmations(sqlite), engine.pending.count()) == (0, 0)


def test_a_vacation_message_confirms_nothing_and_uses_up_nothing(sqlite: Database, tmp_path: Path) -> None:
    engine = ConfirmationEngine(str(tmp_path / "pending"), SQLAlchemyConfirmationStorage(sqlite))
    secret = secret_of(engine.register(TARGET, request()))
    with begin(sqlite) as held:
        held.message = request(b"Auto-Submitted: auto-replied\r\n" + SENT)
        assert engine.verify(TARGET, ANN, secret) is None
    with begin(sqlite) as held:
        held.message = request()
        assert engine.verify(TARGET, ANN, secret) is not None


def test_asking_twice_in_one_delivery_leaves_one_message(sqlite: Database, tmp_path: Path) -> None:
    engine = ConfirmationEngine(str(tmp_path / "pending"), SQLAlchemyConfirmationStorage(sqlite))
    with begin(sqlite):
        engine.register(TARGET, request())
        secret = secret_of(engine.register(TARGET, request()))
    assert engine.pending.count() == 1
    assert engine.verify(TARGET, ANN, secret) is not None


def test_it_takes_part_in_a_transaction_of_ones_own(sqlite: Database, tmp_path: Path) -> None:
    storage = SQLAlchemyConfirmationStorage(sqlite)
    with pytest.raises(RuntimeError), sqlite.transaction():
        storage.store("t", ANN, "s", "1")
        raise RuntimeError
    assert storage.get("t", ANN) == (None, None)


def test_another_process_that_asks_the_same_is_a_conflict(sqlite: Database) -> None:
    storage = SQLAlchemyConfirmationStorage(sqlite)
    storage.store("t", ANN, "s", "1")
    with pytest.raises(Conflict), sqlite.joined() as session:
        storage._add(session, target="t", from_address=ANN, secret="s", pending_id=None, expires=0.0)
