"""The filter: spam goes into the queue as part of the delivery, the rest reaches the handler, and nothing that breaks does."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lamson import delivery
from lamson.database import Database
from lamson.errors import ConfigError, ScorerError, SMTPError
from lamson.mail import MailRequest
from lamson.queue import Queue
from lamson.routing import RoutingBase
from lamson.scorer import Scorer, Verdict
from lamson.spam import Filter, spam_filter
from tests import databases

ANN = "ann@example.com"
HAM = "Shall we meet on Thursday to look at the drawings of the bridge? The engineers have questions about number {}."
SPAM = "Buy cheap pills now! Limited offer, click http://pills.example/{} and win a free casino bonus today."


def request(text: str = "Hello", sender: str = ANN, number: int = 0) -> MailRequest:
    subject = "cheap pills!" if "pills" in text else "the bridge"
    head = f"From: <{sender}>\r\nTo: post@test.com\r\nSubject: {subject}\r\nMessage-ID: <{number}@example.com>\r\n"
    return MailRequest("127.0.0.1", sender, "post@test.com", f"{head}\r\n{text.format(number)}\r\n".encode())


def train(judge: Filter, number: int = 12) -> None:
    for each in range(number):
        judge.train_ham(request(HAM, number=each))
        judge.train_spam(request(SPAM, number=each))


class Fixed(Scorer):
    """A scorer that always says the same, or nothing."""

    name = "fixed"

    def __init__(self, says: Verdict | Exception) -> None:
        self.says = says

    def score(self, message: MailRequest) -> Verdict:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with databases.opened("sqlite", tmp_path) as opened:
        yield opened


@pytest.fixture
def app(router: RoutingBase, database: Database) -> RoutingBase:
    router.STATE_STORE = database.states
    return router


def fixed(label: Any, score: float = 0.5) -> dict[str, Any]:
    return {"scorer": Fixed(Verdict(label, score, ("because",), "fixed"))}


# -- in the delivery


def handlers(app: RoutingBase, config: dict[str, Any], queue: Queue, database: Database | None = None) -> list[Any]:
    """A machine of two states, and what its functions were called with."""
    seen: list[Any] = []

    @app.route("(name)@(host)", name="[a-z]+", host="test.com")
    def SPAMMING(message: MailRequest, name: str, host: str) -> None:
        seen.append(("SPAMMING", name))

    @app.route("(name)@(host)", name="[a-z]+", host="test.com")
    @spam_filter(database, config, queue, next_state=SPAMMING)
    def START(message: MailRequest, name: str, host: str) -> None:
        seen.append(("START", name, message.verdict.label if message.verdict is not None else None))

    return seen


def test_spam_goes_into_the_queue_with_its_reason_and_moves_the_sender(app: RoutingBase, database: Database, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "spam")
    seen = handlers(app, {}, queue, database)
    train(Filter(database))
    app.deliver(request(HAM, number=90))
    assert seen == [("START", "post", "ham")]
    assert queue.count() == 0
    app.deliver(request(SPAM, number=91))
    (key,) = queue.keys()
    kept = queue.get(key)
    assert kept is not None
    assert bytes(kept) == bytes(request(SPAM, number=91))
    reason = (queue.envelope(key) or {})["reason"]
    assert reason.startswith("spam, 1.000 by bayes: ")
    assert "pills" in reason
    assert app.get_state(__name__, request()) == "SPAMMING"
    app.deliver(request(HAM, number=92))
    assert seen[-1] == ("SPAMMING", "post")


@pytest.mark.parametrize("kind", databases.KINDS)
def test_it_learns_and_judges_on_every_database(kind: str, tmp_path: Path) -> None:
    with databases.opened(kind, tmp_path) as opened:
        judge = Filter(opened)
        train(judge)
        assert judge.filter(request(SPAM, number=90)).label == "spam"
        assert judge.filter(request(HAM, number=91)).label == "ham"


def test_a_delivery_that_fails_leaves_no_spam_behind(app: RoutingBase, database: Database, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "spam")
    guarded = spam_filter(database, fixed("spam"), queue)(lambda message: None)
    with pytest.raises(RuntimeError), delivery.begin(database.states, "post@test.com", ANN):
        guarded(request())
        raise RuntimeError
    assert queue.count() == 0


def test_without_a_next_state_the_sender_stays(tmp_path: Path) -> None:
    guarded = spam_filter(None, fixed("spam"), str(tmp_path / "spam"))(lambda message: "handled")
    assert guarded(request()) is None
    assert Queue(tmp_path / "spam").count() == 1


@pytest.mark.parametrize("label", ["ham", "unsure"])
def test_what_is_not_spam_reaches_the_handler_with_its_verdict(label: str, tmp_path: Path) -> None:
    guarded = spam_filter(None, fixed(label), tmp_path / "spam")(lambda message, host: (message.verdict.label, host))
    assert guarded(request(), host="x") == (label, "x")
    assert Queue(tmp_path / "spam").count() == 0


def test_the_null_sender_is_filtered_and_has_no_state(app: RoutingBase, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "spam")
    handlers(app, fixed("spam"), queue)
    (outcome,) = app.deliver(request(sender=""))
    assert outcome.reply.ok
    assert queue.count() == 1


def test_the_function_stays_what_it_was_for_the_router(app: RoutingBase, tmp_path: Path) -> None:
    seen: list[str] = []

    @app.route("(name)@test.com", name="[a-z]+")
    @spam_filter(None, fixed("ham"), tmp_path / "spam")
    @app.stateless
    def LOG(message: MailRequest, name: str) -> None:
        seen.append(f"LOG {name}")

    @app.route_like(LOG)
    @app.nolocking
    @spam_filter(None, fixed("ham"), tmp_path / "spam")
    def START(message: MailRequest, **captures: str) -> None:
        seen.append(f"START {captures['name']}")

    assert [(route.name, route.stateless, route.locking) for route in app.routes] == [("LOG", True, False), ("START", False, False)]
    assert list(inspect.signature(LOG).parameters) == ["message", "name"]
    assert "LOG" in LOG.__qualname__
    app.deliver(request())
    assert seen == ["LOG post", "START post"]


def test_a_decorator_above_the_route_works_as_well(app: RoutingBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(tmp_path / "spam")

    @app.route("post@test.com")
    def ABOVE(message: MailRequest) -> None:
        raise AssertionError("spam reached the handler")

    ABOVE.__qualname__ = "ABOVE"
    monkeypatch.setitem(globals(), "ABOVE", spam_filter(None, fixed("spam"), queue)(ABOVE))
    app.STATE_STORE.set(__name__, ANN, "ABOVE")
    (outcome,) = app.deliver(request())
    assert (outcome.reply.ok, queue.count()) == (True, 1)


# -- a scorer that gives no answer


def test_a_scorer_that_is_gone_lets_mail_pass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = {"scorer": Fixed(ScorerError("nobody is there"))}
    guarded = spam_filter(None, gone, tmp_path / "spam")(lambda message: message.verdict)
    found = guarded(request())
    assert (found.label, found.reasons) == ("unsure", ("nobody is there",))
    assert "so the message passes: nobody is there" in caplog.text


def test_or_has_the_client_try_again(app: RoutingBase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue = Queue(tmp_path / "spam")
    seen = handlers(app, {"scorer": Fixed(ScorerError("nobody is there")), "unreachable": "defer"}, queue)
    with pytest.raises(SMTPError) as refusal:
        app.deliver(request())
    assert refusal.value.code == 451
    assert "nobody" not in refusal.value.reply.text
    assert ("lamson.spam", logging.WARNING, "no verdict of fixed, so the message is to come again: nobody is there") in caplog.record_tuples
    assert (seen, queue.count()) == ([], 0)


# -- training in a delivery


def test_training_in_a_delivery_is_part_of_it(database: Database) -> None:
    judge = Filter(database, {"least": 1})
    with pytest.raises(RuntimeError), delivery.begin(database.states, "post@test.com", ANN):
        judge.train_spam(request(SPAM))
        judge.train_ham(request(HAM))
        assert judge.filter(request(SPAM, number=5)).label == "spam"
        raise RuntimeError
    assert judge.filter(request(SPAM, number=5)).label == "unsure"
    with delivery.begin(database.states, "post@test.com", ANN):
        judge.train_spam(request(SPAM))
        judge.train_ham(request(HAM))
    assert judge.filter(request(SPAM, number=5)).label == "spam"


def test_training_in_a_delivery_of_another_database_waits_for_its_commit(database: Database, tmp_path: Path) -> None:
    judge = Filter(tmp_path / "spam.db", {"least": 1})
    judge.train_ham(request(HAM))
    with pytest.raises(RuntimeError), delivery.begin(database.states, "post@test.com", ANN):
        judge.train_spam(request(SPAM))
        raise RuntimeError
    with delivery.begin(database.states, "post@test.com", ANN) as held:
        judge.train_spam(request(SPAM))
        assert judge.filter(request(SPAM, number=5)).label == "unsure"
    assert judge.filter(request(SPAM, number=5)).label == "unsure"
    held.call_after_commit()
    assert judge.filter(request(SPAM, number=5)).label == "spam"
    judge.scorer.close()


def test_untraining_takes_back_what_was_learnt_so_and_nothing_else(database: Database) -> None:
    judge = Filter(database, {"least": 1})
    judge.train_ham(request(HAM))
    judge.train_spam(request(SPAM))
    judge.untrain_ham(request(SPAM))
    assert judge.filter(request(SPAM, number=5)).label == "spam"
    judge.untrain_spam(request(SPAM))
    assert judge.filter(request(SPAM, number=5)).label == "unsure"
    judge.untrain_ham(request(HAM))
    assert judge.scorer.learnt() == (0, 0)  # type: ignore[attr-defined]


def test_what_a_person_took_out_of_the_queue_passes(app: RoutingBase, database: Database, tmp_path: Path) -> None:
    """However much it looks like spam: it was learnt as ham, and the next like it are judged by their words."""
    queue = Queue(tmp_path / "spam")
    seen = handlers(app, {}, queue, database)
    train(Filter(database), 30)
    app.deliver(request(SPAM, number=91))
    (key,) = queue.keys()
    kept = queue.get(key)
    assert kept is not None
    Filter(database).train_ham(kept)
    app.STATE_STORE.set(__name__, ANN, "START")
    app.deliver(kept)
    assert seen == [("START", "post", "ham")]
    app.STATE_STORE.set(__name__, ANN, "START")
    app.deliver(request(SPAM, number=92))
    assert (len(seen), queue.count()) == (1, 2)


# -- settings


def test_what_a_storage_may_be(database: Database, tmp_path: Path) -> None:
    for storage in (database, f"sqlite:///{tmp_path}/url.db", str(tmp_path / "path.db"), tmp_path / "path.db"):
        judge = Filter(storage)
        judge.train_ham(request(HAM))
        assert judge.filter(request(HAM)).label == "ham"
        judge.scorer.close()
    assert (tmp_path / "path.db").exists()


def test_as_1x_applications_have_it(run_folder: Path, app: RoutingBase, caplog: pytest.LogCaptureFixture) -> None:
    """Three names of files, the second of which need not be there."""
    names = {"db": "run/spamdb", "rc": "run/spamrc", "queue": "run/spam"}
    seen: list[str] = []

    @app.route("post@(host)", host=".+")
    def SPAMMING(message: MailRequest, host: str | None = None) -> None:
        seen.append("SPAMMING")

    @app.route("post@(host)", host=".+")
    @spam_filter(names["db"], names["rc"], names["queue"], next_state=SPAMMING)
    def START(message: MailRequest, host: str | None = None) -> None:
        seen.append("START")

    judge = Filter(names["db"], names["rc"])
    train(judge)
    app.deliver(request(HAM, number=90))
    app.deliver(request(SPAM, number=91))
    app.deliver(request(HAM, number=92))
    assert (seen, Queue("run/spam").count()) == (["START", "SPAMMING"], 1)
    judge.scorer.close()


def test_a_file_of_spambayes_is_named(tmp_path: Path) -> None:
    (tmp_path / "spamdb").write_bytes(b"\x80\x02}q\x00" * 2000)
    with pytest.raises(ConfigError, match=r"spamdb.*SpamBayes"):
        Filter(tmp_path / "spamdb")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"scorer": "bogofilter"}, '"bayes"'),
        ({"scorer": 5}, "an object with a method `score`"),
        ({"cutoff": 3}, '"spam_cutoff"'),
        ({"ham_cutoff": 0.9, "spam_cutoff": 0.1}, "the first is the smaller"),
        ({"ham_cutoff": "low"}, "wrong"),
        ({"least": "ten"}, "'least' is wrong: 'ten' is no number"),
        ({"scorer": "rspamd", "seconds": -1}, "'seconds' is wrong: -1 is no number from 0 on"),
        ({"scorer": "spamd", "seconds": "nan"}, "'seconds' is wrong"),
        ({"scorer": "spamd", "port": None}, "'port' is wrong: None is no number"),
        ({"scorer": "spamd", "socket": 783}, "'socket' is wrong: 783 is no text"),
        ({"scorer": "spamd", "user": "two words"}, "no user's name"),
        ({"scorer": "rspamd", "url": "localhost"}, "no URL of rspamd"),
        ({"unreachable": "ignore"}, '"defer"'),
        ({"scorer": Fixed(Verdict("ham", 0)), "spam_cutoff": 0.9}, "spam_cutoff"),
    ],
)
def test_settings_that_are_wrong(config: dict[str, Any], says: str, database: Database) -> None:
    with pytest.raises(ConfigError, match=says):
        Filter(database, config)


def test_nowhere_to_keep_it() -> None:
    with pytest.raises(ConfigError, match=r"settings\.database"):
        Filter(None)


def test_a_settings_file(database: Database, tmp_path: Path) -> None:
    rc = tmp_path / "spamrc"
    rc.write_text("[Headers]\ninclude_score: True\n[Categorization]\nham_cutoff: 0.10\nspam_cutoff = 0.99\n[lamson]\nleast = 3\n")
    scorer: Any = Filter(database, str(rc)).scorer
    assert (scorer.ham_cutoff, scorer.spam_cutoff, scorer.least) == (0.1, 0.99, 3)


def test_a_password_of_digits_in_a_settings_file(tmp_path: Path) -> None:
    (tmp_path / "spamrc").write_text("[lamson]\nscorer = rspamd\npassword = 007\nseconds = 2\n")
    scorer: Any = Filter(None, tmp_path / "spamrc").scorer
    assert (scorer.password, scorer.seconds) == ("007", 2.0)


def test_a_settings_file_that_is_not_there_is_warned_of(database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Filter(database, tmp_path / "spamrc")
    assert "spamrc is not there" in caplog.text


def test_a_settings_file_that_is_none(database: Database, tmp_path: Path) -> None:
    (tmp_path / "spamrc").write_text("ham_cutoff: 0.10\n")
    with pytest.raises(ConfigError, match="spamrc"):
        Filter(database, tmp_path / "spamrc")
