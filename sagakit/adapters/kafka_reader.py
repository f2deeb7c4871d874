"""Reading a partition once, from its start to where it ended when the reading began: for look-ups and reports."""

import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message

from sagakit.adapters.client_properties import ClientProperties, make_admin, make_consumer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_records import AUTHORIZATION, GRANT, client_partition, to_records
from sagakit.ports.log import LogUnavailableError, Record, TopicPartition

_CHUNK: Final = 10_000
_STALLED_S: Final = 15.0


class NoTopicError(LogUnavailableError):
    """There is no such topic, or this user may not see it; the message says what to do."""


class KafkaReader:
    """Reads committed records; joins no group and commits nothing. To be used from one thread.

    Raises:
        ClientPropertyError: if a client property is refused.
    """

    def __init__(self, properties: ClientProperties, group: str = "sagakit.reader") -> None:
        """`group` is one that this user may describe: the client wants a group and looks for its coordinator."""
        self._offsets = Offsets(properties)
        self._admin = make_admin(properties.admin())
        self._consumer = make_consumer(
            properties.consumer(
                defaults={
                    "fetch.queue.backoff.ms": 10,
                    "queued.max.messages.kbytes": 65_536,
                    "max.partition.fetch.bytes": 8_388_608,
                },
                fixed={
                    "group.id": group,
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "isolation.level": "read_committed",
                },
            )
        )

    def partitions(self, topic: str, timeout_s: float = 10.0) -> int:
        """How many partitions a topic has.

        Raises:
            NoTopicError: there is no such topic, or no right to it.
            KafkaException: the broker does not answer.
        """
        found = self._admin.list_topics(topic, timeout=timeout_s).topics[topic]
        if found.error is not None and found.error.code() in AUTHORIZATION:
            raise NoTopicError(f"there is no right to {topic}: {found.error.str()}. {GRANT}")
        if found.error is not None or not found.partitions:
            raise NoTopicError(f"there is no topic {topic}; make it with `sagakit topics apply`")
        return len(found.partitions)

    def extent(self, partition: TopicPartition) -> tuple[int, int]:
        """The offsets from which and up to which `read` would read now."""
        start = self._offsets.starts([partition])[partition]
        return start, max(start, self._offsets.stable_ends([partition])[partition])

    def committed(self, group: str, partition: TopicPartition, timeout_s: float = 10.0) -> int | None:
        """The offset from which a group goes on; None if it has committed none.

        Raises:
            KafkaException: the broker does not answer, or refuses.
        """
        asked = ConsumerGroupTopicPartitions(group, [client_partition(partition)])
        answer = self._admin.list_consumer_group_offsets([asked], request_timeout=timeout_s)[group].result()
        found = answer.topic_partitions[0]
        if found.error is not None:
            raise KafkaException(found.error)
        return None if found.offset < 0 else int(found.offset)

    def read(self, partition: TopicPartition, from_offset: int | None = None) -> Iterator[list[Record]]:
        """All committed records of the partition, in chunks, up to the last stable offset of this moment.

        They begin with the first that the log has, or with `from_offset` if that is later.

        Raises:
            LogUnavailableError: the broker does not answer, refuses, or stalls.
        """
        start, end = self.extent(partition)
        position = start if from_offset is None else max(start, from_offset)
        if position >= end:
            return
        self._consumer.assign([client_partition(partition, position)])
        deadline = time.monotonic() + _STALLED_S
        while position < end:
            errors: list[Message] = []
            messages = self._consumer.consume(_CHUNK, 0.2)
            records = [record for record in to_records(messages, errors) if record.offset < end]
            for message in errors:
                error = message.error()
                # The client looks for its group's coordinator unasked; that it may not is nothing to a reader.
                if (
                    error is not None
                    and not error.retriable()
                    and error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED
                ):
                    raise LogUnavailableError(f"{partition.topic} cannot be read: {error.str()}")
            if records:
                yield records
            # Control records take offsets too and are never delivered: only the position says how far we are.
            reached = self._consumer.position([client_partition(partition)])[0].offset
            if reached > position:
                position, deadline = reached, time.monotonic() + _STALLED_S
            elif time.monotonic() > deadline:
                raise LogUnavailableError(
                    f"{partition.topic}[{partition.partition}] stalled at offset {position} of {end} for {_STALLED_S} s"
                )
        self._consumer.unassign()

    def close(self) -> None:
        """Release the clients."""
        self._consumer.close()
        del self._admin, self._offsets
