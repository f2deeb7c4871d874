"""An orchestrator that lives on fuzzed records: sagas go on in it, and whatever comes has to be accounted for."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import structlog

from sagakit.app.orchestrator import assemble
from sagakit.app.settings import Settings
from sagakit.contracts import envelope
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.transitions import UnknownKind, decode_transition
from sagakit.core.transitions import Transition
from sagakit.ports.log import Outgoing, Record
from sagakit.proving.invariants import check
from tests.fuzz.makers import NAMESPACE, Maker, published_fields
from tests.fuzz.mutations import LIMIT_BYTES
from tests.fuzz.world import PARTITIONS, Definitions, Log, Registry, own_records
from tests.simulation import shop

_BATCH: Final = 200
_STEPS_MS: Final = (1, 1, 5, 5, 20, 20, 20, 100, 500, 3_000)
_CYCLES_MAX: Final = 5_000
_SHOP: Final = frozenset(name for name, _ in shop.TEXTS)
_KEPT: Final = 400
"""Histories that are kept whole and replayed at the end."""

_HEADER_BYTES: Final = 16
_SHOWN_BYTES: Final = 2_000


@dataclass(slots=True)
class Found:
    """What came of a run."""

    records: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    definitions: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def shown(record: Record) -> str:
    """A record with its bytes in hexadecimal, to be found again by."""
    headers = [(name, None if value is None else value.hex()[:_SHOWN_BYTES]) for name, value in record.headers]
    key, value = (None if one is None else one.hex()[:_SHOWN_BYTES] for one in (record.key, record.value))
    where = f"{record.topic}/{record.partition}/{record.offset}"
    return f"{where} at {record.timestamp_ms} ms: key {key}, value {value}, headers {headers}"


class Fuzz:
    """One run: `go` feeds records until so many were read. The same seed gives the same records."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        settings = Settings(namespace=NAMESPACE, partitions=PARTITIONS, max_record_bytes=LIMIT_BYTES)
        self._topics = settings.topics
        self._own = own_records()
        self._registry = Registry()
        self._avro = AvroCodec(self._registry)
        self._payloads = PlainPayloadCodec(self._avro)
        self._log = Log(self._topics.state)
        self._definitions = Definitions(())
        self._maker = Maker(self._random, self._topics, self._own, self._registry)
        for name, version in shop.TEXTS:
            value = self._own.encode("PublishedDefinition", published_fields(name, version))
            self._definitions.put(Record(self._topics.definitions, 0, 0, 0, f"{name}/{version}".encode(), value, ()))
        self._histories: dict[str, list[Transition]] = {}
        self._sent_on: set[bytes | None] = set()
        self._caused: set[bytes | None] = set()
        self._said: Counter[str] = Counter()
        self.found = Found()
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO), processors=[self._count_said]
        )
        self._orchestrator = assemble(
            settings, self._log, self._definitions, self._registry, own=self._own, clock=lambda: self._maker.now_ms
        )

    def _count_said(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        self._said[str(event["event"])] += 1
        raise structlog.DropEvent

    def go(self, records: int) -> Found:
        """Feed records, fuzzed ones among whole ones, until `records` were read; then replay what is kept."""
        while self.found.records < records and not self.found.problems:
            if self._random.random() < 0.5:
                self._publish(self._maker.definition())
            self.feed([self._maker.next() for _ in range(_BATCH)])
        for one, history in self._histories.items():
            named = {transition.header.definition for transition in history} - {None}
            if not named <= _SHOP:  # a fuzzed definition that works may say whatever it likes
                continue
            for violation in check(one, history, shop.definition_of)[:1]:
                self.found.problems.append(str(violation))
        return self.found

    def feed(self, records: list[Record]) -> None:
        """Have these records read; what is wrong with that is a problem."""
        try:
            self._feed([self._placed(record) for record in records])
        except Exception as escaped:  # noqa: BLE001 - whatever escapes is what is looked for
            self._escaped(escaped)

    def _escaped(self, escaped: Exception) -> None:
        """Of what ended the loop: which record it was, and where."""
        frames = [frame for frame, _ in traceback.walk_tb(escaped.__traceback__)]
        records = [one for frame in frames if isinstance(one := frame.f_locals.get("record"), Record)]
        of = f", by {shown(records[-1])}" if records else ""
        where = "".join(traceback.format_exception(escaped)[-6:])
        self.found.problems.append(f"{type(escaped).__name__} escaped{of}\n{where}")

    def _publish(self, record: Record) -> None:
        """Have a record of the definitions topic read: it is known then, or said to be of no use."""
        before, self._said = self._said, Counter()
        self._definitions.put(record)
        try:
            cycles = 0
            while not self._said and cycles < _CYCLES_MAX:
                self._maker.now_ms += 1_001
                self._orchestrator.cycle()
                cycles += 1
                if record.value is None or self._is_namespace(record.value):
                    break
        except Exception as escaped:  # noqa: BLE001 - whatever escapes is what is looked for
            self.found.problems.append(f"a definition: {shown(record)}")
            return self._escaped(escaped)
        for said, kind in _OF_DEFINITIONS.items():
            self.found.definitions[kind] += self._said[said]
        if not self._said and record.value is not None and not self._is_namespace(record.value):
            self.found.problems.append(f"not a word of the definition {shown(record)}")
        self._said += before
        return None

    def _is_namespace(self, value: bytes) -> bool:
        try:
            return self._own.decode(value).name == "NamespaceRecord"
        except UndecodableError:
            return False

    def _feed(self, batch: list[Record]) -> None:
        self._sent_on.clear()
        self._caused.clear()
        answered: set[tuple[str, int, int]] = set()
        cycles, away = 0, self._random.random() < 0.05
        if self._random.random() < 0.02:
            self._log.rebalance()
        while not self._log.is_read:
            self._registry.available = not (away and cycles < 20)
            self._maker.now_ms += self._random.choice(_STEPS_MS)
            self._orchestrator.cycle()
            answered |= self._answers()
            cycles += 1
            if cycles > _CYCLES_MAX:
                self.found.problems.append(f"stands still: {self._orchestrator.health()}")
                break
        self._registry.available = True
        self._log.forget()
        self.found.records += len(batch)
        self._look_for(batch, answered)

    def _look_for(self, batch: list[Record], answered: set[tuple[str, int, int]]) -> None:
        """Each of these records has its answer."""
        for record in batch:
            if (record.topic, record.partition, record.offset) not in answered and not self._is_accounted(record):
                self.found.problems.append(f"without an answer: {shown(record)}")

    def _is_accounted(self, record: Record) -> bool:
        """Whether a record without a transition was passed on, started sagas, or is an event that starts none."""
        if record.topic == self._topics.inbox:
            return record.value in self._sent_on
        headers = dict(record.headers)
        where = f"{record.topic}/{record.partition}/{record.offset}".encode()
        if (headers.get(envelope.ID) or where) in self._caused:
            return True
        return self._avro.decode(record.value or b"").type != "sim.Placed"

    def _answers(self) -> set[tuple[str, int, int]]:
        """Where what was committed comes from: of each record, something has to."""
        answered: set[tuple[str, int, int]] = set()
        work, self._log.work = self._log.work, []
        for record in (one for each in work for one in each.records):
            headers = {name: value or b"" for name, value in record.headers}
            size = len(record.key) + len(record.value or b"")
            size += sum(len(name) + len(value or b"") + _HEADER_BYTES for name, value in record.headers)
            if size > LIMIT_BYTES and record.topic != self._topics.inbox:  # there it may have come as large as it goes
                self.found.problems.append(f"a record of {size} bytes for {record.topic}")
            if record.topic == self._topics.backlog:
                answered.add(self._transition(record))
            elif record.topic == self._topics.dead_letters:
                source = headers[envelope.SOURCE_TOPIC].decode(), headers[envelope.SOURCE_PARTITION]
                answered.add((source[0], int(source[1]), int(headers[envelope.SOURCE_OFFSET])))
            elif record.topic == self._topics.inbox:
                # It came to another partition than its saga's, or it is the start that an event has become.
                self._sent_on.add(record.value)
                self._caused.add(headers.get(envelope.CAUSATION_ID))
                self._log.put(self._stamped(self._maker.received(record)))
            elif record.topic.endswith(".commands"):
                self._maker.commands.append(
                    Record(record.topic, 0, 0, self._maker.now_ms, record.key, record.value, record.headers)
                )
        del self._maker.commands[:-500]
        return answered

    def _transition(self, record: Outgoing) -> tuple[str, int, int]:
        decoded = decode_transition(record.value or b"", self._own, self._payloads)
        assert not isinstance(decoded, UnknownKind)
        transition = decoded[1]
        header = transition.header
        self.found.answers[type(transition).__name__] += 1
        kept = self._histories.get(header.saga_id)
        if kept is None and len(self._histories) < _KEPT:
            kept = self._histories[header.saga_id] = []
        if kept is not None:
            kept.append(transition)
        source = header.cause.source
        return ("", 0, 0) if source is None else (source.topic, source.partition, source.offset)

    def _placed(self, record: Record) -> Record:
        partition = record.partition if self._random.random() < 0.95 else self._random.randrange(PARTITIONS)
        return self._log.put(self._stamped(record._replace(partition=partition)))

    def _stamped(self, record: Record) -> Record:
        now_ms = self._maker.now_ms
        if record.topic == self._topics.inbox:  # by the brokers
            behind_ms = self._random.choice((0, 0, 0, 0, 1_000, 60_000, -60_000, now_ms + 1))
            return record._replace(timestamp_ms=now_ms - behind_ms)
        return record._replace(timestamp_ms=self._random.choice((now_ms, now_ms, 0, -1, 2**62, 2**63 - 1)))


_OF_DEFINITIONS: Final = {
    "definition known": "known",
    "a published definition cannot be used; publish a mended version": "of no use",
}
