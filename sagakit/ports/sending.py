"""The port of those who only send: clients that start and control sagas, publishers of domain events."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sagakit.ports.log import Outgoing


class Placed(NamedTuple):
    """Where a sent record lies."""

    topic: str
    partition: int
    offset: int


class RefusedError(Exception):
    """The broker will never take this record: no such topic, too large, no right to write; the message says which."""


class SendTimeoutError(Exception):
    """The broker has not confirmed a record in time. It may have been written: send it again under the same id."""


class Sender(Protocol):
    """Sends records and waits until they are durable."""

    def send(self, records: Sequence[Outgoing]) -> Sequence[Placed]:
        """Write the records, in order within each partition; where each lies, in the order given.

        Raises:
            RefusedError: the broker refuses one of them; others may have been written.
            SendTimeoutError: the broker did not confirm all of them in time.
        """
        ...

    def close(self) -> None:
        """Release everything."""
        ...
