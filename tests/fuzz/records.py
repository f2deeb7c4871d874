"""An orchestrator that lives on fuzzed records: sagas go on in it, and whatever comes has to be accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from sagakit.app.orchestrator import assemble
from sagakit.app.settings import Settings
from sagakit.contracts import envelope, messages
from sagakit.contracts.envelope import Envelope
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.transitions import UnknownKind, decode_transition
from sagakit.core.address import Address
from sagakit.core.events import ReplyTo, Verb
from sagakit.core.ids import saga_id
from sagakit.core.placement import partition_of
from sagakit.core.transitions import Transition
from sagakit.ports.log import Assigned, Batch, Change, Committed, Outgoing, Record, Restored, TopicPartition, Work
from sagakit.proving.invariants import check
from tests.fuzz.mutations import mutated
from tests.simulation import shop

PARTITIONS: Final = 2
MAX_RECORD_BYTES: Final = 16_000
_BATCH: Final = 200
_CYCLES_MAX: Final = 5_000
_KEPT: Final = 400
"""Histories that are kept whole and replayed at the end."""


@dataclass(slots=True)
class Found:
    """What came of a run."""

    records: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class _Definitions:
    """A definitions topic that is read once."""

    def __init__(self, records: Collection[Record]) -> None:
        self._records = list(records)

    def read_new(self) -> list[Record]:
        records, self._records = self._records, []
        return records


class _Log:
    """Delivers what was put, from the committed offsets on wherever it is asked to; nothing ever fails here."""

    def __init__(self) -> None:
        self.work: list[Work] = []
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

    def _end(self, place: TopicPartition) -> int:
        return self._forgotten[place] + len(self._records.get(place, ()))

    def forget(self) -> None:
        """Let go of what is committed."""
        for place, records in self._records.items():
            del records[: self._committed[place] - self._forgotten[place]]
            self._forgotten[place] = self._committed[place]

    def subscribe(self, topics: Collection[str]) -> None:
        self._changes += [
            Assigned(partition=TopicPartition(topic, number))
            for topic in sorted(topics)
            for number in range(PARTITIONS)
        ]

    def poll(self, timeout_s: float) -> Batch:
        changes, self._changes = self._changes, []
        found: list[Record] = []
        for place, position in self._running.items():
            begin = position - self._forgotten[place]
            found += self._records.get(place, [])[begin : begin + _BATCH]
            self._running[place] = min(position + _BATCH, self._end(place))
        return Batch(changes=changes, records=found)

    def restore(self, partition: TopicPartition, first_offset: int | None, *, state: bool = True) -> None:
        next_offset = self._running[partition] = self._committed[partition]
        self._changes.append(Restored(partition=partition, next_offset=next_offset))

    def reached_end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {one: self._end(one) for one in partitions if self._running.get(one) == self._end(one)}

    def commit(self, work: Work) -> Committed:
        self.work.append(work)
        self._committed.update({one: offset - self._committed[one] for one, offset in work.offsets.items()})
        return Committed()

    def close(self, deadline_s: float) -> None:
        """Nothing is open."""


class Fuzz:
    """One run: `go` feeds records until so many were read."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._settings = Settings(namespace="fuzz", partitions=PARTITIONS, max_record_bytes=MAX_RECORD_BYTES)
        self._topics = self._settings.topics
        self._own = shop.own_records()
        self._payloads = PlainPayloadCodec(shop.codec())
        self._now_ms = 1_760_000_000_000
        self._log = _Log()
        self._numbers = 0
        self._histories: dict[str, list[Transition]] = {}
        self._commands: list[Record] = []
        self._sent_on: set[bytes | None] = set()
        self.found = Found()
        self._orchestrator = assemble(
            self._settings,
            self._log,
            _Definitions([self._definition(*key) for key in shop.TEXTS]),
            shop.registry(),
            own=self._own,
            clock=lambda: self._now_ms,
        )

    def go(self, records: int) -> Found:
        """Feed records, fuzzed ones among whole ones, until `records` were read; then replay what is kept."""
        while self.found.records < records and not self.found.problems:
            batch = [self._next() for _ in range(_BATCH)]
            self._feed(batch)
        for one, history in self._histories.items():
            for violation in check(one, history, shop.definition_of)[:1]:
                self.found.problems.append(str(violation))
        return self.found

    def _feed(self, batch: list[Record]) -> None:
        self._sent_on.clear()
        answered: set[tuple[str, int, int]] = set()
        cycles = 0
        while not self._log.is_read:
            self._now_ms += self._random.choice((1, 20, 500, 3_000))
            self._orchestrator.cycle()
            answered |= self._answers()
            cycles += 1
            if cycles > _CYCLES_MAX:
                self.found.problems.append(f"stands still: {self._orchestrator.health()}")
                break
        self._log.forget()
        self.found.records += len(batch)
        for record in batch:
            sent_on = record.value in self._sent_on
            if not sent_on and (record.topic, record.partition, record.offset) not in answered:
                self.found.problems.append(f"without an answer: {record}")

    def _answers(self) -> set[tuple[str, int, int]]:
        """Where what was committed comes from: of each record, something has to."""
        answered: set[tuple[str, int, int]] = set()
        work, self._log.work = self._log.work, []
        for record in (one for each in work for one in each.records):
            headers = dict(record.headers)
            if len(record.value or b"") > MAX_RECORD_BYTES:
                self.found.problems.append(f"a record of {len(record.value or b'')} bytes for {record.topic}")
            if record.topic == self._topics.backlog:
                answered.add(self._transition(record))
            elif record.topic == self._topics.dead_letters:
                source = headers[envelope.SOURCE_TOPIC].decode(), headers[envelope.SOURCE_PARTITION]
                answered.add((source[0], int(source[1]), int(headers[envelope.SOURCE_OFFSET])))
            elif record.topic == self._topics.inbox:  # it came to another partition than its saga's
                self._sent_on.add(record.value)
                self._enqueue(record)
            elif record.topic.endswith(".commands"):
                self._commands.append(
                    Record(record.topic, 0, 0, self._now_ms, record.key, record.value, record.headers)
                )
        del self._commands[:-500]
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

    # What comes in

    def _next(self) -> Record:
        kind = self._random.random()
        if self._commands and kind < 0.55:
            record = self._reply(self._random.choice(self._commands))
        elif kind < 0.7:
            record = self._control()
        elif kind < 0.8:
            record = self._signal()
        else:
            record = self._start()
        if self._random.random() < 0.5:
            record = mutated(self._random, record, self._own)
        return self._placed(record)

    def _placed(self, record: Record) -> Record:
        partition = record.partition if self._random.random() < 0.95 else self._random.randrange(PARTITIONS)
        behind_ms = self._random.choice((0, 0, 0, 0, 1_000, 60_000, -60_000, self._now_ms + 1))
        return self._log.put(record._replace(partition=partition, timestamp_ms=self._now_ms - behind_ms))

    def _enqueue(self, outgoing: Outgoing) -> None:
        self._placed(self._received(outgoing))

    def _received(self, outgoing: Outgoing) -> Record:
        partition = partition_of(outgoing.key, PARTITIONS) if outgoing.partition is None else outgoing.partition
        return Record(outgoing.topic, partition, 0, 0, outgoing.key, outgoing.value, outgoing.headers)

    def _said(self) -> Envelope:
        self._numbers += 1
        return Envelope(message_id=f"m{self._numbers}", source="/fuzz", at_ms=self._now_ms)

    def _some_saga(self) -> tuple[str, str, str]:
        definition = self._random.choice(("order", "visit", "audit"))
        key = f"k{self._random.randrange(max(1, self._numbers // 4))}"
        return definition, key, saga_id("fuzz", definition, key)

    def _start(self) -> Record:
        definition, key, one = self._some_saga()
        note = "n" * self._random.choice((0, 10, 10, 10, 4_000, 9_000, 13_000))
        amount = self._random.choice((1, 100, 2**62))
        payload = shop.payload("sim.Placed", {"order_id": key, "amount": amount, "note": note})
        start = messages.StartMessage(
            saga_id=one,
            definition=definition,
            key=key,
            payload=payload,
            reply_to=self._random.choice((None, ReplyTo(topic=self._topics.results, partition=0))),
            deadline_ms=self._random.choice((None, 100, 60_000)),
        )
        return self._received(messages.encode_start(start, self._said(), self._own, self._topics))

    def _reply(self, command: Record) -> Record:
        headers = envelope.read_command_headers(command)
        kind = self._random.random()
        if kind < 0.6:
            type_ = "sim.Undone" if command.value and headers.type == "sim.Undo" else "sim.Done"
            data = {} if type_ == "sim.Undone" else {"receipt": "r" * self._random.choice((1, 5, 3_000))}
            out = messages.encode_reply(headers, type_, shop.payload(type_, data).framed, self._said())
        elif kind < 0.75:
            out = messages.encode_rejected(headers, "REFUSED", None, {}, self._own, self._said())
        elif kind < 0.9:
            out = messages.encode_failed(headers, "Broken", "no message", self._own, self._said())
        else:
            out = messages.encode_expired(headers, self._own, self._said())
        return self._received(out)

    def _control(self) -> Record:
        _, _, one = self._some_saga()
        steps = (None, "reserve", "charge", "ship", "confirm", "look", "note", "nowhere")
        step = self._random.choice(steps)
        control = messages.ControlMessage(
            saga_id=one,
            verb=self._random.choice(tuple(Verb)),
            address=None if step is None else Address.parse(step),
            payload=self._random.choice((None, shop.payload("sim.Done", {"receipt": "by hand"}))),
            actor="fuzz",
            reason="fuzz",
            ticket=None,
        )
        return self._received(messages.encode_control(control, self._said(), self._own, self._topics))

    def _signal(self) -> Record:
        _, _, one = self._some_saga()
        payload = self._random.choice((None, shop.payload("sim.Hint", {"text": "t" * self._random.choice((1, 5_000))})))
        signal = messages.SignalMessage(
            saga_id=one, name="hint", payload=payload, keep_ms=self._random.choice((1_000, 60_000))
        )
        return self._received(messages.encode_signal(signal, self._said(), self._own, self._topics))

    def _definition(self, name: str, version: int) -> Record:
        found = shop.published(name, version)
        fields = {
            "name": found.name,
            "version": found.version,
            "canonical": found.canonical,
            "hash": found.hash,
            "source": found.source,
            "schemas": dict(found.schemas),
            "first_offsets": [],
            "command_partitions": {},
            "published_at_ms": 0,
            "published_by": None,
        }
        value = self._own.encode("PublishedDefinition", fields)
        return Record(self._topics.definitions, 0, 0, 0, f"{name}/{version}".encode(), value, ())
