"""A thousand messages of one sender at once, to two processes: a state machine that counts them counts right.

The handler reads a number, adds one and writes it: what goes wrong as soon as two runs of one conversation overlap.
"""

from __future__ import annotations

import time

from tests.faults.client import Sender, letter
from tests.faults.figures import Broken, Figures, promise
from tests.faults.scene import scene
from tests.faults.sink import Sink

#: On a busy machine one process may take all connections before the other has waked: that is no race, and there is another.
RACES = 5


def run(messages: int = 1000, threads: int = 200, workers: int = 2, database: str = "sqlite") -> Figures:
    """`threads`: how many connections the client has; each sends the next message when its last one was taken."""
    for _ in range(RACES):
        figures = race(messages, threads, workers, database)
        if len(figures["handled by each process"]) == workers:
            return figures
    raise Broken(f"in {RACES} races one of {workers} processes took part")


def race(messages: int, threads: int, workers: int, database: str) -> Figures:
    letters = [letter(f"only-{n}", "only@client.test", "counter@test.com") for n in range(messages)]
    room = {"per_peer": threads + 10, "connections": threads + 10}
    with Sink() as sink, scene(
        database, workers, relay_config={"port": sink.port}, receiver_config=room, handlers=["app.handlers.counter"]
    ) as server:
        server.start()
        began = time.monotonic()
        with Sender(server.port, letters, threads, pause=0.2, all_at_once=True) as client:
            client.join(300)
        took = time.monotonic() - began
        marks = server.marks()
        promise(len(marks) == messages and set(marks.values()) == {1}, f"{sum(marks.values())} rows for {messages} messages")
        counted = server.query("SELECT value FROM counted")
        promise([row.value for row in counted] == [messages], f"it counted {[row.value for row in counted]} and not {messages}")
        version = server.query("SELECT version FROM lamson_state")
        promise([row.version for row in version] == [messages], f"the conversation counts {version} runs")
        shares = [row.share for row in server.query("SELECT count(*) AS share FROM handled GROUP BY note")]
        return {
            "database": database,
            "messages": messages,
            "connections": threads,
            "counted": counted[0].value,
            "heard by the client": dict(client.codes),
            "handled by each process": shares,
            "seconds": took,
        }
