"""What a test has left behind: threads, sockets, or a default router that is not as it was.

Taken before and after every test (`conftest.py`), so it is cheap: a list of threads, one of descriptors, a look at the router. It waits
only for what is still going away, and collects garbage only when something seems left.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from dataclasses import dataclass

#: Seconds that a thread or a socket may take to be gone after a test.
PATIENCE = 3.0

#: What of the default router a test must leave as it found it.
_ROUTER_PARTS = ("routes", "STATE_STORE", "UNDELIVERABLE_QUEUE", "LOG_EXCEPTIONS", "RELOAD")


@dataclass(frozen=True)
class Snapshot:
    """What there was at one moment. `sockets` are the kernel's names of open sockets; empty where there is no /proc."""

    threads: frozenset[threading.Thread]
    sockets: frozenset[str]
    router: tuple[object, ...]

    @classmethod
    def take(cls) -> Snapshot:
        return cls(_threads(), _sockets(), _router())

    def left_since(self) -> list[str]:
        """Sentences about what is there now and was not there then; empty when all is as it was."""
        found = self._differences()
        if found:
            gc.collect()  # a cycle of dead objects may hold a socket
            deadline = time.monotonic() + PATIENCE
            while self._may_still_go() and time.monotonic() < deadline:
                time.sleep(0.01)
            found = self._differences()
        return found

    def _differences(self) -> list[str]:
        found = [f"the thread {thread.name!r} still runs" for thread in _threads() - self.threads]
        found += [f"{name} is still open" for name in sorted(_sockets() - self.sockets)]
        now = _router()
        if self.router and any(a is not b for a, b in zip(self.router, now, strict=True)):
            found.append("the default router is not as it was (use the fixture `default_router`)")
        return found

    def _may_still_go(self) -> bool:
        return bool(_threads() - self.threads or _sockets() - self.sockets)


def _threads() -> frozenset[threading.Thread]:
    """Threads that must end: all but daemons that are not ours. (Ours have names that begin with "lamson".)"""
    return frozenset(t for t in threading.enumerate() if not t.daemon or t.name.startswith("lamson"))


def _sockets() -> frozenset[str]:
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return frozenset()
    return frozenset(name for name in map(_target, descriptors) if name.startswith("socket:"))


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # closed since it was listed
        return ""


def _router() -> tuple[object, ...]:
    """The parts of the default router, or nothing when no test has imported it yet."""
    router = getattr(sys.modules.get("lamson.routing"), "Router", None)
    return tuple(getattr(router, part, None) for part in _ROUTER_PARTS) if router is not None else ()
