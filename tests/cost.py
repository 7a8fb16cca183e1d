"""How much CPU time something takes, measured so that nothing else that the machine does can fail a test.

A limit is for what is slow by its nature, which it is each time; what others cost, through caches, the core's second thread or a slower
clock, comes and goes. So the fastest of a few tries counts.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

TRIES = 3


def assert_costs_less(seconds: float, act: Callable[[], object]) -> None:
    """CPU time of this process. `act` must do the same each time."""
    best = fastest(lambda: cpu_seconds(act), seconds)
    assert best < seconds, f"it took {best:.3f} s of CPU time, and {seconds} are allowed"


def fastest(measure: Callable[[], float], enough: float) -> float:
    """The least of up to three measures; one below `enough` ends it."""
    best = measure()
    for _ in range(TRIES - 1):
        if best >= enough:
            best = min(best, measure())
    return best


def cpu_seconds(act: Callable[[], object]) -> float:
    """What one call takes, without the collection of garbage that others made."""
    gc.collect()
    began = time.process_time()
    act()
    return time.process_time() - began
