"""What turns out to be wrong when mail comes is told in a sentence with its place, and no mail is lost of it.

What `lamson start` finds before it takes any mail is in test_project.py.
"""

from __future__ import annotations

import smtplib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.project import Project, wait_for

ANN = "ann@example.com"

#: A handler that is well, to be spoilt.
HANDLER = '''\
from config.settings import relay
from lamson import view
from lamson.routing import route


@route("desk@(host)")
def START(message, host=None):
    relay.deliver(view.respond("answer.msg", locals()))
    return OPEN


@route("desk@(host)")
def OPEN(message, host=None):
    ...
'''

ANSWER = "From: desk@{{ host }}\nTo: {{ message.route_from }}\nSubject: Thanks\n\nIt has arrived.\n"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    project.write("app/handlers/desk.py", HANDLER)
    project.write("app/templates/answer.msg", ANSWER)
    project.edit("config/settings.py", "app.handlers.sample", "app.handlers.desk")
    try:
        yield project
    finally:
        project.stop()


def complaint(project: Project, *words: str, status: int = 1) -> str:
    """What a command that must fail says: one line."""
    told = project.lamson(*words, status=status).strip()
    assert "\n" not in told, told
    assert "Traceback" not in told
    return told


def test_a_database_that_is_none(desk: Project) -> None:
    desk.write("run/lamson.db", "This is a text and no database. " * 100)
    told = complaint(desk, "start")
    assert "run/lamson.db" in told
    assert desk.read("run/lamson.db").startswith("This is a text"), "nothing of it was written over"


def test_a_capture_that_only_one_of_many_routes_lacks(desk: Project) -> None:
    desk.edit("app/handlers/desk.py", 'def OPEN(message, host=None)', 'def OPEN(message, number=None, host=None)')
    desk.edit("app/handlers/desk.py", '@route("desk@(host)")\ndef OPEN', '@route("desk-(number)@(host)")\ndef OPEN')
    told = complaint(desk, "start")
    for part in ("(number)", "app.handlers.desk.OPEN", "app/handlers/desk.py:12", "Router.defaults(number=...)"):
        assert part in told, told


def kept_with_reason(project: Project) -> str:
    """The reason with which the one message was kept, whole, in run/undeliverable; nothing else came of it."""
    project.start()
    project.send(ANN, "desk@test.com", body="Keep me.")
    (kept,) = project.messages("run/undeliverable", 1)
    assert kept.body() == "Keep me.\n"
    assert project.states() == {}
    (reason,) = project.reasons()
    return reason


def test_a_template_that_is_missing(desk: Project) -> None:
    (desk.folder / "app/templates/answer.msg").unlink()
    assert "answer.msg" in kept_with_reason(desk)


def test_a_variable_that_nobody_gave(desk: Project) -> None:
    desk.edit("app/templates/answer.msg", "It has arrived.", "It has arrived, {{ nmae }}.")
    reason = kept_with_reason(desk)
    assert "answer.msg" in reason
    assert "nmae" in reason


def test_a_handler_that_raises(desk: Project) -> None:
    desk.edit("app/handlers/desk.py", "    return OPEN", '    raise ValueError("the shop is shut")')
    reason = kept_with_reason(desk)
    assert "app.handlers.desk.START" in reason
    assert "the shop is shut" in reason
    wait_for(lambda: "Traceback" in desk.read("logs/lamson.log"), "the traceback in the log")
    assert "app/handlers/desk.py" in desk.read("logs/lamson.log")


def test_a_handler_that_returns_no_state(desk: Project) -> None:
    desk.edit("app/handlers/desk.py", "    return OPEN", '    return "OPEN"')
    assert "app.handlers.desk.START" in kept_with_reason(desk)


def test_a_kept_message_goes_back_through_the_mended_handler(desk: Project) -> None:
    desk.start_log()
    template = desk.read("app/templates/answer.msg")
    (desk.folder / "app/templates/answer.msg").unlink()
    kept_with_reason(desk)
    desk.write("app/templates/answer.msg", template)
    desk.lamson("queue", "-name", "run/undeliverable", "-route", "all")
    (answer,) = desk.messages("run/queue", 1)
    assert answer["Subject"] == "Thanks"
    assert desk.states() == {("app.handlers.desk", ANN): "OPEN"}


def test_a_database_that_fails_costs_no_mail(desk: Project) -> None:
    desk.start()
    with closing(sqlite3.connect(desk.folder / "run/lamson.db")) as database:
        database.execute("DROP TABLE lamson_state")
    with pytest.raises(smtplib.SMTPDataError) as refused:
        desk.send(ANN, "desk@test.com")
    assert refused.value.smtp_code == 451
    assert desk.reasons() == []


def test_the_client_never_hears_the_text_of_an_exception(desk: Project) -> None:
    desk.edit("app/handlers/desk.py", "    return OPEN", '    raise ValueError("the password is sesame")')
    desk.edit("config/boot.py", 'Router.UNDELIVERABLE_QUEUE = Queue("run/undeliverable")', "Router.UNDELIVERABLE_QUEUE = None")
    desk.start()
    with pytest.raises(smtplib.SMTPDataError) as refused:
        desk.send(ANN, "desk@test.com")
    assert refused.value.smtp_code == 451
    assert b"sesame" not in refused.value.smtp_error
