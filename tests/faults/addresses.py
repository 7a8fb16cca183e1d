"""Addresses as paths: local parts that would lead out of a folder, through receiver, queue and an application that names files by them.

Nothing is touched outside the run folders: all files above and beside them are compared before and after.
"""

from __future__ import annotations

from pathlib import Path

from tests.faults.client import Connection
from tests.faults.figures import Figures, promise
from tests.faults.scene import scene

_TRICKS = (
    *("../up", "../../up", "../../../etc/passwd", "/etc/passwd", "//", "..", ".", "...", ".hidden", "-rf", "--help", "-", "~", "~root"),
    *("%2e%2e%2f", "%2e%2e/", "%00", "a%00b", "a\0b", "\0", "\0../up", "a/b", "a/../b", "a/../../../b", "..\\up", "C:\\up", "\\\\host\\up"),
    *("con", "nul", "aux.txt", "a:b", "a*b", "a?b", "a|b", "a<b>", "$(touch up)", "`touch up`", ";touch up", "|touch up", "&touch up"),
    *("a b", " a", "a ", "a\tb", "'", '\\"', "Ann", "ann", "ANN", "new/../../up", "tmp", "envelopes", "up.json", "x" * 64, "x" * 255),
    *("x" * 5000, "😀", "😀/../up", "é", "e\u0301", "\u202eup", "..\u2215up", "\uff0e\uff0e\uff0fup", "\u2028", "\u2024\u2024/up"),
)


def run() -> Figures:
    promise(len(_TRICKS) >= 60, f"only {len(_TRICKS)} local parts")
    with scene(handlers=["app.handlers.files"]) as server:
        root = server.folder.parent.parent
        server.start()
        before = outside(root, server.folder)
        codes: list[int] = []
        for number, local in enumerate(_TRICKS):
            for form in (local, f'"{local}"'):
                codes.append(send(server.port, f"{number}", "ann@client.test", f"{form}@files.test"))
                codes.append(send(server.port, f"{number}", f"{form}@client.test", "ann@files.test"))
        after = outside(root, server.folder)
        promise(after == before, f"touched outside the run folders: {sorted(after ^ before)}")
        server.stop()
        promise(all(code == 250 or 500 <= code < 560 for code in codes), f"the client heard {sorted(set(codes))}")
        files = sorted(path.name for path in (server.folder / "run/files").iterdir())
        promise(all(len(name.encode()) <= 255 and not name.startswith((".", "-")) for name in files), f"names of files: {files}")
        return {
            "local parts": len(_TRICKS),
            "messages taken": codes.count(250),
            "messages refused": len(codes) - codes.count(250),
            "files named after addresses": len(files),
            "files touched outside the run folders": 0,
        }


def outside(root: Path, project: Path) -> set[tuple[str, int]]:
    """What lies around the run folders, with the moment it was last changed."""
    inside = (project / "run", project / "logs")
    return {
        (str(path), path.stat().st_mtime_ns if path.is_file() else 0)
        for path in root.rglob("*")
        if not any(path.is_relative_to(each) for each in inside) and "__pycache__" not in path.parts
    }


def send(port: int, mark: str, sender: str, to: str) -> int:
    """The code that the message, or its sender or recipient, was answered with."""
    with Connection(port) as connection:
        try:
            connection.say(f"MAIL FROM:<{sender}> SMTPUTF8", f"RCPT TO:<{to}>")
            codes = [connection.reply(), connection.reply()]
            if max(codes) >= 400:
                return max(codes)
            connection.say("DATA")
            connection.expect(354)
            connection.sock.sendall(f"From: {sender!r}\r\nX-Mark: {mark}\r\nMessage-ID: <{sender!r}{to!r}>\r\n\r\nx\r\n.\r\n".encode())
            return connection.reply()
        except (ConnectionError, ValueError):
            return 500  # a line end in the address, or too many errors: the connection was ended
