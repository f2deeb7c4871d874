"""What the fuzzed orchestrator lives in: a log on which nothing ever fails, and a registry that strangers use too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.ports.log import (
    Assigned,
    Batch,
    Change,
    Committed,
    Record,
    Restored,
    Revoked,
    StateRead,
    StateRecord,
    TopicPartition,
    Work,
)
from sagakit.ports.registry import RegistryUnavailableError
from tests.simulation import shop

PARTITIONS: Final = 2
_BATCH: Final = 200


class Definitions:
    """A definitions topic."""

    def __init__(self, records: Collection[Record]) -> None:
        self._records = list(records)

    def put(self, record: Record) -> None:
        """Append a record."""
        self._records.append(record)

    def read_new(self) -> list[Record]:
        """See `DefinitionLog.read_new`."""
        records, self._records = self._records, []
        return records


class Log:
    """Delivers what was put, from the committed offsets on wherever it is asked to; nothing ever fails here."""

    def __init__(self, state_topic: str) -> None:
        self.work: list[Work] = []
        self.states: dict[int, dict[bytes, StateRecord]] = {number: {} for number in range(PARTITIONS)}
        """What a restore of an inbox partition finds: the state topic, compacted."""
        self._state_topic = state_topic
        self._records: dict[TopicPartition, list[Record]] = {}
        self._forgotten: Counter[TopicPartition] = Counter()
        self._committed: Counter[TopicPartition] = Counter()
        self._running: dict[TopicPartition, int] = {}
        self._changes: list[Change] = []

    @property
    def is_read(self) -> bool:
        """Whether all that was put is committed."""
        return all(self._committed[place] == self._end(place) for place in self._records)

    def put(self, record: Record) -> Record:
        """Append a record to its partition; the record with its offset."""
        place = TopicPartition(record.topic, record.partition)
        placed = record._replace(offset=self._end(place))
        self._records.setdefault(place, []).append(placed)
        return placed

    def unread(self, place: TopicPartition) -> int:
        """How many records of a partition are not committed."""
        return self._end(place) - self._committed[place]

    def _end(self, place: TopicPartition) -> int:
        return self._forgotten[place] + len(self._records.get(place, ()))

    def forget(self) -> None:
        """Let go of what is committed."""
        for place, records in self._records.items():
            del records[: self._committed[place] - self._forgotten[place]]
            self._forgotten[place] = self._committed[place]

    def rebalance(self) -> None:
        """Take every partition away and give it back: all of it is restored."""
        running, self._running = self._running, {}
        self._changes += [Revoked(partition=one) for one in running]
        self._changes += [Assigned(partition=one) for one in running]

    def subscribe(self, topics: Collection[str]) -> None:
        """See `TransactionalLog.subscribe`."""
        new = [TopicPartition(topic, number) for topic in sorted(topics) for number in range(PARTITIONS)]
        self._changes += [Assigned(partition=one) for one in new if one not in self._running]

    def poll(self, timeout_s: float) -> Batch:
        """See `TransactionalLog.poll`."""
        changes, self._changes = self._changes, []
        found: list[Record] = []
        for place, position in self._running.items():
            begin = position - self._forgotten[place]
            found += self._records.get(place, [])[begin : begin + _BATCH]
            self._running[place] = min(position + _BATCH, self._end(place))
        return Batch(changes=changes, records=found)

    def restore(self, partition: TopicPartition, first_offset: int | None, *, state: bool = True) -> None:
        """See `TransactionalLog.restore`."""
        next_offset = self._running[partition] = self._committed[partition]
        if state and partition.topic.endswith("inbox") and (states := self.states[partition.partition]):
            self._changes.append(StateRead(partition=partition, records=list(states.values())))
        self._changes.append(Restored(partition=partition, next_offset=next_offset))

    def reached_end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """See `TransactionalLog.reached_end`."""
        return {one: self._end(one) for one in partitions if self._running.get(one) == self._end(one)}

    def commit(self, work: Work) -> Committed:
        """See `TransactionalLog.commit`."""
        self.work.append(work)
        for record in work.records:
            if record.topic == self._state_topic:
                assert record.partition is not None
                self.states[record.partition][record.key] = StateRecord(record.key, record.value, record.headers)
        self._committed.update({one: offset - self._committed[one] for one, offset in work.offsets.items()})
        return Committed()

    def close(self, deadline_s: float) -> None:
        """Nothing is open."""


def _record(name: str, *fields: tuple[str, Any], namespace: str = "strange") -> str:
    listed = [{"name": field, "type": kind} for field, kind in fields]
    return json.dumps({"type": "record", "name": name, "namespace": namespace, "fields": listed})


_DEEP: Final = "sagakit.Start"
STRANGE: Final[Sequence[str]] = (
    _record("Tree", ("left", ["null", "strange.Tree"]), ("right", ["null", "strange.Tree"])),
    _record("Forest", ("trees", {"type": "array", "items": "strange.Forest"})),
    _record("Nothings", ("many", {"type": "array", "items": "null"})),
    _record("Maps", ("deep", {"type": "map", "values": {"type": "map", "values": {"type": "map", "values": "long"}}})),
    _record("Choice", ("one", ["null", "string", "long", "double", "boolean", {"type": "array", "items": "string"}])),
    _record("Precise", ("much", {"type": "bytes", "logicalType": "decimal", "precision": 5_000, "scale": 4_999})),
    _record("Imprecise", ("little", {"type": "bytes", "logicalType": "decimal", "precision": -1, "scale": 9})),
    _record("Times", ("at", {"type": "long", "logicalType": "timestamp-nanos"}), ("day", {"type": "int"})),
    _record("Exact", ("few", {"type": "fixed", "name": "Few", "size": 3}), ("none", {"type": "bytes"})),
    _record("Kinds", ("kind", {"type": "enum", "name": "Kind", "symbols": ["A", "B"]})),
    _record("Numbers", ("f", "float"), ("d", "double")),
    _record("Empty"),
    _record("Placed", ("order_id", "long"), namespace="sim"),
    _record("Done", ("receipt", ["null", "string"]), ("more", "string"), namespace="sim"),
    _record("Start", ("nothing", "string"), namespace="sagakit"),
    _record("Start", ("definition", "sagakit.Start"), ("key", "string"), namespace="sagakit"),
    _record("Signal", ("name", "long"), ("payload", "null"), ("keep_ms", "string"), namespace="sagakit"),
    _record("Control", ("verb", ["null", "sagakit.Control"]), namespace="sagakit"),
    _record("Failed", ("kind", "null"), ("message", "bytes"), namespace="sagakit"),
    _record("Rejected", namespace="sagakit"),
    _record("Snapshot", ("saga_id", "string"), namespace="sagakit"),
    _record("Marker", ("next", ["null", "sagakit.Marker"]), namespace="sagakit"),
    _record("Unheard", ("of", "string"), namespace="sagakit"),
    '"string"',
    '{"type": "array", "items": "long"}',
    "{}",
    "not JSON",
    '{"type": "record", "name": "Bad", "fields": [{"name": "x", "type": "strange.Missing"}]}',
    '{"type": "record", "name": "sagakit.Start", "fields": [{"name": "1", "type": "string", "default": 7}]}',
    '{"type": "enum", "name": "E", "symbols": ["A", "A"]}',
)
"""Schemas of others under ids of the same registry: records that contain themselves, that take a name of ours, and what
is no record, no type or no JSON at all."""


class Registry:
    """The shop's registry and what strangers have put into it; `available` False, and it does not answer."""

    def __init__(self) -> None:
        self.available = True
        self._inner = shop.registry()
        self.first_strange_id = len(own_schemas()) + len(shop.SCHEMAS) + 1

    @property
    def strange_ids(self) -> range:
        """The ids of `STRANGE`."""
        return range(self.first_strange_id, self.first_strange_id + len(STRANGE))

    def schema(self, schema_id: int) -> str:
        """See `SchemaRegistry.schema`."""
        if not self.available:
            raise RegistryUnavailableError("the fuzzed registry does not answer")
        if schema_id in self.strange_ids:
            return STRANGE[schema_id - self.first_strange_id]
        return self._inner.schema(schema_id)

    def schema_id(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry.schema_id`."""
        return self._inner.schema_id(subject, schema)

    def register(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry.register`."""
        return self._inner.register(subject, schema)

    def versions(self, subject: str) -> tuple[str, ...]:
        """See `SchemaRegistry.versions`."""
        return self._inner.versions(subject)

    def set_compatibility(self, subject: str, level: str) -> None:
        """See `SchemaRegistry.set_compatibility`."""
        self._inner.set_compatibility(subject, level)


@cache
def own_records() -> OwnRecords:
    """sagakit's own records over a registry with strangers in it, compiled once for all fuzzed worlds."""
    own = OwnRecords(Registry())
    own.prepare()
    return own
