"""Where the state of each conversation is kept: the interface, and two storages without a database.

A storage maps (state key, sender) to the name of a state. It knows nothing of mail or of routes. `lamson.database.SQLAlchemyStorage`
is the one that commits with everything else; these two are best effort (docs/guarantees.md).
"""

from __future__ import annotations

import shelve
import threading
from contextlib import closing

#: The state that every sender starts in.
ROUTE_FIRST_STATE = "START"


class StateStorage:
    """What a storage must do. One of your own needs these three methods and no base class."""

    def get(self, key: str, sender: str) -> str:
        """The state's name; `START` for a sender never seen."""
        raise NotImplementedError("a state storage must have get(key, sender)")

    def set(self, key: str, sender: str, state: str) -> None:
        """Keeps the state's name."""
        raise NotImplementedError("a state storage must have set(key, sender, state)")

    def clear(self) -> None:
        """Forgets all, for tests."""
        raise NotImplementedError("a state storage must have clear()")


class MemoryStorage(StateStorage):
    """States in a dictionary, safe between threads, gone with the process."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], str] = {}

    # Each method is one operation on a dict with keys of str, which CPython does not interrupt.
    def get(self, key: str, sender: str) -> str:
        return self._states.get((key, sender), ROUTE_FIRST_STATE)

    def set(self, key: str, sender: str, state: str) -> None:
        if state == ROUTE_FIRST_STATE:
            self._states.pop((key, sender), None)
        else:
            self._states[key, sender] = state

    def clear(self) -> None:
        self._states.clear()


class ShelveStorage(StateStorage):
    """States in a `shelve` file: one process, one file. Opened for each operation, so that a crash leaves it closed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()

    def get(self, key: str, sender: str) -> str:
        with self._lock, closing(shelve.open(self.path)) as states:
            return str(states.get(self._key(key, sender), ROUTE_FIRST_STATE))

    def set(self, key: str, sender: str, state: str) -> None:
        with self._lock, closing(shelve.open(self.path)) as states:
            states[self._key(key, sender)] = state

    def clear(self) -> None:
        with self._lock, closing(shelve.open(self.path)) as states:
            states.clear()

    @staticmethod
    def _key(key: str, sender: str) -> str:
        return f"{key}\0{sender}"
