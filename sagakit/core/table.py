"""The transition table of replies: what an outcome means for a step, by where the step stands.

A pair that is not in the table changes nothing: the reply is recorded as ignored. Replies to an earlier attempt have
rows of their own, because such a reply settles only its own attempt while a newer one is in flight.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from sagakit.core.events import Outcome
from sagakit.core.state import StepStatus


class Rule(Enum):
    """What is done with a reply."""

    SUCCEED = "the step took effect, whichever attempt did it"
    REJECT = "the participant refused: the step is settled without success"
    RETRY = "this attempt failed or expired: try again or give up"
    NOTE = "a known no-effect of this one attempt; the step goes on as it stands"
    UNDONE = "the compensation is done, whichever attempt did it"
    UNDO_REFUSED = "the participant refuses to undo: a person has to look at it"
    UNDO_RETRY = "this attempt to undo failed or expired: try again or park"


FORWARD: Final[Mapping[tuple[StepStatus, Outcome], Rule]] = {
    (StepStatus.IN_FLIGHT, Outcome.SUCCEEDED): Rule.SUCCEED,
    (StepStatus.IN_FLIGHT, Outcome.REJECTED): Rule.REJECT,
    (StepStatus.IN_FLIGHT, Outcome.FAILED): Rule.RETRY,
    (StepStatus.IN_FLIGHT, Outcome.EXPIRED): Rule.RETRY,
    (StepStatus.BACKING_OFF, Outcome.SUCCEEDED): Rule.SUCCEED,
    (StepStatus.BACKING_OFF, Outcome.REJECTED): Rule.REJECT,
    (StepStatus.BACKING_OFF, Outcome.EXPIRED): Rule.NOTE,
    (StepStatus.PARKED, Outcome.SUCCEEDED): Rule.SUCCEED,
    (StepStatus.PARKED, Outcome.REJECTED): Rule.REJECT,
    (StepStatus.PARKED, Outcome.EXPIRED): Rule.NOTE,
}
"""A reply to the last attempt of a forward step, or to any attempt while none is in flight."""

FORWARD_EARLIER: Final[Mapping[tuple[StepStatus, Outcome], Rule]] = {
    (StepStatus.IN_FLIGHT, Outcome.SUCCEEDED): Rule.SUCCEED,
    (StepStatus.IN_FLIGHT, Outcome.REJECTED): Rule.NOTE,
    (StepStatus.IN_FLIGHT, Outcome.EXPIRED): Rule.NOTE,
}
"""A reply to an earlier attempt of a forward step while a newer one is in flight."""

COMPENSATION: Final[Mapping[tuple[StepStatus, Outcome], Rule]] = {
    (StepStatus.UNDOING, Outcome.SUCCEEDED): Rule.UNDONE,
    (StepStatus.UNDOING, Outcome.REJECTED): Rule.UNDO_REFUSED,
    (StepStatus.UNDOING, Outcome.FAILED): Rule.UNDO_RETRY,
    (StepStatus.UNDOING, Outcome.EXPIRED): Rule.UNDO_RETRY,
    (StepStatus.UNDO_BACKING_OFF, Outcome.SUCCEEDED): Rule.UNDONE,
    (StepStatus.UNDO_BACKING_OFF, Outcome.REJECTED): Rule.UNDO_REFUSED,
    (StepStatus.UNDO_PARKED, Outcome.SUCCEEDED): Rule.UNDONE,
}
"""A reply to the last attempt to compensate, or to any attempt while none is in flight."""

COMPENSATION_EARLIER: Final[Mapping[tuple[StepStatus, Outcome], Rule]] = {
    (StepStatus.UNDOING, Outcome.SUCCEEDED): Rule.UNDONE,
}
"""A reply to an earlier attempt to compensate while a newer one is in flight."""
