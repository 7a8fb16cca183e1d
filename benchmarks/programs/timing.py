"""The clock of the programs that are no servers."""

import time
from collections.abc import Callable
from typing import Any


def timed(work: Callable[[], int]) -> dict[str, Any]:
    """Does the work, which returns how many messages or addresses it was for."""
    began, cpu = time.perf_counter(), time.process_time()
    messages = work()
    return {"messages": messages, "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
