"""A saga's history, told to people."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from sagakit.contracts.transitions import UnknownKind
from sagakit.core.definition import Definition
from sagakit.core.transitions import StepRejected, Transition
from sagakit.core.values import Data
from sagakit.proving.histories import from_json
from sagakit.proving.story import _TELL, Line, Story, duration, render, tell
from tests.histories.orders import published

HISTORIES = Path(__file__).parents[2] / "histories" / "level_1"


def history(name: str) -> list[Transition]:
    kept = json.loads((HISTORIES / f"{name}.json").read_text(encoding="utf-8"))
    return [from_json(Transition, line) for line in kept["history"]]


def shown(_record: str, data: Data) -> Data:
    return data


def story(name: str) -> Story:
    (told,) = tell(history(name), published, shown)
    return told


def test_every_kind_of_transition_can_be_told() -> None:
    assert set(_TELL) == set(get_args(Transition))


@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*.json")), ids=lambda path: path.stem)
def test_each_transition_is_one_line_and_time_only_goes_on(path: Path) -> None:
    facts = history(path.stem)
    stories = tell(facts, published, shown)
    lines = [line for told in stories for line in told.lines]
    assert len(lines) == len(facts)
    assert all(line.since_ms >= 0 for line in lines)
    assert all("\n" not in text for told in stories for text in render(told))


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("completed", "completed"),
        ("compensated", "compensated"),
        ("cancelled", "compensated"),
        ("parked_undoing", "parked"),
    ],
)
def test_a_run_is_called_by_how_it_ended(name: str, outcome: str) -> None:
    runs = [told for told in tell(history(name), published, shown) if told.run is not None]
    assert runs[0].outcome == outcome


def test_a_parked_run_is_called_parked_until_an_operator_has_it_go_on() -> None:
    facts = history("parked_undoing")
    kinds = [type(fact).__name__ for fact in facts]
    parked, unparked = kinds.index("SagaParked"), kinds.index("SagaUnparked")
    assert tell(facts[: parked + 1], published, shown)[0].outcome == "parked"
    assert tell(facts[: unparked + 1], published, shown)[0].outcome == "compensating"


def named(told: Story, what: str) -> Line:
    found = [line for line in told.lines if re.search(what, line.what)]
    assert found, [line.what for line in told.lines]
    return found[0]


def test_a_command_says_to_whom_it_went_and_its_answer_from_whom_and_after_how_long() -> None:
    told = story("completed")
    sent = next(line for line in told.lines if line.step == "reserve" and line.what.startswith("command"))
    answered = next(line for line in told.lines if line.step == "reserve" and line.what == "succeeded")
    assert sent.what.endswith("ReserveStock to inventory")
    assert answered.by == "from inventory"
    assert answered.took_ms == answered.at_ms - sent.at_ms


def test_a_rejection_code_that_the_definition_does_not_name_is_marked() -> None:
    facts = history("compensated")
    place = next(place for place, fact in enumerate(facts) if isinstance(fact, StepRejected))
    rejected = facts[place]
    assert isinstance(rejected, StepRejected)
    for declared, what in ((True, "rejected"), (False, "rejected with an undeclared code")):
        (told,) = tell([*facts[:place], replace(rejected, declared=declared), *facts[place + 1 :]], published, shown)
        line = told.lines[place]
        assert line.what == what
        assert line.why is not None
        assert line.why.startswith(rejected.code)


def test_a_person_is_named_with_the_reason() -> None:
    line = named(story("cancelled"), "cancel requested")
    assert line.by is not None
    assert re.fullmatch(r"by \w+(, [\w-]+)?: .+", line.by)


def test_data_goes_through_the_mask_under_its_record_type() -> None:
    seen: list[str] = []

    def mask(record: str, _data: Data) -> Data:
        seen.append(record)
        return {"masked": True}

    (told,) = tell(history("completed"), published, mask)
    assert {"shop.StockReserved"} <= set(seen)
    assert all(line.data in (None, {"masked": True}) for line in told.lines)


def test_without_its_definition_a_command_shows_no_data_and_no_service() -> None:
    def unknown(_name: str, _version: int) -> Definition | None:
        return None

    (told,) = tell(history("completed"), unknown, shown)
    sent = [line for line in told.lines if line.what == "command"]
    assert sent
    assert all(line.data is None for line in sent)


def test_a_kind_of_a_later_release_is_told_by_its_name() -> None:
    facts = history("completed")
    header = facts[1].header
    unknown = UnknownKind(
        name="StepPraised",
        fields={
            "header": {
                "saga_id": header.saga_id,
                "run": header.run,
                "seq": header.seq,
                "at_ms": header.at_ms,
                "step": header.step,
            }
        },
    )
    (told,) = tell([facts[0], unknown, *facts[2:]], published, shown)
    assert told.lines[1].what == "StepPraised (a kind of a later release)"


def test_runs_stand_in_order_and_what_belongs_to_none_comes_last() -> None:
    facts = history("ended_with_late_records")
    orphan = replace(facts[-1], header=replace(facts[-1].header, run=None, seq=None))
    stories = tell([orphan, *facts], published, shown)
    assert [(told.run, told.outcome) for told in stories] == [(1, "compensated"), (7, "completed"), (None, None)]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (59_949, "59.9 s"),
        (60_000, "1 min"),
        (184_000, "3 min 4 s"),
        (3_600_000, "1 h"),
        (7_500_000, "2 h 5 min"),
        (86_400_000, "1 d"),
        (262_800_000, "3 d 1 h"),
        (31_536_000_000, "365 d"),
    ],
)
def test_durations_read_as_people_say_them(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text
