"""The disk says EIO or ENOSPC at the n-th fsync, write or rename: never a 250 for what is not durable.

strace makes the calls fail; a client tries again until 250. The trace tells, for each 250, that what it stands for was synced with
success; then the server is killed and started on a sound disk, and everything is there once.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults import tracing
from tests.faults.client import Sender, letter
from tests.faults.disk_order import CALLS, by_answer
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, scene

#: Starting writes, and a push into a queue syncs five times, all of which must go well for it to be kept.
FIRST, EVERY = {"pwrite64": 60}, {"pwrite64": 37, "fsync": 11}


def run(call: str = "fdatasync", error: str = "EIO", first: int = 0, every: int = 0, messages: int = 100) -> Figures:
    """`call`: fdatasync and pwrite64 are SQLite's; fsync and rename are the undeliverable queue's, into which all mail then goes. Each
    thread's `first` and then every `every`-th fails; 0 takes what lets the server start and most messages pass."""
    first, every = first or FIRST.get(call, 3), every or EVERY.get(call, 4)
    queue = call in ("fsync", "rename")
    letters = [letter(f"m-{n}", f"s{n % 10}@client.test", "broken@test.com" if queue else "counter@test.com") for n in range(messages)]
    with ExitStack() as stack:
        out = Path(stack.enter_context(TemporaryDirectory(prefix="lamson-trace-"))) / "trace"
        server = stack.enter_context(scene(handlers=["app.handlers.counter", "app.handlers.broken"]))
        server.start()  # on a sound disk, to have its tables made
        server.stop()
        server.wrapper = tracing.wrapper(out, CALLS, [f"{call}:error={error}:when={first}+{every}"])
        server.start()
        with Sender(server.port, letters, 4 if queue else 1) as client:
            client.join(120)
        server.kill_only_the_server()
        calls = tracing.read(out)
        failed = sum(each.injected for each in calls)
        promise(failed, f"no {call} failed: the program shows nothing")
        if not queue:
            judge_syncs(by_answer(calls))
        server.wrapper = []
        server.start()
        found = kept_in_queue(server) if queue else server.marks()
        server.stop()
        judge_marks(found, set(client.kept))
        return {
            "what failed": f"{failed} calls of {call}, with {error}",
            "heard by the client": dict(client.codes),
            "answered 250, and there once after kill -9": len(found),
        }


def judge_syncs(transactions: list[list[tracing.Call]]) -> None:
    """Between the last write of the log and the 250 there is a sync that did not fail."""
    for calls in transactions[1:]:
        log = [each for each in calls if each.on("lamson.db-wal>")]
        written = [each.ended for each in log if each.name == "pwrite64" and not each.failed]
        synced = [each.began for each in log if each.name == "fdatasync" and not each.failed]
        promise(not written or (synced and max(written) < max(synced)), f"a 250 after a sync that failed: {log}")


def kept_in_queue(server: Scene) -> Counter[str]:
    """The marks of the messages in the undeliverable queue, each a whole message."""
    found: Counter[str] = Counter()
    for path in server.undeliverable():
        data = path.read_bytes()
        promise(data.endswith(b"\r\nHello.\r\n"), f"{path.name} is not whole: {data!r}")
        found.update(mark.decode() for mark in re.findall(rb"X-Mark: (\S+)", data))
    return found


def judge_marks(found: Counter[str], kept: set[str]) -> None:
    promise(not kept - found.keys(), f"answered 250 and not there: {sorted(kept - found.keys())[:5]}")
    twice = [mark for mark, count in found.items() if count > 1]
    promise(not twice, f"there twice: {twice[:5]}")
