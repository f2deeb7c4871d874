"""What people read, word for word: it is recorded for good, and operators search for it."""

from sagakit.core.definition import Kind, RetryPolicy
from sagakit.proving.definitions import command, definition, task
from tests.unit.core.story import Story

TWICE = RetryPolicy(attempts=2, backoff_ms=1_000, max_ms=1_000)


def test_why_a_control_is_ignored() -> None:
    story = Story(definition(task("a"), task("b"), task("ship", after=["a", "b"], kind=Kind.PIVOT)))
    story.cancels().says("no saga with this id is known")
    story.starts()
    story.retries().says("the saga is not parked: there is nothing to retry")
    story.retries("a").says("a is not parked: there is nothing to retry")
    story.skips().says("nothing cannot be skipped: no step waits for a person or a retry")
    story.skips("a").says("a cannot be skipped: no step waits for a person or a retry")
    story.cancels()
    story.cancels().says("the saga is already being undone")


def test_why_a_step_has_to_be_named() -> None:
    forward = command("Do", retry=TWICE)
    story = Story(definition(task("a", forward=forward), task("b", forward=forward)))
    story.starts()
    story.timer()
    story.timer()
    story.skips().says("nothing cannot be skipped: name one of a, b")


def test_why_a_control_past_the_pivot_or_the_end_is_ignored() -> None:
    story = Story(definition(task("ship", kind=Kind.PIVOT), task("file", after=["ship"], kind=Kind.RETRIABLE)))
    story.starts()
    story.replies("ship")
    story.cancels().says("the pivot has passed: from here the saga only goes forward")
    story.replies("file")
    story.cancels().says("the saga has ended: completed")


def test_why_a_start_or_a_signal_is_ignored() -> None:
    story = Story(definition(task("a")))
    story.starts(message_id="first")
    story.starts(message_id="first").says("this message has started the saga already")
    story.starts(message_id="second").says("a saga with this key is live")
    story.signals(message_id="signal")
    story.signals(message_id="signal").says("this signal is kept already")
    story.replies("a")
    story.starts(message_id="first").says("this message has started the saga already")
    story.starts(message_id="second").says("the saga has ended (completed), and the definition says again: never")
    story.signals().says("the saga has ended: completed")
