"""What is said of commands that have expired: known to be without effect, or perhaps begun by an earlier process."""

from __future__ import annotations

import pytest

from sagakit.participants import Formats
from sagakit.ports.messages import DeliveryFailure, Undelivered
from tests.unit.participants import support
from tests.unit.participants.memory_messages import MemoryMessages
from tests.unit.participants.support import P0, running
from tests.unit.participants.test_runtime import command, outcomes, trivial


def test_an_expired_command_that_a_dead_process_may_have_begun_is_not_said_to_have_had_no_effect(
    messages: MemoryMessages, with_: Formats
) -> None:
    """A process that dies between effect and reply leaves a command that its heir gets again, perhaps too late."""
    with running(trivial(), messages, with_):
        messages.assign(P0, begun_below=2)
        late = support.now_ms() - 1
        expired = [support.command(number, with_=with_, expires_at_ms=late) for number in range(3)]
        messages.arrive(*(support.received(sent, offset) for offset, sent in enumerate(expired)))
        messages.until(lambda: messages.committed == {P0: 3})
    assert sorted(outcomes(messages)) == ["expired", "failed", "failed"]


@pytest.mark.parametrize(("begun_below", "said"), [(0, ["expired"] * 3), (2, ["expired", "failed", "failed"])])
def test_what_the_last_owner_handed_over_unbegun_has_had_no_effect(
    messages: MemoryMessages, with_: Formats, begun_below: int, said: list[str]
) -> None:
    with running(trivial(), messages, with_):
        messages.assign(P0, begun_below=begun_below)
        late = support.now_ms() - 1
        expired = [support.command(number, with_=with_, expires_at_ms=late) for number in range(3)]
        messages.arrive(*(support.received(sent, offset) for offset, sent in enumerate(expired)))
        messages.until(lambda: messages.committed == {P0: 3})
    assert sorted(outcomes(messages)) == said


def test_a_handover_tells_how_far_records_were_begun_and_no_earlier_commit_does(
    messages: MemoryMessages, with_: Formats
) -> None:
    """Also what is above the committed offset, because an answer of an earlier record is not delivered yet."""
    first = command(1, 0, with_)
    messages.refuse = lambda sent: (
        DeliveryFailure(kind=Undelivered.LATER, reason="away") if sent.key == first.key else None
    )
    with running(trivial(), messages, with_):
        messages.assign(P0, begun_below=0)
        messages.arrive(first, command(2, 1, with_), command(3, 2, with_))
        messages.until(lambda: len(messages.delivered) == 2)
        assert messages.begun_below == {}
    assert (messages.committed, messages.begun_below) == ({P0: 0}, {P0: 3})


def test_what_a_dead_process_may_have_begun_stays_so_over_a_handover(messages: MemoryMessages, with_: Formats) -> None:
    with running(trivial(), messages, with_):
        messages.assign(P0, 10, begun_below=60)
        messages.until(lambda: messages.polls > 3)
        messages.revoke(P0)
        messages.until(lambda: messages.begun_below == {P0: 60})
        messages.assign(P0, 10, begun_below=60)
        messages.arrive(command(1, 10, with_))
        messages.until(lambda: messages.committed == {P0: 11})
        assert messages.begun_below == {}
    assert messages.begun_below == {P0: 60}
