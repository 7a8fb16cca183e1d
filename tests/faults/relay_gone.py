"""The next server refuses connections, then answers 4xx, then works: senders notice nothing, and every answer arrives.

Mail comes in all the while at a steady rate. What cannot be sent waits in the outbox.
"""

from __future__ import annotations

import time

from tests.faults.client import Sender
from tests.faults.figures import Figures, promise
from tests.faults.kill import conversation, judge
from tests.faults.scene import scene
from tests.faults.sink import Sink


def run(
    refused: float = 60.0, later: float = 30.0, rate: int = 40, senders: int = 50, database: str = "sqlite", pause: float = 1.0
) -> Figures:
    """`refused`, `later`: seconds. `rate`: messages a second. `pause`: seconds of the outbox's first pause; the next are twice and five
    times as long."""
    threads = 10
    letters = conversation(int(rate * (refused + later)), senders)
    pauses = [pause, 2 * pause, 5 * pause]
    with Sink() as sink, scene(database, relay_config={"port": sink.port}, outbox_config={"pauses": pauses}) as server:
        server.start()
        sink.set_mode("gone")
        began = time.monotonic()
        with Sender(server.port, letters, threads, pace=threads / rate) as client:
            time.sleep(refused)
            waiting = {"refused": server.waiting()}
            promise(not sink.answers, "an answer was sent while nobody listened")
            sink.set_mode("later")
            time.sleep(max(0.0, began + refused + later - time.monotonic()))
            waiting["4xx"] = server.waiting()
            promise(not sink.answers, "an answer was taken by a server that says 451")
            sink.set_mode("take")
            works = time.monotonic()
            client.join(60 + refused + later)
        missing = sink.wait_for({each.mark for each in letters}, 60 + 20 * pause)
        promise(not missing, f"{len(missing)} answers never came")
        promise(set(client.codes) == {"250"}, f"the senders heard {dict(client.codes)}")
        took = time.monotonic() - works
        server.wait(lambda: server.waiting() == 0, "an empty outbox")
        return {
            "seconds refused, then 4xx": [refused, later],
            "messages taken": len(client.kept),
            "waited in the outbox at the end of each": waiting,
            "times turned away with 4xx": sink.turned_away,
            "seconds until all answers had come once it worked": took,
        } | judge(server, sink, letters)
