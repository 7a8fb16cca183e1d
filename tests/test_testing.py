"""The tools for an application's tests, tried on a small application; what they say when a test fails is tested as well."""

from __future__ import annotations

import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lamson import testing
from lamson.errors import SMTPError
from lamson.mail import MailResponse
from lamson.queue import Queue
from lamson.relay import QueueRelay
from lamson.routing import Router, RoutingBase
from lamson.server import SMTPReceiver
from lamson.state import MemoryStorage

HERE = sys.modules[__name__]


@pytest.fixture(autouse=True)
def in_run_folder(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(testing, "TEST_QUEUE", "run/testing")
    return run_folder


@pytest.fixture
def application(router: RoutingBase) -> RoutingBase:
    """Asks, then welcomes; its answers go into TEST_QUEUE."""
    relay = QueueRelay("run/testing")

    def START(message: Any) -> Any:
        answer(relay, message, "Please confirm that you are {}", "Confirm: Jöe")
        return CONFIRMING

    def CONFIRMING(message: Any) -> Any:
        answer(relay, message, "Welcome, {}!", "Welcome")

    def REFUSING(message: Any) -> None:
        raise SMTPError(550, "not you")

    def BROKEN(message: Any) -> None:
        raise ValueError("a fault in the handler")

    for function, address in ((START, "list@test\\.com"), (CONFIRMING, "list@test\\.com")):
        router.route(address)(function)
    router.route("refuse@test\\.com")(router.stateless(REFUSING))
    router.route("broken@test\\.com")(router.stateless(BROKEN))
    return router


def answer(relay: QueueRelay, message: Any, text: str, subject: str) -> None:
    relay.deliver(MailResponse(To=message.route_from, From="list@test.com", Subject=subject, Body=text.format(message.route_from)))


def client(application: RoutingBase, From: str = "joe@example.com") -> testing.RouterConversation:
    return testing.RouterConversation(From, "My subject", router=application)


# -- conversations


def test_a_conversation(application: RoutingBase) -> None:
    joe = client(application)
    joe.begin()
    asked = joe.say("list@test.com", "May I?", expect="confirm that you are joe@example")
    assert asked is not None
    assert asked["from"] == "list@test.com"
    welcomed = joe.say(asked["from"], "Yes", expect="Welcome, joe", Subject="Re: confirm")
    assert welcomed is not None
    assert welcomed["subject"] == "Welcome"


def test_say_finds_what_a_reader_sees(application: RoutingBase) -> None:
    joe = client(application)
    assert joe.say("list@test.com", "x", expect="^Subject: Confirm: Jöe$") is not None


def test_say_without_expect_returns_the_answer_to_this_person(application: RoutingBase) -> None:
    joe = client(application, "Joe@Example.com")
    QueueRelay("run/testing").deliver(MailResponse(To="joe@example.com", From="x@test.com", Subject="old", Body="old"))
    found = joe.say("list@test.com", "May I?")
    assert found is not None
    assert "confirm" in found.body()


def test_say_looks_at_new_messages_only(application: RoutingBase) -> None:
    joe = client(application)
    joe.say("list@test.com", "May I?", expect="Please confirm")
    with pytest.raises(AssertionError, match="expected an answer with 'Please confirm'"):
        joe.say("list@test.com", "May I?", expect="Please confirm")


def test_what_say_tells_when_another_answer_came(application: RoutingBase) -> None:
    with pytest.raises(AssertionError) as raised:
        client(application).say("list@test.com", "May I?", expect="Hooray")
    told = str(raised.value)
    assert "joe@example.com wrote to list@test.com and expected an answer with 'Hooray'." in told
    assert "to joe@example.com, subject 'Confirm: Jöe': 'Please confirm that you are joe@example.com'" in told
    assert "START ran" in told


def test_what_say_tells_when_the_handler_failed(application: RoutingBase, caplog: pytest.LogCaptureFixture) -> None:
    application.UNDELIVERABLE_QUEUE = Queue("run/undeliverable")
    with pytest.raises(AssertionError) as raised:
        client(application).say("broken@test.com", "x", expect="x")
    assert "Nothing came in run/testing." in str(raised.value)
    assert "For broken@test.com it ended with ValueError: a fault in the handler; the reply was 250" in str(raised.value)
    assert isinstance(raised.value.__cause__, ValueError)
    assert "kept as undeliverable" in str(raised.value)


def test_nobody_answered(application: RoutingBase) -> None:
    assert client(application).say("list@nowhere.com", "x") is None


def test_a_refusal_is_raised(application: RoutingBase) -> None:
    with pytest.raises(SMTPError, match="not you"):
        client(application).say("refuse@test.com", "x")


def test_with_log_exceptions_off_the_handlers_own_error_is_raised(application: RoutingBase) -> None:
    application.LOG_EXCEPTIONS = False
    with pytest.raises(ValueError, match="a fault in the handler"):
        client(application).say("broken@test.com", "x")


def test_begin_begins_anew(application: RoutingBase) -> None:
    joe = client(application)
    for _ in range(2):
        joe.begin()
        assert joe.queue.count() == 0
        joe.say("list@test.com", "May I?", expect="Please confirm")


def test_deliver_returns_the_outcomes(application: RoutingBase) -> None:
    (outcome,) = client(application).deliver("list@test.com", "ann@example.com", "Hi", "x")
    assert outcome.recipient == "list@test.com"
    assert outcome.reply.code == 250
    assert testing.delivered("you are ann@example.com")


def test_a_conversation_over_smtp(application: RoutingBase) -> None:
    receiver = SMTPReceiver("127.0.0.1", 0, router=application)
    receiver.start()
    try:
        joe = testing.TestConversation(testing.relay(port=receiver.address[1]), "joe@example.com", "Hi", router=application)
        joe.begin()
        asked = joe.say("list@test.com", "May I?", expect="Please confirm")
        assert asked is not None
        assert joe.say("list@test.com", "Yes", expect="Welcome")
        joe.relay.close()
    finally:
        receiver.stop()


def test_over_smtp_an_answer_may_take_its_time_but_not_for_ever(application: RoutingBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "PATIENCE", 0.05)

    class Silent:
        def deliver(self, message: Any) -> None:
            pass

    with pytest.raises(AssertionError, match="Nothing came"):
        testing.TestConversation(Silent(), "joe@example.com", "Hi", router=application).say("list@test.com", "x", expect="y")


# -- the queue


def test_the_queue_is_that_of_test_queue(in_run_folder: Path) -> None:
    testing.queue().push(b"Subject: one\r\n\r\n")
    assert (in_run_folder / "run" / "testing" / "new").is_dir()
    assert testing.queue("run/other").count() == 0
    testing.clear_queue("run/other")
    assert testing.queue().count() == 1
    testing.clear_queue()
    assert testing.queue().count() == 0


def test_delivered() -> None:
    testing.queue().push(b"Subject: =?utf-8?q?J=C3=B6e?=\r\nContent-Transfer-Encoding: base64\r\n\r\naGlkZGVu\r\n")
    testing.queue().push(b"Subject: second\r\n\r\nhidden\r\n")
    found = testing.delivered("hidden")
    assert found is not None
    assert found["subject"] == "Jöe"
    assert testing.delivered("=C3=B6e") is not None  # as it stands in the bytes, too
    assert testing.delivered("^Subject: sec.nd$") is not None
    assert testing.delivered("nothing like it") is None
    assert testing.queue().count() == 2
    assert testing.delivered("hidden", to_queue=testing.queue("run/other")) is None


def test_the_projects_outbox_is_drained_first(application: RoutingBase, monkeypatch: pytest.MonkeyPatch) -> None:
    class Outbox:
        def drain(self, deadline: float) -> bool:
            testing.queue().push(b"To: joe@example.com\r\nSubject: late\r\n\r\nout of the outbox\r\n")
            return True

    settings = ModuleType("config.settings")
    settings.outbox = Outbox()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "config.settings", settings)
    assert client(application).say("list@nowhere.com", "x", expect="out of the outbox") is not None
    testing.clear_queue()
    assert testing.delivered("out of the outbox")
    client(application).begin()
    assert testing.queue().count() == 0


# -- states


def test_assert_in_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Router, "STATE_STORE", MemoryStorage())
    testing.assert_in_state(__name__, "list@test.com", "joe@example.com", "START")
    testing.assert_in_state(HERE, "list@test.com", "joe@example.com", "START")
    Router.STATE_STORE.set(__name__, "joe@example.com", "POSTING")
    testing.assert_in_state(HERE, "list@test.com", "Joe@Example.com", "POSTING")
    with pytest.raises(AssertionError, match=r"joe@example\.com is in the state POSTING of tests\.test_testing, not in START"):
        testing.assert_in_state(HERE, "list@test.com", "joe@example.com", "START")


# -- spelling


class Checker:
    def __init__(self, language: str) -> None:
        assert language == "en_US"
        self.words: list[str] = []

    def set_text(self, text: str) -> None:
        self.words = text.split()

    def __iter__(self) -> Iterator[Any]:
        return iter([type("Error", (), {"word": word}) for word in self.words if word == "teh"])


def test_spelling(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    enchant, checker = ModuleType("enchant"), ModuleType("enchant.checker")
    checker.SpellChecker = Checker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "enchant", enchant)
    monkeypatch.setitem(sys.modules, "enchant.checker", checker)
    assert testing.spelling("x.msg", "the word")
    assert not testing.spelling("x.msg", "teh word")
    assert capsys.readouterr().out == "x.msg: teh is not in the dictionary en_US\n"


def test_spelling_without_pyenchant_skips_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "enchant", None)
    with pytest.raises(unittest.SkipTest, match="needs PyEnchant: pip install pyenchant"):
        testing.spelling("x.msg", "the word")


# -- under both runners

TESTS = """
from lamson.testing import *
from lamson.routing import Router, route, stateless
from lamson.relay import QueueRelay
from lamson import mail

relay_to_use = QueueRelay(TEST_QUEUE)

@route("echo@test\\\\.com")
@stateless
def ECHO(message):
    relay_to_use.deliver(mail.MailResponse(To=message.route_from, From="echo@test.com", Subject="Echo", Body=message.body()))

def test_echo():
    client = RouterConversation("joe@example.com", "Hi")
    client.begin()
    assert client.say("echo@test.com", "Is there anybody?", expect="anybody")
"""

CONFTEST = "from lamson.testing import answers, conversation, fresh_router\n"

FIXTURE_TESTS = """
def test_fixtures(conversation, answers, fresh_router):
    assert answers.count() == 0
    assert conversation.say("nobody@test.com", "x") is None
    assert fresh_router.routes == ()
"""


def runs(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=60, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    return told


def test_under_nose(in_run_folder: Path) -> None:
    (in_run_folder / "echo_tests.py").write_text(TESTS)
    assert "Ran 1 test" in runs("nose", "echo_tests.py").replace("\r", "\n")


def test_under_pytest(in_run_folder: Path) -> None:
    (in_run_folder / "test_echo.py").write_text(TESTS)
    assert "1 passed" in runs("pytest", "-W", "error", "-p", "no:cacheprovider", "test_echo.py")


def test_the_fixtures(in_run_folder: Path) -> None:
    (in_run_folder / "conftest.py").write_text(CONFTEST)
    (in_run_folder / "test_fixtures.py").write_text(FIXTURE_TESTS)
    assert "1 passed" in runs("pytest", "-W", "error", "-p", "no:cacheprovider")


def test_the_fixtures_as_a_plugin(in_run_folder: Path) -> None:
    (in_run_folder / "conftest.py").write_text('pytest_plugins = ["lamson.testing"]\n')
    (in_run_folder / "test_fixtures.py").write_text(FIXTURE_TESTS)
    assert "1 passed" in runs("pytest", "-W", "error", "-p", "no:cacheprovider")


def test_without_pytest_everything_else_is_there(in_run_folder: Path) -> None:
    runs_without = "import sys; sys.modules['pytest'] = None; from lamson.testing import *; TestConversation, delivered"
    subprocess.run([sys.executable, "-W", "error", "-c", runs_without], check=True, timeout=60)
