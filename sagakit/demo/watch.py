"""What the demo sees while it plays: every record of the topics that its sagas write, read as they come."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from confluent_kafka import Message

from sagakit.adapters.client_properties import ClientProperties, make_consumer
from sagakit.adapters.kafka_records import client_partition, to_records
from sagakit.contracts import envelope
from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PayloadCodec
from sagakit.contracts.transitions import UnknownKind, decode_transition
from sagakit.core import ids
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.evolve import BrokenHistoryError, evolve
from sagakit.core.state import End, Marker, Saga, State, StepStatus
from sagakit.core.transitions import Failure, Transition
from sagakit.demo.stage import ORDER_ENDS, DemoError
from sagakit.ports.log import Record, TopicPartition
from sagakit.telemetry.tracing import instrument_consumer

_CHUNK: Final = 2_000
_TIMEOUT_S: Final = 10.0


class Standing(Enum):
    """How a saga stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    PARKED = "parked"


_ENDS: Final = {End.COMPLETED: Standing.COMPLETED, End.COMPENSATED: Standing.COMPENSATED}
_PARKED: Final = frozenset({StepStatus.PARKED, StepStatus.UNDO_PARKED})


@dataclass(slots=True)
class Seen:
    """One saga, as far as it was seen.

    Attributes:
        history: its transitions as they stand in the backlog, in log order.
        state: what they fold to.
        gap: where the fold broke, because a transition is missing or comes twice.
        runs: how many of its runs have begun.
        turned_back: why its run was undone.
        undeclared: its rejections with a code that the definition does not name, by step and code.
        parked: why it waits for a person, by step (None: the saga as a whole).
        scheduled: idempotency keys of the commands that were sent.
        end_events: ids of the domain events that told its end.
        end_seen_ms: when the first of them arrived here.
    """

    saga_id: str
    history: list[bytes] = field(default_factory=list)
    state: State | None = None
    gap: str | None = None
    runs: int = 0
    turned_back: str | None = None
    undeclared: Counter[str] = field(default_factory=Counter)
    parked: dict[Address | None, str] = field(default_factory=dict)
    scheduled: set[str] = field(default_factory=set)
    end_events: set[str] = field(default_factory=set)
    end_seen_ms: float | None = None

    @property
    def standing(self) -> Standing:
        """How it stands now."""
        state = self.state
        if isinstance(state, Marker):
            return _ENDS[state.end]
        if isinstance(state, Saga) and (
            state.parked is not None or any(step.status in _PARKED for step in state.steps.values())
        ):
            return Standing.PARKED
        return Standing.RUNNING

    def note(self, one: Transition) -> None:
        """Take in the saga's next transition."""
        header = one.header
        try:
            self.state = evolve(self.state, one)
        except BrokenHistoryError as error:
            self.gap = self.gap or str(error)
        if isinstance(one, t.SagaStarted):
            self.runs += 1
        elif isinstance(one, t.StepScheduled | t.CompensationScheduled):
            assert header.run is not None
            assert header.step is not None
            assert header.direction is not None
            self.scheduled.add(ids.idempotency_key(header.saga_id, header.run, header.step, header.direction.value, 0))
        elif isinstance(one, t.StepRejected) and not one.declared:
            self.undeclared[f"{header.step}: {one.code}"] += 1
        elif isinstance(one, t.SagaTurnedBack):
            self.turned_back = _reason(one.failure)
        elif isinstance(one, t.SagaParked):
            self.parked[header.step] = one.reason


class Watch:
    """Reads the backlog, the end events and the commands; to be used from one thread."""

    def __init__(
        self,
        properties: ClientProperties,
        partitions: Collection[TopicPartition],
        backlog: str,
        own: OwnRecords,
        payloads: PayloadCodec,
        clock_ms: Callable[[], float],
    ) -> None:
        """Begin at the start of `partitions`, those of the topic `backlog` among them."""
        self.sagas: dict[str, Seen] = {}
        self.transitions = 0
        self._backlog = backlog
        self._own = own
        self._payloads = payloads
        self._clock_ms = clock_ms
        self._positions = make_consumer(
            properties.consumer(
                defaults={"fetch.wait.max.ms": 100, "fetch.queue.backoff.ms": 10},
                fixed={
                    "group.id": "sagakit.demo",  # the client wants one; it is never joined
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "isolation.level": "read_committed",
                },
            )
        )
        self.next_offsets: dict[TopicPartition, int] = dict.fromkeys(partitions, 0)
        self._positions.assign([client_partition(one, 0) for one in partitions])
        self._consumer = instrument_consumer(self._positions)
        # An instrumented consumer leaves its span the current one; whatever this thread does else is no part of it.
        self._context = copy_context()

    def take(self, timeout_s: float) -> int:
        """Take in what has come, waiting up to `timeout_s` for the first record; gives how many records came.

        Raises:
            DemoError: the broker refuses to be read.
        """
        first = self._context.run(self._consumer.poll, timeout_s)
        if first is None:
            return 0
        errors: list[Message] = []
        records = to_records([first, *self._context.run(self._consumer.consume, _CHUNK, 0)], errors)
        now_ms = self._clock_ms()
        for record in records:
            self.next_offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if record.topic == self._backlog:
                self._take_transition(record)
            else:
                self._take_message(record, now_ms)
        for message in errors:
            if (error := message.error()) is not None and not error.retriable():
                raise DemoError(f"{message.topic()} cannot be read: {error.str()}")
        return len(records)

    def behind(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether something before `ends` was not taken yet."""
        positions = self._positions.position([client_partition(one) for one in ends])
        return any(max(position.offset, 0) < end for position, end in zip(positions, ends.values(), strict=True))

    def history(self, saga_id: str) -> Iterator[Transition | UnknownKind]:
        """The transitions of a saga, in log order."""
        for value in self.sagas[saga_id].history:
            yield self._decoded(value)

    def tally(self) -> Mapping[Standing, int]:
        """How many sagas stand how."""
        return Counter(seen.standing for seen in self.sagas.values())

    def close(self) -> None:
        """Release the client."""
        self._context.run(self._consumer.close)

    def _decoded(self, value: bytes) -> Transition | UnknownKind:
        found = decode_transition(value, self._own, self._payloads)
        return found if isinstance(found, UnknownKind) else found[1]

    def _take_transition(self, record: Record) -> None:
        if record.value is None:
            return
        try:
            transition = self._decoded(record.value)
        except UndecodableError as error:
            raise DemoError(f"a record of the backlog cannot be read: {error.reason}") from error
        self.transitions += 1
        if isinstance(transition, UnknownKind):
            return
        saga_id = transition.header.saga_id
        seen = self.sagas.setdefault(saga_id, Seen(saga_id))
        seen.history.append(record.value)
        seen.note(transition)

    def _take_message(self, record: Record, now_ms: float) -> None:
        headers = envelope.last_values(record.headers)
        # What cannot be read is no end: whoever it was for answers it, and the backlog tells of that.
        if (headers.get(envelope.TYPE) or b"").decode(errors="replace") not in ORDER_ENDS:
            return
        saga_id = envelope.required_text(headers, envelope.CORRELATION_ID)
        seen = self.sagas.setdefault(saga_id, Seen(saga_id))
        seen.end_events.add(envelope.message_id(record, headers))
        if seen.end_seen_ms is None:
            seen.end_seen_ms = now_ms


def _reason(failure: Failure) -> str:
    what = failure.code or failure.kind.value
    return what if failure.step is None else f"{failure.step}: {what}"
