"""From one record or timer to staged work: read it, decide it, write down what follows.

Whatever is wrong with a record is answered here, so that the loop knows only two outcomes: staged, or the partition
stands still. What cannot be sent is fed back into the decision as a refusal, so the park that follows is recorded too.
"""

from dataclasses import replace
from typing import Final

import structlog

from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.messages import DomainEvent
from sagakit.contracts.snapshots import EARLY, state_key
from sagakit.core import ids
from sagakit.core.decide import Decision, decide
from sagakit.core.definition import Definition
from sagakit.core.events import (
    Cause,
    Event,
    Now,
    Refusal,
    Refused,
    Reply,
    Source,
    Start,
    TimerDue,
    Undecodable,
    refusal_of,
)
from sagakit.core.light import lightened, short
from sagakit.core.placement import partition_of
from sagakit.core.schedule import next_due_ms
from sagakit.core.state import Marker, Saga, State
from sagakit.core.transitions import SagaParked
from sagakit.core.turn import ENGINE_LEVELS
from sagakit.core.values import EvaluationError, Opened
from sagakit.language.published import Published
from sagakit.orchestrator.blocked import PartitionBlockedError
from sagakit.orchestrator.catalog import Catalog, refused_level
from sagakit.orchestrator.cycle import Cycle, Origin, Produced, Staged
from sagakit.orchestrator.memory import Entry, PartitionMemory
from sagakit.orchestrator.reader import Reader
from sagakit.orchestrator.writer import RefusedRecordError, Writer
from sagakit.ports.log import Outgoing, Record, TopicPartition

_log = structlog.get_logger("sagakit.orchestrator")

NIL_SAGA: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for the saga id of a record that names none."""

_CACHED_STATES: Final = 20_000
"""How many decoded states are remembered: those in motion, whose next reply is about to come."""


class Decider:
    """Decides records and timers into a cycle."""

    def __init__(
        self, namespace: str, partitions: int, inbox: str, catalog: Catalog, reader: Reader, writer: Writer
    ) -> None:
        self._namespace = namespace
        self._partitions = partitions
        self._inbox = inbox
        self._catalog = catalog
        self._reader = reader
        self._writer = writer
        self._decoded: dict[bytes, tuple[bytes, State]] = {}

    def take(
        self,
        cycle: Cycle,
        partition: TopicPartition,
        memory: PartitionMemory,
        record: Record,
        now: Now,
        refused: tuple[Refusal, ...],
    ) -> None:
        """Decide one record.

        Raises:
            PartitionBlockedError: it cannot be decided now; nothing of it is staged.
        """
        if partition.topic != self._inbox:
            return self._trigger(cycle, record, now, refused)
        try:
            saga_id, event = self._reader.read(record, now.decision_ms)
        except UndecodableError as error:
            return self._dead_letter(cycle, record, error.reason, now, refused)
        if self._is_astray(cycle, partition, memory, saga_id, event):
            return self._forward(cycle, saga_id, record, now, refused)
        if isinstance(event, Start):
            self._read_definitions(cycle)
            if (reason := self._unstartable(event)) is not None:
                return self._dead_letter(cycle, record, reason, now, refused, saga_id)
        decided: Event = event
        for refusal in refused:
            decided = _refuse(decided, refusal)
        return self._decide(cycle, partition, memory, saga_id, decided, now, _origin(record), record)

    def fire(
        self,
        cycle: Cycle,
        partition: TopicPartition,
        memory: PartitionMemory,
        key: bytes,
        now: Now,
        refused: tuple[Refusal, ...],
    ) -> None:
        """Decide the due timer of one state key.

        Raises:
            PartitionBlockedError: it cannot be decided now; nothing of it is staged.
        """
        try:
            saga_id = key.decode().partition("/")[0]
        except UnicodeDecodeError as error:
            raise PartitionBlockedError(f"the key {key!r} of a state is no saga's", transient=False) from error
        state, _ = self._state(cycle, partition, memory, saga_id)
        due_ms = None if state is None else next_due_ms(state)
        if due_ms is None or due_ms > now.partition_ms:
            return None
        last = f"{saga_id}/{state.run}/{state.seq}" if isinstance(state, Saga | Marker) else f"{saga_id}/early"
        event = TimerDue(cause=Cause(message_id=last, type="timer"), refusals=refused)
        return self._decide(cycle, partition, memory, saga_id, event, now, key, None)

    def keep(self, cycle: Cycle) -> None:
        """A cycle was committed: remember its states decoded, for the replies that are about to come."""
        decoded = self._decoded
        if len(decoded) > _CACHED_STATES:
            decoded.clear()
        for states in cycle.staged.values():
            for key, staged in states.items():
                if staged.entry is None or staged.state is None:
                    decoded.pop(key, None)
                else:
                    decoded[key] = (staged.entry.value, staged.state)

    def _is_astray(
        self, cycle: Cycle, partition: TopicPartition, memory: PartitionMemory, saga_id: str, event: Event
    ) -> bool:
        """Whether the saga lives in another partition. A reply nearly always finds its saga: that is asked first."""
        key = saga_id.encode()
        if isinstance(event, Reply) and (key in memory.entries or key in cycle.staged.get(partition, ())):
            return False
        return partition_of(key, self._partitions) != partition.partition

    def _unstartable(self, start: Start) -> str | None:
        """Why no saga can begin so; None if one can."""
        known = self._catalog.latest(start.definition)
        if known is None:
            return f"no definition {start.definition!r} is published"
        record = None if start.payload is None else start.payload.type
        if self._catalog.latest(start.definition, record) is None:
            return f"a start of {start.definition!r} brings a {record}; it starts with a {known.definition.start}"
        return None

    def _read_definitions(self, cycle: Cycle) -> None:
        """Once a cycle, after its poll: what was published before this record was is then known."""
        if not cycle.definitions_read:
            self._catalog.refresh()
            cycle.definitions_read = True

    def _state(
        self, cycle: Cycle, partition: TopicPartition, memory: PartitionMemory, saga_id: str
    ) -> tuple[State | None, bytes | None]:
        """The saga's state as this cycle sees it, and the key that holds it."""
        staged = cycle.staged.get(partition, {})
        key = saga_id.encode()
        for candidate in (key, key + EARLY):
            if candidate in staged:
                if staged[candidate].state is not None:
                    return staged[candidate].state, candidate
            elif (entry := memory.entries.get(candidate)) is not None:
                return self._open(candidate, entry), candidate
        return None, None

    def _open(self, key: bytes, entry: Entry) -> State:
        known = self._decoded.get(key)
        if known is not None and known[0] is entry.value:
            return known[1]
        state = self._reader.state(key, entry.value)
        if state_key(state) != key:
            raise PartitionBlockedError(f"the state under {key!r} is of {state_key(state)!r}", transient=False)
        if isinstance(state, Saga | Marker) and state.engine_level not in ENGINE_LEVELS:
            raise PartitionBlockedError(refused_level(f"saga {state.saga_id}", state.engine_level), transient=False)
        if isinstance(state, Saga):
            tasks = self._catalog.version(state.definition, state.version).definition.tasks
            if not state.steps.keys() <= tasks.keys():
                raise PartitionBlockedError(
                    f"the state of saga {state.saga_id} has steps that {state.definition}/{state.version} has not",
                    transient=False,
                )
        return state

    def _decide(
        self,
        cycle: Cycle,
        partition: TopicPartition,
        memory: PartitionMemory,
        saga_id: str,
        event: Event,
        now: Now,
        origin: Origin,
        record: Record | None,
    ) -> None:
        before, held_by = self._state(cycle, partition, memory, saga_id)
        published = self._published(before, event)
        definition = None if published is None else published.definition
        while True:
            unrecordable = refusal_of(event, Refused.INPUT)
            if unrecordable is not None and record is not None and not isinstance(before, Saga):
                return self._dead_letter(cycle, record, unrecordable.reason, now, (), saga_id)
            decision = decide(saga_id, definition, before, event, now, self._catalog.level())
            try:
                produced = self._writer.decision(decision, partition.partition, published)
                states = self._states(
                    decision.state, before, held_by, partition, origin, last_resort=unrecordable is not None
                )
            except RefusedRecordError as error:
                event = _refuse(event, error.refusal)
                continue
            if unrecordable is not None and record is not None:
                produced.append(self._writer.dead_letter(record, unrecordable.reason))
            cycle.add(produced, origin)
            for key, staged in states:
                cycle.stage_state(partition, key, staged)
            return _report(decision)

    def _published(self, before: State | None, event: Event) -> Published | None:
        if isinstance(before, Saga):
            return self._catalog.version(before.definition, before.version)
        if not isinstance(event, Start):
            return None
        return self._catalog.latest(event.definition, None if event.payload is None else event.payload.type)

    def _states(
        self,
        state: State | None,
        before: State | None,
        held_by: bytes | None,
        partition: TopicPartition,
        origin: Origin,
        *,
        last_resort: bool,
    ) -> list[tuple[bytes, Staged]]:
        """The state records that a decision leads to: the new state, and a tombstone where it moved to another key."""
        if state is before:
            return []
        states: list[tuple[bytes, Staged]] = []
        key = None
        if state is not None:
            key = state_key(state)
            entry, record = self._writer.state(state, key, partition.partition, last_resort=last_resort)
            states.append((key, Staged(state, entry, record, origin)))
        if held_by is not None and held_by != key:
            tombstone = self._writer.tombstone(held_by, partition.partition)
            states.append((held_by, Staged(None, None, tombstone, origin)))
        return states

    def _trigger(self, cycle: Cycle, record: Record, now: Now, refused: tuple[Refusal, ...]) -> None:
        """Turn a domain event into a start in the inbox of its saga, once for each definition that it starts.

        A definition that cannot make a start of it (its key has no value) keeps none of the others from it.
        """
        self._read_definitions(cycle)
        self._catalog.level()
        published = list(self._catalog.triggered(TopicPartition(record.topic, record.partition), record.offset))
        if not published:
            return None
        try:
            if refused:
                raise UndecodableError(refused[-1].reason)
            trigger = self._reader.trigger(record, now.decision_ms)
        except UndecodableError as undecodable:
            return self._dead_letter(cycle, record, undecodable.reason, now, refused[1:])
        problems = []
        for definition in (p.definition for p in published):
            if definition.start == trigger.opened.type:
                try:
                    cycle.add([self._start_of(trigger, definition, now)], _origin(record))
                except UndecodableError as error:
                    problems.append(error.reason)
                except RefusedRecordError as unsendable:
                    problems.append(unsendable.refusal.reason)
        if problems:
            self._dead_letter(cycle, record, "; ".join(problems), now, ())
        return None

    def _start_of(self, trigger: DomainEvent, definition: Definition, now: Now) -> Produced:
        key = _business_key(definition, trigger.opened)
        saga_id = ids.saga_id(self._namespace, definition.name, key)
        to = partition_of(saga_id.encode(), self._partitions)
        return self._writer.start(trigger, definition.name, key, saga_id, to, now.decision_ms)

    def _forward(self, cycle: Cycle, saga_id: str, record: Record, now: Now, refused: tuple[Refusal, ...]) -> None:
        """Pass a record on that some client put into the wrong partition, as it is: a saga lives in one only."""
        if refused:
            return self._dead_letter(cycle, record, refused[0].reason, now, refused[1:])
        to = partition_of(saga_id.encode(), self._partitions)
        _log.warning("a record came to the wrong partition", saga_id=saga_id, partition=record.partition, right=to)
        forwarded = Outgoing(self._inbox, to, saga_id.encode(), record.value, record.headers)
        cycle.add([Produced(forwarded, Refused.INPUT, None)], _origin(record))

    def _dead_letter(
        self,
        cycle: Cycle,
        record: Record,
        reason: str,
        now: Now,
        refused: tuple[Refusal, ...],
        saga_id: str = NIL_SAGA,
    ) -> None:
        """Put a record that can never be taken in into the dead-letter topic, raw, and say so in the backlog.

        `refused` holds what the broker has said of an earlier try to do this very thing.
        """
        if refused:
            raise PartitionBlockedError(
                f"not even a dead letter can be written: {refused[-1].reason}; mend the dead-letter topic "
                "(`sagakit topics check`)",
                transient=False,
            )
        reason = short(reason)
        _log.warning(
            "dead-lettered", topic=record.topic, partition=record.partition, offset=record.offset, reason=reason
        )
        letter = self._writer.dead_letter(record, reason)
        cause = Cause(
            message_id=f"{record.topic}/{record.partition}/{record.offset}",
            type="undecodable",
            source=Source(topic=record.topic, partition=record.partition, offset=record.offset),
        )
        event = Undecodable(cause=cause, reason=reason, dead_letter_topic=letter.record.topic)
        decision = decide(saga_id, None, None, event, now, self._catalog.level())
        to = record.partition if record.topic == self._inbox else partition_of(saga_id.encode(), self._partitions)
        cycle.add([letter, *self._writer.decision(decision, to, None)], _origin(record))


def _origin(record: Record) -> Origin:
    return record.topic, record.partition, record.offset


def _refuse(event: Event, refusal: Refusal) -> Event:
    """The event to decide again, now that part of what followed from it cannot be written."""
    if any(known.target is refusal.target and known.address == refusal.address for known in event.refusals):
        raise PartitionBlockedError(
            f"not even a park can be recorded: {refusal.reason}; raise max.message.bytes of the saga topics",
            transient=False,
        )
    refusals = (*event.refusals, replace(refusal, reason=short(refusal.reason)))
    return replace(lightened(event) if refusal.target is Refused.INPUT else event, refusals=refusals)


def _business_key(definition: Definition, opened: Opened) -> str:
    value = definition.key({"start": dict(definition.data_of(opened))})
    if isinstance(value, EvaluationError):
        raise UndecodableError(f"the key of {definition.name!r} has no value: {value.message} ({value.expression})")
    try:
        return ids.business_key(value)
    except ids.InvalidKeyError as error:
        raise UndecodableError(f"the key of {definition.name!r}: {error}") from error


def _report(decision: Decision) -> None:
    """Say aloud what a person has to know of; everything else is in the backlog."""
    for transition in decision.transitions:
        if isinstance(transition, SagaParked):
            header, state = transition.header, decision.state
            _log.error(
                "a saga waits for a person",
                saga_id=header.saga_id,
                business_key=state.key if isinstance(state, Saga) else None,
                definition=header.definition,
                step=header.step,
                attempt=header.attempt,
                trace_id=None if header.trace is None else header.trace.trace_id,
                reason=transition.reason,
            )
