"""Where the partitions of a participant's group begin: the committed offset, compared with the log.

- The group has no offset for any partition of the topic: it is new to the topic, and begins everywhere at its start.
  That is committed for all partitions at once, before any record is delivered, so that "no offset" keeps its meaning.
  Only the member that is assigned the topic's first partition does it, and the others wait for it: a second one, late,
  could move the group back. The brokers refuse a commit of an earlier assignment, so there is never a second one.
- A committed offset within the log: from there on.
- None, and the log still has its first record: from there (nothing can have been deleted unhandled).
- Anything else means that records were deleted unhandled: the partition must not begin.

Each partition is answered for by itself: one that has no leader now keeps no other from beginning.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from sagakit.ports.log import TopicPartition

_BEGUN_BELOW: Final = "sagakit.begun-below="
"""In a committed offset's metadata, from its last owner to its next: see `Messages.commit`."""

_SHORTEST_TIMEOUT_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a partition begins, and why. `next_offset` None means that it must not."""

    committed: int | None
    log_start: int
    next_offset: int | None
    begun_below: int
    """No record at or above this was begun by an earlier owner."""

    @property
    def assigned(self) -> int:
        """The offset to assign it at; one that is in range also for a partition that will stand still."""
        return self.log_start if self.next_offset is None else self.next_offset


def starting_offset(committed: int | None, log_start: int, log_end: int) -> int | None:
    """Where a partition of a group that is not new begins; None if records were deleted before anyone handled them."""
    if committed is None:
        return 0 if log_start == 0 else None
    return committed if log_start <= committed <= log_end else None


def committed_offset(partition: TopicPartition, offset: int, begun_below: int | None = None) -> KafkaPartition:
    """An offset to commit, with what its next owner is to know."""
    return KafkaPartition(*partition, offset, "" if begun_below is None else f"{_BEGUN_BELOW}{begun_below}")


def log_range(
    consumer: Consumer, partition: TopicPartition, timeout_s: float
) -> tuple[tuple[int, int] | None, KafkaError | None]:
    """The first offset of the log and the one after its last stable record; or why they are not known."""
    try:
        found = consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=timeout_s)
    except KafkaException as failure:
        return None, failure.args[0]
    if min(found) < 0:  # a leader that does not answer is not always an error to the client
        return None, KafkaError(KafkaError._TIMED_OUT, f"the leader of {partition.topic}[{partition.partition}]")
    return found, None


def find_starts(
    consumer: Consumer, partitions: Sequence[TopicPartition], timeout_s: float
) -> tuple[dict[TopicPartition, Start], KafkaError | None]:
    """Where those partitions begin that the brokers answer for in time, and why others are missing.

    All that was assigned and has not begun is to be asked for, in the order in which it is to be asked.
    """
    inquiry = _Inquiry(consumer, timeout_s)
    return inquiry.starts(partitions), inquiry.failure


class _Inquiry:
    """One round of questions. `failure` is the first thing that went wrong."""

    def __init__(self, consumer: Consumer, timeout_s: float) -> None:
        self._consumer = consumer
        self._timeout_s = timeout_s
        self._give_up_at = time.monotonic() + timeout_s
        self.failure: KafkaError | None = None

    def starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Start]:
        committed = self._committed(partitions)
        without = {one for one, position in committed.items() if position.offset < 0}
        for topic in sorted({one.topic for one in without}):
            mine = {one for one in without if one.topic == topic}
            known = self._begun_topic(topic, mine)
            committed = {one: position for one, position in committed.items() if one not in mine} | known
        starts = {}
        for partition in partitions:
            position = committed.get(partition)
            if position is None or (found := self._log_range(partition)) is None:
                continue
            log_start, log_end = found
            offset = None if position.offset < 0 else position.offset
            told = _begun_below(position.metadata)
            # What is appended later was not read by an owner that is gone, let alone begun. It read stable records
            # only, so the end of those, asked for now that the partition is ours, covers all that it can have read.
            starts[partition] = Start(
                committed=offset,
                log_start=log_start,
                next_offset=starting_offset(offset, log_start, log_end),
                begun_below=log_end if told is None else told,
            )
        return self._without_marks(starts, committed)

    def _without_marks(
        self, starts: dict[TopicPartition, Start], committed: Mapping[TopicPartition, KafkaPartition]
    ) -> dict[TopicPartition, Start]:
        """What the last owner has said holds until something is begun here: after that nobody may read it any more."""
        told = [
            committed_offset(partition, position.offset)
            for partition in starts
            if _begun_below((position := committed[partition]).metadata) is not None
        ]
        refused = self._commit(told)
        return {partition: start for partition, start in starts.items() if partition not in refused}

    def _begun_topic(self, topic: str, mine: Collection[TopicPartition]) -> dict[TopicPartition, KafkaPartition]:
        """The offsets of `mine`, none or not, once it is certain that the group has begun with the topic.

        Where there is no record yet, nobody has begun one either.
        """
        partitions = self._partitions(topic)
        committed = self._committed(partitions)
        if not partitions or len(committed) < len(partitions):
            return {}
        if any(position.offset >= 0 for position in committed.values()):
            return {one: committed[one] for one in mine}
        first = min(partitions)
        if first not in mine:
            self._note(
                KafkaError(KafkaError._IN_PROGRESS, f"{topic} is begun by the member that has {first.partition}")
            )
            return {}
        ranges = {one: found for one in partitions if (found := self._log_range(one)) is not None}
        if len(ranges) < len(partitions):
            return {}
        starts = [committed_offset(one, low, low if low == high else None) for one, (low, high) in ranges.items()]
        if self._commit(starts):
            return {}
        return {one: position for position in starts if (one := _name(position)) in mine}

    def _partitions(self, topic: str) -> list[TopicPartition]:
        try:
            found = self._consumer.list_topics(topic, timeout=self._left_s()).topics[topic]
        except KafkaException as failure:
            self._note(failure.args[0])
            return []
        if found.error is not None:
            self._note(found.error)
            return []
        return [TopicPartition(topic, number) for number in sorted(found.partitions)]

    def _committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaPartition]:
        """What is committed, of those partitions for which the coordinator says it."""
        if not partitions:
            return {}
        try:
            found = self._consumer.committed([KafkaPartition(*one) for one in partitions], timeout=self._left_s())
        except KafkaException as failure:
            self._note(failure.args[0])
            return {}
        return {_name(position): position for position in self._good(found)}

    def _commit(self, positions: list[KafkaPartition]) -> set[TopicPartition]:
        """Commit, and give the partitions of which it is not certain that it was."""
        if not positions:
            return set()
        asked = {_name(position) for position in positions}
        try:
            outcome = self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as failure:
            self._note(failure.args[0])
            return asked
        return asked - {_name(position) for position in self._good(outcome)}

    def _good(self, positions: Sequence[KafkaPartition]) -> list[KafkaPartition]:
        for position in positions:
            if position.error is not None:
                self._note(position.error)
        return [position for position in positions if position.error is None]

    def _log_range(self, partition: TopicPartition) -> tuple[int, int] | None:
        if time.monotonic() > self._give_up_at:
            self._note(KafkaError(KafkaError._TIMED_OUT, "there was no time left to ask for all partitions"))
            return None
        found, failure = log_range(self._consumer, partition, self._left_s())
        if failure is not None:
            self._note(failure)
        return found

    def _left_s(self) -> float:
        """Time for one question: one that nobody answers leaves some to the next."""
        return max(_SHORTEST_TIMEOUT_S, min(self._timeout_s / 2, self._give_up_at - time.monotonic()))

    def _note(self, failure: KafkaError) -> None:
        if self.failure is None:
            self.failure = failure


def _begun_below(metadata: str | None) -> int | None:
    """What the last owner has said in the metadata of its offset; None if it is another's, or nothing."""
    number = (metadata or "").removeprefix(_BEGUN_BELOW)
    return int(number) if number != metadata and number.isdecimal() else None


def _name(position: KafkaPartition) -> TopicPartition:
    return TopicPartition(position.topic, position.partition)
