"""Where logs begin and end, by one request per broker for any number of partitions.

An admin client and not a consumer: a consumer's query waits behind its own fetch (up to `fetch.wait.max.ms`), and on a
read-committed one "the end" is the last stable offset.
"""

from collections.abc import Collection
from typing import Final

from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka.admin import OffsetSpec

from sagakit.adapters.client_properties import ClientProperties, make_admin
from sagakit.adapters.kafka_records import client_partition, error_of
from sagakit.ports.log import LogUnavailableError, TopicPartition

_TIMEOUT_S: Final = 10.0
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the client has no types here
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Offsets:
    """Asks for offsets of partitions; may be called from any thread."""

    def __init__(self, properties: ClientProperties) -> None:
        self._admin = make_admin(properties.admin())

    def starts(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of the first record that each partition still has, or would have.

        Raises:
            LogUnavailableError: if a broker does not answer, or refuses.
        """
        return self._ask(partitions, _EARLIEST, IsolationLevel.READ_UNCOMMITTED)

    def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The high watermarks: open transactions count as there.

        Raises:
            LogUnavailableError: if a broker does not answer, or refuses.
        """
        return self._ask(partitions, _LATEST, IsolationLevel.READ_UNCOMMITTED)

    def stable_ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The last stable offsets: where the first open transaction begins, else the high watermark.

        Raises:
            LogUnavailableError: if a broker does not answer, or refuses.
        """
        return self._ask(partitions, _LATEST, IsolationLevel.READ_COMMITTED)

    def _ask(
        self, partitions: Collection[TopicPartition], which: OffsetSpec, isolation: IsolationLevel
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        asked = self._admin.list_offsets(
            {client_partition(one): which for one in partitions}, isolation_level=isolation, request_timeout=_TIMEOUT_S
        )
        try:
            return {TopicPartition(one.topic, one.partition): future.result().offset for one, future in asked.items()}
        except KafkaException as exception:
            error = error_of(exception)
            raise LogUnavailableError(f"the ends of {sorted(partitions)} are not known: {error.str()}") from exception
