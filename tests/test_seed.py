"""The handlers that everything began with, run as they stand by a generated project over real SMTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project, wait_for

#: app/handlers/post.py, not to be touched: it is the contract with applications of 1.x.
POST = '''\
# app/handlers/post.py
from config.settings import relay, confirmation
from lamson import view
from lamson.routing import route, route_like, stateless

@route("(blog_name)@osb\\\\.(host)")
def START(message, blog_name=None, address=None, host=None):
    pending_id = confirmation.push(message)
    confirm_address = confirmation.register(message, blog_name, host, pending_id)
    msg = view.respond("confirm.msg", locals())
    relay.deliver(msg)
    return NEW_USER

@route("(blog_name)-confirm-(id_number)@osb\\\\.(host)", id_number="[a-z0-9]+")
def NEW_USER(message, blog_name=None, id_number=None, host=None):
    ...
    return POSTING

@route("(blog_name)@osb\\\\.(host)")
@route("(blog_name)-(action)@osb\\\\.(host)", action="[a-z]+")
def POSTING(message, blog_name=None, host=None, action=None):
    ...

@route("(blog_name)@osb\\\\.(host)")
@stateless
def INDEXER(message, blog_name=None, host=None):
    ...
'''

#: What the application brings itself.
CONFIRMATION = '''\
"""Confirmations of this application's own."""

from lamson.queue import Queue


class Confirmation:
    def __init__(self, queue_dir):
        self.pending = Queue(queue_dir)

    def push(self, message):
        return self.pending.push(message)

    def register(self, message, blog_name, host, pending_id):
        number = "".join(letter for letter in pending_id.lower() if letter.isalnum())
        return f"{blog_name}-confirm-{number}@osb.{host}"
'''

CONFIRM = """\
From: {{ confirm_address }}
To: {{ message.route_from }}
Subject: Confirm {{ blog_name }}

Answer this message, and {{ blog_name }} begins.
"""

ANN, MACHINE = "ann@example.com", "app.handlers.post"


@pytest.fixture
def blog(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, "osb")
    project.write("app/handlers/post.py", POST)
    project.write("app/model/confirmation.py", CONFIRMATION)
    project.write("app/templates/confirm.msg", CONFIRM)
    project.edit("config/settings.py", '["app.handlers.sample"]', '["app.handlers.post"]')
    project.edit("config/settings.py", '{"host": "test\\\\.com"}', '{"host": "test\\\\.com", "blog_name": "[a-z]+"}')
    added = '\nfrom app.model.confirmation import Confirmation  # noqa: E402\n\nconfirmation = Confirmation("run/pending")\n'
    project.write("config/settings.py", project.read("config/settings.py") + added)
    project.start_log()
    try:
        yield project
    finally:
        project.stop()


def test_a_conversation_from_start_to_posting(blog: Project) -> None:
    blog.start()

    blog.send(ANN, "diary@osb.test.com")
    (asked,) = blog.messages("run/queue", 1)
    assert asked["To"] == ANN
    assert blog.states() == {(MACHINE, ANN): "NEW_USER"}
    assert [kept.body() for kept in blog.messages("run/pending", 1)] == ["Hi there.\n"]

    blog.send(ANN, asked["From"])
    assert blog.states() == {(MACHINE, ANN): "POSTING"}

    blog.send(ANN, "diary@osb.test.com")
    blog.send(ANN, "diary-delete@osb.test.com")
    assert blog.states() == {(MACHINE, ANN): "POSTING"}

    wait_for(lambda: blog.read("logs/lamson.log").count("post.POSTING(") == 2, "POSTING ran twice")
    told = blog.read("logs/lamson.log")
    assert [told.count(f"post.{name}(") for name in ("START", "NEW_USER", "POSTING", "INDEXER")] == [1, 1, 2, 2]
    assert blog.reasons() == []


def test_the_state_survives_a_stop(blog: Project) -> None:
    blog.start()
    blog.send(ANN, "diary@osb.test.com")
    (asked,) = blog.messages("run/queue", 1)
    blog.lamson("stop")
    blog.start()
    blog.send(ANN, asked["From"])
    assert blog.states() == {(MACHINE, ANN): "POSTING"}


def test_two_senders_are_two_conversations(blog: Project) -> None:
    blog.start()
    blog.send(ANN, "diary@osb.test.com")
    (asked,) = blog.messages("run/queue", 1)
    blog.send(ANN, asked["From"])
    blog.send("bob@example.com", "diary@osb.test.com")
    assert blog.states() == {(MACHINE, ANN): "POSTING", (MACHINE, "bob@example.com"): "NEW_USER"}


def test_a_message_that_no_state_takes_is_kept_with_the_reason(blog: Project) -> None:
    blog.start()
    blog.send(ANN, "diary-confirm-12345@osb.test.com")
    (kept,) = blog.messages("run/undeliverable", 1)
    assert kept.body() == "Hi there.\n"
    (reason,) = blog.reasons()
    assert "START" in reason
    assert blog.states() == {}
