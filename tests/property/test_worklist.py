"""Any order of arrivals, ends, deliveries and rebalances: offsets stay safe, keys stay in order, work stays bounded."""

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, invariant, multiple, rule

from sagakit.participants.worklist import Ticket, Worklist
from sagakit.ports.log import TopicPartition

PARTITIONS = [TopicPartition("commands", number) for number in range(2)]
KEYS = [b"a", b"b", None]


@dataclass
class Owned:
    """What the test itself knows of an assignment."""

    start: int
    next_offset: int
    unfinished: set[int]
    withdrawn: bool = False


class WorklistMachine(RuleBasedStateMachine):
    """A consumer with up to three partitions, seen beside a plain book of what is owned and unfinished."""

    dispatched: Bundle[Ticket[int]] = Bundle("dispatched")
    running: Bundle[Ticket[int]] = Bundle("running")
    handled: Bundle[Ticket[int]] = Bundle("handled")

    def __init__(self) -> None:
        super().__init__()
        self.work: Worklist[int] = Worklist(limit=8, partition_limit=5)
        self.owned: dict[TopicPartition, Owned] = {}
        self.assignments = 0
        self.epochs: dict[TopicPartition, int] = {}
        self.in_handler: list[Ticket[int]] = []
        self.last_started: dict[tuple[TopicPartition, int, bytes], int] = {}
        self.committed: dict[TopicPartition, int] = {}

    def start(self, ticket: Ticket[int]) -> bool:
        owned = self.owned.get(ticket.partition)
        wanted = owned is not None and not owned.withdrawn and ticket.epoch == self.epochs[ticket.partition]
        assert self.work.begin(ticket) is wanted
        if not wanted:
            return False
        if ticket.key is not None:
            assert all((one.partition, one.key) != (ticket.partition, ticket.key) for one in self.in_handler)
            lane = (ticket.partition, ticket.epoch, ticket.key)
            assert self.last_started.get(lane, -1) < ticket.offset
            self.last_started[lane] = ticket.offset
        self.in_handler.append(ticket)
        return True

    @rule(partition=st.sampled_from(PARTITIONS), offset=st.integers(0, 50))
    def assign(self, partition: TopicPartition, offset: int) -> None:
        if partition in self.owned:
            return
        self.work.assign(partition, offset)
        self.assignments += 1  # epochs count assignments
        self.epochs[partition] = self.assignments
        self.owned[partition] = Owned(start=offset, next_offset=offset, unfinished=set())
        self.committed[partition] = offset

    @rule(
        target=dispatched,
        partition=st.sampled_from(PARTITIONS),
        gap=st.integers(0, 2),
        key=st.sampled_from(KEYS),
    )
    def arrive(
        self, partition: TopicPartition, gap: int, key: bytes | None
    ) -> Ticket[int] | MultipleResults[Ticket[int]]:
        owned = self.owned.get(partition)
        offset = gap if owned is None else owned.next_offset + gap
        ticket = self.work.admit(partition, offset, key, offset)
        if owned is None or owned.withdrawn:
            assert ticket is None
            return multiple()
        owned.next_offset = offset + 1
        owned.unfinished.add(offset)
        if ticket is None:  # something must be there whose end lets it run
            assert any((one.partition, one.key) == (partition, key) for one in self.work.running())
            return multiple()
        return ticket

    @rule(target=running, ticket=consumes(dispatched))
    def begin(self, ticket: Ticket[int]) -> Ticket[int] | MultipleResults[Ticket[int]]:
        return ticket if self.start(ticket) else multiple()

    @rule(target=handled, ticket=consumes(running))
    def handler_ends(self, ticket: Ticket[int]) -> Ticket[int]:
        self.in_handler.remove(ticket)
        following = self.work.handled(ticket)
        while following is not None:  # a follower runs and ends at once: its order is what matters here
            assert self.start(following)
            self.in_handler.remove(following)
            ended, following = following, self.work.handled(following)
            self.deliver(ended)
        return ticket

    @rule(ticket=consumes(handled))
    def reply_delivered(self, ticket: Ticket[int]) -> None:
        self.deliver(ticket)

    def deliver(self, ticket: Ticket[int]) -> None:
        owned = self.owned.get(ticket.partition)
        current = owned is not None and ticket.epoch == self.epochs[ticket.partition]
        assert self.work.finished(ticket) is current
        if owned is not None and current:
            owned.unfinished.discard(ticket.offset)

    @rule(partition=st.sampled_from(PARTITIONS))
    def withdraw(self, partition: TopicPartition) -> None:
        self.work.withdraw([partition])
        if (owned := self.owned.get(partition)) is not None:
            owned.withdrawn = True

    @rule(partition=st.sampled_from(PARTITIONS))
    def drop(self, partition: TopicPartition) -> None:
        self.work.drop([partition])
        self.owned.pop(partition, None)

    @rule(partition=st.sampled_from(PARTITIONS))
    def leave_and_return(self, partition: TopicPartition) -> None:
        self.drop(partition)
        self.assign(partition, self.committed.get(partition, 0))

    @rule()
    def commit(self) -> None:
        offsets = self.work.commits()
        for partition, offset in offsets.items():
            assert offset > self.committed[partition]
            self.committed[partition] = offset
        self.work.committed(offsets)
        assert self.work.commits() == {}

    @invariant()
    def offsets_are_safe_and_tight(self) -> None:
        due = self.work.commits()
        for partition, owned in self.owned.items():
            position = due.get(partition, self.committed[partition])
            assert position == min(owned.unfinished, default=owned.next_offset)
        assert due.keys() <= self.owned.keys()

    @invariant()
    def work_is_counted(self) -> None:
        depth = sum(len(owned.unfinished) for owned in self.owned.values())
        assert self.work.room == max(0, 8 - depth)
        if depth >= 8:
            assert self.work.to_pause() == frozenset(self.owned)
        begun = [ticket for ticket in self.work.running() if ticket.begun]
        assert sorted(map(id, begun)) == sorted(map(id, self.in_handler))


TestWorklist = WorklistMachine.TestCase
