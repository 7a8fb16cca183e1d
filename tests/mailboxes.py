"""How much memory `cleanse` and `blast` take for a mailbox of any size.

    python -m tests.mailboxes [MEGABYTES]

makes an mbox file and a Maildir of so many megabytes (300 when none are given), and of a tenth of that, runs both commands over each in a
process of its own, and prints the peak of memory. The status is 1 when the large one takes more than `MORE` megabytes more than the small
one. CI runs a small form.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lamson.smtp.listener import Listener
from lamson.smtp.session import Envelope, Rules, Session
from lamson.status import Reply, reply

#: Megabytes that a mailbox of ten times the size may take more.
MORE = 8.0

COMMAND = """\
import sys
from lamson.commands import main
status = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(status, int(peak) / 1024)
"""


def messages(megabytes: float, size: int) -> Iterator[bytes]:
    """Messages of so many megabytes in all, each of about `size` octets."""
    line = "Grüße, everybody who reads this line of a letter that says nothing at all.\n".encode()
    for number in range(int(megabytes * 1e6 / size)):
        head = f"From: joe@example.com\nTo: ann@example.com\nSubject: letter {number}\nContent-Type: text/plain; charset=utf-8\n\n"
        yield head.encode() + line * ((size - len(head)) // len(line))


def write_mbox(path: Path, megabytes: float, size: int) -> None:
    with path.open("wb") as file:
        for data in messages(megabytes, size):
            file.write(b"From joe@example.com Thu Jan  1 00:00:00 1970\n" + data + b"\n")


def write_maildir(path: Path, megabytes: float, size: int) -> None:
    for name in ("new", "cur", "tmp"):
        (path / name).mkdir(parents=True)
    for number, data in enumerate(messages(megabytes, size)):
        (path / "new" / f"{number}.host").write_bytes(data)


def peak(*words: object) -> float:
    """Megabytes at the peak of one `lamson` command."""
    ran = subprocess.run([sys.executable, "-c", COMMAND, *map(str, words)], capture_output=True, text=True, check=True)
    status, megabytes = ran.stdout.splitlines()[-1].split()
    assert status == "0", ran.stderr
    return float(megabytes)


def take(envelope: Envelope) -> list[Reply]:
    return [reply(250)]


def measure(folder: Path, megabytes: float, size: int = 4_000) -> Iterator[tuple[str, float, float]]:
    """For each command and kind of mailbox: what it is, and the peak with a tenth of the size and with all of it."""
    rules = Rules("sink.example")
    listener = Listener(("127.0.0.1", 0), lambda peer, tls: Session(rules, peer, tls), take)
    listener.start()
    port = listener.address[1]
    kinds: dict[str, Callable[[Path, float, int], None]] = {"mbox": write_mbox, "maildir": write_maildir}
    try:
        for kind, write in kinds.items():
            boxes = [folder / f"{kind}.small", folder / f"{kind}.large"]
            for box, in_all in zip(boxes, (megabytes / 10, megabytes), strict=True):
                write(box, in_all, size)
            small, large = (peak("cleanse", "-input", box, "-output", f"{box}.clean") for box in boxes)
            yield f"cleanse {kind}", small, large
            small, large = (peak("blast", "-input", box, "-port", port) for box in boxes)
            yield f"blast {kind}", small, large
    finally:
        listener.stop(1.0)


def main(arguments: list[str]) -> int:
    megabytes = float(arguments[0]) if arguments else 300.0
    too_much = False
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        began = time.monotonic()
        for what, small, large in measure(Path(folder), megabytes):
            print(f"{what + ' ':.<18} {small:6.1f} MB for {megabytes / 10:g} MB, {large:6.1f} MB for {megabytes:g} MB")
            too_much = too_much or large - small > MORE
        print(f"{time.monotonic() - began:.0f} s")
    return too_much


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
