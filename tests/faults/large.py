"""Large and strange: an answer of 5 MB, `jose@` and `josé@`, a state table of a million rows, routes of four `.+` and long addresses."""

from __future__ import annotations

import email
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from lamson.database import FSMState, configure_database
from lamson.routing import RoutingBase
from tests.faults.client import Connection, letter
from tests.faults.figures import Figures, promise
from tests.faults.scene import Scene, scene
from tests.faults.sink import Sink


def run(octets: int = 5_000_000, rows: int = 1_000_000, database: str = "sqlite") -> Figures:
    return big_answer(octets, database) | million_rows(rows) | four_captures()


def big_answer(octets: int, database: str) -> Figures:
    with Sink(keep_data=True) as sink, scene(
        database, relay_config={"port": sink.port}, handlers=["app.handlers.big"], outbox_config={"pauses": [0.5]}
    ) as server:
        server.start()
        sink.set_mode("gone")  # so that it is stored, and not only passed on
        each = letter("big", "ann@client.test", "big@test.com", subject=str(octets))
        with Connection(server.port) as connection:
            promise(connection.send(each.sender, each.to, each.data) == 250, "the message was not taken")
        stored = int(server.query("SELECT length(data) FROM lamson_message")[0][0])
        speakers = conversations(server)
        server.kill()
        sink.set_mode("take")
        server.start()
        promise(not sink.wait_for({"big"}, 90), "the answer never came")
        answer = email.message_from_bytes(next(each.data for each in sink.answers if each.mark == "big"))
        attached = next(part.get_payload(decode=True) for part in answer.walk() if part.get_filename())
        promise(attached == bytes(range(256)) * (octets // 256), "the answer did not come whole")
        server.stop()
        return {"octets answered": octets, "stored": stored, "came whole": True, "conversations of jose and josé": speakers}


def conversations(server: Scene) -> int:
    for sender in ("jose@client.test", "josé@client.test"):
        with Connection(server.port) as connection:
            connection.say(f"MAIL FROM:<{sender}> SMTPUTF8", "RCPT TO:<big@test.com>", "DATA")
            promise([connection.reply() for _ in range(3)] == [250, 250, 354], f"{sender} was refused")
            connection.sock.sendall(f"From: {sender}\r\nSubject: 256\r\nX-Mark: {sender}\r\n\r\n.\r\n".encode())
            promise(connection.reply() == 250, f"{sender}'s message was refused")
    found = int(server.query("SELECT count(*) FROM lamson_state WHERE sender LIKE 'jos%'")[0][0])
    promise(found == 2, f"jose and josé have {found} conversations")
    return found


def million_rows(rows: int) -> Figures:
    """How long a state takes to be found among few, and among many."""
    with tempfile.TemporaryDirectory(prefix="lamson-large-") as folder:
        database = configure_database({"url": f"sqlite:///{Path(folder)}/lamson.db", "synchronous": "OFF"}, also_create=True)
        try:
            add_rows(database.engine, 0, 1000)
            few = seconds_a_read(database, 1000)
            add_rows(database.engine, 1000, rows)
            many = seconds_a_read(database, rows)
        finally:
            database.dispose()
    promise(many < 3 * few + 0.001, f"a state takes {many * 1e6:.0f} µs to find among {rows}, {few * 1e6:.0f} among 1,000")
    return {f"µs to find a state among 1,000, among {rows:,}": [few * 1e6, many * 1e6]}


def add_rows(engine: sa.Engine, start: int, end: int) -> None:
    with engine.begin() as connection:
        for at in range(start, end, 20_000):
            part = range(at, min(at + 20_000, end))
            row = {"fsm": "app.handlers.desk", "recipient": "desk@test.com", "state": "MIDDLE", "version": 1, "last_modified": 0.0}
            connection.execute(sa.insert(FSMState), [row | {"sender": f"sender{number}@client.test"} for number in part])


def seconds_a_read(database: object, rows: int) -> float:
    """The median of many reads of senders spread over all."""
    times = []
    for number in range(0, rows, max(1, rows // 1000)):
        began = time.perf_counter()
        state = database.states.get("app.handlers.desk", f"sender{number}@client.test")  # type: ignore[attr-defined]
        times.append(time.perf_counter() - began)
        promise(state == "MIDDLE", f"sender{number} is in {state}")
    return sorted(times)[len(times) // 2]


def four_captures() -> Figures:
    """The longest time that an address may take to match `(a)-(b)-(c)-(d)@(host)`, each of the four `.+`."""
    router = RoutingBase()

    @router.route("(a)-(b)-(c)-(d)@(host)", a=".+", b=".+", c=".+", d=".+", host="test\\.com")
    def START(message: object, a: str = "", b: str = "", c: str = "", d: str = "", host: str = "") -> None: ...

    slowest: dict[int, float] = {}
    for length in (64, 254, 320, 1000):
        for local in ("-" * (length - 9), "a-" * ((length - 9) // 2), "a" * (length - 9), "a" * (length - 11) + "--"):
            for domain in ("@test.com", "@test.cox", "@testxcom"):
                began = time.perf_counter()
                router.match(local + domain)
                slowest[length] = max(slowest.get(length, 0.0), time.perf_counter() - began)
    milliseconds = {length: seconds * 1000 for length, seconds in slowest.items()}
    promise(max(milliseconds.values()) < 10, f"milliseconds to match, by octets: {milliseconds}")
    return {"milliseconds to match four .+, by octets of the address": milliseconds}
