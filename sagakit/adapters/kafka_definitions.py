"""`DefinitionLog` over the one-partition topic of definitions."""

import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message

from sagakit.adapters.client_properties import ClientProperties, make_consumer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_records import client_partition, error_of, to_records
from sagakit.ports.log import LogUnavailableError, Record, TopicPartition

_POLL_S: Final = 0.05
_END_TIMEOUT_S: Final = 2.0  # replies are decided meanwhile by nobody, and need no definition


class KafkaDefinitionLog:
    """Reads the topic from its start. To be called from one thread.

    Raises:
        ClientPropertyError: if a client property is refused.
    """

    def __init__(
        self, properties: ClientProperties, topic: str, *, group: str = "sagakit.definitions", timeout_s: float = 5.0
    ) -> None:
        """`timeout_s` bounds one `read_new`. `group` is never joined, and no right to it is needed."""
        self._partition = TopicPartition(topic, 0)
        self._timeout_s = timeout_s
        self._offsets = Offsets(properties)
        self._consumer = make_consumer(
            properties.consumer(
                defaults={"fetch.wait.max.ms": 500},
                fixed={
                    "group.id": group,  # the client wants one
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "isolation.level": "read_committed",
                },
            )
        )
        self._position = 0
        self._begun = False
        self._kept: list[Record] = []  # read by a call that then failed

    def read_new(self) -> Sequence[Record]:
        """All records since the last call, up to the high watermark taken within this call.

        Raises:
            LogUnavailableError: when the end could not be reached in time; the same records come with the next call.
        """
        mark = self._offsets.ends([self._partition], timeout_s=_END_TIMEOUT_S)[self._partition]
        if not self._begun:
            self._begin()
        end = time.monotonic() + self._timeout_s
        while self._position < mark:
            self._read_on()
            if self._position < mark and time.monotonic() > end:
                raise LogUnavailableError(
                    f"{self._partition.topic} was read to {self._position} of {mark} within {self._timeout_s} s; "
                    "a transaction is open on it, or the broker is slow"
                )
        records, self._kept = self._kept, []
        return records

    def close(self) -> None:
        """Release the client."""
        self._consumer.close()

    def _begin(self) -> None:
        start = self._offsets.starts([self._partition])[self._partition]
        try:  # the client takes up to a second to begin with a topic that it has never heard of
            self._consumer.list_topics(self._partition.topic, self._timeout_s)
        except KafkaException as exception:
            raise LogUnavailableError(
                f"{self._partition.topic} cannot be read: {error_of(exception).str()}"
            ) from exception
        self._consumer.assign([client_partition(self._partition, start)])
        self._position, self._begun = start, True

    def _read_on(self) -> None:
        errors: list[Message] = []
        if (first := self._consumer.poll(_POLL_S)) is not None:
            self._kept += to_records([first, *self._consumer.consume(1_000, 0)], errors)
        position = self._consumer.position([client_partition(self._partition)])[0].offset
        self._position = max(self._position, position)
        for message in errors:
            error = message.error()
            # The client looks for the group's coordinator unasked; that it may not is nothing to a reader.
            if error is not None and not error.retriable() and error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise LogUnavailableError(f"{self._partition.topic} cannot be read: {error.str()}")
