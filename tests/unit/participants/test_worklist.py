"""Order per key, offsets below the oldest unfinished record only, nothing from an earlier assignment, bounded work."""

from sagakit.participants.worklist import Ticket, Worklist
from sagakit.ports.log import TopicPartition

P0 = TopicPartition("payments.commands", 0)
P1 = TopicPartition("payments.commands", 1)


def worklist(limit: int = 100, partition_limit: int = 100) -> Worklist[str]:
    made: Worklist[str] = Worklist(limit=limit, partition_limit=partition_limit)
    made.assign(P0, 0)
    made.assign(P1, 0)
    return made


def admit(work: Worklist[str], partition: TopicPartition, offset: int, key: str | None) -> Ticket[str] | None:
    return work.admit(partition, offset, None if key is None else key.encode(), f"{key}@{offset}")


def started(ticket: Ticket[str] | None) -> Ticket[str]:
    assert ticket is not None
    ticket.begun = True
    return ticket


def test_an_offset_is_committed_only_when_all_before_it_are_finished() -> None:
    work = worklist()
    tickets = [started(admit(work, P0, offset, f"saga {offset}")) for offset in range(3)]
    for ticket in tickets:
        work.handled(ticket)
    work.finished(tickets[2])
    work.finished(tickets[1])
    assert work.commits() == {}
    work.finished(tickets[0])
    assert work.commits() == {P0: 3}


def test_a_handled_record_is_not_finished_before_its_reply_is_delivered() -> None:
    work = worklist()
    ticket = started(admit(work, P0, 0, "saga"))
    work.handled(ticket)
    assert (work.commits(), work.undelivered()) == ({}, 1)
    work.finished(ticket)
    assert (work.commits(), work.undelivered()) == ({P0: 1}, 0)


def test_records_of_one_key_run_one_after_the_other_and_other_keys_meanwhile() -> None:
    work = worklist()
    first = started(admit(work, P0, 0, "saga"))
    assert admit(work, P0, 1, "saga") is None
    assert admit(work, P0, 2, "other") is not None
    second = started(work.handled(first))
    assert second.item == "saga@1"
    assert work.handled(second) is None


def test_records_without_a_key_wait_for_nobody() -> None:
    work = worklist()
    assert admit(work, P0, 0, None) is not None
    assert admit(work, P0, 1, None) is not None


def test_the_same_key_in_two_partitions_is_two_keys() -> None:
    work = worklist()
    assert admit(work, P0, 0, "saga") is not None
    assert admit(work, P1, 0, "saga") is not None


def test_what_ends_after_its_assignment_commits_nothing() -> None:
    """Rule 18: a participant finishes what it was given, or leaves it to the next."""
    work = worklist()
    ticket = started(admit(work, P0, 0, "saga"))
    work.drop([P0])
    work.assign(P0, 0)
    work.handled(ticket)
    assert work.finished(ticket) is False
    assert (work.commits(), work.undelivered(), work.room) == ({}, 0, 100)


def test_offsets_pass_what_is_no_record_and_no_record_that_is_not_finished() -> None:
    work = worklist()
    ticket = started(admit(work, P0, 0, "saga"))
    work.passed({P0: 3, P1: 5})
    assert work.commits() == {P1: 5}
    work.handled(ticket)
    work.finished(ticket)
    assert work.commits() == {P0: 3, P1: 5}
    work.passed({P0: 2})
    assert work.commits() == {P0: 3, P1: 5}


def test_a_key_waits_for_its_handler_of_an_earlier_assignment() -> None:
    work = worklist()
    old = started(admit(work, P0, 0, "saga"))
    work.drop([P0])
    work.assign(P0, 0)
    assert admit(work, P0, 0, "saga") is None
    following = work.given_back(old)
    assert following is not None
    assert following.epoch != old.epoch


def test_a_withdrawn_partition_forgets_what_waits_and_takes_in_nothing() -> None:
    work = worklist()
    running = started(admit(work, P0, 0, "saga"))
    admit(work, P0, 1, "saga")
    assert work.withdraw([P0]) == 1
    assert admit(work, P0, 2, "other") is None
    assert work.handled(running) is None
    work.finished(running)
    assert work.commits([P0]) == {P0: 1}


def test_a_record_is_wanted_until_its_partition_is_withdrawn() -> None:
    work = worklist()
    ticket = started(admit(work, P0, 0, "saga"))
    assert work.wanted(ticket)
    work.withdraw([P0])
    assert not work.wanted(ticket)
    work.assign(P0, 0)
    assert not work.wanted(ticket)


def test_what_has_not_begun_is_forgotten_when_its_partition_is_withdrawn() -> None:
    work = worklist()
    ticket = admit(work, P0, 0, "saga")
    assert ticket is not None
    admit(work, P0, 1, "saga")
    assert work.withdraw([P0]) == 2
    assert (work.running(), work.begin(ticket)) == ([], False)
    work.assign(P0, 0)
    again = admit(work, P0, 0, "saga")
    assert again is not None
    assert work.begin(again)


def test_a_record_given_back_is_committed_by_nobody() -> None:
    work = worklist()
    ticket = started(admit(work, P0, 0, "saga"))
    work.withdraw([P0])
    assert work.given_back(ticket) is None
    assert (work.running(), work.commits()) == ([], {})


def test_gaps_between_offsets_are_passed_over() -> None:
    work = worklist()
    ticket = started(admit(work, P0, 7, "saga"))
    work.handled(ticket)
    work.finished(ticket)
    assert work.commits() == {P0: 8}


def test_a_record_that_comes_twice_in_one_assignment_is_taken_in_once() -> None:
    work = worklist()
    assert admit(work, P0, 0, "saga") is not None
    assert admit(work, P0, 0, "other") is None


def test_a_failed_commit_is_due_again_and_a_noted_one_is_not() -> None:
    work = worklist()
    ticket = started(admit(work, P0, 0, None))
    work.handled(ticket)
    work.finished(ticket)
    work.committed({P0: 1})
    assert work.commits() == {}
    work.commit_failed([P0])
    assert work.commits() == {P0: 1}


def test_a_crowded_partition_pauses_until_half_is_done() -> None:
    work = worklist(partition_limit=4)
    tickets = [started(admit(work, P0, offset, None)) for offset in range(4)]
    assert work.to_pause() == {P0}
    for done, ticket in enumerate(tickets, start=1):
        work.handled(ticket)
        work.finished(ticket)
        assert work.to_pause() == (frozenset() if done >= 2 else {P0})


def test_without_room_all_partitions_pause_until_half_is_done() -> None:
    work = worklist(limit=4)
    tickets = [started(admit(work, P0, offset, None)) for offset in range(4)]
    assert work.room == 0
    assert work.to_pause() == {P0, P1}
    for done, ticket in enumerate(tickets, start=1):
        work.handled(ticket)
        work.finished(ticket)
        assert work.to_pause() == (frozenset() if done >= 2 else {P0, P1})
