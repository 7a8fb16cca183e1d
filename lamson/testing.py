"""Conversations, assertions and pytest fixtures for the tests of an application. Works under nosetests and pytest.

    from lamson.testing import RouterConversation, assert_in_state

    def test_a_new_user_is_asked_to_confirm():
        client = RouterConversation("somebody@example.com", "Hello")
        client.begin()
        answer = client.say("blog@osb.test.com", "Please, may I?", expect="confirm")
        client.say(answer["from"], "Yes", expect="welcome")

A test plays the person who writes: it sends a message, in at the router or through a server's port, and looks for the answer in the
queue that the project's `config.testing` has its relay deliver to. It sees what a mail reader would see, and nothing from inside.
"""

from __future__ import annotations

import importlib
import re
import sys
import time
import unittest
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from lamson import mail, routing
from lamson import queue as queues
from lamson import relay as relays

__all__ = [
    "TEST_QUEUE",
    "RouterConversation",
    "TestConversation",
    "assert_in_state",
    "clear_queue",
    "delivered",
    "queue",
    "relay",
    "spelling",
]

#: Where answers are looked for. A project's `config/testing.py` sets it to where its relay delivers.
TEST_QUEUE = "run/queue"

#: Seconds that the outbox gets to hand on what waits, and that an answer from a server may take.
PATIENCE = 10.0


def queue(dir: str | None = None) -> queues.Queue:
    """The queue where answers are looked for: `TEST_QUEUE` unless given."""
    return queues.Queue(dir or TEST_QUEUE)


def clear_queue(queue_dir: str | None = None) -> None:
    """Removes all messages from the queue where answers are looked for."""
    queue(queue_dir).clear()


def relay(hostname: str = "127.0.0.1", port: int = 8823) -> relays.Relay:
    """A relay to the server that is tested."""
    return relays.Relay(hostname, port)


def delivered(pattern: str, to_queue: queues.Queue | None = None) -> mail.MailRequest | None:
    """The oldest message in the queue in which the regex `pattern` is found, or None. The message stays there.

    It is looked for in the message's bytes, and in its headers and text as a reader sees them.
    """
    _drain()
    found = to_queue or queue()
    return _first_match(pattern, _messages(found, found.keys()))


def assert_in_state(module: ModuleType | str, To: str, From: str, state: str) -> None:
    """Asserts that the conversation of this sender with this module is in the state of this name."""
    message = mail.MailRequest("localhost", From, To, b"")
    message.recipient = To
    found = routing.Router.get_state(module, message)
    name = module if isinstance(module, str) else module.__name__
    assert found == state, f"{From} is in the state {found} of {name}, not in {state}."


def spelling(file_name: str, contents: str, language: str = "en_US") -> bool:
    """Whether every word of the text is spelt right; those that are not are printed. Skips the test without PyEnchant."""
    try:
        checker = importlib.import_module("enchant.checker").SpellChecker(language)
    except ImportError:
        raise unittest.SkipTest("testing.spelling needs PyEnchant: pip install pyenchant, and the library enchant-2") from None
    checker.set_text(contents)
    wrong = [error.word for error in checker]
    for word in wrong:
        print(f"{file_name}: {word} is not in the dictionary {language}")
    return not wrong


class TestConversation:
    """One person who writes to a server through `relay` and looks for answers in the queue.

    `From`: the person's address. `Subject`: that of messages that name none. `to_queue`: where answers are looked for, `TEST_QUEUE`
    unless given. `router`: whose states `begin` clears, the default one unless given; a server in another process has its own.
    """

    __test__ = False  # a tool and no test, whatever its name

    def __init__(
        self,
        relay: Any,
        From: str,
        Subject: str,
        to_queue: queues.Queue | None = None,
        router: routing.RoutingBase = routing.Router,
    ) -> None:
        self.relay = relay
        self.From = From
        self.Subject = Subject
        self.router = router
        self._queue = to_queue

    @property
    def queue(self) -> queues.Queue:
        """Where answers are looked for."""
        return self._queue or queue()

    def begin(self) -> None:
        """Begins anew: every sender is in START and the queue is empty."""
        _drain()
        self.router.clear_states()
        self.queue.clear()

    def deliver(self, To: str, From: str, Subject: str, Body: str) -> Any:
        """Sends one message. Returns once everything that it caused here is sent, too."""
        self.relay.deliver(mail.MailResponse(To=To, From=From, Subject=Subject, Body=Body))
        _drain()

    def say(self, To: str, Body: str, expect: str | None = None, Subject: str | None = None) -> mail.MailRequest | None:
        """Sends one message and returns the answer: the first new message in the queue in which the regex `expect` is found.

        Without `expect`, the first new message to this person, or None where nobody answered. Raises AssertionError that tells what
        came instead; its cause is what the handler raised.
        """
        before = set(self.queue.keys())
        told = self.deliver(To, self.From, Subject or self.Subject, Body)
        if expect is None:
            return next((each for each in self._new(before) if self.From.lower() in each.route_to), None)
        answer = self._await(expect, before)
        if answer is None:
            cause = next((outcome.error for outcome in told or [] if outcome.error), None)
            raise AssertionError(self._what_came(expect, To, before, told)) from cause
        return answer

    def _await(self, expect: str, before: set[str]) -> mail.MailRequest | None:
        """A server in another process may take its time."""
        deadline = time.monotonic() + PATIENCE
        while (answer := _first_match(expect, self._new(before))) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return answer

    def _new(self, before: set[str]) -> list[mail.MailRequest]:
        return _messages(self.queue, sorted(set(self.queue.keys()) - before))

    def _what_came(self, expect: str, To: str, before: set[str], told: Any) -> str:
        came = [f"  to {each['to']}, subject {each['subject']!r}: {each.text.strip()[:200]!r}" for each in self._new(before)]
        lines = [f"{self.From} wrote to {To} and expected an answer with {expect!r}."]
        lines += ["In the queue came:", *came] if came else [f"Nothing came in {self.queue.queue_dir}."]
        return "\n".join([*lines, *map(_account, told or [])])


class RouterConversation(TestConversation):
    """One person whose messages go straight into the router, with no server between."""

    __test__ = False

    def __init__(
        self, From: str, Subject: str, to_queue: queues.Queue | None = None, router: routing.RoutingBase = routing.Router
    ) -> None:
        super().__init__(None, From, Subject, to_queue, router)

    def deliver(self, To: str, From: str, Subject: str, Body: str) -> list[routing.Outcome]:
        """Has the router handle one message; what became of it for each recipient. Raises what the handler refused it with."""
        sample = mail.MailResponse(To=To, From=From, Subject=Subject, Body=Body)
        outcomes = self.router.deliver(mail.MailRequest("localhost", From, To, bytes(sample)))
        _drain()
        return outcomes

    def _await(self, expect: str, before: set[str]) -> mail.MailRequest | None:
        return _first_match(expect, self._new(before))


def _drain() -> None:
    """Has the outbox of the project, where there is one, hand on what waits."""
    outbox = getattr(sys.modules.get("config.settings"), "outbox", None)
    if outbox is not None:
        outbox.drain(PATIENCE)


def _messages(from_queue: queues.Queue, keys: Iterable[str]) -> list[mail.MailRequest]:
    return [message for message in map(from_queue.get, keys) if message is not None]


def _first_match(pattern: str, messages: Iterable[mail.MailRequest]) -> mail.MailRequest | None:
    wanted = re.compile(pattern, re.MULTILINE)
    return next((message for message in messages if wanted.search(_as_read(message)) or wanted.search(str(message))), None)


def _as_read(message: mail.MailRequest) -> str:
    headers = [f"{name}: {value}" for name, value in message.items()]
    return "\n".join([*headers, "", message.text])


def _account(outcome: routing.Outcome) -> str:
    """What became of one delivery, in a sentence."""
    what = f"{', '.join(outcome.ran)} ran" if outcome.ran else "nothing ran"
    if outcome.error:
        what = f"it ended with {type(outcome.error).__name__}: {outcome.error}"
    kept = f"; kept as undeliverable {outcome.kept}" if outcome.kept else ""
    return f"For {outcome.recipient} {what}; the reply was {outcome.reply}{kept}"


try:
    import pytest
except ImportError:  # under nosetests alone there are no fixtures
    pass
else:

    @pytest.fixture
    def conversation() -> RouterConversation:
        """A person at somebody@example.com, who begins anew. Import it in your tests/conftest.py."""
        client = RouterConversation("somebody@example.com", "A test")
        client.begin()
        return client

    @pytest.fixture
    def answers() -> queues.Queue:
        """The queue where answers are looked for, empty. Import it in your tests/conftest.py."""
        clear_queue()
        return queue()

    @pytest.fixture
    def fresh_router() -> routing.RoutingBase:
        """A router with no routes, states in memory, and no undeliverable queue. Import it in your tests/conftest.py."""
        return routing.RoutingBase()
