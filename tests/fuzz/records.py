"""An orchestrator that lives on fuzzed records: sagas go on in it, and whatever comes has to be accounted for."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import Any, Final, TypeAlias

import structlog

from sagakit.app.orchestrator import assemble
from sagakit.app.settings import Settings
from sagakit.contracts import envelope
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.transitions import UnknownKind, decode_transition
from sagakit.core.transitions import RecordDeadLettered, SagaParked, Transition
from sagakit.ports.log import Outgoing, Record
from sagakit.proving.invariants import check
from tests.fuzz.makers import KINDS, NAMESPACE, Made, Maker, published_fields
from tests.fuzz.mutations import LIMIT_BYTES
from tests.fuzz.world import PARTITIONS, Definitions, Log, Registry, own_records
from tests.simulation import shop

_BATCH: Final = 200
_STEPS_MS: Final = (1, 1, 5, 5, 20, 20, 20, 100, 500, 3_000)
_CYCLES_MAX: Final = 5_000
_SHOP: Final = frozenset(name for name, _ in shop.TEXTS)
_KEPT: Final = 400
"""Histories that are kept whole and replayed at the end."""

Place: TypeAlias = tuple[str, int, int]
"""Topic, partition and offset."""

_HEADER_BYTES: Final = 16
_SHOWN_BYTES: Final = 2_000


@dataclass(slots=True)
class Found:
    """What came of a run."""

    records: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})
    """What became of the records of each kind; the sum is `records`."""
    wrong: Counter[str] = field(default_factory=Counter)
    """What was wrong with them, and how often; with one record it may have been several things."""
    answers: Counter[str] = field(default_factory=Counter)
    definitions: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def shown(record: Record) -> str:
    """A record with its bytes in hexadecimal, to be found again by."""
    headers = [(name, None if value is None else value.hex()[:_SHOWN_BYTES]) for name, value in record.headers]
    key, value = (None if one is None else one.hex()[:_SHOWN_BYTES] for one in (record.key, record.value))
    where = f"{record.topic}/{record.partition}/{record.offset}"
    return f"{where} at {record.timestamp_ms} ms: key {key}, value {value}, headers {headers}"


def _is_kept(record: Record, letter: Outgoing) -> bool:
    """Whether a dead letter holds the record's value, or its beginning and the digest of the whole."""
    last, digest = letter.headers[-1]
    if last != envelope.CUT_SHA256:  # ours come last; one further up was there when it came
        return letter.value == record.value
    value = record.value or b""
    return digest == sha256(value).hexdigest().encode() and value.startswith(letter.value or b"")


class Fuzz:
    """One run: `go` feeds records until so many were read. The same seed gives the same records."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        settings = Settings(namespace=NAMESPACE, partitions=PARTITIONS, max_record_bytes=LIMIT_BYTES)
        self._topics = settings.topics
        self._own = own_records()
        self._registry = Registry()
        self._avro = AvroCodec(Registry())  # what reads here is not cut off when the engine is
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
        self._copies: list[Record] = []
        self._told: dict[Place, list[str]] = {}
        self._letters: dict[Place, list[Outgoing]] = {}
        self._times_decided: Counter[Place] = Counter()
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

    @property
    def backlog(self) -> list[Transition]:
        """Transitions of the histories that are kept, of every kind that came up."""
        return [one for history in self._histories.values() for one in history]

    def feed(self, records: list[Made]) -> None:
        """Have these records read; what is wrong with that is a problem."""
        try:
            self._feed([self._placed(made) for made in records])
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

    def _feed(self, batch: list[Made]) -> None:
        self._forget()
        cycles, away = 0, self._random.random() < 0.05
        if self._random.random() < 0.02:
            self._log.rebalance()
        while not self._log.is_read:
            self._registry.available = not (away and cycles < 20)
            self._maker.now_ms += self._random.choice(_STEPS_MS)
            self._orchestrator.cycle()
            self._take()
            cycles += 1
            if cycles > _CYCLES_MAX:
                self.found.problems.append(f"stands still: {self._orchestrator.health()}")
                break
        self._registry.available = True
        self._log.forget()
        self.found.records += len(batch)
        self._account(batch)

    def _forget(self) -> None:
        for each in (self._sent_on, self._caused, self._copies, self._told, self._letters, self._times_decided):
            each.clear()

    def _account(self, batch: list[Made]) -> None:
        """Each of these records, and each that we made of one, has its answer, and was not decided twice."""
        for made in batch:
            self.found.outcomes[made.kind][self._outcome(made.record)] += 1
            self.found.wrong.update(made.wrong)
        for record in self._copies:
            self._outcome(record)

    def _outcome(self, record: Record) -> str:
        place = record.topic, record.partition, record.offset
        told, times = self._told.get(place), self._times_decided[place]
        if times > 1 or (told is not None and times == 0):
            self.found.problems.append(f"decided {times} times: {told} of {shown(record)}")
        if told is not None:
            outcome = next(one for one, kinds in _RECORDED.items() if not kinds or not kinds.isdisjoint(told))
            letters = self._letters.get(place, [])
            if len(letters) > 1 or (outcome is _DEAD_LETTERED and not letters):
                self.found.problems.append(f"{len(letters)} dead letters, {told} of {shown(record)}")
            if not all(_is_kept(record, letter) for letter in letters):
                self.found.problems.append(f"not kept as it came: {shown(record)}")
            return outcome
        if record.topic == self._topics.inbox:
            if record.value in self._sent_on:
                return _PASSED_ON
        elif self._has_started(record):
            return _STARTED
        elif self._avro.decode(record.value or b"").type != "sim.Placed":
            return _STARTED_NOTHING
        self.found.problems.append(f"without an answer: {shown(record)}")
        return "without an answer"

    def _has_started(self, event: Record) -> bool:
        where = f"{event.topic}/{event.partition}/{event.offset}".encode()
        return (dict(event.headers).get(envelope.ID) or where) in self._caused

    def _take(self) -> None:
        """Take in what was committed, and what each record of it answers."""
        work, self._log.work = self._log.work, []
        for record in (one for each in work for one in each.records):
            headers = {name: value or b"" for name, value in record.headers}
            size = len(record.key) + len(record.value or b"")
            size += sum(len(name) + len(value or b"") + _HEADER_BYTES for name, value in record.headers)
            if size > LIMIT_BYTES and record.topic != self._topics.inbox:  # there it may have come as large as it goes
                self.found.problems.append(f"a record of {size} bytes for {record.topic}")
            if record.topic == self._topics.backlog:
                self._transition(record)
            elif record.topic == self._topics.dead_letters:
                source = headers[envelope.SOURCE_TOPIC].decode(), int(headers[envelope.SOURCE_PARTITION])
                self._letters.setdefault((*source, int(headers[envelope.SOURCE_OFFSET])), []).append(record)
            elif record.topic == self._topics.inbox:
                # It came to another partition than its saga's, or it is the start that an event has become.
                self._sent_on.add(record.value)
                self._caused.add(headers.get(envelope.CAUSATION_ID))
                self._copies.append(self._log.put(self._stamped(self._maker.received(record))))
            elif record.topic.endswith(".commands"):
                self._maker.commands.append(
                    Record(record.topic, 0, 0, self._maker.now_ms, record.key, record.value, record.headers)
                )
        del self._maker.commands[:-500], self._maker.parked[:-100]

    def _transition(self, record: Outgoing) -> None:
        decoded = decode_transition(record.value or b"", self._own, self._payloads)
        assert not isinstance(decoded, UnknownKind)
        transition = decoded[1]
        header, name = transition.header, type(transition).__name__
        self.found.answers[name] += 1
        kept = self._histories.get(header.saga_id)
        if kept is None and len(self._histories) < _KEPT:
            kept = self._histories[header.saga_id] = []
        if kept is not None:
            kept.append(transition)
        if isinstance(transition, SagaParked):
            self._maker.parked.append(header.saga_id)
        if (source := header.cause.source) is not None:
            place = source.topic, source.partition, source.offset
            self._told.setdefault(place, []).append(name)
            self._times_decided[place] += transition.input is not None or isinstance(transition, RecordDeadLettered)

    def _placed(self, made: Made) -> Made:
        record, partition = made.record, made.record.partition
        if self._random.random() < 0.05:
            partition = self._random.randrange(PARTITIONS)
        return replace(made, record=self._log.put(self._stamped(record._replace(partition=partition))))

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

_APPLIED: Final = "applied"
_PARKED: Final = "parked its saga"
_REFUSED: Final = "refused, and recorded"
_DEAD_LETTERED: Final = "dead-lettered"
_PASSED_ON: Final = "passed on to its partition"
_STARTED: Final = "started sagas"
_STARTED_NOTHING: Final = "started nothing"

_RECORDED: Final[Mapping[str, frozenset[str]]] = {
    _PARKED: frozenset({"SagaParked"}),
    _DEAD_LETTERED: frozenset({"RecordDeadLettered"}),
    _REFUSED: frozenset({"StartIgnored", "ReplyIgnored", "ControlIgnored", "SignalIgnored"}),
    _APPLIED: frozenset(),
}
"""What became of a record, by what was recorded of it; the first that fits."""

_OF_INBOX: Final = (_APPLIED, _REFUSED, _DEAD_LETTERED, _PASSED_ON)
OUTCOMES: Final[Mapping[str, Sequence[str]]] = {
    "start": _OF_INBOX,
    "reply": (*_OF_INBOX, _PARKED),
    "control": _OF_INBOX,
    "signal": (*_OF_INBOX, _PARKED),
    "event": (_STARTED, _STARTED_NOTHING, _DEAD_LETTERED),
}
"""What has to have become of some records of a kind, or a run has shown too little."""
