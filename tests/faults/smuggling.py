"""Bytes that have fooled mail servers, over a real port: never two messages out of one, and the rows of the application say so.

Each of them is a message that hides a second one behind something that is not CRLF.CRLF. It is refused, or it is kept as one message with
those bytes as data; nothing of the hidden one is ever handled.
"""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import suppress

from tests.faults.client import Connection
from tests.faults.figures import Figures, promise
from tests.faults.scene import scene
from tests.faults.sink import Sink

HIDDEN = b"MAIL FROM:<boss@test.com>\r\nRCPT TO:<echo@test.com>\r\nDATA\r\nX-Mark: hidden\r\n\r\nsmuggled\r\n.\r\n"
#: What is not the end of a message. The issue's table, and what has been seen elsewhere.
ENDS = {
    "LF . LF": b"\n.\n",
    "CR . CR": b"\r.\r",
    "LF . CR LF": b"\n.\r\n",
    "CR LF . LF": b"\r\n.\n",
    "CR . CR LF": b"\r.\r\n",
    "CR LF . CR": b"\r\n.\r",
    "CR CR LF . CR CR LF": b"\r\r\n.\r\r\n",
    "LF CR . LF CR": b"\n\r.\n\r",
    "CR LF NUL . CR LF": b"\r\n\0.\r\n",
    "CR LF . NUL CR LF": b"\r\n.\0\r\n",
    "CR LF . blank CR LF": b"\r\n. \r\n",
    "CR LF .. CR LF": b"\r\n..\r\n",
    "U+2028 . U+2028": "\u2028.\u2028".encode(),
    "NEL . NEL": "\x85.\x85".encode("latin-1"),
    "bare LF": b"\n",
    "bare CR": b"\r",
}
#: What is no smuggling and must do no harm either.
OTHERS = {
    "a line of 10 MB": b"x" * 10_000_000,
    "NUL": b"a\0b",
    "8-bit without 8BITMIME": "grüße".encode("latin-1"),
    "a line of 5,000 octets": b"y" * 5000,
}


def run() -> Figures:
    with Sink() as sink, scene(relay_config={"port": sink.port}, handlers=["app.handlers.echo"]) as server:
        server.start()
        heard: dict[str, list[int]] = {}
        for name, between in {**ENDS, **OTHERS}.items():
            heard[name] = attack(server.port, name, between, hides=name in ENDS)
        hasty = b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<echo@test.com>\r\nDATA\r\n"
        haste = talk(server.port, hasty + message("haste", b"x"))
        marks = server.marks()
        notes = {row.mark: row.note for row in server.query("SELECT mark, note FROM handled")}
        promise("hidden" not in marks, f"a hidden message was handled: {heard}")
        promise(all(count == 1 for count in marks.values()), f"handled more than once: {marks}")
        for name, codes in heard.items():
            taken = name in marks
            promise((250 in codes[:1]) == taken, f"{name}: the client heard {codes}, and the application has {marks[name]} rows")
            promise(not taken or name not in ENDS or "smuggled" in notes[name], f"{name}: what was hidden is gone from the message")
        server.wait(lambda: len(sink.answers) >= len(marks), "the answers")
        server.stop()
        kept = {name for name in heard if name in marks}
        return {
            "kept as data, one message": sorted(kept),
            "refused": {name: codes[0] for name, codes in heard.items() if name not in kept},
            "input before the 354": haste,
            "hidden messages handled": marks["hidden"],
            "rows of the application": sum(marks.values()),
        }


def message(mark: str, between: bytes, hidden: bytes = b"") -> bytes:
    head = f"From: a@client.test\r\nTo: echo@test.com\r\nMessage-ID: <{abs(hash(mark))}@client.test>\r\nX-Mark: {mark}\r\n"
    return f"{head}\r\nbefore".encode() + between + hidden.removesuffix(b".\r\n" if hidden else b"") + b"\r\n.\r\n"


def attack(port: int, name: str, between: bytes, hides: bool) -> list[int]:
    """Sends the message, with what it hides, in one piece; returns the codes that came for it. QUIT follows, so that all are heard."""
    codes: list[int] = []
    with Connection(port, 20) as connection, suppress(OSError):
        connection.say("MAIL FROM:<a@client.test>", "RCPT TO:<echo@test.com>", "DATA")
        promise([connection.reply() for _ in range(3)] == [250, 250, 354], f"{name}: refused before its data")
        connection.sock.sendall(message(name, between, HIDDEN if hides else b"") + b"QUIT\r\n")
        while True:
            codes.append(connection.reply())
    promise(codes, f"{name}: no answer")
    promise(Counter(codes)[250] <= 1 and 354 not in codes, f"{name}: the server took a second message: {codes}")
    return codes


def talk(port: int, everything: bytes) -> str:
    """Says everything at once, without waiting; returns what came for the message itself."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock, suppress(OSError):
        sock.recv(500)
        sock.sendall(everything)
        heard = b""
        while received := sock.recv(4096):
            heard += received
        lines = heard.decode("ascii", "replace").splitlines()
        promise(not any("delivery" in line for line in lines), f"a message was taken before its 354: {lines}")
        return lines[-1]
    return "closed"
