"""Where the contract of `TransactionalLog` is put to the test: each world is one adapter with its own broker.

A world makes logs, puts records into topics as a stranger would, and looks at what became visible.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import confluent_kafka
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from sagakit.adapters.client_properties import ClientProperties, Property
from sagakit.adapters.embedded_log import EmbeddedLog, EmbeddedStore
from sagakit.adapters.kafka_log import KafkaLog
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_records import to_records
from sagakit.adapters.topics import TopicAdmin
from sagakit.ports.log import (
    Assigned,
    Change,
    OffsetLost,
    Outgoing,
    Record,
    Restored,
    Revoked,
    StateRead,
    StateRecord,
    TopicPartition,
    TransactionalLog,
    Work,
)

PARTITIONS = 4
"""Of every topic of every world: what the embedded broker makes and cannot change."""


class World(Protocol):
    """One adapter and its broker."""

    inbox: str
    state: str
    trigger: str
    out: str
    several_instances: bool

    def open(self, instance: str = "a") -> TransactionalLog:
        """A log, to be closed by the world at the end unless the test does it."""
        ...

    def publish(self, topic: str, partition: int, *values: bytes) -> None:
        """Append records with these values (and keys `k<value>`)."""
        ...

    def visible(self, topic: str, partition: int) -> Sequence[Record]:
        """The committed records of a partition up to its present end."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class _ClientWorld:
    """What worlds over the real client have in common."""

    several_instances = True

    def __init__(self, properties: Mapping[str, Property], prefix: str) -> None:
        self.properties = ClientProperties(properties)
        self.prefix = prefix
        self.inbox, self.state, self.trigger, self.out = (
            f"{prefix}{name}" for name in ("inbox", "state", "trigger", "out")
        )
        self.plain: dict[str, Property] = {**properties, "log_level": "0"}
        self._producer = Producer({**self.plain, "acks": "all"})
        self._offsets = Offsets(self.properties)
        self._open: list[TransactionalLog] = []

    def publish(self, topic: str, partition: int, *values: bytes) -> None:
        errors: list[object] = []
        for value in values:
            self._producer.produce(
                topic, value, b"k" + value, partition, on_delivery=lambda error, _: errors.append(error)
            )
        assert self._producer.flush(30) == 0
        assert errors == [None] * len(values)

    def visible(self, topic: str, partition: int) -> Sequence[Record]:
        place = TopicPartition(topic, partition)
        end, start = self._offsets.ends([place])[place], self._offsets.starts([place])[place]
        consumer = Consumer(
            {**self.plain, "group.id": "world", "auto.offset.reset": "error", "isolation.level": "read_committed"}
        )
        consumer.assign([confluent_kafka.TopicPartition(topic, partition, start)])
        records: list[Record] = []
        give_up_at = time.monotonic() + 30
        while start < end and consumer.position([confluent_kafka.TopicPartition(topic, partition)])[0].offset < end:
            assert time.monotonic() < give_up_at, f"{place} could not be read to {end}"
            records += to_records(consumer.consume(1000, 0.05), [])
        consumer.close()
        return records

    def close(self) -> None:
        for log in self._open:
            log.close(10)


class KafkaWorld(_ClientWorld):
    """A real broker."""

    def __init__(self, properties: Mapping[str, Property], prefix: str) -> None:
        super().__init__(properties, prefix)
        self.group = f"{prefix}group"
        admin = AdminClient(self.plain)
        topics = [self.inbox, self.state, self.trigger, self.out]
        for created in admin.create_topics([NewTopic(topic, PARTITIONS) for topic in topics]).values():
            created.result(timeout=30)
        TopicAdmin(self.properties).wait_for(topics)
        self.admin = admin
        self._properties = properties

    def set(self, **more: Property) -> None:
        """Client properties of the logs that are opened from now on."""
        self.properties = ClientProperties({**self._properties, **more})

    def open(self, instance: str = "a") -> KafkaLog:
        log = KafkaLog(
            self.properties,
            group=self.group,
            transactional_id=f"{self.prefix}{instance}",
            state_topics={self.inbox: self.state},
        )
        self._open.append(log)
        return log

    def committed(self, partition: TopicPartition) -> int | None:
        """The group's committed offset."""
        consumer = Consumer({**self.plain, "group.id": self.group})
        offset: int = consumer.committed(
            [confluent_kafka.TopicPartition(partition.topic, partition.partition)], timeout=30
        )[0].offset
        consumer.close()
        return offset if offset >= 0 else None


class EmbeddedWorld(_ClientWorld):
    """librdkafka's mock cluster in this process."""

    several_instances = False

    def __init__(self, properties: Mapping[str, Property], prefix: str) -> None:
        super().__init__(properties, prefix)
        self.store = EmbeddedStore()
        for topic in (self.inbox, self.state, self.trigger, self.out):
            self._producer.list_topics(topic, 10)

    def open(self, instance: str = "a") -> EmbeddedLog:
        log = EmbeddedLog(self.properties, self.store, state_topics={self.inbox: self.state})
        self._open.append(log)
        return log


@dataclass
class Driver:
    """Does with a log what a loop would: restores what is assigned and collects what comes."""

    log: TransactionalLog
    first_offsets: Mapping[TopicPartition, int] = field(default_factory=dict)
    restores: bool = True
    owned: set[TopicPartition] = field(default_factory=set)
    restored: dict[TopicPartition, int] = field(default_factory=dict)
    state: dict[TopicPartition, list[StateRecord]] = field(default_factory=dict)
    lost: list[OffsetLost] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def turn(self, timeout_s: float = 0.1) -> Sequence[Record]:
        """One poll."""
        batch = self.log.poll(timeout_s)
        for change in batch.changes:
            self._take(change)
        for record in batch.records:
            assert TopicPartition(record.topic, record.partition) in self.restored, "a record before its Restored"
        self.records += batch.records
        return batch.records

    def until(self, condition: Callable[[], object], timeout_s: float = 60) -> None:
        """Poll until `condition` holds."""
        give_up_at = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up_at, f"still waiting; saw {self.changes} and {len(self.records)} records"
            self.turn()

    def until_restored(self, *partitions: TopicPartition) -> None:
        """Poll until these partitions run."""
        self.until(lambda: set(partitions) <= self.restored.keys())

    def take(self) -> list[Record]:
        """The records since the last call."""
        records, self.records = self.records, []
        return records

    def restore(self, partition: TopicPartition, *, state: bool = True) -> None:
        """Begin a restore and forget what was known."""
        self.restored.pop(partition, None)
        if state:
            self.state[partition] = []
        self.log.restore(partition, self.first_offsets.get(partition), state=state)

    def _take(self, change: Change) -> None:
        self.changes.append(change)
        partition = change.partition
        if isinstance(change, Assigned):
            assert partition not in self.owned
            self.owned.add(partition)
            if self.restores:
                self.restore(partition)
        elif isinstance(change, Revoked):
            self.owned.discard(partition)
            self.restored.pop(partition, None)
            self.state.pop(partition, None)
        elif isinstance(change, StateRead):
            assert partition not in self.restored, "state after Restored"
            self.state[partition] += change.records
        elif isinstance(change, Restored):
            self.restored[partition] = change.next_offset
        else:
            self.lost.append(change)


def offsets_after(records: Collection[Record]) -> dict[TopicPartition, int]:
    """The next offsets once these records are done."""
    offsets: dict[TopicPartition, int] = {}
    for record in records:
        offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
    return offsets


def work_of(world: World, records: Collection[Record]) -> Work:
    """What a small engine would write for inbox records: a state each, and a record for somebody else."""
    outgoing = [Outgoing(world.state, one.partition, one.key or b"", one.value, [("due", b"1")]) for one in records]
    outgoing += [Outgoing(world.out, one.partition, one.key or b"", one.value, ()) for one in records]
    return Work(records=outgoing, offsets=offsets_after(records))


def values(records: Collection[Record | StateRecord]) -> list[bytes | None]:
    """The values, in order."""
    return [one.value for one in records]
