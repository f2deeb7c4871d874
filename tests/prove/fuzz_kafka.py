"""Fuzzed records through real Kafka: two orchestrators take them all in, go on with their sagas, and lose nothing."""

import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

from sagakit.contracts import envelope
from sagakit.contracts.envelope import CommandHeaders, Envelope
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.messages import ControlMessage, encode_expired, encode_failed
from sagakit.core import transitions as t
from sagakit.core.events import Verb
from sagakit.core.placement import partition_of
from sagakit.core.values import CONFLUENT, Payload
from sagakit.demo.stage import ORDER_PLACED
from sagakit.language.canonical import compile_bundle
from sagakit.language.compile import InvalidDefinitionError
from sagakit.ports.log import Outgoing, Record
from sagakit.ports.registry import IncompatibleSchemaError
from sagakit.ports.sending import Placed
from tests.fuzz.mutations import LIMIT_BYTES, NAMES, mutated
from tests.fuzz.texts import mutated_text
from tests.fuzz.world import STRANGE
from tests.prove.bad_input import SAGA, by_hand
from tests.prove.desk import Desk, open_desk
from tests.prove.evidence import examine_rules, transitions
from tests.prove.house import House, require
from tests.prove.shop import BY_HAND, DESK, Shop, bundle_of, now_ms

_BURST: Final = 1_000
_BURSTS_MIN: Final = 4
"""Only what a burst has started can be answered by the next ones."""

_KEPT: Final = 600
"""How many commands wait for the next burst, for a fuzzed reply; older ones are answered as wished for, or everything
that is undone would be asked for again and again."""

_REST_S: Final = 300.0
_SAID: Final = "a published definition cannot be used"

_APPLIED: Final = "applied"
_REFUSED: Final = "refused, and recorded"
_DEAD_LETTERED: Final = "dead-lettered"
_PARKED: Final = "parked its saga"
_PASSED_ON: Final = "passed on to its partition"
_STARTED: Final = "started a saga"
_STARTED_NOTHING: Final = "started nothing"

_WANTED: Final[Mapping[str, Sequence[str]]] = {
    "start": (_APPLIED, _DEAD_LETTERED),
    "reply": (_APPLIED, _REFUSED, _DEAD_LETTERED),
    "control": (_APPLIED, _REFUSED, _DEAD_LETTERED),
    "signal": (_APPLIED, _DEAD_LETTERED),
    "event": (_STARTED, _DEAD_LETTERED),
}
"""What has to have become of some records of a kind, or the run has shown too little."""


def prove(house: House, folder: Path, *, prefix: str, records: int, seed: int = 1) -> dict[str, Any]:
    """Write `records` records, half of them with something wrong; each must be decided once, passed on, or start."""
    cast = by_hand(seed)
    cast = replace(
        cast, orchestrator_environment={**cast.orchestrator_environment, "SAGAKIT_MAX_RECORD_BYTES": str(LIMIT_BYTES)}
    )
    with Shop(house, folder, prefix, cast) as shop, open_desk(shop) as desk:
        fuzz = _Fuzz(shop, desk, Random(seed))
        fuzz.register_strange_schemas()
        written, burst = 0, min(_BURST, records // _BURSTS_MIN)
        while written < records:
            count = min(burst, records - written)
            fuzz.write(count)
            fuzz.publish_nonsense()
            written += count
            fuzz.serve(shop.is_read, "everything that was written has been read", keep=_KEPT)
        at_rest = "every saga has ended or waits for a person alone"
        fuzz.serve(lambda: shop.is_read() and not fuzz.unanswered and shop.is_at_rest(fuzz.started()), at_rest)
        account = _Account(shop, fuzz.written)
        require(not account.complaints, f"{len(account.complaints)} complaints: " + "\n".join(account.complaints[:10]))
        accounted = sum(each.total() for each in account.outcomes.values())
        require(accounted == records, f"{accounted} of {records} records are accounted for")
        require(not (missing := account.missing(fuzz.wrong)), f"not provoked: {', '.join(missing)}")
        for number in (1, 2):
            said = shop.troupe.process(f"orchestrator-{number}").output().count(_SAID)
            require(said >= fuzz.nonsense, f"orchestrator {number} spoke of {said} of {fuzz.nonsense} bad definitions")
        require(not shop.troupe.deaths(), "a process died")
        return {
            "records": written,
            "outcomes": {kind: dict(each.most_common()) for kind, each in account.outcomes.items()},
            "wrong": dict(fuzz.wrong.most_common()),
            "unusable_definitions": fuzz.nonsense,
            "strange_schemas": fuzz.strange,
            "kinds": dict(Counter(type(one).__name__ for one in transitions(shop)).most_common()),
            **examine_rules(shop),
        }


class _Fuzz:
    """Makes records and writes them: starts, events, replies, controls, signals; half of them wrong."""

    def __init__(self, shop: Shop, desk: Desk, random: Random) -> None:
        self._shop = shop
        self._desk = desk
        self._random = random
        self._sagas: list[str] = []
        self._taken = 0
        self.unanswered: deque[CommandHeaders] = deque()
        self.written: dict[Placed, str] = {}
        """Where each record lies that was written while fuzzing, and as what it was made."""
        self.wrong: Counter[str] = Counter()
        self.nonsense = 0
        self.strange = 0

    def register_strange_schemas(self) -> None:
        """Strangers use the same registry: ids of their schemas come with records of ours."""
        for number, text in enumerate(STRANGE):
            with suppress(SchemaError, IncompatibleSchemaError):  # this registry knows Avro, and refuses what is none
                self._shop.registry.register(f"strange-{number}", text)
                self.strange += 1

    def write(self, count: int) -> None:
        """Write that many records, where their keys belong or now and then elsewhere."""
        made = [self._next() for _ in range(count)]
        places = self._shop.sender.send([record for _, record in made])
        self.written.update({place: kind for place, (kind, _) in zip(places, made, strict=True)})

    def publish_nonsense(self) -> None:
        """A definition that nobody can compile, and noise."""
        published, topic = bundle_of(BY_HAND), self._shop.topics.definitions
        text = mutated_text(self._random, published.canonical)
        fields: dict[str, Any] = {
            "name": SAGA,
            "version": 2 + self.nonsense,
            "canonical": text,
            "hash": published.hash,
            "source": text,
            "schemas": published.schemas,
            "first_offsets": [],
            "command_partitions": {},
            "published_at_ms": now_ms(),
            "published_by": "fuzz",
        }
        values = [self._random.randbytes(20)]
        try:
            compile_bundle(text, published.schemas)
        except (InvalidDefinitionError, SchemaError):
            with suppress(UnicodeEncodeError):  # half a pair of surrogates, which nobody can write
                values.append(self._shop.own.encode("PublishedDefinition", fields))
        self._shop.write(*(Outgoing(topic, 0, f"{SAGA}/{2 + self.nonsense}".encode(), one, []) for one in values))
        self.nonsense += len(values)

    def serve(self, until: Callable[[], bool], what: str, *, keep: int = 0) -> None:
        """Take in what happens, and answer all but the newest commands as wished for, until something has happened."""

        def served() -> bool:
            self._desk.take()
            new = self._desk.commands[self._taken :]
            self._taken += len(new)
            self.unanswered.extend(new)
            if (older := len(self.unanswered) - keep) > 0:
                self._shop.write(*(self._desk.answer(self.unanswered.popleft()) for _ in range(older)))
            return until()

        self._shop.wait(served, what, _REST_S)

    def started(self) -> Iterator[str]:
        """The sagas that the backlog knows as started."""
        for saga_id in self._shop.watch.sagas:
            if self._shop.standing(saga_id) is not None and self._runs(saga_id):
                yield saga_id

    def _runs(self, saga_id: str) -> bool:
        return any(isinstance(one, t.SagaStarted) for one in self._shop.history(saga_id))

    def _next(self) -> tuple[str, Outgoing]:
        kind, record = self._whole()
        if self._random.random() < 0.5:
            key, value, headers = record.key, record.value, record.headers
            done: list[str] = []
            wrong = mutated(self._random, Record(record.topic, 0, 0, 0, key, value, headers), self._shop.own, done)
            self.wrong.update(done)
            record = Outgoing(record.topic, None, wrong.key or b"", wrong.value, wrong.headers)
        if kind == "event":
            return kind, record
        elsewhere = self._random.random() < 0.02
        count = self._shop.settings.partitions
        home = self._random.randrange(count) if elsewhere else partition_of(record.key, count)
        return kind, record._replace(partition=home)

    def _whole(self) -> tuple[str, Outgoing]:
        chance, compose, shop = self._random.random(), self._shop.client.compose, self._shop
        if self.unanswered and chance < 0.6:
            if self._random.random() < 0.8:
                return "reply", self._reply(self.unanswered.popleft())
            return "reply", self._reply(self._random.choice(self._desk.commands[-2_000:]))
        if not self._sagas or chance < 0.7:
            start = shop.start(SAGA, shop.next_orders(1)[0])
            self._sagas.append(start.saga_id or "")
            return "start", start.record
        if chance < 0.8:
            order = shop.next_orders(1)[0]
            self._sagas.append(shop.client.saga_id(SAGA, order["order_id"]))
            return "event", shop.order_event(order, f"{DESK}.events").record
        saga_id = self._random.choice(self._sagas[-2_000:])
        if chance < 0.9:
            verb = self._random.choice(tuple(Verb))
            control = ControlMessage(saga_id=saga_id, verb=verb, actor="fuzz", reason="fuzz")
            return "control", compose.control(control, at_ms=now_ms()).record
        return "signal", compose.signal(saga_id, "hint", None, at_ms=now_ms(), keep_ms=60_000).record

    def _reply(self, command: CommandHeaders) -> Outgoing:
        chance, own = self._random.random(), self._shop.own
        said = Envelope(message_id=str(uuid.UUID(int=self._random.getrandbits(128))), source="/fuzz", at_ms=now_ms())
        if chance < 0.85:
            return self._desk.answer(command)
        if chance < 0.9:
            return self._desk.rejection(command, "NOT_TODAY")
        if chance < 0.95:
            return encode_failed(command, "Broken", "fuzz", own, said)
        return encode_expired(command, own, said)


class _Account:
    """What became of each record, by the backlog: each was decided once, passed on, or started a saga."""

    def __init__(self, shop: Shop, written: Mapping[Placed, str]) -> None:
        self.complaints: list[str] = []
        self.outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in _WANTED}
        self._shop = shop
        self._decided: Counter[Placed] = Counter()
        self._told: dict[Placed, set[type]] = {}
        for one in transitions(shop):
            if (source := one.header.cause.source) is not None:
                place = Placed(source.topic, source.partition, source.offset)
                self._told.setdefault(place, set()).add(type(one))
                self._decided[place] += one.input is not None or isinstance(one, t.RecordDeadLettered)
        self._values: set[bytes | None] = set()
        self._causes: set[bytes | None] = set()
        for topic in (shop.topics.inbox, shop.topics.service_topic(f"{DESK}.events")):
            undecided: list[tuple[Placed, Record]] = []
            for record in shop.read(topic):
                place = Placed(record.topic, record.partition, record.offset)
                kind = written.get(place)
                if self._decided[place]:
                    if topic == shop.topics.inbox:
                        self._values.add(record.value)
                        self._causes.add(dict(record.headers).get(envelope.CAUSATION_ID))
                    self._count(kind, self._outcome(place, record))
                else:
                    undecided.append((place, record))
            for place, record in undecided:  # now that it is known what was
                self._count(written.get(place), self._undecided(place, record))

    def missing(self, wrong: Mapping[str, int]) -> list[str]:
        """What has to have happened and did not."""
        missing = [f"no {kind} {one}" for kind in _WANTED for one in _WANTED[kind] if not self.outcomes[kind][one]]
        return missing + [f"nothing wrong by {one}" for one in sorted(NAMES - wrong.keys())]

    def _count(self, kind: str | None, outcome: str) -> None:
        if kind is not None:
            self.outcomes[kind][outcome] += 1

    def _outcome(self, place: Placed, record: Record) -> str:
        told, times = self._told[place], self._decided[place]
        if times > 1:
            self.complaints.append(f"{place} was decided {times} times: {str(record)[:400]}")
        if t.SagaParked in told:
            return _PARKED
        if t.RecordDeadLettered in told:
            return _DEAD_LETTERED
        ignored = {t.StartIgnored, t.ReplyIgnored, t.ControlIgnored, t.SignalIgnored}
        return _APPLIED if told.isdisjoint(ignored) else _REFUSED

    def _undecided(self, place: Placed, record: Record) -> str:
        if record.topic == self._shop.topics.inbox:
            if record.value in self._values:
                return _PASSED_ON
        else:
            where = f"{record.topic}/{record.partition}/{record.offset}".encode()
            if (envelope.last_values(record.headers).get(envelope.ID) or where) in self._causes:
                return _STARTED
            opened = self._shop.payloads.open(Payload(framed=record.value or b"", encoding=CONFLUENT))
            if opened.type != ORDER_PLACED:
                return _STARTED_NOTHING
        self.complaints.append(f"{place} was never decided: {str(record)[:400]}")
        return "never decided"
