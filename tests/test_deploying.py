"""What docs/deploying.md shows is what works: the unit is read by systemd, and a Postfix with these lines hands mail to Lamson."""

from __future__ import annotations

import importlib
import json
import os
import pwd
import shutil
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lamson import commands
from tests.conftest import find_program
from tests.pages import blocks
from tests.project import PATIENCE, Project, wait_for
from tests.test_docs import ROOT
from tests.test_project import free_ports

PAGE = ROOT / "docs" / "deploying.md"

#: What makes it a Postfix of one's own, on a machine to which everybody is a stranger.
MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = mx.example.com
mydestination =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 192.0.2.0/24
"""

#: What every Postfix runs, without chroots. PORT is where it listens.
MASTER = """\
PORT inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def shown(language: str) -> str:
    (block,) = [each for each in blocks(PAGE) if each.language == language]
    return block.text


@pytest.mark.program("systemd-analyze")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    lamson, home = tmp_path / "lamson", tmp_path / "app"
    lamson.write_text("#!/bin/sh\n")
    lamson.chmod(0o755)
    unit = tmp_path / "helpdesk.service"
    text = shown("ini").replace("/srv/helpdesk/venv/bin/lamson", str(lamson)).replace("/srv/helpdesk/app", str(home))
    unit.write_text(text.replace("User=helpdesk", f"User={pwd.getpwuid(os.getuid()).pw_name}"))
    command = [find_program("systemd-analyze"), "verify", "--man=no", unit]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert [line for line in (ran.stdout + ran.stderr).splitlines() if "helpdesk" in line] == []
    assert ran.returncode == 0, ran.stderr


def test_the_container_file_says_what_there_is() -> None:
    """There is no engine to build it with; so that at least its lines and its command are what they should be."""
    lines = [line.partition(" ")[::2] for line in shown("dockerfile").splitlines()]
    assert {word for word, _ in lines} == {"FROM", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL", "CMD"}
    said = dict(lines)
    assert said["FROM"].startswith("python:3.")
    program, verb, *switches = json.loads(said["CMD"])
    command = importlib.import_module(f"lamson.commands.{commands.COMMANDS[verb][0]}")
    known = {option for each in getattr(command, verb).params for option in each.opts}
    assert program == "lamson"
    assert set(switches) <= known


class Postfix:
    """A Postfix of one's own, with the page's lines in its main.cf."""

    def __init__(self, folder: Path, lines: str) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        spool, data, config = (folder / name for name in ("spool", "data", "etc"))
        for directory in (spool, data, config):
            directory.mkdir(parents=True)
        shutil.chown(data, "postfix")
        (config / "main.cf").write_text(MAIN.format(folder=folder) + lines)
        (config / "master.cf").write_text(MASTER.replace("PORT", f"127.0.0.1:{self.port}"))

    def tell(self, word: str) -> None:
        ran = subprocess.run([find_program("postfix"), "-c", self.folder / "etc", word], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr + self.log()

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project that takes mail by LMTP, as the page says."""
    made = Project(tmp_path)
    import_, receiver = [line for line in shown_for_boot().splitlines() if line]
    made.edit("config/boot.py", "from lamson.server import SMTPReceiver", import_)
    made.edit("config/boot.py", "settings.receiver = SMTPReceiver(**settings.receiver_config, relay=settings.relay)", receiver)
    made.edit("config/settings.py", "test\\\\.com", "lists\\\\.example\\\\.com")
    made.edit("app/handlers/sample.py", 'address=".+"', 'address="all"')
    made.start_log()
    made.start()
    yield made
    made.stop()


def shown_for_boot() -> str:
    (text,) = [each.text for each in blocks(PAGE) if "import LMTPReceiver" in each.text]
    return text


@pytest.fixture
def postfix(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postfix]:
    find_program("postfix")
    if os.getuid() != 0:
        pytest.skip("Postfix can be started by root alone")
    folder = tmp_path_factory.mktemp("postfix")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)  # its programs run as another user
    made = Postfix(folder / "own", shown("cfg").replace("8824", str(project.port)))
    made.tell("start")
    yield made
    with suppress(AssertionError):
        made.tell("stop")


@pytest.mark.program("postfix")
def test_postfix_asks_the_routes_and_hands_mail_over(project: Project, postfix: Postfix) -> None:
    with smtplib.SMTP("127.0.0.1", postfix.port, "client.test", timeout=PATIENCE) as smtp:
        assert b"Relay access denied" in answer(smtp, "ann@elsewhere.example")
        wait_for(lambda: b"There is no such address here" in answer(smtp, "nobody@lists.example.com"), "an address refused")
        wait_for(lambda: answer(smtp, "all@lists.example.com") == b"", "mail taken by Postfix")
    forwarded, welcome = sorted(project.messages("run/queue", 2), key=lambda each: "Welcome" in str(each["Subject"]))
    assert forwarded.get_all("Received")[1].startswith("from client.test")
    assert welcome["Subject"] == "Welcome. Re: By Postfix"
    assert project.reasons() == []


def answer(smtp: smtplib.SMTP, to: str) -> bytes:
    """What Postfix says to a message to this address; nothing when it is taken. The first question about an address it answers with 450,
    until it has asked Lamson."""
    try:
        smtp.sendmail("ann@example.com", [to], b"From: ann@example.com\r\nSubject: By Postfix\r\n\r\nHello.\r\n")
    except smtplib.SMTPRecipientsRefused as refused:
        return refused.recipients[to][1]
    return b""
