"""The ready-made handlers, each loaded by its name into a router of the test's own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lamson.handlers
from lamson import routing
from lamson.mail import MailRequest
from lamson.queue import Queue
from lamson.relay import QueueRelay
from lamson.routing import RoutingBase

MAIL = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: Hello\r\n\r\nBody\r\n"


@pytest.fixture
def load(router: RoutingBase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports `lamson.handlers.NAME` afresh, its decorators applied to this test's router."""
    known = {name: module for name, module in sys.modules.items() if name.startswith("lamson.handlers.")}

    def load(name: str) -> ModuleType:
        sys.modules.pop(f"lamson.handlers.{name}", None)
        with monkeypatch.context() as patched:
            patched.setattr(routing, "route", router.route)
            patched.setattr(routing, "stateless", router.stateless)
            router.load([f"lamson.handlers.{name}"])
        return sys.modules[f"lamson.handlers.{name}"]

    yield load
    for name in ("log", "queue", "forward"):
        sys.modules.pop(f"lamson.handlers.{name}", None)
        if hasattr(lamson.handlers, name):
            delattr(lamson.handlers, name)
    for full_name, module in known.items():
        sys.modules[full_name] = module
        setattr(lamson.handlers, full_name.rpartition(".")[2], module)


def request(*to: str) -> MailRequest:
    return MailRequest("127.0.0.1", "a@example.com", list(to), MAIL)


@pytest.mark.parametrize("name", ["log", "queue", "forward"])
def test_they_take_every_address_and_move_no_state(name: str, load: Any, router: RoutingBase) -> None:
    module = load(name)
    for address in ("b@example.com", "A.B+c@sub.example.com", '"odd @ local"@example.com', "jöe@exämple.com", "x@[127.0.0.1]"):
        (match,) = router.match(address)
        assert match.route.function is module.START
        assert match.route.stateless


def test_log_logs_each_recipient(load: Any, router: RoutingBase, caplog: pytest.LogCaptureFixture) -> None:
    load("log")
    with caplog.at_level(logging.INFO, "lamson.handlers.log"):
        outcomes = router.deliver(request("b@example.com", "c@example.com"))
    assert [outcome.reply.code for outcome in outcomes] == [250, 250]
    assert f"from 'a@example.com' to 'b@example.com', subject 'Hello', {len(MAIL)} bytes" in caplog.text
    assert "to 'c@example.com'" in caplog.text


def test_log_does_not_let_a_message_write_lines_of_its_own(load: Any, router: RoutingBase, caplog: pytest.LogCaptureFixture) -> None:
    load("log")
    hostile = b"Subject: =?utf-8?q?x=0A2030-01-01_ERROR_forged?=\r\n\r\n"
    with caplog.at_level(logging.INFO, "lamson.handlers.log"):
        router.deliver(MailRequest("127.0.0.1", "a@example.com", ["b@example.com"], hostile))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "lamson.handlers.log"]
    assert "\n" not in line


def test_queue_keeps_the_bytes_and_the_envelope(load: Any, router: RoutingBase, run_folder: Path) -> None:
    load("queue")
    router.deliver(request("b@example.com", "c@example.com"))
    kept = Queue("run/queue")
    envelopes = list(map(kept.envelope, kept.keys()))
    assert [envelope and envelope["rcpt_tos"] for envelope in envelopes] == [["b@example.com"], ["c@example.com"]]
    _, message = kept.pop()
    assert message is not None
    assert (message.raw, message.From) == (MAIL, "a@example.com")


def test_queue_that_cannot_be_written_is_tried_again(load: Any, router: RoutingBase, run_folder: Path) -> None:
    load("queue")
    (run_folder / "run" / "queue").write_text("a file in its place")
    (outcome,) = router.deliver(request("b@example.com"))
    assert outcome.reply.code == 451


def test_forward_hands_on_to_the_projects_relay(
    load: Any, router: RoutingBase, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModuleType("config.settings")
    settings.relay = QueueRelay("run/forwarded")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "config", ModuleType("config"))
    monkeypatch.setitem(sys.modules, "config.settings", settings)
    load("forward")
    router.deliver(request("b@example.com", "c@example.com"))
    forwarded = Queue("run/forwarded")
    messages = [message for message in map(forwarded.get, forwarded.keys()) if message]
    assert [(message.From, message.route_to) for message in messages] == [
        ("a@example.com", ["b@example.com"]),
        ("a@example.com", ["c@example.com"]),
    ]
    assert all(message.raw.startswith(b"Received: ") and message.raw.endswith(MAIL) for message in messages)


def test_forward_keeps_the_null_sender(load: Any, router: RoutingBase, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModuleType("config.settings")
    settings.relay = QueueRelay("run/forwarded")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "config", ModuleType("config"))
    monkeypatch.setitem(sys.modules, "config.settings", settings)
    load("forward")
    router.deliver(MailRequest("127.0.0.1", "", ["b@example.com"], MAIL))
    forwarded = Queue("run/forwarded")
    envelope = forwarded.envelope(forwarded.keys()[0])
    assert envelope is not None
    assert envelope["mail_from"] == ""


def test_forward_outside_a_project_fails_for_now(load: Any, router: RoutingBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "config", None)
    load("forward")
    (outcome,) = router.deliver(request("b@example.com"))
    assert outcome.reply.code == 451
    assert isinstance(outcome.error, ImportError)
