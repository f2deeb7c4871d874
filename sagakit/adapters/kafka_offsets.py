"""Where logs begin and end, by one request per broker for any number of partitions.

An admin client and not a consumer: a consumer's query waits behind its own fetch (up to `fetch.wait.max.ms`), and on a
read-committed one "the end" is the last stable offset.
"""

import logging
import time
from collections.abc import Collection
from concurrent.futures import Future
from typing import Final

from confluent_kafka import OFFSET_END, IsolationLevel, KafkaError, KafkaException
from confluent_kafka.admin import ListOffsetsResultInfo, OffsetSpec

from sagakit.adapters.client_properties import ClientProperties, make_admin
from sagakit.adapters.kafka_records import client_partition, error_of
from sagakit.ports.log import LogUnavailableError, TopicPartition

_logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 10.0
_FIRST_TRY_S: Final = 1.0
"""A leader that has died never answers; each further try, of the leader of that moment, may take twice as long."""
_RETRY_S: Final = 0.05

_MOVING: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
    }
)
"""A leader has died or moved, or was just elected: asking again finds it. The client does not do that by itself."""

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
        patience_s = _FIRST_TRY_S
        while True:
            try:
                asked = self._admin.list_offsets(
                    question, isolation_level=isolation, request_timeout=min(patience_s, timeout_s)
                )
                return {TopicPartition(one.topic, one.partition): answered(future) for one, future in asked.items()}
            except KafkaException as exception:
                error = error_of(exception)
                if error.code() not in _MOVING or time.monotonic() > give_up_at:
                    raise LogUnavailableError(
                        f"the ends of {_names(partitions)} are not known: {error.str()}"
                    ) from exception
                time.sleep(_RETRY_S)
                self._learn_leaders({one.topic for one in partitions}, timeout_s)
                patience_s *= 2

    def _learn_leaders(self, topics: Collection[str], timeout_s: float) -> None:
        """Refresh what the client knows: it would go on asking under a leader epoch that is over."""
        for topic in topics:
            try:
                self._admin.list_topics(topic, timeout_s)
            except KafkaException as exception:
                _logger.info("asking for the leaders of %s: %s", topic, error_of(exception).str())


def answered(asked: "Future[ListOffsetsResultInfo]") -> int:
    """The offset that a broker told.

    A leader that does not answer in time is no error to the client, which then gives the invalid offset -1001 as if it
    had been told (seen with librdkafka 2.16 when a broker dies): taken for the end of the state, it would end a restore
    before anything was read. -1 is an answer: no record is as young as was asked for.

    Raises:
        KafkaException: the broker did not answer, or refused.
    """
    offset: int = asked.result().offset
    if offset < OFFSET_END:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "the partition's leader does not answer"))
    return offset


def _names(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(f"{one.topic}[{one.partition}]" for one in sorted(partitions))
