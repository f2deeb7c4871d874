"""Where a group's partitions begin, when brokers do not answer for all of them and members begin at the same time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from sagakit.adapters.kafka_starts import find_starts
from sagakit.ports.log import TopicPartition

TOPIC = "payments.commands"
PARTITIONS = [TopicPartition(TOPIC, number) for number in range(3)]
LEADERLESS = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)


class Group:
    """What the brokers know of a group, asked through the client's own calls."""

    def __init__(self, ranges: dict[int, tuple[int, int]]) -> None:
        self.ranges = ranges
        self.offsets: dict[int, tuple[int, str]] = {}
        self.commits: list[set[int]] = []
        self.refuse_commits = False

    def committed(self, partitions: list[KafkaPartition], timeout: float) -> list[KafkaPartition]:
        return [KafkaPartition(TOPIC, one.partition, *self.offsets.get(one.partition, (-1001,))) for one in partitions]

    def commit(self, *, offsets: list[KafkaPartition], asynchronous: bool) -> list[KafkaPartition]:
        if self.refuse_commits:
            raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION))
        self.commits.append({one.partition for one in offsets})
        self.offsets |= {one.partition: (one.offset, one.metadata or "") for one in offsets}
        return offsets

    def get_watermark_offsets(self, partition: KafkaPartition, timeout: float) -> tuple[int, int]:
        if partition.partition not in self.ranges:
            raise KafkaException(LEADERLESS)
        return self.ranges[partition.partition]

    def list_topics(self, topic: str, timeout: float) -> object:
        found = SimpleNamespace(error=None, partitions=dict.fromkeys(range(len(PARTITIONS))))
        return SimpleNamespace(topics={topic: found})

    def client(self) -> Consumer:
        return cast(Consumer, self)


@pytest.fixture
def group() -> Group:
    return Group(dict.fromkeys(range(len(PARTITIONS)), (0, 9)))


def test_a_partition_without_a_leader_keeps_no_other_from_beginning(group: Group) -> None:
    group.offsets = {0: (4, ""), 1: (5, ""), 2: (6, "")}
    del group.ranges[1]
    starts, failure = find_starts(group.client(), PARTITIONS, 1.0)
    assert {one.partition: start.next_offset for one, start in starts.items()} == {0: 4, 2: 6}
    assert failure is not None
    assert failure.code() == KafkaError.LEADER_NOT_AVAILABLE


def test_an_offset_that_the_client_does_not_know_is_no_end_of_a_log(group: Group) -> None:
    group.offsets = {0: (4, ""), 1: (5, ""), 2: (6, "")}
    group.ranges[1] = (0, -1001)
    starts, failure = find_starts(group.client(), PARTITIONS, 1.0)
    assert {one.partition for one in starts} == {0, 2}
    assert failure is not None


def test_a_dead_owner_may_have_begun_whatever_was_in_the_log(group: Group) -> None:
    group.offsets = {0: (4, ""), 1: (5, "sagakit.begun-below=7"), 2: (6, "another's")}
    group.ranges[0] = (0, 100_000)
    starts, _ = find_starts(group.client(), PARTITIONS, 1.0)
    assert {one.partition: start.begun_below for one, start in starts.items()} == {0: 100_000, 1: 7, 2: 9}
    assert group.offsets[1] == (5, "")


def test_a_partition_does_not_begin_before_its_mark_is_taken_back(group: Group) -> None:
    group.offsets = {0: (4, ""), 1: (5, "sagakit.begun-below=7"), 2: (6, "")}
    group.refuse_commits = True
    starts, failure = find_starts(group.client(), PARTITIONS, 1.0)
    assert {one.partition for one in starts} == {0, 2}
    assert failure is not None


def test_only_who_has_the_first_partition_begins_a_topic(group: Group) -> None:
    group.ranges = {0: (3, 9), 1: (3, 9), 2: (3, 3)}
    starts, failure = find_starts(group.client(), PARTITIONS[1:], 1.0)
    assert (starts, group.commits) == ({}, [])
    assert failure is not None
    starts, _ = find_starts(group.client(), PARTITIONS[:1], 1.0)
    assert starts[PARTITIONS[0]].next_offset == 3
    assert group.offsets == {0: (3, ""), 1: (3, ""), 2: (3, "sagakit.begun-below=3")}
    starts, _ = find_starts(group.client(), PARTITIONS[1:], 1.0)
    assert {one.partition: start.next_offset for one, start in starts.items()} == {1: 3, 2: 3}
    assert starts[PARTITIONS[2]].begun_below == 3


def test_a_topic_is_not_begun_again_by_who_comes_late(group: Group) -> None:
    """Whoever did not know yet that another has begun it must not move the group back."""
    group.offsets = {1: (8, "")}
    starts, _ = find_starts(group.client(), PARTITIONS[:1], 1.0)
    assert starts[PARTITIONS[0]].next_offset == 0
    assert (group.offsets, group.commits) == ({1: (8, "")}, [])


def test_a_topic_begins_with_all_its_partitions_or_not_yet(group: Group) -> None:
    del group.ranges[2]
    starts, _ = find_starts(group.client(), PARTITIONS, 1.0)
    assert (starts, group.commits) == ({}, [])
    group.ranges[2] = (0, 9)
    group.refuse_commits = True
    assert find_starts(group.client(), PARTITIONS, 1.0)[0] == {}
