"""What a test has left behind: threads, sockets, or a default router that is not as it was.

Taken before and after every test (`conftest.py`), so it is cheap: a list of threads, one of descriptors, a look at the router. It waits
only for what is still going away, and collects garbage only when something seems left.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import dataclass

from lamson.routing import Router

#: Seconds that a thread or a socket may take to be gone after a test.
PATIENCE = 3.0

@dataclass(frozen=True)
class Snapshot:
    """What there was at one moment. `sockets` are the kernel's names of open sockets; empty where there is no /proc."""

    threads: frozenset[threading.Thread]
    sockets: frozenset[str]
    router: object

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
        if _router() != self.router:
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


def _router() -> object:
    """What the default router is made of, its dicts as they are now."""
    return {name: dict(part) if isinstance(part, dict) else part for name, part in vars(Router).items() if name != "_table"}
