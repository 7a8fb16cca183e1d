"""The generated project: made, started, mailed, tested with both runners, looked into, and stopped. Real processes on free ports."""

from __future__ import annotations

import os
import re
import shutil
import signal
import smtplib
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lamson import process
from lamson.mail import MailRequest
from lamson.queue import Queue
from tests.conftest import find_program

DEADLINE = 30.0

#: Where the programs of this Python are, `lamson` among them.
BIN = Path(sys.executable).parent


class Project:
    """A generated project in a directory of its own, with ports that are free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.log_port = free_ports(2)
        for name in ("config/settings.py", "muttrc"):
            self.edit(name, "8823", str(self.port))
        self.edit("config/settings.py", "8825", str(self.log_port))

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new))

    def run(self, *words: str, stdin: bytes = b"", program: str = "lamson") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "TERM": "xterm", "COLUMNS": "200"}
        command = [str(BIN / program) if (BIN / program).exists() else find_program(program), *words]
        done = subprocess.run(command, cwd=self.folder, env=environment, input=stdin, capture_output=True, timeout=120)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def well(self, *words: str, **more: Any) -> str:
        """Runs what must go well."""
        done = self.run(*words, **more)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def told(self, *words: str) -> str:
        """Runs what must fail with status 1 and one line."""
        done = self.run(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def start_both(self) -> None:
        self.well("start")
        self.well("log", "-port", str(self.log_port))

    def send(self, sender: str = "me@mydomain.com", subject: str = "My test.", body: str = "Hi there.") -> str:
        done = self.run("send", "-sender", sender, "-to", "test@test.com", "-subject", subject, "-body", body, "-port", str(self.port))
        assert done.returncode == 0, done.stderr
        return done.stderr

    def kept(self, count: int) -> list[MailRequest]:
        """The messages in run/queue, once there are so many."""
        queue = Queue(self.folder / "run" / "queue")
        wait_for(lambda: queue.count() >= count, lambda: self.logs())
        return [message for message in map(queue.get, queue.keys()) if message]

    def states(self) -> list[tuple[str, str, str]]:
        with sqlite3.connect(self.folder / "run" / "lamson.db") as database:
            rows = database.execute("SELECT fsm, sender, state FROM lamson_state ORDER BY sender").fetchall()
        database.close()
        return rows

    def logs(self) -> str:
        return "".join(f"\n-- {path.name}\n{path.read_text()}" for path in sorted((self.folder / "logs").glob("*.[le]*")))

    def running(self) -> list[str]:
        return [path.name for path in (self.folder / "run").glob("*.pid")]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(condition: Callable[[], Any], explain: Callable[[], str] = lambda: "") -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain{explain()}"
        time.sleep(0.02)
    return value


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    subprocess.run([BIN / "lamson", "gen", "-project", "mymailserver"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    made = Project(tmp_path / "mymailserver")
    yield made
    pid_files = [str(path) for path in (made.folder / "run").glob("*.pid")]
    running = [path for path in pid_files if (holder := process.PidFile(path).holder()) and holder.running]
    list(process.stop_all(running, kill=True))


# -- thirty seconds


def test_the_introduction(project: Project) -> None:
    assert re.match(rf"Mail is taken on 127\.0\.0\.1:{project.port}: process \d+ \(run/smtp\.pid\)\.\n", project.well("start"))
    assert f"127.0.0.1:{project.log_port}" in project.well("log", "-port", str(project.log_port))
    assert sorted(project.running()) == ["log.pid", "smtp.pid"]
    talk = project.send()
    assert "S: 220 " in talk
    forwarded, answer = sorted(project.kept(2), key=lambda message: "Welcome" in str(message["subject"]))
    assert answer["subject"] == "Welcome. Re: My test."
    assert answer["auto-submitted"] == "auto-replied"
    assert str(forwarded.body()).strip() == "Hi there."
    assert project.states() == [("app.handlers.sample", "me@mydomain.com", "FORWARD")]
    assert_the_log_tells_the_way(project)
    stopped = project.well("stop", "-ALL", "run")
    assert stopped.count("Stopped process") == 2
    assert project.running() == []
    assert (project.folder / "logs" / "logger.log").read_text().count("subject 'My test.'") == 1


def assert_the_log_tells_the_way(project: Project) -> None:
    """One line for each step, all with the delivery's id. The last of them follows the mail itself."""
    log = project.folder / "logs" / "lamson.log"
    (matched,) = [line for line in log.read_text().splitlines() if "matched test@test.com: app.handlers.sample.START" in line]
    delivery = matched.split()[3]
    for step in ("matched test@test.com", "state of me@mydomain.com in app.handlers.sample: START -> FORWARD", "sent me@mydomain.com"):
        wait_for(lambda step=step: any(delivery in line and step in line for line in log.read_text().splitlines()), project.logs)


def test_the_state_survives_a_restart(project: Project) -> None:
    project.start_both()
    project.send()
    project.kept(2)
    assert "Stopped process" in project.well("restart")
    project.send(subject="The second")
    assert [str(message["subject"]) for message in project.kept(3)].count("The second") == 1
    assert "Welcome. Re: The second" not in [message["subject"] for message in project.kept(3)]


def test_mail_that_waits_is_seen_and_sent_later(project: Project) -> None:
    project.well("start")
    project.send()
    waiting = wait_for(lambda: (shown := project.well("outbox", "-list")).count("\n") == 2 and shown)
    assert "me@mydomain.com  from test@test.com" in waiting
    project.well("stop")
    project.well("log", "-port", str(project.log_port))
    assert project.well("outbox", "-retry") == "Tries again now: mail for 2 recipients.\n"
    project.well("start")
    project.kept(2)
    wait_for(lambda: project.well("outbox") == "")


# -- both test runners


def test_its_own_tests_pass_without_servers(project: Project) -> None:
    for runner in ("nosetests", "pytest"):
        assert_all_tests_ran(project, runner)
    assert project.running() == []


def test_its_own_tests_pass_beside_running_servers(project: Project) -> None:
    project.start_both()
    project.send()
    before = [message.raw for message in project.kept(2)]
    for runner in ("nosetests", "pytest"):
        assert_all_tests_ran(project, runner)
    assert [message.raw for message in project.kept(2)] == before, "tests do not touch what the servers keep"
    assert len(project.states()) == 1


def assert_all_tests_ran(project: Project, runner: str) -> None:
    done = project.run(program=runner)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    wanted = sum(path.read_text().count("\ndef test_") for path in (project.folder / "tests").rglob("*_tests.py"))
    assert f"Ran {wanted} tests" in said or f"{wanted} passed" in said, said
    assert wanted >= 6
    assert "warning" not in said.lower(), said


def test_the_open_relay_test_fails_for_an_open_relay(project: Project) -> None:
    project.edit("config/settings.py", '"test\\\\.com"', '".+"')
    done = project.run("tests/handlers/open_relay_tests.py", program="pytest")
    assert "2 failed" in done.stdout


# -- mutt


@pytest.mark.program("mutt")
def test_mutt_sends_from_the_command_line(project: Project) -> None:
    project.start_both()
    words = ["-F", "muttrc", "-s", "From mutt", "test@test.com"]
    project.well(*words, stdin=b"Hello from mutt.\n.\nAnd after a dot.\n", program="mutt")
    forwarded = next(message for message in project.kept(2) if message["subject"] == "From mutt")
    assert str(forwarded.body()).split("\n")[:3] == ["Hello from mutt.", ".", "And after a dot."]
    assert forwarded.route_from == "me@mydomain.com"


@pytest.mark.program("mutt")
def test_mutt_says_when_it_cannot_send(project: Project) -> None:
    done = project.run("-F", "muttrc", "-s", "From mutt", "test@test.com", stdin=b"Hello\n", program="mutt")
    assert done.returncode != 0


@pytest.mark.program("mutt", "tmux")
def test_mutt_reads_the_queue_in_a_terminal(project: Project) -> None:
    project.start_both()
    project.send(subject="Read me in mutt", body="This is the text.")
    project.kept(2)
    with Terminal(project, "mutt -F muttrc") as terminal:
        terminal.shows("Read me in mutt")
        terminal.shows("Welcome. Re: Read me in mutt")
        terminal.type("Enter")
        terminal.shows("This")
        terminal.type("q", "q")
        wait_for(lambda: not terminal.open)


@pytest.mark.program("mutt", "tmux")
def test_mutt_writes_a_message_in_a_terminal(project: Project) -> None:
    project.start_both()
    editor = project.folder / "editor"
    editor.write_text('#!/bin/sh\nprintf "Written in mutt.\\n" >>"$1"\n')
    editor.chmod(0o755)
    with Terminal(project, f"EDITOR={editor} mutt -F muttrc") as terminal:
        terminal.shows("=queue [Msgs:0]")
        terminal.type("m")
        terminal.shows("To:")
        terminal.type("test@test.com", "Enter")
        terminal.shows("Subject:")
        terminal.type("From the terminal", "Enter")
        terminal.shows("y:Send")
        wait_for(lambda: "y:Send" not in terminal.screen or terminal.type("y", "pause"))  # it throws away what is typed too early
        forwarded = next(message for message in project.kept(2) if message["subject"] == "From the terminal")
    assert str(forwarded.body()).strip() == "Written in mutt."


class Terminal:
    """A program in a terminal of tmux's."""

    def __init__(self, project: Project, command: str) -> None:
        self.socket = str(project.folder / "tmux.socket")
        self.environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        self.tmux("new-session", "-d", "-x", "120", "-y", "40", "-c", str(project.folder), command)

    def tmux(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment)

    def type(self, *keys: str) -> None:
        for key in keys:
            if key == "pause":
                time.sleep(0.3)
            else:
                self.tmux("send-keys", key)

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p").stdout

    @property
    def open(self) -> bool:
        return self.tmux("has-session").returncode == 0

    def shows(self, text: str) -> None:
        wait_for(lambda: text in self.screen, lambda: f" for {text!r} on\n{self.screen}")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(f"The terminal when it failed:\n{self.screen}")
        self.tmux("kill-server")


# -- what cannot start says why


def test_a_second_start(project: Project) -> None:
    project.well("start")
    sentence = project.told("start")
    running = r"A server runs: process \d+ \(run/smtp\.pid\)"
    assert re.fullmatch(rf"lamson start: {running}\. Stop it first: lamson stop -pid run/smtp\.pid\n", sentence)


def test_a_port_that_is_taken(project: Project) -> None:
    with socket.create_server(("127.0.0.1", project.port)):
        sentence = project.told("start")
    assert str(project.port) in sentence
    assert "another program has this port" in sentence
    assert project.running() == []


BROKEN = {
    "a handler that does not import": (
        ("app/handlers/sample.py", "from lamson import view", "import no_such_thing"),
        ["app/handlers/sample.py, line 8: ModuleNotFoundError: No module named 'no_such_thing'"],
    ),
    "a handler that is no Python": (
        ("app/handlers/sample.py", "def START(", "def START(("),
        ["app/handlers/sample.py, line 13: SyntaxError: invalid syntax.\n"],
    ),
    "a handler that is not there": (
        ("config/settings.py", "app.handlers.sample", "app.handlers.nothing"),
        ["No module named 'app.handlers.nothing'", "config/boot.py, line"],
    ),
    "a setting that raises": (
        ("config/settings.py", '{"dir": "app/templates"}', '{"dir": app}'),
        ["config/settings.py, line", "NameError: name 'app' is not defined"],
    ),
    "a setting that is missing": (
        ("config/settings.py", "relay_config", "relay_conf"),
        ["config/boot.py, line", "relay_config"],
    ),
    "a setting that is misspelt": (
        ("config/settings.py", '"port": PORT', '"prot": PORT'),
        ["config/boot.py, line", "prot"],
    ),
    "a directory of templates that is not there": (
        ("config/settings.py", "app/templates", "app/nothing"),
        ["The templates' directory is missing", "app/nothing"],
    ),
    "a route whose capture has no regex": (
        ("config/settings.py", '"host": "test\\\\.com"', '"hosts": "test\\\\.com"'),
        ["app.handlers.sample.START", "(host) has no regex", "Router.defaults"],
    ),
    "a database that cannot be opened": (
        ("config/settings.py", "sqlite:///run/lamson.db", "sqlite:///nowhere/lamson.db"),
        ["nowhere/lamson.db"],
    ),
    "a database that nobody knows": (
        ("config/settings.py", "sqlite:///run/lamson.db", "nonsense://"),
        ["config/boot.py, line", "nonsense"],
    ),
    "a log that cannot be written": (
        ("config/logging.conf", "logs/lamson.log", "nowhere/lamson.log"),
        ["config/boot.py, line", "nowhere/lamson.log"],
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_mistake_is_told_on_the_terminal(project: Project, what: str) -> None:
    (name, old, new), words = BROKEN[what]
    project.edit(name, old.replace("PORT", str(project.port)), new.replace("PORT", str(project.port)))
    sentence = project.told("start")
    for word in words:
        assert word in sentence
    assert project.running() == []


def test_where_there_is_no_project(project: Project, tmp_path: Path) -> None:
    assert "There is no project in" in project.told("start", "-chdir", str(tmp_path))
    assert not (tmp_path / "run").exists()
    assert "config.nothing" in project.told("start", "-boot", "config.nothing")


def test_a_restart_with_a_mistake_leaves_the_old_server_running(project: Project) -> None:
    project.well("start")
    project.edit("config/settings.py", '"host": "test\\\\.com"', '"hosts": "test\\\\.com"')
    assert "has no regex" in project.told("restart")
    project.send()


def test_a_restart_with_a_certificate_that_is_none_leaves_the_old_server_running(project: Project) -> None:
    project.well("start")
    project.edit("config/settings.py", f'"port": {project.port}', f'"port": {project.port}, "certificate": "config/settings.py"')
    assert "The TLS certificate config/settings.py with the key config/settings.py cannot be used" in project.told("restart")
    project.edit("config/settings.py", '"certificate": "config/settings.py"', '"certificate": "config/none.pem"')
    assert "config/none.pem cannot be read: No such file" in project.told("restart")
    project.send()


def test_a_restart_with_a_port_that_is_none_leaves_the_old_server_running(project: Project) -> None:
    project.well("start")
    project.edit("config/settings.py", f'"port": {project.port}', f'"port": "{project.port}"')
    assert f"a port is a number from 0 to 65535, and not '{project.port}'" in project.told("restart")
    project.send()


@pytest.mark.parametrize("port", ['"8823"', '"smtp"', "None", "70000"])
def test_a_port_that_is_none(project: Project, port: str) -> None:
    project.edit("config/settings.py", f'"port": {project.port}', f'"port": {port}')
    assert "a port is a number from 0 to 65535" in project.told("start")


def test_a_start_without_routes_warns(project: Project) -> None:
    project.edit("config/settings.py", '["app.handlers.sample"]', "[]")
    project.well("start")
    assert "There are no routes, so all mail is refused." in project.logs()


# -- what runs


def test_status(project: Project) -> None:
    assert project.run("status").returncode == 1
    project.well("start")
    assert project.well("status").startswith("A server runs: process ")
    project.well("stop")
    assert project.run("status").stdout == "No server runs: there is no run/smtp.pid.\n"
    assert "No server runs here: there is no run/smtp.pid" in project.told("stop")
    assert project.well("stop", "-ALL", "run") == "No server runs here: there is no pid file in run.\n"
    assert "There is no directory nowhere" in project.told("stop", "-ALL", "nowhere")


def test_workers_share_the_port(project: Project) -> None:
    assert "with 2 workers" in project.well("start", "-workers", "2")
    project.well("log", "-port", str(project.log_port))
    for number in range(4):
        project.send(subject=f"number {number}")
    project.kept(5)
    project.well("stop", "-ALL", "run")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_process_for_a_queue_leaves_the_port_alone(project: Project, workers: str) -> None:
    """Started first, it kept the port of receiver_config bound, where nobody answered and the server could not start."""
    imports = "from config import boot, settings\nfrom lamson.server import QueueReceiver\n"
    (project.folder / "config/queue.py").write_text(f'{imports}settings.receiver = QueueReceiver("run/inbox", sleep=0.1)\n')
    assert "Mail is taken on run/inbox" in project.well("start", "-boot", "config.queue", "-pid", "run/inbox.pid", "-workers", workers)
    project.start_both()
    Queue(project.folder / "run/inbox").push(b"Subject: queued\r\n\r\nHello.\r\n", mail_from="q@example.com", rcpt_tos=["test@test.com"])
    project.send()
    project.kept(4)


def test_another_directory(project: Project) -> None:
    inside, project.folder = project.folder, project.folder.parent
    done = project.run("start", "-chdir", "mymailserver")
    project.folder = inside
    assert done.returncode == 0, done.stderr
    assert project.running() == ["smtp.pid"]


def test_in_the_foreground_it_logs_to_the_terminal(project: Project) -> None:
    command = [BIN / "lamson", "start", "-foreground"]
    with subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        assert f"Mail is taken on 127.0.0.1:{project.port}" in server.stdout.readline()
        project.send()
        server.terminate()
        assert server.wait(DEADLINE) == 0
        said = server.stderr.read()
    assert "matched test@test.com: app.handlers.sample.START" in said
    assert "told to end by SIGTERM" in said
    assert project.running() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_message_that_is_being_received_is_finished(project: Project, number: signal.Signals) -> None:
    project.well("start")
    holder = process.PidFile(str(project.folder / "run" / "smtp.pid")).holder()
    assert holder is not None
    client = smtplib.SMTP("127.0.0.1", project.port, timeout=DEADLINE)
    client.ehlo()
    client.mail("me@mydomain.com")
    client.rcpt("test@test.com")
    client.putcmd("DATA")
    assert client.getreply()[0] == 354
    os.kill(holder.pid, number)
    wait_for(lambda: number.name in (project.folder / "logs" / "lamson.log").read_text())
    client.send(b"Subject: in time\r\n\r\nHello.\r\n.\r\n")
    assert client.getreply()[0] == 250
    assert client.getreply()[0] == 421, "and no further message"
    client.close()
    wait_for(lambda: project.running() == [])
    assert project.states() == [("app.handlers.sample", "me@mydomain.com", "FORWARD")]


def test_mail_for_strangers_is_refused(project: Project) -> None:
    project.well("start")
    done = project.run("send", "-sender", "a@b.example", "-to", "somebody@elsewhere.example", "-port", str(project.port))
    assert done.returncode == 1
    assert "somebody@elsewhere.example did not get it: 550" in done.stderr


# -- looking into it


def test_routes(project: Project) -> None:
    lines = project.well("routes").splitlines()
    assert [line.split()[0] for line in lines] == ["app.handlers.sample.START", "app.handlers.sample.FORWARD"]
    tested = project.well("routes", "config.boot", "-test", "somebody@test.com")
    assert "app.handlers.sample.START(address='somebody', host='test.com')" in tested
    assert "for a sender in the state FORWARD" in tested
    nobody = project.run("routes", "-test", "somebody@elsewhere.example")
    assert (nobody.returncode, nobody.stdout) == (1, "No route takes somebody@elsewhere.example: a client hears 550 5.1.1.\n")


def test_what_failed_is_kept_listed_and_put_back(project: Project) -> None:
    """A template that is missing, then mended."""
    (project.folder / "app/templates/welcome.msg").rename(project.folder / "welcome.msg")
    project.start_both()
    project.send()
    listed = wait_for(lambda: project.well("queue", "-name", "run/undeliverable", "-list"))
    assert "app.handlers.sample.START raised ViewError: There is no template welcome.msg in" in listed
    key = listed.split()[0]
    again = project.run("queue", "-name", "run/undeliverable", "-route", key)
    assert re.match(rf"{key}: test@test.com: kept again as \S+: ViewError: There is no template welcome.msg", again.stdout)
    assert again.returncode == 1
    (project.folder / "welcome.msg").rename(project.folder / "app/templates/welcome.msg")
    assert "test@test.com: handled by app.handlers.sample.START" in project.well("queue", "-name", "run/undeliverable", "-route", "all")
    assert project.well("queue", "-name", "run/undeliverable") == "0\n"
    assert "Welcome. Re: My test." in [message["subject"] for message in project.kept(2)]


def test_a_start_warns_of_states_that_are_no_function_any_more(project: Project) -> None:
    project.well("start")
    project.send()
    project.well("states", "-move", "FORWARD", "FORMER")
    project.well("restart")
    log = (project.folder / "logs/lamson.log").read_text()
    assert "1 senders are in the state FORMER of app.handlers.sample, which is no function there." in log
    assert "lamson states -move app.handlers.sample.FORMER NEW" in log


# -- the project as its author reads it


def test_nothing_in_it_is_long_winded(project: Project) -> None:
    for path in [*project.folder.rglob("*.py"), project.folder / "README"]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line) <= 140, f"{path}:{number}"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs the program git")
def test_what_running_it_leaves_is_ignored_by_git(project: Project) -> None:
    project.well("init", "-q", program="git")
    project.well("add", "-A", program="git")
    before = project.well("status", "--porcelain", program="git")
    assert "run/.keep" in before
    project.start_both()
    project.send()
    project.kept(2)
    project.well(program="pytest")
    project.well("stop", "-ALL", "run")
    project.well("add", "-A", program="git")
    assert project.well("status", "--porcelain", program="git") == before
