"""Where logs begin and end, by one request per broker for any number of partitions.

An admin client and not a consumer: a consumer's query waits behind its own fetch (up to `fetch.wait.max.ms`), and on a
read-committed one "the end" is the last stable offset.
"""

import logging
import time
from collections.abc import Collection
from typing import Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException
from confluent_kafka.admin import OffsetSpec

from sagakit.adapters.client_properties import ClientProperties, make_admin
from sagakit.adapters.kafka_records import client_partition, error_of
from sagakit.ports.log import LogUnavailableError, TopicPartition

_logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 0.05

_MOVING: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError._TRANSPORT,
    }
)
"""A leader has moved, or was just elected: asking again finds it. The admin client does not do that by itself."""

_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the client has no types here
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Offsets:
    """Asks for offsets of partitions; may be called from any thread."""

    def __init__(self, properties: ClientProperties) -> None:
        self._admin = make_admin(properties.admin())

    def starts(
        self, partitions: Collection[TopicPartition], *, timeout_s: float = _TIMEOUT_S
    ) -> dict[TopicPartition, int]:
        """The offset of the first record that each partition still has, or would have.

        Raises:
            LogUnavailableError: if a broker does not answer, or refuses.
        """
        return self._ask(partitions, _EARLIEST, IsolationLevel.READ_UNCOMMITTED, timeout_s)

    def ends(
        self, partitions: Collection[TopicPartition], *, timeout_s: float = _TIMEOUT_S
    ) -> dict[TopicPartition, int]:
        """The high watermarks: open transactions count as there.

        Raises:
            LogUnavailableError: if a broker does not answer, or refuses.
        """
        return self._ask(partitions, _LATEST, IsolationLevel.READ_UNCOMMITTED, timeout_s)

    def stable_ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The last stable offsets: where the first open transaction begins, else the high watermark.

        Raises:
            LogUnavailableError: if a broker does not answer, or refuses.
        """
        return self._ask(partitions, _LATEST, IsolationLevel.READ_COMMITTED)

    def _ask(
        self,
        partitions: Collection[TopicPartition],
        which: OffsetSpec,
        isolation: IsolationLevel,
        timeout_s: float = _TIMEOUT_S,
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        question = {client_partition(one): which for one in partitions}
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                asked = self._admin.list_offsets(question, isolation_level=isolation, request_timeout=timeout_s)
                return {
                    TopicPartition(one.topic, one.partition): future.result().offset for one, future in asked.items()
                }
            except KafkaException as exception:
                error = error_of(exception)
                if error.code() not in _MOVING or time.monotonic() > give_up_at:
                    raise LogUnavailableError(
                        f"the ends of {_names(partitions)} are not known: {error.str()}"
                    ) from exception
                time.sleep(_RETRY_S)
                self._learn_leaders({one.topic for one in partitions}, timeout_s)

    def _learn_leaders(self, topics: Collection[str], timeout_s: float) -> None:
        """Refresh what the client knows: it would go on asking under a leader epoch that is over."""
        for topic in topics:
            try:
                self._admin.list_topics(topic, timeout_s)
            except KafkaException as exception:
                _logger.info("asking for the leaders of %s: %s", topic, error_of(exception).str())


def _names(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(f"{one.topic}[{one.partition}]" for one in sorted(partitions))
