"""Waiting for something that another thread or process brings about, with a deadline."""

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], object], *, timeout_s: float, what: str) -> None:
    """Look again and again until `condition` holds.

    Raises:
        TimeoutError: it did not hold in time.
    """
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        pause.wait(0.02)
