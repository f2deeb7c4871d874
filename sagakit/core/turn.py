"""One decision in the making: transitions are emitted one by one, each folded in at once, so that the rules that follow
see its effect. The only place where headers, sequence numbers and causes are made."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sagakit.core import ids
from sagakit.core import transitions as t
from sagakit.core.actions import Action, PublishEvent, SendCommand, SendResult
from sagakit.core.address import Address
from sagakit.core.definition import Command, Definition, Expression, Publication, Task
from sagakit.core.events import Cause, Event, Now, Refusal, Refused, Start
from sagakit.core.evolve import evolve
from sagakit.core.state import End, Marker, Saga, State
from sagakit.core.transitions import Direction, Header, Transition
from sagakit.core.values import Data, EvaluationError, Value

ENGINE_LEVEL: Final = 1
"""The rules and formats of this release. A run keeps the level that it began with."""


class Turn:
    """The working state of one decision. It lives as long as the call and is seen by nobody else."""

    def __init__(self, saga_id: str, definition: Definition | None, state: State | None, event: Event, now: Now) -> None:
        at_ms = now.decision_ms if not isinstance(state, Saga | Marker) else max(now.decision_ms, state.at_ms)
        self.saga_id = saga_id
        self._definition = definition
        self.state = state
        self.event = event
        self.at_ms = at_ms
        self.partition_ms = now.partition_ms
        self.transitions: list[Transition] = []
        self.actions: list[Action] = []
        self._follow_up: Cause | None = None

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
        kind: type[Transition],
        /,
        step: Address | None = None,
        direction: Direction | None = None,
        attempt: int | None = None,
        **fields: Any,
    ) -> None:
        """Add one transition of the run and fold it into the state."""
        state = self.state
        if kind is t.SagaStarted:
            assert isinstance(self.event, Start)
            run, seq = self.event.run, 1
            definition, version, level = self.definition.name, self.definition.version, ENGINE_LEVEL
        else:
            assert isinstance(state, Saga | Marker)
            run, seq = state.run, state.seq + 1
            definition, version, level = state.definition, state.version, state.engine_level
        first = not self.transitions
        trace = self.event.trace
        if trace is None and isinstance(state, Saga):
            trace = state.trace
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
            trace=trace,
        )
        transition = kind(header=header, input=self.event if first else None, **fields)
        self.transitions.append(transition)
        self.state = evolve(state, transition)

    def emit_outside(self, kind: type[Transition], /, **fields: Any) -> None:
        """Add a transition that belongs to no run: the saga is unknown."""
        self.transitions.append(
            kind(
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
                input=None if self.transitions else self.event,
                **fields,
            )
        )

    def _cause_of_the_others(self) -> Cause:
        if self._follow_up is None:
            self._follow_up = replace(self.event.cause, seq=self.transitions[0].header.seq)
        return self._follow_up

    def refusal(self, target: Refused, address: Address | None = None) -> Refusal | None:
        """The refusal of this target in an earlier try at the same event, if there was one."""
        for refusal in self.event.refusals:
            if refusal.target is target and refusal.address == address:
                return refusal
        return None

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
        failure = saga.failure
        if failure is None:
            return {**self.definition.blank, **saga.data}
        told: Value = {
            "step": failure.step,
            "kind": failure.kind.value,
            "code": failure.code,
            "message": failure.message,
        }
        return {**self.definition.blank, **saga.data, "failure": told}

    def send(self, task: Task, command: Command, direction: Direction, attempt: int, data: Data) -> tuple[str, int]:
        """Ask for a command to be sent; its id, and when its attempt times out."""
        saga = self.saga
        address = task.address
        forward_key = ids.idempotency_key(saga.saga_id, saga.run, address, Direction.FORWARD.value, 0)
        undoes = None if direction is Direction.FORWARD else forward_key
        key = forward_key
        if undoes is not None:
            key = ids.idempotency_key(saga.saga_id, saga.run, address, direction.value, 0)
        action = SendCommand(
            saga_id=saga.saga_id,
            run=saga.run,
            address=address,
            direction=direction,
            attempt=attempt,
            command_id=ids.command_id(saga.saga_id, saga.run, address, direction.value, attempt),
            idempotency_key=key,
            undoes=undoes,
            service=command.service,
            type=command.type,
            data=data,
            expires_at_ms=self.at_ms + command.timeout_ms,
            causation_id=self.event.cause.message_id,
            trace=self.event.trace or saga.trace,
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
                trace=self.event.trace or saga.trace,
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
                trace=self.event.trace or saga.trace,
            )
        )
