"""Where logs begin and end, by one request per broker for any number of partitions.

An admin client and not a consumer: a consumer's query waits behind its own fetch (up to `fetch.wait.max.ms`), and on a
read-committed one "the end" is the last stable offset.
"""

import logging
import time
from collections.abc import Collection
from concurrent.futures import Future
from typing import Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException
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
        KafkaError._NOENT,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
    }
)
"""A leader has died or moved, or was just elected: asking again finds it. The client does not do that by itself.

`_NOENT`: none of the partitions had a leader when the client last asked; it goes on saying so for up to 15 minutes.
"""

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

    def known_ends(self, partitions: Collection[TopicPartition], *, timeout_s: float) -> dict[TopicPartition, int]:
        """The high watermarks that the leaders tell at once; those that do not are left out, and logged."""
        found: dict[TopicPartition, int] = {}
        error = self._ask_once(partitions, _LATEST, IsolationLevel.READ_UNCOMMITTED, timeout_s, found)
        if error is not None:
            missing = set(partitions) - found.keys()
            _logger.warning("%s: not known now: %s", _names(missing), error.str())
            if error.code() in _MOVING:
                self._learn_leaders({one.topic for one in missing}, timeout_s)
        return found

    def _ask(
        self,
        partitions: Collection[TopicPartition],
        which: OffsetSpec,
        isolation: IsolationLevel,
        timeout_s: float = _TIMEOUT_S,
    ) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        give_up_at = time.monotonic() + timeout_s
        patience_s = min(_FIRST_TRY_S, timeout_s)
        while missing := set(partitions) - found.keys():
            error = self._ask_once(missing, which, isolation, patience_s, found)
            if error is None:
                break
            left_s = give_up_at - time.monotonic()
            if error.code() not in _MOVING or left_s <= _RETRY_S:
                raise LogUnavailableError(f"the ends of {_names(missing)} are not known: {error.str()}")
            time.sleep(_RETRY_S)  # an election takes a moment, and nothing tells of its end
            self._learn_leaders({one.topic for one in missing}, left_s)
            patience_s = min(2 * patience_s, left_s)
        return found

    def _ask_once(
        self,
        partitions: Collection[TopicPartition],
        which: OffsetSpec,
        isolation: IsolationLevel,
        timeout_s: float,
        found: dict[TopicPartition, int],
    ) -> KafkaError | None:
        """Add what is told to `found`; one of the errors, if not all of it is told. One that passes comes last."""
        if not partitions:
            return None
        errors: list[KafkaError] = []
        question = {client_partition(one): which for one in partitions}
        try:
            asked = self._admin.list_offsets(question, isolation_level=isolation, request_timeout=max(timeout_s, 0.1))
        except KafkaException as exception:
            return error_of(exception)
        for one, future in asked.items():
            try:
                found[TopicPartition(one.topic, one.partition)] = told_offset(future, least=0)
            except KafkaException as exception:
                errors.append(error_of(exception))
        return min(errors, key=lambda error: error.code() in _MOVING, default=None)

    def _learn_leaders(self, topics: Collection[str], timeout_s: float) -> None:
        """Refresh what the client knows: it would go on with a leader epoch that is over, or without a leader."""
        for topic in topics:
            try:
                self._admin.list_topics(topic, timeout_s)
            except KafkaException as exception:
                _logger.info("asking for the leaders of %s: %s", topic, error_of(exception).str())


def told_offset(asked: "Future[ListOffsetsResultInfo]", *, least: int) -> int:
    """The offset that a broker told, which is at least `least`: 0, or -1 where that says that there is no such record.

    A leader that does not answer in time is no error to the client, which then gives the invalid offset -1001 as if it
    had been told (seen with librdkafka 2.16 when a broker dies): taken for the end of the state, it would end a restore
    before anything was read.

    Raises:
        KafkaException: the broker did not answer, or refused.
    """
    offset: int = asked.result().offset
    if offset < least:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "the partition's leader does not answer"))
    return offset


def _names(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(f"{one.topic}[{one.partition}]" for one in sorted(partitions))
