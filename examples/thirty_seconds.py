"""The thirty-second introduction, told as it happens: a project, two servers, one conversation over SMTP.

Run by `./demo`; `./demo stop` stops the servers that it left running. It does nothing but call the command line, and look at what came
of it: a message in a Maildir, a row in a database.
"""

from __future__ import annotations

import email
import email.policy
import shlex
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMOS = ROOT / ".lamson-demo"
LAMSON = Path(sys.executable).with_name("lamson")

#: The ports of a new project: its server, and the one that it hands its mail to.
USUAL_PORTS = {"server": 8823, "log": 8825}

#: Seconds until an answer must be there.
PATIENCE = 30


class Failed(Exception):
    """Something did not go as it should; the text says what."""


def main(words: list[str]) -> int:
    try:
        if words == ["stop"]:
            stop_all()
        elif words:
            raise Failed(f"unknown: {' '.join(words)}. It is ./demo or ./demo stop")
        else:
            show()
    except Failed as failure:
        print(f"\ndemo: {failure}", file=sys.stderr)
        return 1
    return 0


def show() -> None:
    stop_all()
    project = new_project()
    try:
        ports = choose_ports(project)
        lamson(project, "start")
        lamson(project, "log", "-port", ports["log"])
        converse(project, ports["server"])
    except BaseException:
        stop(project)
        raise
    tell_how_to_go_on(project, ports["server"])


# -- the project


def new_project() -> Path:
    """A project that no earlier demo had: whatever was tried in those stays."""
    DEMOS.mkdir(exist_ok=True)
    names = ["mymailserver", *(f"mymailserver{number}" for number in range(2, 10_000))]
    name = next(name for name in names if not (DEMOS / name).exists())
    lamson(DEMOS, "gen", "-project", name, quiet=True)
    return DEMOS / name


def choose_ports(project: Path) -> dict[str, int]:
    """The usual ports, and free ones in place of those that are taken, written into the project's settings."""
    ports = {who: port if is_free(port) else free_port() for who, port in USUAL_PORTS.items()}
    for who, usual in USUAL_PORTS.items():
        if ports[who] != usual:
            print(f"Port {usual} is taken: config/settings.py says {ports[who]} instead.")
            for name in ("config/settings.py", "muttrc"):
                replace(project / name, str(usual), str(ports[who]))
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was in use just now is free
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


# -- the conversation


def converse(project: Path, port: int) -> None:
    headline("Two messages to it, over SMTP")
    send(project, port, "My test.", "Hi there.")
    messages = wait_for(project, 2)
    headline("The answer that came back, in run/queue")
    print(text_of(project, "Welcome", messages))
    send(project, port, "And again.", "Still there?", quiet=True)
    wait_for(project, 3)
    headline("The second message was forwarded without an answer: the sender was in another state by then")
    for machine, sender, state in states(project):
        print(f"lamson_state in run/lamson.db: {sender} is in {machine}.{state}")


def send(project: Path, port: int, subject: str, body: str, quiet: bool = False) -> None:
    who = ["-sender", "me@mydomain.com", "-to", "test@test.com"]
    lamson(project, "send", *who, "-subject", subject, "-body", body, "-port", port, quiet=quiet)


def wait_for(project: Path, number: int) -> list[Path]:
    """The messages in run/queue when there are that many."""
    deadline = time.monotonic() + PATIENCE
    while len(found := sorted((project / "run" / "queue" / "new").glob("*"))) < number:
        if time.monotonic() > deadline:
            raise Failed(f"{len(found)} messages in {project}/run/queue after {PATIENCE} seconds, not {number}. {project}/logs tells more.")
        time.sleep(0.05)
    return found


def text_of(project: Path, subject: str, messages: list[Path]) -> str:
    """The message whose subject begins so, as a mail reader shows it."""
    for path in messages:
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if str(message["Subject"]).startswith(subject):
            headers = [f"{name}: {message[name]}" for name in ("From", "To", "Subject")]
            return "\n".join([*headers, "", message.get_content().strip()])
    raise Failed(f"no answer among the messages in {project}/run/queue")


def states(project: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(project / "run" / "lamson.db")) as database:
        return database.execute("SELECT fsm, sender, state FROM lamson_state").fetchall()


# -- the command line


def lamson(folder: Path, *words: object, quiet: bool = False) -> None:
    """Runs a command of Lamson in this folder, showing it."""
    arguments = [str(word) for word in words]
    print(f"\n$ lamson {shlex.join(arguments)}", flush=True)
    ran = subprocess.run([LAMSON, *arguments], cwd=folder, stdin=subprocess.DEVNULL, text=True, capture_output=True)
    if ran.returncode:
        raise Failed(f"lamson {arguments[0]} in {folder} ended with status {ran.returncode}:\n{ran.stdout}{ran.stderr}".rstrip())
    if not quiet:
        print((ran.stdout + ran.stderr).strip(), flush=True)


def stop(project: Path) -> None:
    """Stops the servers of a project, if any run."""
    if list((project / "run").glob("*.pid")):
        lamson(project, "stop", "-ALL", "run")


def stop_all() -> None:
    for run in sorted(DEMOS.glob("*/run")):
        stop(run.parent)


def headline(text: str) -> None:
    print(f"\n== {text}", flush=True)


def tell_how_to_go_on(project: Path, port: int) -> None:
    headline("How to go on")
    print(f"""
Both servers run. In this shell:

    cd {project}
    PATH="{LAMSON.parent}:$PATH"

    less app/handlers/sample.py      what answered: change it, then `lamson restart`
    less logs/lamson.log             the messages' way
    nosetests                        the project's tests
    lamson send -port {port} -sender you@example.com -to test@test.com -subject Hello -body "From me."
    mutt -F muttrc                   run/queue in a mail reader, if you have mutt

To stop:

    lamson stop -ALL run             or, from the source tree: ./demo stop
""")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
