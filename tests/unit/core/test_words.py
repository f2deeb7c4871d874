"""The words that are stored, sent and written in definitions: who changes one can no longer read what is there."""

from enum import Enum

import pytest

from sagakit.core.definition import Again, Kind
from sagakit.core.events import Outcome, Refused, Verb
from sagakit.core.state import End, Status, StepStatus
from sagakit.core.transitions import Direction, FailureKind
from sagakit.core.values import CONFLUENT, VALUES

WORDS: dict[type[Enum], str] = {
    Kind: "compensatable pivot retriable",
    Again: "never after-compensated always",
    Refused: "command compensation event result input",
    Outcome: "succeeded rejected failed expired",
    Verb: "cancel retry skip",
    Status: "running compensating",
    StepStatus: ("in-flight backing-off parked skipped succeeded failed undoing undo-backing-off undo-parked undone"),
    End: "completed compensated",
    Direction: "forward compensation",
    FailureKind: "rejected failed timed-out expired mapping cancelled deadline",
}


@pytest.mark.parametrize("words", WORDS, ids=lambda one: one.__name__)
def test_a_member_is_stored_as_its_name_in_lower_case_with_hyphens(words: type[Enum]) -> None:
    assert " ".join(member.value for member in words) == WORDS[words]
    assert [member.name.lower().replace("_", "-") for member in words] == [member.value for member in words]


def test_encodings_of_payloads() -> None:
    assert (CONFLUENT, VALUES) == ("confluent", "values")
