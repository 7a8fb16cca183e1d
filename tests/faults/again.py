"""Messages that come more than once, or by detours: each handled once, none swallowed.

One for two recipients of whom the second fails for now; one without a Message-ID; a queue in the middle, on one database; one put back
from the undeliverable queue.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from tests.faults.client import Connection, letter
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, scene


def run() -> Figures:
    with (
        scene(handlers=["app.handlers.moods"]) as server,
        scene(url=server.url, handlers=["app.handlers.behind"], queue_in=f"{server.folder}/run/middle") as behind,
    ):
        server.start()
        behind.launch()
        heard = {
            "two recipients, the second later": send(server, "two", "well@moods.test", "later@moods.test"),
            "no Message-ID, twice": send(server, "unnamed", "well@moods.test") + send(server, "unnamed", "well@moods.test"),
            "by a queue in the middle": send(server, "middle", "middle@moods.test"),
            "one that fails": send(server, "broken", "broken@moods.test"),
        }
        server.wait(lambda: rows(server, "middle") == {"pushed": 1, "handled": 1}, "what is behind the queue handles it")
        promise(rows(server, "two") == {"well": 1}, f"after the first attempt: {rows(server, 'two')}")
        promise(rows(server, "broken") == {}, "a handler that failed left its row")
        (server.folder / "run/well").touch()
        heard["two recipients, again"] = send(server, "two", "well@moods.test", "later@moods.test")
        heard["one that fails, put back"] = [250] if "1" in put_back(server) else []
        expected = {"two": {"well": 1, "later": 1}, "unnamed": {"well": 1}, "broken": {"broken": 1}, "middle": {"pushed": 1, "handled": 1}}
        for mark, wanted in expected.items():
            server.wait(lambda mark=mark, wanted=wanted: rows(server, mark) == wanted, f"{mark}: {wanted}, not {rows(server, mark)}", 5)
        promise(not server.undeliverable(), "it is still in the undeliverable queue")
        server.stop()
        behind.stop()
        return {"heard": heard, "handled": {mark: dict(rows(server, mark)) for mark in expected}}


def rows(server: Scene, mark: str) -> Counter[str]:
    return Counter(state for each, _, _, state in server.handled() if each == mark)


def send(server: Scene, mark: str, *to: str) -> list[int]:
    each = letter(mark, "ann@client.test", to[0])
    data = each.data.replace(b"Message-ID: <unnamed@client.test>\r\n", b"")
    with Connection(server.port) as connection:
        return [connection.send(each.sender, to, data)]


def put_back(server: Scene) -> str:
    command = [sys.executable, "-m", "lamson", "queue", "-name", "run/undeliverable", "-route", "all"]
    done = subprocess.run(command, cwd=server.folder, capture_output=True, text=True, timeout=60, check=False)
    promise(done.returncode == 0, f"lamson queue -route: {done.stdout}{done.stderr}")
    return done.stdout
