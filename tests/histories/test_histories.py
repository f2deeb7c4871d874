"""Histories that were recorded once must replay identically for ever: the engine decides as it did then."""

import json
from pathlib import Path

import pytest

from sagakit.core.actions import Action
from sagakit.core.evolve import fold
from sagakit.core.state import State
from sagakit.core.transitions import Transition
from sagakit.proving.histories import from_json, to_json
from sagakit.proving.invariants import check
from sagakit.proving.replay import replay
from tests.histories.orders import published
from tests.histories.record import FOLDER, STORIES

KEPT = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_history_replays_identically(path: Path) -> None:
    kept = json.loads(path.read_text(encoding="utf-8"))
    history: list[Transition] = [from_json(Transition, line) for line in kept["history"]]
    replayed = replay(kept["saga_id"], history, published)
    assert replayed.differences == ()
    assert replayed.actions == tuple(from_json(Action, line) for line in kept["actions"])
    (state,) = [from_json(State, line) for line in kept["state"]]
    assert replayed.state == state
    assert fold(history) == state
    assert check(kept["saga_id"], history, published) == []
    assert [to_json(fact) for fact in history] == kept["history"], "reading and writing lose nothing"


def test_every_story_is_kept() -> None:
    assert {path.stem for path in KEPT} == {tell.__name__ for tell in STORIES}


def test_a_history_that_was_tampered_with_does_not_replay() -> None:
    text = (FOLDER / "completed.json").read_text(encoding="utf-8")
    kept = json.loads(text.replace('"cents": 1250', '"cents": 1', 1))
    history = [from_json(Transition, line) for line in kept["history"]]
    assert replay(kept["saga_id"], history, published).differences
