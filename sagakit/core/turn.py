"""One decision in the making.

Transitions are emitted one by one, each folded in at once, so that the rules that follow see its effect. The only place
where headers, sequence numbers and causes are made.
"""

from collections.abc import Mapping
from typing import Any, Final

from sagakit.core import ids
from sagakit.core import transitions as t
from sagakit.core.actions import Action, PublishEvent, SendCommand, SendResult
from sagakit.core.address import Address
from sagakit.core.definition import Command, Definition, Expression, Publication, Task
from sagakit.core.events import Cause, Event, Now, Refusal, Refused, Start, TraceContext, refusal_of
from sagakit.core.evolve import evolve
from sagakit.core.state import End, Marker, Saga, State
from sagakit.core.transitions import Direction, Failure, Header, Transition
from sagakit.core.values import Data, EvaluationError, Value

ENGINE_LEVELS: Final = (1,)
"""The engine levels whose rules and formats this release runs, in order. A run keeps the level that it began with."""

ENGINE_LEVEL: Final = ENGINE_LEVELS[-1]
"""The highest level of this release; it begins no run above the level of its namespace."""


class Turn:
    """The working state of one decision. It lives as long as the call and is seen by nobody else."""

    def __init__(
        self, saga_id: str, definition: Definition | None, state: State | None, event: Event, now: Now, level: int
    ) -> None:
        at_ms = now.decision_ms if not isinstance(state, Saga | Marker) else max(now.decision_ms, state.at_ms)
        self.saga_id = saga_id
        self._definition = definition
        self._level = level
        self.state = state
        self.event = event
        self.at_ms = at_ms
        self.partition_ms = now.partition_ms
        self.transitions: list[Transition] = []
        self.actions: list[Action] = []
        self._follow_up: Cause | None = None
        self._data: tuple[Data, Failure | None, Data] | None = None

    @property
    def definition(self) -> Definition:
        """The definition that runs. Only called for a live saga or a start, which are never decided without it."""
        assert self._definition is not None
        return self._definition

    @property
    def saga(self) -> Saga:
        """The live saga. Only called where the rules have made sure that there is one."""
        assert isinstance(self.state, Saga)
        return self.state

    def emit(
        self,
        type_: type[Transition],
        /,
        step: Address | None = None,
        direction: Direction | None = None,
        attempt: int | None = None,
        **fields: Any,
    ) -> None:
        """Add one transition of the run and fold it into the state."""
        state = self.state
        if type_ is t.SagaStarted:
            assert isinstance(self.event, Start)
            run, seq, level = self.event.run, 1, self._level
        else:
            assert isinstance(state, Saga | Marker)
            run, seq, level = state.run, state.seq + 1, state.engine_level
        definition, version = self._deciding()
        first = not self.transitions
        header = Header(
            saga_id=self.saga_id,
            run=run,
            seq=seq,
            at_ms=self.at_ms,
            partition_ms=self.partition_ms,
            definition=definition,
            version=version,
            engine_level=level,
            step=step,
            direction=direction,
            attempt=attempt,
            cause=self.event.cause if first else self._cause_of_the_others(),
            trace=self._trace(),
        )
        transition = type_(header=header, input=self.event if first else None, **fields)
        self.transitions.append(transition)
        self.state = evolve(state, transition)

    def emit_outside(self, type_: type[Transition], /, **fields: Any) -> None:
        """Add the one transition that belongs to no run: the saga is unknown."""
        self.transitions.append(
            type_(
                header=Header(
                    saga_id=self.saga_id,
                    run=None,
                    seq=None,
                    at_ms=self.at_ms,
                    partition_ms=self.partition_ms,
                    definition=None,
                    version=None,
                    engine_level=None,
                    cause=self.event.cause,
                    trace=self.event.trace,
                ),
                input=self.event,
                **fields,
            )
        )

    def _deciding(self) -> tuple[str, int]:
        """The definition that decides, and its version: for a start that is ignored, the one that would have run."""
        if self._definition is not None:
            return self._definition.name, self._definition.version
        assert isinstance(self.state, Saga | Marker)
        return self.state.definition, self.state.version

    def _cause_of_the_others(self) -> Cause:
        if self._follow_up is None:
            cause = self.event.cause
            self._follow_up = Cause(
                message_id=cause.message_id,
                type=cause.type,
                source=cause.source,
                seq=self.transitions[0].header.seq,
                actor=cause.actor,
                reason=cause.reason,
                ticket=cause.ticket,
            )
        return self._follow_up

    def refusal(self, target: Refused, address: Address | None = None) -> Refusal | None:
        """See `refusal_of`."""
        return refusal_of(self.event, target, address)

    def values(self, fields: Mapping[str, Expression]) -> dict[str, Value] | tuple[str, EvaluationError]:
        """Each field's expression evaluated over the saga's data; or the first field that has no value, and why."""
        data = self.data()
        values: dict[str, Value] = {}
        for name, expression in fields.items():
            value = expression(data)
            if isinstance(value, EvaluationError):
                return name, value
            values[name] = value
        return values

    def data(self) -> Data:
        """What expressions read now."""
        saga = self.saga
        if self._data is None or self._data[0] is not saga.data or self._data[1] is not saga.failure:
            told = {} if saga.failure is None else {"failure": _told(saga.failure)}
            self._data = saga.data, saga.failure, {**self.definition.blank, **saga.data, **told}
        return self._data[2]

    def effect_key(self, address: Address) -> str:
        """The idempotency key of a step's forward command: what its compensation undoes."""
        return ids.idempotency_key(self.saga.saga_id, self.saga.run, address, Direction.FORWARD.value, 0)

    def _trace(self) -> TraceContext | None:
        if self.event.trace is None and isinstance(self.state, Saga):
            return self.state.trace
        return self.event.trace

    def send(self, task: Task, command: Command, direction: Direction, attempt: int, data: Data) -> tuple[str, int]:
        """Ask for a command to be sent; its id, and when its attempt times out."""
        saga, address = self.saga, task.address
        backward = direction is Direction.COMPENSATION
        action = SendCommand(
            saga_id=saga.saga_id,
            run=saga.run,
            address=address,
            direction=direction,
            attempt=attempt,
            command_id=ids.command_id(saga.saga_id, saga.run, address, direction.value, attempt),
            idempotency_key=ids.idempotency_key(saga.saga_id, saga.run, address, direction.value, 0),
            undoes=self.effect_key(address) if backward else None,
            service=command.service,
            type=command.type,
            data=data,
            expires_at_ms=self.at_ms + command.timeout_ms,
            causation_id=self.event.cause.message_id,
            trace=self._trace(),
        )
        self.actions.append(action)
        return action.command_id, action.expires_at_ms

    def publish(self, publication: Publication, data: Data) -> None:
        """Ask for the end's domain event. Its id hangs on the transition that ends the saga: the next one."""
        saga = self.saga
        self.actions.append(
            PublishEvent(
                saga_id=saga.saga_id,
                event_id=ids.event_id(saga.saga_id, saga.run, saga.seq + 1, 0),
                type=publication.type,
                topic=publication.topic,
                key=saga.key,
                data=data,
                causation_id=self.event.cause.message_id,
                trace=self._trace(),
            )
        )

    def send_result(self, end: End) -> None:
        """Ask for the result to be sent, if the start asked for one."""
        saga = self.saga
        if saga.reply_to is None:
            return
        self.actions.append(
            SendResult(
                saga_id=saga.saga_id,
                run=saga.run,
                event_id=ids.event_id(saga.saga_id, saga.run, saga.seq + 1, 1),
                definition=saga.definition,
                key=saga.key,
                end=end.value,
                reply_to=saga.reply_to,
                causation_id=self.event.cause.message_id,
                trace=self._trace(),
            )
        )


def _told(failure: Failure) -> Value:
    step = None if failure.step is None else str(failure.step)
    return {"step": step, "kind": failure.kind.value, "code": failure.code, "message": failure.message}
