"""Deleting what was consumed from topics of unlimited retention: the inbox, and the commands of services.

Their records must not go by age while a consumer is down, so retention is unlimited and their consumer deletes: below
the group's committed offset, and nothing that is younger than a day, so that operators can look at what happened.
"""

from collections.abc import Collection
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec

from sagakit.adapters.client_properties import ClientProperties, make_admin, make_consumer
from sagakit.adapters.kafka_consumer import offset_reader_properties
from sagakit.adapters.kafka_offsets import Offsets, told_offset
from sagakit.adapters.kafka_records import AUTHORIZATION, client_partition, error_of
from sagakit.ports.log import LogUnavailableError, TopicPartition

KEEP_MS: Final = 24 * 60 * 60 * 1000
"""How long consumed records stay at least."""

_TIMEOUT_S: Final = 30.0

_REFUSED: Final = AUTHORIZATION | {KafkaError.POLICY_VIOLATION}
"""Answers that do not change by themselves; a leader that moves or a broker that starts does."""


class PurgeRefusedError(Exception):
    """The broker does not let this principal delete records: grant DELETE, or limit the topic by retention.bytes."""


class Purge:
    """Deletes consumed records of one group."""

    def __init__(self, properties: ClientProperties, group: str) -> None:
        self._admin: AdminClient = make_admin(properties.admin())
        self._consumer: Consumer = make_consumer(offset_reader_properties(properties, group))
        self._offsets = Offsets(properties)

    def run(self, topics: Collection[str], now_ms: int, *, keep_ms: int = KEEP_MS) -> dict[TopicPartition, int]:
        """Delete what the group has consumed and what is older than `keep_ms`; gives the new starts that were moved.

        `now_ms` is compared with the records' own timestamps. A partition of which nothing was committed is left alone.

        Raises:
            PurgeRefusedError: for lack of rights.
            LogUnavailableError: if the broker does not answer.
        """
        try:
            partitions = [
                TopicPartition(topic, number)
                for topic in sorted(topics)
                for number in self._consumer.list_topics(topic, _TIMEOUT_S).topics[topic].partitions
            ]
            answers = self._consumer.committed([client_partition(one) for one in partitions], _TIMEOUT_S)
            committed = {TopicPartition(one.topic, one.partition): one.offset for one in answers if one.offset > 0}
            young = self._first_since(committed, now_ms - keep_ms)
        except KafkaException as exception:
            raise LogUnavailableError(f"what may be purged is not known: {error_of(exception).str()}") from exception
        starts = self._offsets.starts(committed)
        before = {one: min(offset, young.get(one, offset)) for one, offset in committed.items()}
        moved = {one: offset for one, offset in before.items() if offset > starts[one]}
        self._delete(moved)
        return moved

    def close(self) -> None:
        """Release the clients."""
        self._consumer.close()

    def _first_since(self, partitions: Collection[TopicPartition], at_ms: int) -> dict[TopicPartition, int]:
        """The first offset at or after a time, of those partitions that have one."""
        if not partitions:
            return {}
        spec = OffsetSpec.for_timestamp(at_ms)
        asked = self._admin.list_offsets(
            {client_partition(one): spec for one in partitions}, request_timeout=_TIMEOUT_S
        )
        found = {
            TopicPartition(one.topic, one.partition): told_offset(future, least=-1) for one, future in asked.items()
        }
        return {one: offset for one, offset in found.items() if offset >= 0}

    def _delete(self, before: dict[TopicPartition, int]) -> None:
        if not before:
            return
        places = [client_partition(one, offset) for one, offset in before.items()]
        failed: list[KafkaException] = []
        for place, future in self._admin.delete_records(places, request_timeout=_TIMEOUT_S).items():
            try:
                future.result()
            except KafkaException as exception:
                if error_of(exception).code() in _REFUSED:
                    raise PurgeRefusedError(
                        f"{place.topic}[{place.partition}] cannot be purged: {error_of(exception).str()}. "
                        "Grant DELETE on the topic, or limit it by retention.bytes and accept that unread records go."
                    ) from exception
                failed.append(exception)
        if failed:
            raise LogUnavailableError(
                f"the records of {len(failed)} partitions could not be deleted: {error_of(failed[0]).str()}"
            ) from failed[0]
