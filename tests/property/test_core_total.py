"""Totality: whatever event comes in whatever state has an answer; it replays, and breaks no rule of histories."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagakit.core import ids
from sagakit.core.actions import SendCommand
from sagakit.core.decide import decide
from sagakit.core.events import Cause, Event, Now, Start, TimerDue
from sagakit.core.schedule import next_due_ms
from sagakit.core.state import State
from sagakit.core.transitions import Transition
from sagakit.proving.histories import dump, load
from sagakit.proving.invariants import check
from sagakit.proving.replay import replay
from tests.property.strategies import TIMEOUT_S, definitions, events, opened

pytestmark = pytest.mark.timeout(TIMEOUT_S)

SAGA = ids.saga_id("default", "place-order", "o-1")
FIRST = Start(
    cause=Cause(message_id="m-0", type="start"), definition="place-order", key="o-1", run=100, payload=opened()
)


@given(st.data())
def test_any_event_in_any_state_has_an_answer_that_replays(data: st.DataObject) -> None:
    definition = data.draw(definitions())
    state: State | None = None
    history: list[Transition] = []
    sent: list[SendCommand] = []
    now_ms, partition_ms, run = 0, 0, 100
    for turn in range(data.draw(st.integers(1, 30))):
        event: Event = FIRST if turn == 0 else data.draw(events([command.command_id for command in sent[-8:]]))
        if isinstance(event, Start):
            run += 1
            event = replace(event, run=run)
        now_ms += data.draw(st.sampled_from([-1, 0, 1, 1_000, 20_000]))
        partition_ms = max(partition_ms, now_ms - data.draw(st.sampled_from([0, 0, 5, -5])))
        now = Now(decision_ms=now_ms, partition_ms=partition_ms)
        was_due = None if state is None else next_due_ms(state)
        decision = decide(SAGA, definition, state, event, now)
        assert decision.transitions or isinstance(event, TimerDue), "a consumed record leaves a transition"
        if isinstance(event, TimerDue) and (was_due is None or was_due > now.partition_ms):
            assert (decision.transitions, decision.actions, decision.state) == ((), (), state)
        history.extend(decision.transitions)
        sent.extend(action for action in decision.actions if isinstance(action, SendCommand))
        state = decision.state
    assert check(SAGA, history, lambda *_: definition) == []
    assert load(dump(history)) == tuple(history)
    assert [a for a in replay(SAGA, history, lambda *_: definition).actions if isinstance(a, SendCommand)] == sent
