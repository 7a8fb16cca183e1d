"""The order on disk, by strace: what a message caused is synced, or its COMMIT answered, before its 250 is written.

One client sends one message after the other, so that each 250 can be held against the calls since the 250 before.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults import tracing
from tests.faults.client import Connection, letter
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, scene
from tests.faults.tracing import Call

CALLS = "pwrite64,write,fsync,fdatasync,rename,sendto,sendmsg,recvfrom,recvmsg"
#: What decides whether the answer to COMMIT means that it is on disk, and what it must be.
#: The outbox, which has nothing to send, looks once, at the start: else its own COMMIT might be taken for a message's.
NO_OTHER_COMMITS = {"outbox_config": {"poll": 3600.0}}
SETTINGS = {"postgresql": ("SHOW synchronous_commit", "on"), "mariadb": ("SELECT @@innodb_flush_log_at_trx_commit", "1")}


def run(database: str = "sqlite", messages: int = 20) -> Figures:
    """`database` "maildir" looks at what becomes of a message in the undeliverable queue."""
    kind = "sqlite" if database == "maildir" else database
    to = "broken@test.com" if database == "maildir" else "counter@test.com"
    with ExitStack() as stack:
        out = Path(stack.enter_context(TemporaryDirectory(prefix="lamson-trace-"))) / "trace"
        server = stack.enter_context(
            scene(kind, wrapper=tracing.wrapper(out, CALLS), handlers=["app.handlers.counter", "app.handlers.broken"], **NO_OTHER_COMMITS)
        )
        figures: Figures = {"database": database} | look_at_setting(server, kind)
        server.start()
        send_one_by_one(server, messages + 1, to)
        server.stop()
        calls = tracing.read(out)
        transactions = by_answer(calls)[1:]  # before the first there was the start
        promise(len(transactions) == messages, f"{messages} messages, but {len(transactions)} answers in the trace")
        judge = {"sqlite": judge_sqlite, "maildir": judge_maildir}.get(database, judge_server)
        steps = [judge(between) for between in transactions]
        return figures | {"messages": messages, "before each 250": max(set(steps), key=steps.count)}


def look_at_setting(server: Scene, kind: str) -> Figures:
    if kind not in SETTINGS:
        return {}
    question, wanted = SETTINGS[kind]
    found = str(server.query(question)[0][0])
    promise(found == wanted, f"{question} says {found}, so an answered COMMIT may be lost when the power fails")
    return {question: found}


def send_one_by_one(server: Scene, messages: int, to: str) -> None:
    with Connection(server.port) as connection:
        for number in range(messages):
            each = letter(f"m-{number}", "ann@client.test", to)
            code = connection.send(each.sender, each.to, each.data)
            promise(code == 250, f"message {number} was answered with {code}")


def by_answer(calls: list[Call]) -> list[list[Call]]:
    """For each 250 that ends a message: the calls that ended before it began and after the one before, the 250 itself last."""
    found: list[list[Call]] = []
    since = -1
    for call in sorted(calls, key=lambda call: call.began):
        if call.name in ("sendto", "sendmsg") and re.search(r'"250 2\.0\.0 (OK|Kept)', call.arguments):
            found.append([each for each in calls if since < each.ended < call.began] + [call])
            since = call.began
    return found


def judge_sqlite(calls: list[Call]) -> str:
    """The log is written, then synced, and not written again before the 250."""
    log = [call for call in calls if call.on("lamson.db-wal>") and not call.failed]
    written = [call.ended for call in log if call.name == "pwrite64"]
    synced = [call.began for call in log if call.name == "fdatasync"]
    promise(written and synced and max(written) < max(synced), f"a 250 without a sync of the log after its last write: {log}")
    return "write of lamson.db-wal, fdatasync of it"


def judge_server(calls: list[Call]) -> str:
    """COMMIT is sent, and something comes back on that connection, before the 250."""
    asked = [call for call in calls if call.name in ("sendto", "sendmsg") and "COMMIT" in call.arguments]
    promise(asked, f"a 250 without a COMMIT before it: {calls}")
    asks = asked[-1]
    line = asks.arguments.partition(",")[0]
    heard = [call for call in calls if call.name.startswith("recv") and call.arguments.startswith(line) and call.began > asks.ended]
    promise(any(call.result > 0 for call in heard), "a 250 before the answer to COMMIT was read")
    return "COMMIT sent, its answer read"


def judge_maildir(calls: list[Call]) -> str:
    """Each file is written, synced, renamed, and the directory synced; the row of the push is on disk before the rename."""
    steps = [step for call in calls if not call.failed for step in [step_of(call)] if step]
    squeezed = [step for step, before in zip(steps, [None, *steps], strict=False) if step != before]
    wanted = [
        "write tmp/KEY",
        "fsync tmp/KEY",
        "fsync tmp",
        "write envelopes/KEY.json",
        "fsync envelopes/KEY.json",
        "fsync envelopes",
        "write lamson.db-wal",
        "sync lamson.db-wal",
        "rename tmp/KEY new/KEY",
        "fsync new",
    ]
    promise(squeezed == wanted, f"the order was {squeezed}")
    return ", ".join(wanted)


def step_of(call: Call) -> str:
    if call.on("lamson.db-wal>"):
        return {"pwrite64": "write lamson.db-wal", "fdatasync": "sync lamson.db-wal"}.get(call.name, "")
    paths = re.findall(r"undeliverable/((?:tmp|new|envelopes)(?:/[^\">]*)?)", call.arguments)
    named = [re.sub(r"/\d{10}\.N.*?(?=\.json$|$)", "/KEY", path) for path in paths]
    return " ".join([call.name, *named]) if named and call.name in ("write", "fsync", "rename") else ""
