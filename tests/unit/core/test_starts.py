"""Which start begins a run: by what is there, by `again`, by the message, by time."""

from itertools import product

import pytest

from sagakit.core.definition import Again
from sagakit.core.events import Outcome
from sagakit.proving.definitions import definition, task
from tests.unit.core.story import Story

HOUR = 3_600_000


def ended(again: Again, completed: bool) -> Story:
    """A saga that has ended at 1,000 ms; its marker holds for an hour."""
    story = Story(definition(task("a"), again=again, dedupe_ms=HOUR))
    story.starts(message_id="first")
    story.replies("a", Outcome.SUCCEEDED if completed else Outcome.REJECTED)
    return story


@pytest.mark.parametrize(
    ("again", "completed", "same", "expired"),
    list(product(Again, (True, False), (True, False), (True, False))),
)
def test_a_start_after_an_end(again: Again, completed: bool, same: bool, expired: bool) -> None:
    """Rule 15: a start that comes again runs once, and one that waited runs."""
    story = ended(again, completed)
    allowed = again is Again.ALWAYS or (again is Again.AFTER_COMPENSATED and not completed)
    first_run = story.marker.run
    message_id = "first" if same else "second"
    told = story.starts(message_id=message_id, partition_ms=1_000 + HOUR - (0 if expired else 1))
    if expired or (allowed and not same):
        told.then("SagaStarted", "StepScheduled a 1").sends("a forward 1").and_nothing_else()
        assert (story.saga.run, story.saga.seq) == (first_run + 2, 2)
    else:
        told.then("StartIgnored").because("has started the saga already" if same else f"again: {again.value}")
        told.and_nothing_else()
        assert (story.marker.run, story.marker.seq) == (first_run, story.history[-1].header.seq)


def test_an_ignored_start_names_the_version_that_would_have_run() -> None:
    """What it was judged by: the published version of today, not the one that ended."""
    story = ended(Again.NEVER, completed=True)
    story.checked = False
    story.definition = definition(task("a"), again=Again.NEVER, version=2)
    (ignored,) = story.starts().decision.transitions
    assert (ignored.header.version, story.marker.version) == (2, 1)


@pytest.mark.parametrize("again", Again)
def test_a_start_of_a_live_saga_is_ignored(again: Again) -> None:
    story = Story(definition(task("a"), again=again))
    story.starts(message_id="first")
    story.starts(message_id="first").then("StartIgnored").because("this message").and_nothing_else()
    story.starts(message_id="second").then("StartIgnored").because("with this key is live").and_nothing_else()


def test_a_marker_expires_without_a_word_in_partition_time() -> None:
    """Rule 15: a start that comes again runs once, and one that waited runs."""
    story = ended(Again.NEVER, completed=True)
    story.now_ms += 10 * HOUR
    story.timer().and_nothing_else()
    assert story.state is None


def test_decision_time_never_goes_back_within_a_saga_and_over_its_marker() -> None:
    """Rule 14: a reply in the log beats its timeout."""
    story = ended(Again.ALWAYS, completed=True)
    story.now_ms = 10
    started, *_ = story.starts().decision.transitions
    assert started.header.at_ms == 1_000
    assert story.replies("a", Outcome.FAILED).decision.transitions[0].header.at_ms == 1_000


@pytest.mark.parametrize(("own", "asked", "wanted"), [(None, None, None), (500, None, 1_500), (500, 20, 1_020)])
def test_the_deadline_counts_from_the_decision(own: int | None, asked: int | None, wanted: int | None) -> None:
    story = Story(definition(task("a"), deadline_ms=own))
    story.starts(deadline_ms=asked)
    assert story.saga.deadline_at_ms == wanted
