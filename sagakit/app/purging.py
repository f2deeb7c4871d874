"""Topics of unlimited retention are purged by their own consumers, beside their work."""

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.purge import Purge, PurgeRefusedError
from sagakit.ports.log import LogUnavailableError

_log = structlog.get_logger("sagakit.app")

PURGE_EVERY_S: Final = 3600.0


@contextmanager
def purging(properties: ClientProperties, group: str, topics: Collection[str]) -> Iterator[None]:
    """While the block runs, delete once an hour what the group has consumed of `topics` more than a day ago.

    Every instance does it; deleting below the same offset twice does no harm. Where the rights are missing it is said
    once and left: the topics then need a retention of their own.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_purge_until, args=(stop, properties, group, topics), name="purge", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _purge_until(stop: threading.Event, properties: ClientProperties, group: str, topics: Collection[str]) -> None:
    purge = Purge(properties, group)
    try:
        while not stop.is_set():
            try:
                moved = purge.run(topics, time.time_ns() // 1_000_000)
            except PurgeRefusedError as error:
                _log.warning("consumed records are not purged", reason=str(error))
                return
            except LogUnavailableError as error:
                _log.warning("consumed records could not be purged; trying again in an hour", reason=str(error))
            else:
                for partition, start in moved.items():
                    _log.info("purged", topic=partition.topic, partition=partition.partition, log_start=start)
            stop.wait(PURGE_EVERY_S)
    finally:
        purge.close()
