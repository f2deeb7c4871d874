"""`TransactionalLog` over librdkafka's in-process mock cluster: for trying things out in one process, and nothing else.

The mock has no transaction isolation, no fencing, no committed transactional offsets and no compaction, and keeps
about 5 MiB per partition. So this adapter writes without transactions, keeps offsets and state in the process, takes
every partition itself instead of joining a group, and refuses a second instance. What holds: work is checked as a whole
before any of it is written; offsets and state change only after all of it was delivered; a restore gives what was
committed.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from sagakit.adapters.client_properties import ClientProperties, make_consumer, make_producer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_records import client_partition, error_of, to_records
from sagakit.ports.log import (
    Aborted,
    Assigned,
    Batch,
    Change,
    Committed,
    Headers,
    LogUnavailableError,
    OffsetLost,
    Outcome,
    Outgoing,
    Record,
    Restored,
    Revoked,
    StateRead,
    StateRecord,
    TopicPartition,
    Unknown,
    Work,
)

_logger = logging.getLogger(__name__)

_WARN_BYTES: Final = 4 * 1024 * 1024
_RECORD_BYTES_MAX: Final = 1_000_000
_RECORD_OVERHEAD_BYTES: Final = 512
_TIMEOUT_S: Final = 10.0


class EmbeddedStore:
    """What an embedded log has committed. Lives as long as the process; one log at a time may use it."""

    def __init__(self) -> None:
        self.offsets: dict[TopicPartition, int] = {}
        self.states: defaultdict[TopicPartition, dict[bytes, Record]] = defaultdict(dict)
        self.in_use = False


class EmbeddedLog:
    """The log of the one orchestrator instance on a mock cluster. Every method is to be called from one thread.

    Raises:
        LogUnavailableError: fatal, if another log uses the store: there can be only one instance.
    """

    def __init__(
        self,
        properties: ClientProperties,
        store: EmbeddedStore,
        *,
        state_topics: Mapping[str, str],
        batch_records_max: int = 2_000,
    ) -> None:
        """Connect to the mock cluster, and say in the log what it cannot do.

        `state_topics` maps each topic that has state to the topic of that state, partition by partition.
        """
        if store.in_use:
            raise LogUnavailableError(
                "The embedded Kafka can serve one orchestrator instance only, and one is running. Use a real Kafka "
                "(`sagakit dev` starts one) for several.",
                fatal=True,
            )
        store.in_use = True
        _logger.warning(
            "Running on the embedded Kafka: one instance, no transactions, and nothing survives this process. "
            "Use it to try things out, never to prove anything."
        )
        self._store = store
        self._state_topics = dict(state_topics)
        self._batch_records_max = batch_records_max
        self._offsets = Offsets(properties)
        self._consumer = make_consumer(
            properties.consumer(
                defaults={"fetch.wait.max.ms": 100, "fetch.queue.backoff.ms": 10, "allow.auto.create.topics": True},
                fixed={"group.id": "sagakit.embedded", "enable.auto.commit": False, "auto.offset.reset": "error"},
            )
        )
        self._failures: list[KafkaError] = []
        self._producer = make_producer(
            {
                **properties.producer(
                    defaults={"linger.ms": 0, "queue.buffering.max.messages": 1_000_000},
                    fixed={
                        "enable.idempotence": True,
                        "acks": "all",
                        "partitioner": "murmur2_random",
                        "delivery.report.only.error": True,
                    },
                ),
                "on_delivery": self._delivery_failed,
            }
        )
        self._partitions: dict[str, int] = {}
        self._owned: set[TopicPartition] = set()
        self._running: set[TopicPartition] = set()
        self._changes: list[Change] = []
        self._bytes: defaultdict[TopicPartition, int] = defaultdict(int)
        self._warned: set[TopicPartition] = set()
        self._closed = False

    def subscribe(self, topics: Collection[str]) -> None:
        """Take all partitions of these topics, in place of what was subscribed before.

        Raises:
            LogUnavailableError: if the mock cluster is gone.
        """
        wanted = {
            TopicPartition(topic, number) for topic in sorted(topics) for number in range(self._partition_count(topic))
        }
        for partition in sorted(self._owned - wanted):
            self._hold(partition)
            self._changes.append(Revoked(partition=partition))
        self._changes.extend(Assigned(partition=one) for one in sorted(wanted - self._owned))
        self._owned = wanted

    def poll(self, timeout_s: float) -> Batch:
        """Wait up to `timeout_s` for a first record or change, then take what is there already."""
        first = self._consumer.poll(0 if self._changes else timeout_s)
        messages = [] if first is None else [first, *self._consumer.consume(self._batch_records_max - 1, 0)]
        errors: list[Message] = []
        records = [one for one in to_records(messages, errors) if (one.topic, one.partition) in self._running]
        for record in records:
            self._count(TopicPartition(record.topic, record.partition), _size(record.key, record.value, record.headers))
        for message in errors:
            self._note(message)
        changes, self._changes = self._changes, []
        return Batch(changes=changes, records=records)

    def restore(self, partition: TopicPartition, first_offset: int | None, *, state: bool = True) -> None:
        """Give the state that was committed in this process, and deliver from the committed offset on.

        Raises:
            ValueError: if the partition is not assigned.
            LogUnavailableError: if the mock cluster is gone.
        """
        if partition not in self._owned:
            raise ValueError(f"{partition} cannot be restored: it is not assigned to this instance")
        self._hold(partition)
        self._changes = [
            one for one in self._changes if one.partition != partition or isinstance(one, Assigned)
        ]  # what an earlier call would still have given
        committed = self._store.offsets.get(partition)
        next_offset = first_offset if committed is None else committed
        log_start = self._offsets.starts([partition])[partition]
        if next_offset is None:
            next_offset = log_start
        if next_offset < log_start:
            self._changes.append(OffsetLost(partition=partition, committed=committed, log_start=log_start))
            return
        state_topic = self._state_topics.get(partition.topic)
        if state and state_topic is not None:
            kept = self._store.states[TopicPartition(state_topic, partition.partition)]
            if kept:
                states = [StateRecord(one.key, one.value, one.headers) for one in kept.values()]
                self._changes.append(StateRead(partition=partition, records=states))
        self._consumer.incremental_assign([client_partition(partition, next_offset)])
        self._running.add(partition)
        self._store.offsets[partition] = next_offset
        self._changes.append(Restored(partition=partition, next_offset=next_offset))

    def reached_end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Those of `partitions` of which `poll` has already given every record that was in the log at this moment.

        Raises:
            LogUnavailableError: if the mock cluster is gone, which it never is as long as its process lives.
        """
        running = [one for one in partitions if one in self._running]
        ends, positions = self._offsets.ends(running), self._positions(running)
        return {one: ends[one] for one in running if positions[one] >= ends[one]}

    def commit(self, work: Work) -> Outcome:
        """Check all of the work, write it, and once all is delivered take over offsets and state.

        Raises:
            ValueError: if the work has no offsets, or one that is invalid, goes back, or is of a partition that waits
                for its restore: a bug in the caller, and nothing was written.
        """
        if not_owned := [one for one in work.offsets if one not in self._owned]:
            self._rewind()
            return Aborted(reason=f"{not_owned[0]} is not assigned to this instance any more")
        self._check(work.offsets)
        self._failures.clear()
        for index, record in enumerate(work.records):
            if (refusal := self._refusal(record)) is not None:
                self._rewind()
                return Aborted(reason=refusal, culprit=index)
        for record in work.records:
            self._produce(record)
        undelivered = self._producer.flush(_TIMEOUT_S)
        if self._failures or undelivered:
            for partition in tuple(self._running):
                self._hold(partition)
            reason = self._failures[0].str() if self._failures else f"{undelivered} records were not delivered in time"
            return Unknown(reason=reason)
        self._store.offsets.update(work.offsets)
        self._keep_state(work.records)
        return Committed()

    def close(self, deadline_s: float) -> None:
        """Release everything; the store can be used by another log. Again: nothing happens."""
        if self._closed:
            return
        self._closed = True
        self._consumer.close()
        self._producer.flush(deadline_s)
        self._producer.close()
        self._store.in_use = False

    def _check(self, offsets: Mapping[TopicPartition, int]) -> None:
        if not offsets:
            raise ValueError("work without offsets")
        for partition, offset in offsets.items():
            if offset < 0:
                raise ValueError(f"offset {offset} of {partition} is not an explicit offset")
            if partition not in self._running:
                raise ValueError(f"work for {partition}, which has not been restored")
            if offset < self._store.offsets[partition]:
                raise ValueError(f"offset {offset} of {partition} goes back from {self._store.offsets[partition]}")

    def _refusal(self, record: Outgoing) -> str | None:
        size = _size(record.key, record.value, record.headers) + _RECORD_OVERHEAD_BYTES
        if size > _RECORD_BYTES_MAX:
            return f"a record for {record.topic} has {size} bytes, more than {_RECORD_BYTES_MAX}"
        count = self._partition_count(record.topic)
        if record.partition is not None and not 0 <= record.partition < count:
            return f"{record.topic} has {count} partitions, none numbered {record.partition}"
        return None

    def _produce(self, record: Outgoing) -> None:
        topic, partition, key, value, given = record
        headers: Any = list(given)
        if partition is None:
            partition = confluent_kafka.murmur2(key, self._partition_count(topic))
        try:
            self._producer.produce(topic, value, key, partition, headers=headers)
        except BufferError:
            self._producer.flush(_TIMEOUT_S)
            self._producer.produce(topic, value, key, partition, headers=headers)
        self._count(TopicPartition(topic, partition), _size(key, value, given))

    def _keep_state(self, records: Sequence[Outgoing]) -> None:
        state_topics = frozenset(self._state_topics.values())
        for topic, partition, key, value, headers in records:
            if topic not in state_topics or partition is None:
                continue
            kept = self._store.states[TopicPartition(topic, partition)]
            kept.pop(key, None)  # so that the order is that of the last writes, as in a compacted log
            if value is not None:
                kept[key] = Record(topic, partition, 0, 0, key, value, headers)

    def _rewind(self) -> None:
        for partition in self._running:
            self._consumer.seek(client_partition(partition, self._store.offsets[partition]))

    def _hold(self, partition: TopicPartition) -> None:
        if partition in self._running:
            self._consumer.incremental_unassign([client_partition(partition)])
            self._running.discard(partition)

    def _positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        positions = self._consumer.position([client_partition(one) for one in partitions]) if partitions else []
        return {
            one: position.offset if position.offset >= 0 else self._store.offsets[one]
            for one, position in zip(partitions, positions, strict=True)
        }

    def _partition_count(self, topic: str) -> int:
        if topic not in self._partitions:
            try:
                found = self._consumer.list_topics(topic, _TIMEOUT_S).topics[topic]
            except KafkaException as exception:
                raise LogUnavailableError(f"the embedded Kafka is gone: {error_of(exception).str()}") from exception
            if not found.partitions:
                raise LogUnavailableError(f"the embedded Kafka has no topic {topic}")
            self._partitions[topic] = len(found.partitions)
        return self._partitions[topic]

    def _note(self, message: Message) -> None:
        error, topic, number = message.error(), message.topic(), message.partition()
        if error is None:
            return
        if error.code() != KafkaError._AUTO_OFFSET_RESET or topic is None or number is None:
            _logger.warning("the embedded Kafka reports: %s", error.str())
            return
        partition = TopicPartition(topic, number)
        if partition in self._running:
            self._hold(partition)
            start = self._offsets.starts([partition])[partition]
            self._changes.append(
                OffsetLost(partition=partition, committed=self._store.offsets[partition], log_start=start)
            )

    def _count(self, partition: TopicPartition, size_bytes: int) -> None:
        self._bytes[partition] += size_bytes
        if self._bytes[partition] >= _WARN_BYTES and partition not in self._warned:
            self._warned.add(partition)
            _logger.warning(
                "%s[%d] has taken %d MiB: the embedded Kafka keeps 5 MiB of a partition and drops its oldest records",
                partition.topic,
                partition.partition,
                _WARN_BYTES // 1024 // 1024,
            )

    def _delivery_failed(self, error: KafkaError, _message: Message) -> None:
        self._failures.append(error)


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    return len(key or b"") + len(value or b"") + sum(len(name) + len(content or b"") for name, content in headers)
