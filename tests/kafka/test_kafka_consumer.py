"""What the group consumer makes of a client that cannot do at once what it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_consumer import GroupConsumer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_records import client_partition
from sagakit.ports.log import Assigned, Change, Record, Revoked, TopicPartition
from tests.contract.worlds import PARTITIONS, KafkaWorld, values

pytestmark = pytest.mark.kafka


class Member:
    """A group consumer, and all that it gave."""

    def __init__(self, world: KafkaWorld) -> None:
        properties = ClientProperties(world.plain)
        self.consumer = GroupConsumer(properties, world.group, 100, Offsets(properties))
        self.consumer.subscribe([world.inbox])
        self.changes: list[Change] = []
        self.records: list[Record] = []

    def until(self, condition: Callable[[], object]) -> None:
        """Poll until `condition` holds."""
        give_up_at = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up_at, f"saw {self.changes} and {len(self.records)} records"
            changes, records = self.consumer.poll(0.1)
            self.changes += changes
            self.records += records


@pytest.fixture
def member(world: KafkaWorld) -> Iterator[Member]:
    """The group's only member, with everything assigned."""
    one = Member(world)
    one.until(lambda: len(one.consumer.owned) == PARTITIONS)
    yield one
    one.consumer.close()


def test_a_partition_whose_offset_was_out_of_range_runs_again(world: KafkaWorld, member: Member) -> None:
    """The client refuses to seek in it from then on, and says so to nobody: it must be assigned anew."""
    partition = TopicPartition(world.inbox, 0)
    world.publish(world.inbox, 0, *(b"%d" % number for number in range(10)))
    member.consumer.start(partition, 1_000)
    member.until(lambda: member.consumer.is_lost(partition))
    member.consumer.start(partition, 5)
    member.until(lambda: member.records)
    assert values(member.records) == [b"5", b"6", b"7", b"8", b"9"]


def test_a_partition_whose_call_to_resume_was_dropped_is_woken(
    world: KafkaWorld, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client drops it in silence if its own pause at a rebalance overtakes it."""
    partition = TopicPartition(world.inbox, 0)
    world.publish(world.inbox, 0, b"a", b"b")
    member.consumer.start(partition, 0)
    member.until(lambda: len(member.records) == 2)
    member.consumer.committed(partition, 2)
    member.consumer._consumer.pause([client_partition(partition)])  # as after a dropped resume
    world.publish(world.inbox, 0, b"c")
    monkeypatch.setattr("sagakit.adapters.kafka_consumer._STILL_S", 0.0)

    def awake() -> bool:
        member.consumer.watch(member.consumer.positions([partition]), {partition: 3})
        return len(member.records) == 3

    member.until(awake)
    assert values(member.records) == [b"a", b"b", b"c"]


def test_what_is_given_and_taken_within_one_call_is_never_begun(world: KafkaWorld, member: Member) -> None:
    """The client serves several rebalances in one poll: who began with the first would hold what is another's."""
    member.until(lambda: len(member.changes) == PARTITIONS)
    member.changes.clear()
    partitions = [client_partition(TopicPartition(world.inbox, number)) for number in range(PARTITIONS)]
    client = member.consumer._consumer
    member.consumer._on_revoke(client, partitions)
    member.consumer._on_assign(client, partitions[:2])
    member.consumer._on_revoke(client, partitions[:2])
    changes, _ = member.consumer.poll(0)
    assert not any(isinstance(one, Assigned) for one in changes)
    assert {one.partition.partition for one in changes if isinstance(one, Revoked)} == set(range(PARTITIONS))
