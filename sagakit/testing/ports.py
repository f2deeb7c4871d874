"""Free loopback ports that stay ours until they are given back.

Binding port 0 and closing it again gives a port of the ephemeral range, which any outgoing connection may take before
(or between a kill and a restart) the server binds it; on loopback a client may even connect to itself. So ports are
taken from below that range, and each is held by a lock file, which the operating system frees if we die.
"""

from __future__ import annotations

import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from sagakit.testing.errors import PortsUnavailableError

# Below 32768, where Linux (and all others, at 49152) begin to take ports for outgoing connections, and above the ports
# that well-known servers stand on.
_FIRST, _LAST = 15000, 29999


class PortLease:
    """Ports of 127.0.0.1 that nobody else who leases ports here will get until `release`."""

    def __init__(self, ports: tuple[int, ...], locks: tuple[FileLock, ...]) -> None:
        self.ports = ports
        self._locks = locks

    @classmethod
    def free(cls, count: int) -> Self:
        """Lease `count` free ports; raises `PortsUnavailableError` if there are not that many."""
        ports: list[int] = []
        locks: list[FileLock] = []
        for port in random.sample(range(_FIRST, _LAST + 1), _LAST - _FIRST + 1):
            if len(ports) == count:
                break
            lock = _lock(port)
            if lock is None:
                continue
            if not _is_bindable(port):
                lock.release()
                continue
            ports.append(port)
            locks.append(lock)
        if len(ports) < count:
            raise PortsUnavailableError(f"Found {len(ports)} of {count} free ports between {_FIRST} and {_LAST}.")
        return cls(tuple(ports), tuple(locks))

    @classmethod
    def exactly(cls, ports: tuple[int, ...]) -> Self:
        """Lease these ports; raises `PortsUnavailableError` naming the first that is in use."""
        locks: list[FileLock] = []
        for port in ports:
            lock = _lock(port)
            if lock is None or not _is_bindable(port):
                for taken in [*locks, *([lock] if lock else [])]:
                    taken.release()
                raise PortsUnavailableError(f"Port {port} of 127.0.0.1 is in use. Stop what uses it or take another.")
            locks.append(lock)
        return cls(ports, tuple(locks))

    def release(self) -> None:
        """Give the ports back; their servers must have ended."""
        for lock in self._locks:
            lock.release()


def _lock(port: int) -> FileLock | None:
    directory = Path(tempfile.gettempdir()) / f"sagakit-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    lock = FileLock(directory / f"{port}.lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _is_bindable(port: int) -> bool:
    with socket.socket() as probe:
        # A server's own sockets of its last life may linger in TIME_WAIT; servers bind with this option too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
