"""Automatic mail to an application that answers everything: no answer. Two such applications that write to each other: it ends.

The application is `project/app/handlers/echo.py`, which answers whatever it gets.
"""

from __future__ import annotations

import time

from tests.faults.client import Connection
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, free_port, scene
from tests.faults.sink import Sink

REPORT = 'Content-Type: multipart/report; report-type=delivery-status; boundary="b"'
#: What it is -> envelope sender and a header that says so.
AUTOMATIC = {
    "a delivery report": ("", REPORT),
    "a delivery report with a sender": ("mailer-daemon@client.test", REPORT),
    "a vacation answer": ("ann@client.test", "Auto-Submitted: auto-replied"),
    "a notice": ("cron@client.test", "Auto-Submitted: auto-generated"),
    "a mailing list": ("list-bounces@client.test", "List-Id: <list.client.test>"),
    "bulk mail": ("news@client.test", "Precedence: bulk"),
    "an old vacation answer": ("bob@client.test", "Precedence: auto_reply"),
}


def run(quiet: float = 2.0) -> Figures:
    """`quiet`: seconds for which nothing more may come."""
    with Sink() as sink, scene(relay_config={"port": sink.port}, handlers=["app.handlers.echo"]) as server:
        server.start()
        send(server, "asked", "person@client.test", "Subject: A person's own")
        for name, (sender, header) in AUTOMATIC.items():
            send(server, name, sender, header)
        promise(not sink.wait_for({"asked"}, 20), "the answer to a person never came")
        time.sleep(quiet)
        answered = {answer.mark for answer in sink.answers} - {"asked"}
        promise(not answered, f"answers to {answered}")
        handled = len(server.marks())
        server.stop()
    rounds = ring(quiet)
    return {"automatic messages handled": handled - 1, "answers to them": 0, "messages in the ring of two applications": rounds}


def send(server: Scene, mark: str, sender: str, header: str, to: str = "echo@test.com") -> None:
    head = f"From: {sender or 'mailer-daemon@client.test'}\r\nTo: {to}\r\nMessage-ID: <{time.time_ns()}@client.test>\r\nX-Mark: {mark}\r\n"
    with Connection(server.port) as connection:
        code = connection.send(sender, [to], f"{head}{header}\r\n\r\nHello.\r\n".encode())
    promise(code == 250, f"{mark} was answered with {code}")


def ring(quiet: float) -> int:
    """Each application's relay is the other one."""
    ports = free_port(), free_port()
    settings = [{"router_defaults": {"host": f"{name}\\.test"}, "handlers": ["app.handlers.echo"]} for name in "ab"]
    with (
        scene(receiver_config={"port": ports[0]}, relay_config={"port": ports[1]}, **settings[0]) as first,
        scene(receiver_config={"port": ports[1]}, relay_config={"port": ports[0]}, **settings[1]) as second,
    ):
        first.port, second.port = ports
        first.start()
        second.start()
        send(first, "ring", "echo@b.test", "Subject: Hello", to="echo@a.test")
        second.wait(lambda: second.handled(), "the first answer")
        time.sleep(quiet)
        first.wait(lambda: first.waiting() + second.waiting() == 0, "empty outboxes")
        messages = len(first.handled()) + len(second.handled())
        promise(messages <= 2, f"the ring went round {messages} messages and who knows how many more")
        first.stop()
        second.stop()
        return messages
