"""Wall clock of the process, in one place so that the simulation can put its own in."""

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Gives the present time in epoch milliseconds."""


def wall_clock_ms() -> int:
    """The system's time in epoch milliseconds."""
    return time.time_ns() // 1_000_000
