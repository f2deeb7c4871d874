"""What has to hold in a world at rest: the rules of histories, and that log, state and world tell the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sagakit.contracts import envelope
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import decode_state
from sagakit.contracts.transitions import UnknownKind, decode_transition
from sagakit.core import ids
from sagakit.core import transitions as t
from sagakit.core.definition import Again
from sagakit.core.events import Reply, Source
from sagakit.core.placement import partition_of
from sagakit.core.state import End, Marker, Saga, State
from sagakit.core.transitions import Transition
from sagakit.ports.log import Record, TopicPartition
from sagakit.proving.invariants import check, check_at_rest, check_effects, runs
from sagakit.proving.replay import replay
from tests.simulation import shop
from tests.simulation.people import Services, trace_id
from tests.simulation.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a world has left behind."""

    world: World
    histories: Mapping[str, Sequence[Transition]]
    inbox: Sequence[Record]
    standing: frozenset[str]


def gather(world: World, services: Services) -> Evidence:
    """Read everything that there is to read."""
    own, payloads = shop.own_records(), PlainPayloadCodec(shop.codec())
    histories: defaultdict[str, list[Transition]] = defaultdict(list)
    for partition, log in world.cluster.logs.items():
        if partition.topic != world.topics.backlog:
            continue
        for record in log.read(log.start, log.end)[0]:
            decoded = decode_transition(record.value or b"", own, payloads)
            assert not isinstance(decoded, UnknownKind)
            histories[decoded[1].header.saga_id].append(decoded[1])
    return Evidence(
        world=world,
        histories=histories,
        inbox=world.cluster.written(world.topics.inbox),
        standing=services.participant.standing,
    )


def problems(evidence: Evidence) -> Iterator[str]:
    """Everything that is not as it has to be, each in words."""
    for saga_id, history in evidence.histories.items():
        for violation in check(saga_id, history, shop.definition_of):
            yield str(violation)
            return  # what follows folds the history, and may fail because of it
        for violation in check_at_rest(saga_id, history, shop.definition_of):
            yield str(violation)
        for run in runs(history, shop.definition_of):
            for violation in check_effects(run, evidence.standing):
                yield str(violation)
    yield from _keys(evidence)
    yield from _dedupe(evidence)
    yield from _each_record_once(evidence)
    yield from _commands(evidence)
    yield from _effects(evidence)
    yield from _answers(evidence)
    yield from _ends(evidence)
    yield from _traces(evidence)
    yield from _state(evidence)
    yield from _triggers(evidence)
    yield from _patience(evidence)
    yield from _signals(evidence)


def _keys(evidence: Evidence) -> Iterator[str]:
    """Each record of the backlog has a key of its own: compaction takes away whatever a later one replaces."""
    written = evidence.world.cluster.written(evidence.world.topics.backlog)
    for key, times in Counter(record.key for record in written).items():
        if times > 1:
            yield f"the backlog has {times} records under the key {key!r}"


def _dedupe(evidence: Evidence) -> Iterator[str]:
    """A second run of a key begins only as the definition allows, and never by the message of the first."""
    for saga_id, history in evidence.histories.items():
        ended: Marker | None = None
        for run in runs(history, shop.definition_of):
            start = run.facts[0].transition
            if ended is not None and ended.expires_at_ms > start.header.partition_ms:
                again = run.definition.again
                allowed = again is Again.ALWAYS or (again is Again.AFTER_COMPENSATED and ended.end is End.COMPENSATED)
                if not allowed or start.header.cause.message_id == ended.start_message_id:
                    yield f"a second run within the dedupe window: {saga_id}/{start.header.run}"
            ended = run.state if isinstance(run.state, Marker) else None


def _each_record_once(evidence: Evidence) -> Iterator[str]:
    """Each record of the inbox was decided exactly once; one in the wrong partition was passed on exactly once."""
    decided = Counter(
        (source.topic, source.partition, source.offset)
        for history in evidence.histories.values()
        for transition in history
        if transition.input is not None and (source := _source(transition)) is not None
    )
    count = evidence.world.plan.partitions
    for record in evidence.inbox:
        times = decided[record.topic, record.partition, record.offset]
        astray = partition_of(_saga_of(record), count) != record.partition
        if times != 1 and not (astray and times == 0):
            yield f"{record.topic}[{record.partition}]@{record.offset} was decided {times} times"


def _saga_of(record: Record) -> bytes:
    """The saga that a record of the inbox is for: a start's is derived, whatever its key says."""
    own = shop.own_records()
    if _header(record, envelope.TYPE) == "sagakit.Start":
        start = own.decode(record.value or b"").fields
        return ids.saga_id("sim", start["definition"], start["key"]).encode()
    return record.key or b""


def _source(transition: Transition) -> Source | None:
    return transition.header.cause.source


def _commands(evidence: Evidence) -> Iterator[str]:
    """Each command of the backlog was sent exactly once, and no other."""
    decided = Counter(
        fact.command_id
        for history in evidence.histories.values()
        for fact in history
        if isinstance(fact, t.StepScheduled | t.CompensationScheduled)
    )
    topics = evidence.world.topics
    sent = Counter(
        _header(record, envelope.ID)
        for service in shop.SERVICES
        for record in evidence.world.cluster.written(topics.commands(service))
    )
    for command_id in decided.keys() | sent.keys():
        if (decided[command_id], sent[command_id]) != (1, 1):
            yield f"command {command_id}: decided {decided[command_id]} times, sent {sent[command_id]} times"


def _header(record: Record, name: str) -> str:
    return (dict(record.headers).get(name) or b"").decode()


def _effects(evidence: Evidence) -> Iterator[str]:
    """Nothing stands in the world that no run has asked for, and nothing of one step twice."""
    topics = evidence.world.topics
    asked: dict[str, tuple[str, str, str]] = {}
    for service in shop.SERVICES:
        for record in evidence.world.cluster.written(topics.commands(service)):
            step = (
                _header(record, envelope.CORRELATION_ID),
                _header(record, envelope.RUN),
                _header(record, envelope.ADDRESS),
            )
            asked[_header(record, envelope.IDEMPOTENCY_KEY)] = step
    for key in evidence.standing - asked.keys():
        yield f"the effect {key} stands, and no command asked for it"
    for step, times in Counter(asked[key] for key in evidence.standing if key in asked).items():
        if times > 1:
            yield f"the effect of {step} stands {times} times"


def _answers(evidence: Evidence) -> Iterator[str]:
    """A reply settles the attempt that it names, and no other."""
    for saga_id, history in evidence.histories.items():
        for fact in history:
            header, reply = fact.header, fact.input
            if isinstance(reply, Reply) and header.step and header.run is not None and header.attempt is not None:
                assert header.direction is not None
                own_id = ids.command_id(saga_id, header.run, header.step, header.direction.value, header.attempt)
                if reply.command_id != own_id:
                    yield f"a reply to {reply.command_id} was taken for {header.step}, attempt {header.attempt}"


def _ends(evidence: Evidence) -> Iterator[str]:
    """Each end was published once where its definition says so, and told to whoever asked for it."""
    published: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for saga_id, history in evidence.histories.items():
        for run in runs(history, shop.definition_of):
            start = run.facts[0].after
            ends = [
                fact.after.end for fact in run.facts if isinstance(fact.before, Saga) and isinstance(fact.after, Marker)
            ]
            for end in ends:
                wanted = run.definition.completed if end is End.COMPLETED else run.definition.compensated
                published[saga_id] += wanted is not None
                told[saga_id] += isinstance(start, Saga) and start.reply_to is not None
    world = evidence.world
    for topic, wanted_count in ((world.topics.service_topic(shop.ENDED), published), (world.topics.results, told)):
        found = Counter(_header(record, envelope.CORRELATION_ID) for record in world.cluster.written(topic))
        if +found != +wanted_count:
            yield f"{topic}: {found - wanted_count} too many, {wanted_count - found} missing"


def _traces(evidence: Evidence) -> Iterator[str]:
    """All that a run records and sends belongs to the trace of its start, also what a timer or a failover causes;
    and its commands tell its business key.

    Not what comes after its end: a marker keeps no trace.
    """
    wanted: dict[tuple[str, str], str] = {}
    keys: dict[tuple[str, str], str] = {}
    for saga_id, history in evidence.histories.items():
        for run in runs(history, shop.definition_of):
            start = run.facts[0].after
            assert isinstance(start, Saga)
            keys[saga_id, str(start.run)] = start.key
            trace = wanted[saga_id, str(start.run)] = trace_id(start.key)
            for fact in run.facts:
                if isinstance(fact.before, Marker) and fact is not run.facts[0]:
                    break
                found = fact.transition.header.trace
                if found is None or found.traceparent.split("-")[1] != trace:
                    kind = type(fact.transition).__name__
                    yield f"{saga_id}/{start.run}: {kind} {fact.transition.header.seq} is of the trace {found}"
    topics = evidence.world.topics
    of_saga = {(saga_id, trace) for (saga_id, _), trace in wanted.items()}
    for service in shop.SERVICES:
        for record in evidence.world.cluster.written(topics.commands(service)):
            headers = {name: value or b"" for name, value in record.headers}
            run_of = headers[envelope.CORRELATION_ID].decode(), headers[envelope.RUN].decode()
            if _trace(headers) != wanted.get(run_of):
                yield f"{run_of}: a command for {service} is of the trace {_trace(headers)}"
            if headers.get(envelope.KEY) != keys.get(run_of, "").encode():
                yield f"{run_of}: a command for {service} has the business key {headers.get(envelope.KEY)!r}"
    for topic in (topics.service_topic(shop.ENDED), topics.results):
        for record in evidence.world.cluster.written(topic):
            headers = {name: value or b"" for name, value in record.headers}
            told = headers[envelope.CORRELATION_ID].decode(), _trace(headers)
            if told not in of_saga:
                yield f"{told[0]}: a record of {topic} is of the trace {told[1]}"


def _trace(headers: Mapping[str, bytes]) -> str | None:
    parent = headers.get(envelope.TRACEPARENT)
    return None if parent is None else parent.decode().split("-")[1]


def _state(evidence: Evidence) -> Iterator[str]:
    """What the state topic holds of a saga is what its history folds to; nothing once the marker has expired."""
    own, payloads = shop.own_records(), PlainPayloadCodec(shop.codec())
    held: dict[str, State] = {}
    for partition, log in evidence.world.cluster.logs.items():
        if partition.topic == evidence.world.topics.state:
            latest = {record.key: record.value for record in log.read(log.start, log.end)[0]}
            for state_key, value in latest.items():
                if state_key is not None and value is not None:
                    held[state_key.decode()] = decode_state(value, own, payloads)
    for saga_id, history in evidence.histories.items():
        folded = replay(saga_id, history, shop.definition_of).state
        found = held.pop(saga_id, None)
        if isinstance(folded, Saga) and found != folded:
            yield f"the snapshot of {saga_id} is {found}, its history folds to {folded}"
        if isinstance(folded, Marker) and found is not None:
            yield f"the marker of {saga_id} is still there: {found}"
    for key, state in held.items():
        yield f"the state topic holds {key}, of which the backlog knows nothing: {state}"


def _triggers(evidence: Evidence) -> Iterator[str]:
    """A domain event became one start of each definition that was valid for it."""
    world = evidence.world
    wanted: Counter[tuple[str, str]] = Counter()
    for record in world.cluster.written(world.topics.service_topic(shop.ORDERS)):
        if record.value is not None and record.value[:1] == b"\0":
            for name in ("order", "audit"):
                valid_from = min(
                    (
                        one.get(TopicPartition(record.topic, record.partition), 0)
                        for (known, _), one in world.valid_from.items()
                        if known == name
                    ),
                    default=None,
                )
                if valid_from is not None and record.offset >= valid_from:
                    wanted[_header(record, envelope.ID), name] += 1
    found: Counter[tuple[str, str]] = Counter()
    own = shop.own_records()
    for record in evidence.inbox:
        causation = _header(record, envelope.CAUSATION_ID)
        if causation and _header(record, envelope.TYPE) == "sagakit.Start":
            start = own.decode(record.value or b"").fields
            if partition_of(_saga_of(record), world.plan.partitions) == record.partition:
                found[causation, start["definition"]] += 1
    if wanted != found:
        yield f"starts by events: {found - wanted} too many, {wanted - found} missing"


def _patience(evidence: Evidence) -> Iterator[str]:
    """No timer fired while a reply to it had been lying in the log since before it was due."""
    answered: dict[str, int] = {}
    for record in evidence.inbox:
        command_id = _header(record, envelope.CAUSATION_ID)
        if _header(record, envelope.OUTCOME) and command_id not in answered:
            answered[command_id] = record.timestamp_ms
    for history in evidence.histories.values():
        sent: dict[object, t.StepScheduled | t.CompensationScheduled] = {}
        for fact in history:
            attempt = (fact.header.run, fact.header.step, fact.header.direction, fact.header.attempt)
            if isinstance(fact, t.StepScheduled | t.CompensationScheduled):
                sent[attempt] = fact
            elif isinstance(fact, t.StepTimedOut | t.CompensationTimedOut):
                asked = sent[attempt]
                at_ms = answered.get(asked.command_id)
                if at_ms is not None and at_ms < asked.due_at_ms - evidence.world.plan.skew_ms:
                    yield f"timed out at {asked.due_at_ms}, answered at {at_ms}: {attempt}"


def _signals(evidence: Evidence) -> Iterator[str]:
    """A signal that came before its saga is kept until the saga starts, or until it expires."""
    for saga_id, history in evidence.histories.items():
        waiting: dict[str, int] = {}
        for fact in history:
            if isinstance(fact, t.SignalKept) and fact.header.run is None:
                waiting[fact.message_id] = fact.expires_at_ms
            elif isinstance(fact, t.SignalKept | t.SignalExpired):
                waiting.pop(fact.message_id, None)
            elif isinstance(fact, t.SagaStarted):
                taken = [one for one in history if isinstance(one, t.SignalKept) and one.header.run == fact.header.run]
                seen = {one.message_id for one in taken}
                for message_id in waiting.keys() - seen:
                    yield f"{saga_id}/{fact.header.run} began without the signal {message_id} that waited for it"
        for message_id in waiting:
            yield f"{saga_id}: the signal {message_id} was kept and never taken nor expired"
