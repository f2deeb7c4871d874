"""The fold: what a transition does to the state. It copies and counts; it evaluates nothing.

A saga's snapshot is the fold of its run's transitions, in order of `seq`. Transitions without a run stand outside.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.events import Signal, Start
from sagakit.core.state import End, KeptSignal, Marker, Saga, State, Status, Step, StepStatus
from sagakit.core.transitions import Direction, Header, Transition
from sagakit.core.values import Data


class BrokenHistoryError(Exception):
    """The transitions do not follow from one another: one is missing, or they belong to different runs."""


def fold(transitions: Iterable[Transition], state: State | None = None) -> State | None:
    """The state after `transitions`, from `state` on (None: from the beginning).

    Raises:
        BrokenHistoryError: when a transition cannot follow the ones before it.
    """
    for transition in transitions:
        state = evolve(state, transition)
    return state


def evolve(state: State | None, transition: Transition) -> State | None:
    """The state after one transition of a run.

    Raises:
        BrokenHistoryError: when the transition cannot follow this state.
    """
    header = transition.header
    if header.seq is None:
        return state
    if type(transition) is t.SagaStarted and not isinstance(state, Saga):
        return _started(transition)
    if not isinstance(state, Saga | Marker) or state.run != header.run or state.seq + 1 != header.seq:
        raise BrokenHistoryError(
            f"{type(transition).__name__} {header.saga_id}/{header.run}/{header.seq} does not follow "
            f"{f'{state.run}/{state.seq}' if isinstance(state, Saga | Marker) else 'nothing'}: a transition is "
            "missing or belongs to another run"
        )
    if isinstance(state, Marker):
        return replace(state, seq=header.seq, at_ms=header.at_ms)
    rule = _RULES.get(type(transition))
    if rule is None:
        return _moved(state, header)
    return rule(state, header, transition)


def _started(transition: t.SagaStarted) -> Saga:
    header, start = transition.header, transition.input
    if not isinstance(start, Start) or header.run is None or header.definition is None or header.seq != 1:
        raise BrokenHistoryError(f"SagaStarted of {header.saga_id} does not carry its start, or is not the first")
    if header.version is None or header.engine_level is None:
        raise BrokenHistoryError(f"SagaStarted of {header.saga_id} does not say its version and engine level")
    return Saga(
        saga_id=header.saga_id,
        run=header.run,
        seq=1,
        definition=header.definition,
        version=header.version,
        engine_level=header.engine_level,
        key=transition.key,
        status=Status.RUNNING,
        at_ms=header.at_ms,
        deadline_at_ms=transition.deadline_at_ms,
        start_message_id=header.cause.message_id,
        data={"start": dict(transition.start)},
        steps={},
        reply_to=start.reply_to,
        trace=header.trace,
    )


def _moved(
    saga: Saga, header: Header, *, data: Data | None = None, steps: Mapping[Address, Step] | None = None
) -> Saga:
    """The saga one transition further. Written out, since each does it and `dataclasses.replace` takes far longer."""
    return Saga(
        saga_id=saga.saga_id,
        run=saga.run,
        seq=saga.seq + 1,
        definition=saga.definition,
        version=saga.version,
        engine_level=saga.engine_level,
        key=saga.key,
        status=saga.status,
        at_ms=header.at_ms,
        deadline_at_ms=saga.deadline_at_ms,
        start_message_id=saga.start_message_id,
        data=saga.data if data is None else data,
        steps=saga.steps if steps is None else steps,
        failure=saga.failure,
        parked=saga.parked,
        reply_to=saga.reply_to,
        trace=saga.trace,
        signals=saga.signals,
    )


def _address(header: Header) -> Address:
    if header.step is None:
        raise BrokenHistoryError(f"a transition about a step names none: {header.saga_id}/{header.run}/{header.seq}")
    return header.step


def _reached(saga: Saga, header: Header) -> Step:
    step = saga.steps.get(_address(header))
    if step is None:
        raise BrokenHistoryError(f"{header.saga_id}/{header.run}/{header.seq} is about a step that was never reached")
    return step


_UNREACHED: Final = Step(status=StepStatus.PARKED)
"""What a step is before its first transition; only a park can leave it so."""


def _step(saga: Saga, header: Header, **changes: Any) -> Saga:
    address = _address(header)
    step = replace(saga.steps.get(address, _UNREACHED), **changes)
    return _moved(saga, header, steps={**saga.steps, address: step})


def _scheduled(saga: Saga, header: Header, fact: t.StepScheduled) -> Saga:
    address = _address(header)
    before = saga.steps.get(address, _UNREACHED)
    attempt = before.attempt + 1
    step = Step(
        status=StepStatus.IN_FLIGHT,
        attempt=attempt,
        budget_from=before.budget_from,
        unknown=(*before.unknown, attempt),
        undo_attempt=before.undo_attempt,
        undo_budget_from=before.undo_budget_from,
        due_at_ms=fact.due_at_ms,
    )
    return _moved(saga, header, steps={**saga.steps, address: step})


def _skipped(saga: Saga, header: Header, _: t.StepSkipped) -> Saga:
    return _step(saga, header, status=StepStatus.SKIPPED)


def _succeeded(saga: Saga, header: Header, fact: t.StepSucceeded) -> Saga:
    address = _address(header)
    before = _reached(saga, header)
    step = Step(
        status=StepStatus.SUCCEEDED,
        attempt=before.attempt,
        budget_from=before.budget_from,
        undo_attempt=before.undo_attempt,
        undo_budget_from=before.undo_budget_from,
    )
    data = {**saga.data, str(address): dict(fact.kept)}
    return _moved(saga, header, data=data, steps={**saga.steps, address: step})


def _rejected(saga: Saga, header: Header, _: t.StepRejected) -> Saga:
    step = _reached(saga, header)
    unknown = tuple(attempt for attempt in step.unknown if attempt != header.attempt)
    if step.status is StepStatus.IN_FLIGHT and header.attempt != step.attempt:
        return _step(saga, header, unknown=unknown)
    return _step(saga, header, status=StepStatus.FAILED, unknown=unknown, due_at_ms=None)


def _expired(saga: Saga, header: Header, _: t.StepExpired) -> Saga:
    unknown = tuple(attempt for attempt in _reached(saga, header).unknown if attempt != header.attempt)
    return _step(saga, header, unknown=unknown)


def _backing_off(saga: Saga, header: Header, fact: t.StepRetryScheduled) -> Saga:
    return _step(saga, header, status=StepStatus.BACKING_OFF, due_at_ms=fact.due_at_ms)


def _given_up(saga: Saga, header: Header, _: t.StepGivenUp) -> Saga:
    return _step(saga, header, status=StepStatus.FAILED, due_at_ms=None)


def _mapping_failed(saga: Saga, header: Header, _: t.MappingFailed) -> Saga:
    if header.step is None or header.direction is Direction.COMPENSATION:
        return _moved(saga, header)
    return _step(saga, header, status=StepStatus.FAILED, due_at_ms=None)


def _undo_scheduled(saga: Saga, header: Header, fact: t.CompensationScheduled) -> Saga:
    attempt = _reached(saga, header).undo_attempt + 1
    return _step(saga, header, status=StepStatus.UNDOING, undo_attempt=attempt, due_at_ms=fact.due_at_ms)


def _undone(saga: Saga, header: Header, _: t.CompensationSucceeded) -> Saga:
    return _step(saga, header, status=StepStatus.UNDONE, due_at_ms=None)


def _undo_backing_off(saga: Saga, header: Header, fact: t.CompensationRetryScheduled) -> Saga:
    return _step(saga, header, status=StepStatus.UNDO_BACKING_OFF, due_at_ms=fact.due_at_ms)


def _turned_back(saga: Saga, header: Header, fact: t.SagaTurnedBack) -> Saga:
    return _moved(replace(saga, status=Status.COMPENSATING, failure=fact.failure), header)


def _turn_back_abandoned(saga: Saga, header: Header, _: t.TurnBackAbandoned) -> Saga:
    return _moved(replace(saga, status=Status.RUNNING, failure=None), header)


def _parked(saga: Saga, header: Header, fact: t.SagaParked) -> Saga:
    if header.step is None:
        return _moved(replace(saga, parked=fact.reason), header)
    undo = header.direction is Direction.COMPENSATION
    return _step(saga, header, status=StepStatus.UNDO_PARKED if undo else StepStatus.PARKED, due_at_ms=None)


def _unparked(saga: Saga, header: Header, _: t.SagaUnparked) -> Saga:
    if header.step is None:
        return _moved(replace(saga, parked=None), header)
    step = _reached(saga, header)
    return _step(saga, header, budget_from=step.attempt, undo_budget_from=step.undo_attempt)


def _deadline_passed(saga: Saga, header: Header, _: t.DeadlinePassed) -> Saga:
    return _moved(replace(saga, deadline_at_ms=None), header)


def _signal_kept(saga: Saga, header: Header, fact: t.SignalKept) -> Saga:
    payload = fact.payload
    if payload is None and isinstance(fact.input, Signal) and fact.input.payload is not None:
        payload = fact.input.payload.payload
    kept = KeptSignal(name=fact.name, message_id=fact.message_id, payload=payload, expires_at_ms=fact.expires_at_ms)
    return _moved(replace(saga, signals=(*saga.signals, kept)), header)


def _signal_expired(saga: Saga, header: Header, fact: t.SignalExpired) -> Saga:
    signals = tuple(signal for signal in saga.signals if signal.message_id != fact.message_id)
    return _moved(replace(saga, signals=signals), header)


def _ended(saga: Saga, header: Header, fact: t.SagaCompleted | t.SagaCompensated) -> Marker:
    return Marker(
        saga_id=saga.saga_id,
        run=saga.run,
        seq=saga.seq + 1,
        definition=saga.definition,
        version=saga.version,
        engine_level=saga.engine_level,
        end=End.COMPLETED if type(fact) is t.SagaCompleted else End.COMPENSATED,
        at_ms=header.at_ms,
        start_message_id=saga.start_message_id,
        expires_at_ms=fact.marker_expires_at_ms,
    )


_RULES: Final[Mapping[type, Callable[[Saga, Header, Any], State]]] = {
    t.StepScheduled: _scheduled,
    t.StepSkipped: _skipped,
    t.StepSucceeded: _succeeded,
    t.StepRejected: _rejected,
    t.StepExpired: _expired,
    t.StepRetryScheduled: _backing_off,
    t.StepGivenUp: _given_up,
    t.MappingFailed: _mapping_failed,
    t.CompensationScheduled: _undo_scheduled,
    t.CompensationSucceeded: _undone,
    t.CompensationRetryScheduled: _undo_backing_off,
    t.SagaTurnedBack: _turned_back,
    t.TurnBackAbandoned: _turn_back_abandoned,
    t.SagaParked: _parked,
    t.SagaUnparked: _unparked,
    t.SagaCompleted: _ended,
    t.SagaCompensated: _ended,
    t.DeadlinePassed: _deadline_passed,
    t.SignalKept: _signal_kept,
    t.SignalExpired: _signal_expired,
}
"""What changes more than the sequence number. Every other kind is a fact that is only counted."""
