"""Handlers that hang: other conversations go on, the caps hold, and what hung is handled once.

Several senders' handlers hang for longer than a handler may take. Their clients hear 451 in time; a crowd at one of these conversations
is sent away at once; everybody else is served as if nothing were.
"""

from __future__ import annotations

import select
import time
from statistics import median

from tests.faults.client import Connection, Letter, Sender, letter
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, scene

#: So many deliveries may wait for one conversation (docs/guarantees.md).
WAITING = 4


def run(
    database: str = "sqlite", when: str = "before", hanging: int = 8, seconds: float = 10.0, deadline: float = 3.0, messages: int = 300
) -> Figures:
    """`when`: it hangs before or after it writes; on SQLite, which has one writer, only before. `hanging`: how many do. `seconds`: for
    how long, `deadline`: how long the receiver lets them."""
    stuck = [letter(f"h-{n}", f"h{n}@client.test", f"hang-{when}@test.com", subject=str(seconds)) for n in range(hanging)]
    others = [letter(f"o-{n}", f"o{n % 50}@client.test", "counter@test.com") for n in range(messages)]
    limits = {"handlers": hanging + 8, "handler_seconds": deadline}
    with scene(database, receiver_config=limits, handlers=["app.handlers.counter", "app.handlers.hang"]) as server:
        server.start()
        with Sender(server.port, stuck, hanging) as hung:
            server.wait(lambda: server.count_in_log("matched hang-") == hanging, "all of them hang")
            began = time.monotonic()
            crowd = crowd_at(server, stuck[0], 2 * WAITING)
            with Sender(server.port, others, 5) as client:
                client.join(seconds - 2)
            took = time.monotonic() - began
            promise(not hung.kept, "what hangs was answered 250")
            promise(set(client.codes) == {"250"}, f"the others heard {dict(client.codes)}")
            hung.join(6 * seconds)
        server.wait(lambda: set(server.marks().values()) == {1} and len(server.marks()) >= len(others) + hanging, "a row for each")
        server.stop()
    return {
        "database": database,
        "hang": f"{hanging}, for {seconds:g} s {when} they write; allowed are {deadline:g} s",
        "others": f"{len(others)} messages, all 250, in {took:.2f} s",
        "a crowd at one that hangs": crowd,
        "heard by those that hung": dict(hung.codes),
    }


def crowd_at(server: Scene, stuck: Letter, size: int) -> dict[str, object]:
    """Many more messages of a sender whose conversation hangs: those beyond the cap are sent away at once."""
    more = [letter(f"c-{n}", stuck.sender, stuck.to[0], subject="0") for n in range(size)]
    connections = [Connection(server.port) for _ in more]
    began = time.monotonic()
    for connection, each in zip(connections, more, strict=True):
        connection.say(f"MAIL FROM:<{each.sender}>", f"RCPT TO:<{each.to[0]}>", "DATA")
        for _ in range(3):
            connection.reply()
        connection.sock.sendall(each.data + b".\r\n")
    away: list[float] = []
    waiting = {connection.sock: connection for connection in connections}
    while ready := select.select(list(waiting), [], [], 1.0)[0]:
        for sock in ready:
            promise(waiting.pop(sock).reply() == 451, "a message was taken past a conversation that hangs")
            away.append(time.monotonic() - began)
    for connection in connections:
        connection.close()
    promise(len(away) == size - WAITING, f"{len(away)} of {size} were sent away at once; {WAITING} may wait")
    return {"sent away with 451": len(away), "wait": size - len(away), "seconds until they were": median(away)}
