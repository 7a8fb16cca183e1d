"""A thousand idle connections, clients of one byte a second, a client that never reads: mail of others is served, they are closed in time.

Memory and threads of the server are looked at while all of them are there.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.faults.client import Connection, Sender, letter
from tests.faults.figures import Figures, promise
from tests.faults.scene import scene


def run(idle: int = 1000, slow: int = 50, messages: int = 500, idle_seconds: float = 10.0) -> Figures:
    """`idle_seconds`: after which the receiver ends an idle connection."""
    limits = {"connections": idle + slow + 60, "per_peer": idle + slow + 60, "idle_seconds": idle_seconds, "send_seconds": idle_seconds,
              "data_seconds": idle_seconds}  # fmt: skip
    with scene(receiver_config=limits, handlers=["app.handlers.counter"]) as server, ExitStack() as stack:
        server.start()
        before = status(server.pid)
        began = time.monotonic()
        sleepers = [stack.enter_context(Connection(server.port)) for _ in range(idle)]
        drippers = [stack.enter_context(Connection(server.port)) for _ in range(slow)]
        for dripper in drippers:
            dripper.say("MAIL FROM:<slow@client.test>", "RCPT TO:<counter@test.com>", "DATA")
            promise([dripper.reply() for _ in range(3)] == [250, 250, 354], "a slow client was refused")
        deaf = stack.enter_context(Connection(server.port))
        flood(deaf.sock)
        for dripper in drippers:
            dripper.sock.sendall(b"X")
        letters = [letter(f"m-{n}", f"s{n % 20}@client.test", "counter@test.com") for n in range(messages)]
        with Sender(server.port, letters, 5) as client:
            client.join(60)
        served = time.monotonic() - began
        after = status(server.pid)
        promise(set(client.codes) == {"250"}, f"the others heard {dict(client.codes)}")
        promise(after["Threads"] <= before["Threads"] + 40, f"{after['Threads']} threads")
        promise(after["VmRSS"] < 200_000, f"{after['VmRSS']} kB of memory")
        last = 0.0
        while still_open([*sleepers, *drippers, deaf]):
            last = time.monotonic() - began
            promise(last < 3 * idle_seconds + 10, f"connections are open after {last:.0f} s")
            drip(drippers)
            time.sleep(1)
        server.stop()
        return {
            "connections": f"{idle} idle, {slow} of one byte a second, 1 that never reads",
            "messages of others": f"{messages}, all 250, {served:.1f} s after the first of them came",
            "threads before, with all of them": [before["Threads"], after["Threads"]],
            "kB of memory before, with all of them": [before["VmRSS"], after["VmRSS"]],
            "seconds until all were closed": f"{last:.0f}, allowed are {idle_seconds:g} from the last word",
        }


def status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.split()}
    return {name: int(found[name]) for name in ("Threads", "VmRSS")}


def flood(sock: socket.socket) -> None:
    """Asks and asks and never reads an answer, until nothing more goes out."""
    sock.settimeout(1)
    with suppress(OSError):
        for _ in range(200):
            sock.sendall(b"NOOP\r\n" * 10_000)


def drip(drippers: list[Connection]) -> None:
    for dripper in drippers:
        with suppress(OSError):
            dripper.sock.sendall(b"x")


def still_open(connections: list[Connection]) -> bool:
    """Whether the server holds any of them: one that it has ended can be read to its end."""
    for connection in connections:
        connection.sock.setblocking(False)
        try:
            while connection.sock.recv(1 << 20):
                if connection is connections[-1]:
                    return True  # the one that never reads: what it was sent lies there
        except BlockingIOError:
            return True
        except OSError:
            pass
    return False
