"""What a person may put in place of what a saga waits for."""

import json
from dataclasses import replace
from pathlib import Path

from sagakit.app.inspection import stands_in_for
from sagakit.core.address import Address
from sagakit.core.evolve import fold
from sagakit.core.state import Saga
from sagakit.core.transitions import SagaParked, Transition
from sagakit.proving.histories import from_json
from tests.histories.orders import PLACE_ORDER, RESTOCK

HISTORIES = Path(__file__).parents[2] / "histories" / "level_1"


def parked(name: str) -> Saga:
    """The saga of a kept history as it stood when it was first parked."""
    kept = json.loads((HISTORIES / f"{name}.json").read_text(encoding="utf-8"))
    history = [from_json(Transition, line) for line in kept["history"]]
    first = next(place for place, fact in enumerate(history) if isinstance(fact, SagaParked))
    state = fold(history[: first + 1])
    assert isinstance(state, Saga)
    return state


def test_a_step_takes_its_reply_named_or_as_the_one_that_waits() -> None:
    saga = parked("pivot_did_not_happen")
    ship = PLACE_ORDER.tasks[Address("ship")]
    answering = replace(ship, command=replace(ship.command, reply="shop.ParcelBooked"))
    order = replace(PLACE_ORDER, tasks={**PLACE_ORDER.tasks, ship.address: answering})
    assert stands_in_for(order, saga, Address("reserve")) == "shop.StockReserved"
    assert stands_in_for(order, saga, Address("ship")) == "shop.ParcelBooked"
    assert stands_in_for(order, saga, None) == "shop.ParcelBooked"


def test_a_saga_that_waits_at_its_end_takes_its_event() -> None:
    assert RESTOCK.completed is not None
    assert stands_in_for(RESTOCK, parked("ended_without_its_event"), None) == RESTOCK.completed.type


def test_nothing_stands_in_for_a_compensation_or_a_step_that_is_not_there() -> None:
    saga = parked("parked_undoing")
    assert stands_in_for(PLACE_ORDER, saga, None) is None
    assert stands_in_for(PLACE_ORDER, saga, Address("dream")) is None
