"""The same work in Lamson or Salmon, whose modules have the same names. Prints messages, seconds and CPU seconds as JSON.

    python work.py FRAMEWORK match ROUTES LOOKUPS
    python work.py FRAMEWORK queue MESSAGES MAILDIR
    python work.py FRAMEWORK read FILES...
"""

import importlib
import json
import logging
import random
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from timing import timed

TEXT = "From: ann@example.com\r\nTo: list@test.com\r\nSubject: A message\r\n\r\n" + "The quick brown fox writes mail.\r\n" * 58


def match(framework: str, routes: str, lookups: str) -> dict[str, Any]:
    """Half of the routes are told by the beginning of the address, half by its host. One address in ten fits none. No address is asked for
    twice: what is remembered of it does not help."""
    routing = importlib.import_module(f"{framework}.routing")
    for number in range(int(routes)):
        name = f"STATE_{number}"
        function = add_function(name)
        at_host = f"(address)@list{number}\\.example\\.com" if number % 2 else f"list{number}-(address)@example\\.com"
        routing.route(at_host, address="[a-z]+")(function)
    asked = random.Random(1)
    numbers = [asked.randrange(int(int(routes) * 10 / 9) + 1) for _ in range(int(lookups))]
    people = map("".join, product("abcdefghijklmnopqrstuvwxyz", repeat=4))
    addresses = [
        f"{person}@list{number}.example.com" if number % 2 else f"list{number}-{person}@example.com"
        for number, person in zip(numbers, people, strict=False)
    ]
    found = sum(len(list(routing.Router.match(address))) for address in addresses[:10])  # what is made at the first use is made here
    assert found, "no route fits"
    return timed(lambda: sum(len(list(routing.Router.match(address))) >= 0 for address in addresses))


def add_function(name: str) -> Callable[..., None]:
    """A state function of this name, a function of this module as the decorators want it."""
    exec(f"def {name}(message, address=None): pass", globals())
    function: Callable[..., None] = globals()[name]
    return function


def queue(framework: str, messages: str, maildir: str) -> dict[str, Any]:
    """Pushes so many messages of 2 kB, then pops them all."""
    box = importlib.import_module(f"{framework}.queue").Queue(maildir)

    def work() -> int:
        for _ in range(int(messages)):
            box.push(TEXT)
        popped = 0
        while box.pop()[0] is not None:
            popped += 1
        assert popped == int(messages), f"{popped} of {messages} came out"
        return popped

    return timed(work)


def read(framework: str, *names: str) -> dict[str, Any]:
    """All headers and bodies of all parts. What raises counts as read, and is told."""
    request = importlib.import_module(f"{framework}.mail").MailRequest
    raws = [Path(name).read_bytes() for name in names]
    raised = 0

    def work() -> int:
        nonlocal raised
        for raw in raws:
            try:
                message = request("bench", None, None, raw)
                for part in (message.base, *message.walk()):
                    part.items(), part.body
            except Exception:
                raised += 1
        return len(raws)

    return timed(work) | {"raised": raised}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    framework, what, *rest = sys.argv[1:]
    print(json.dumps({"match": match, "queue": queue, "read": read}[what](framework, *rest)))
