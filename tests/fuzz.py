"""Throws damaged mail at reading, addresses and header writing, until something breaks or the time is over.

    python -m tests.fuzz [SECONDS] [FOLDER]...

Seeds are the messages of the folders, besides a few of its own; each is cut, spliced, repeated and sprinkled with what breaks parsers. What
must hold for any bytes is what the properties of tests/test_encoding.py say. A message that breaks it is written to `fuzz-failure.eml`, and
the status is 1. The random numbers' seed is printed: `FUZZ_SEED` repeats a run. An hour of it: `python -m tests.fuzz 3600 FOLDER`.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from lamson import address
from lamson.mail import MailRequest, MailResponse
from tests.test_encoding import MULTIPART, SCRAPS, SIGNED, ask_everything, look_at_everything, words

#: Seconds of CPU time that no message of this size may take; what is slow is broken.
LONGEST_SECONDS = 1.0

#: Octets of a seed that are used.
LONGEST_SEED = 20_000

SEEDS = [MULTIPART.encode(), b"From: =?utf-8?q?J=C3=B6?= <j@example.com>\r\nTo: a@b, \"c, d\" <e@f>\r\nSubject: x\r\n\r\nbody\r\n", b""]
SEEDS += [SIGNED.replace("\n", "\r\n").encode()]


class Fuzzer:
    """Makes messages out of seeds and tries them. The same random numbers give the same messages."""

    def __init__(self, seeds: list[bytes], numbers: random.Random) -> None:
        self.seeds, self.numbers = seeds, numbers
        self.tried = 0

    def message(self) -> bytes:
        """The next damaged message."""
        data = self.numbers.choice(self.seeds)[:LONGEST_SEED]
        for _ in range(self.numbers.randint(1, 8)):
            data = self.numbers.choice([self.cut, self.sprinkled, self.repeated, self.spliced, self.flipped])(data)
        return data

    def place(self, data: bytes) -> int:
        return self.numbers.randint(0, len(data))

    def cut(self, data: bytes) -> bytes:
        first, second = sorted((self.place(data), self.place(data)))
        return data[:first] + data[second:]

    def sprinkled(self, data: bytes) -> bytes:
        at = self.place(data)
        return data[:at] + self.numbers.choice(SCRAPS) + data[at:]

    def repeated(self, data: bytes) -> bytes:
        at = self.place(data)
        return data[:at] + data[at : at + self.numbers.randint(0, 40)] * self.numbers.randint(2, 30) + data[at:]

    def spliced(self, data: bytes) -> bytes:
        other = self.numbers.choice(self.seeds)[:LONGEST_SEED]
        return (data[: self.place(data)] + other[self.place(other) :])[: 2 * LONGEST_SEED]

    def flipped(self, data: bytes) -> bytes:
        octets = bytearray(data)
        for _ in range(min(len(octets), self.numbers.randint(1, 10))):
            octets[self.numbers.randrange(len(octets))] = self.numbers.randrange(256)
        return bytes(octets)

    def run(self, seconds: float) -> bytes | None:
        """Tries for so long; returns the message that broke something, if one did. What breaks is told on standard error."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            data = self.message()
            self.tried += 1
            try:
                attempt(data)
            except Exception as error:  # the fuzzer's own barrier: whatever is raised is what it looks for
                print(f"{type(error).__name__}: {str(error)[:2000]}", file=sys.stderr)
                return data
        return None


def attempt(data: bytes) -> None:
    """All that must hold for any octets."""
    began = time.process_time()
    message = MailRequest("fuzz", None, None, data)
    ask_everything(message)
    assert bytes(message) == data
    written_headers_are_read_back(message)
    assert time.process_time() - began < LONGEST_SECONDS, "it takes too long"
    look_at_everything(data)


def written_headers_are_read_back(message: MailRequest) -> None:
    """A value that was read can be set in a message of our own, and starts no header there."""
    answer = MailResponse("a@example.com", "b@example.com")
    for at, (_, value) in enumerate(message.items()[:50]):
        answer[f"X-{at}"] = value
        assert words(str(answer[f"X-{at}"])) == words(value)
        address.file_name(value)
    again = MailRequest("fuzz", None, None, bytes(answer))
    given = [(name, value) for name, value in answer.items() if name.startswith("X-")]
    assert [(name, value) for name, value in again.items() if name.startswith("X-")] == given


def main(arguments: list[str]) -> int:
    seconds = float(arguments[0]) if arguments else 60.0
    files = [path for folder in arguments[1:] for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    seed = os.environ.get("FUZZ_SEED") or str(time.time_ns())
    fuzzer = Fuzzer(SEEDS + [path.read_bytes() for path in files], random.Random(seed))
    print(f"FUZZ_SEED={seed}, {len(fuzzer.seeds)} seeds")
    failure = fuzzer.run(seconds)
    print(f"{fuzzer.tried} messages")
    if failure is not None:
        Path("fuzz-failure.eml").write_bytes(failure)
        print("one of them broke something: it is in fuzz-failure.eml")
    return failure is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
