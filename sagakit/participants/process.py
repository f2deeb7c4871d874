"""A service as a process of its own: signals in, exit status out."""

import logging
import os
import signal
from types import FrameType
from typing import Final

from sagakit.participants.runtime import HandlersStuckError, ServiceRuntime

_logger: Final = logging.getLogger(__name__)

EXIT_STUCK: Final = 70
"""Exit status of a process whose handlers did not end in time (`EX_SOFTWARE` of sysexits.h)."""


def run_until_signalled(runtime: ServiceRuntime) -> None:
    """Run a service in this process's main thread until SIGTERM or SIGINT, then shut it down in order.

    If a handler is stuck, the process ends here and at once, with `EXIT_STUCK`: returning would wait for its threads,
    while its partitions become another's. Other errors are those of `ServiceRuntime.run`.
    """

    def on_signal(number: int, _: FrameType | None) -> None:
        _logger.info("%s: shutting down", signal.Signals(number).name)
        runtime.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        runtime.run()
    except HandlersStuckError:
        _logger.critical("the process ends at once", exc_info=True)
        logging.shutdown()
        os._exit(EXIT_STUCK)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
