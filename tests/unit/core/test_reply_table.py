"""Every reply to every step: status, outcome, to the last attempt or to an earlier one, forward and back."""

from itertools import product

import pytest

from sagakit.core.address import Address
from sagakit.core.definition import RetryPolicy
from sagakit.core.events import Outcome
from sagakit.core.state import Saga, Status, Step, StepStatus
from sagakit.core.transitions import Direction, Failure, FailureKind
from sagakit.proving.definitions import command, definition, task
from tests.unit.core.story import Story

TRIED_OFTEN = RetryPolicy(attempts=5, backoff_ms=100, max_ms=1_000)
ORDER = definition(
    task(
        "reserve",
        forward=command("Reserve", retry=TRIED_OFTEN),
        compensate=command("Release", retry=TRIED_OFTEN),
        rejects=["OUT_OF_STOCK"],
    ),
    task("charge", after=["reserve"], compensate=command("Refund")),
    task("insure", compensate=command("Cancel")),
)

S, Did = StepStatus, Outcome
LAST, EARLIER = 2, 1

SUCCEEDS = ("StepSucceeded reserve {}", "StepScheduled charge 1")
TURNS_BACK = ("StepRejected reserve {}", "SagaTurnedBack reserve")
UNDONE = ("CompensationSucceeded reserve {}",)

# What a reply leads to. Each pair that does not stand here changes nothing but the record.
FORWARD: dict[tuple[StepStatus, Outcome, int], tuple[str, ...]] = {
    (S.IN_FLIGHT, Did.SUCCEEDED, LAST): SUCCEEDS,
    (S.IN_FLIGHT, Did.REJECTED, LAST): TURNS_BACK,
    (S.IN_FLIGHT, Did.FAILED, LAST): ("StepFailed reserve {}", "StepRetryScheduled reserve 3"),
    (S.IN_FLIGHT, Did.EXPIRED, LAST): ("StepExpired reserve {}", "StepRetryScheduled reserve 3"),
    (S.IN_FLIGHT, Did.SUCCEEDED, EARLIER): SUCCEEDS,
    (S.IN_FLIGHT, Did.REJECTED, EARLIER): ("StepRejected reserve {}",),
    (S.IN_FLIGHT, Did.EXPIRED, EARLIER): ("StepExpired reserve {}",),
} | {
    (status, outcome, attempt): lines
    for status in (S.BACKING_OFF, S.PARKED)
    for outcome, lines in {
        Did.SUCCEEDED: SUCCEEDS,
        Did.REJECTED: TURNS_BACK,
        Did.EXPIRED: ("StepExpired reserve {}",),
    }.items()
    for attempt in (LAST, EARLIER)
}
BACK: dict[tuple[StepStatus, Outcome, int], tuple[str, ...]] = {
    (S.UNDOING, Did.SUCCEEDED, LAST): UNDONE,
    (S.UNDOING, Did.SUCCEEDED, EARLIER): UNDONE,
    (S.UNDOING, Did.REJECTED, LAST): ("CompensationRejected reserve {}", "SagaParked reserve"),
    (S.UNDOING, Did.FAILED, LAST): ("CompensationFailed reserve {}", "CompensationRetryScheduled reserve 3"),
    (S.UNDOING, Did.EXPIRED, LAST): ("CompensationExpired reserve {}", "CompensationRetryScheduled reserve 3"),
    (S.UNDO_PARKED, Did.SUCCEEDED, LAST): UNDONE,
    (S.UNDO_PARKED, Did.SUCCEEDED, EARLIER): UNDONE,
    (S.UNDO_BACKING_OFF, Did.SUCCEEDED, LAST): UNDONE,
    (S.UNDO_BACKING_OFF, Did.SUCCEEDED, EARLIER): UNDONE,
    (S.UNDO_BACKING_OFF, Did.REJECTED, LAST): ("CompensationRejected reserve {}", "SagaParked reserve"),
    (S.UNDO_BACKING_OFF, Did.REJECTED, EARLIER): ("CompensationRejected reserve {}", "SagaParked reserve"),
}


def at(status: StepStatus) -> Story:
    """A saga whose step stands so, with two attempts made each way; another step keeps it from its end."""
    story = Story(ORDER)
    story.starts()
    back = status not in (S.IN_FLIGHT, S.BACKING_OFF, S.PARKED, S.SUCCEEDED, S.SKIPPED)
    step = Step(
        status=status,
        attempt=2,
        unknown=() if status in (S.SUCCEEDED, S.SKIPPED) else (1, 2),
        undo_attempt=2,
        due_at_ms=9_000,
    )
    others = S.UNDO_PARKED if back and status is not S.FAILED else S.IN_FLIGHT
    failure = Failure(step=None, kind=FailureKind.CANCELLED, code=None, message=None) if back else None
    story.state = Saga(
        **{name: getattr(story.saga, name) for name in story.saga.__dataclass_fields__}
        | {
            "steps": {Address("reserve"): step, Address("insure"): Step(status=others, attempt=1, unknown=(1,))},
            "status": Status.COMPENSATING if back else Status.RUNNING,
            "failure": failure,
        }
    )
    story.checked = False
    return story


@pytest.mark.parametrize(
    ("status", "outcome", "attempt", "direction"), list(product(StepStatus, Outcome, (LAST, EARLIER), Direction))
)
def test_every_reply(status: StepStatus, outcome: Outcome, attempt: int, direction: Direction) -> None:
    story = at(status)
    undo = direction is Direction.COMPENSATION
    told = story.replies("reserve", outcome, attempt=attempt, undo=undo, code="OUT_OF_STOCK", message="none left")
    wanted = (BACK if undo else FORWARD).get((status, outcome, attempt), ("ReplyIgnored reserve {}",))
    told.then(*(line.format(attempt) for line in wanted))
    commands = [line for line in wanted if "Scheduled" in line and "Retry" not in line]
    assert len(told.orders) == len(commands)
    assert told.lines == []
