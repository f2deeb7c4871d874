"""The group consumer: what is assigned, what of it runs, and how far it was committed.

All calls come from one thread (the client makes other threads wait for a whole poll). Rebalance call-backs run inside
`poll` only, and only collect changes.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from sagakit.adapters.client_properties import ClientProperties, Property, make_consumer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_records import AUTHORIZATION, GRANT, client_partition, error_of, port_partitions, to_records
from sagakit.failpoints import failpoint
from sagakit.ports.log import Assigned, Change, LogUnavailableError, OffsetLost, Record, Revoked, TopicPartition

_logger = logging.getLogger(__name__)

_DEFAULTS: Final = {
    # How long a newly resumed partition waits for the fetch that is under way without it.
    "fetch.wait.max.ms": 100,
    # How soon fetching goes on after a full local queue was drained: 1 s by default.
    "fetch.queue.backoff.ms": 10,
    "queued.min.messages": 10_000,
}

_CLASSIC: Final[dict[str, Property]] = {"partition.assignment.strategy": "cooperative-sticky"}

_SEEK_LATER: Final = frozenset(
    {KafkaError._STATE, KafkaError._PREV_IN_PROGRESS, KafkaError._TIMED_OUT, KafkaError._OUTDATED}
)
"""The client is not ready to seek, or a rebalance has overtaken the seek."""

_SEEK_PATIENCE_S: Final = 5.0
_STILL_S: Final = 10.0

_PLACEHOLDER_TIMEOUT_S: Final = 1.0
"""A rebalance call-back must not hold up the group."""


def offset_reader_properties(properties: ClientProperties, group: str) -> dict[str, Property]:
    """A consumer that only asks for committed offsets of `group` and never joins it."""
    return properties.consumer(
        defaults={},
        fixed={
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        },
    )


class GroupConsumer:
    """A member of the consumer group. Partitions are assigned paused, and run from `start` on."""

    def __init__(
        self,
        properties: ClientProperties,
        group: str,
        batch_records_max: int,
        offsets: Offsets,
        client_id: str | None = None,
    ) -> None:
        classic = properties.group_protocol == "classic"
        self._consumer: Consumer = make_consumer(
            {
                **properties.consumer(
                    defaults=_DEFAULTS,
                    fixed={
                        "group.id": group,
                        "enable.auto.commit": False,
                        "enable.auto.offset.store": False,
                        "auto.offset.reset": "error",
                        "isolation.level": "read_committed",
                        **(_CLASSIC if classic else {}),
                        **({} if client_id is None else {"client.id": client_id}),
                    },
                ),
                "logger": _logger,
            }
        )
        self._batch_records_max = batch_records_max
        self._offsets = offsets
        self._owned: set[TopicPartition] = set()
        self._next: dict[TopicPartition, int] = {}  # running partitions: the next offset, as last committed
        self._seeking: dict[TopicPartition, float] = {}  # to run, but the client could not seek yet; since when
        self._still: dict[TopicPartition, tuple[int, float]] = {}  # running behind their end: from where, since when
        self._changes: list[Change] = []
        self._lost: dict[TopicPartition, int] = {}  # the log no longer has this next offset; to be reported
        self._failure: LogUnavailableError | None = None

    @property
    def owned(self) -> Collection[TopicPartition]:
        """The partitions that are assigned to this member."""
        return self._owned

    def next_offset(self, partition: TopicPartition) -> int | None:
        """The committed next offset of a partition that runs; None if it does not."""
        return self._next.get(partition)

    def subscribe(self, topics: Collection[str]) -> None:
        """Join the group for these topics, in place of those before."""
        self._consumer.subscribe(
            sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, timeout_s: float) -> tuple[list[Change], list[Record]]:
        """Wait for a first record, then take what is local; changes come before records.

        Raises:
            LogUnavailableError: if the broker refuses this member, for good or for lack of rights.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self._report_lost()
        for partition in [
            one for one, since in self._seeking.items() if self._seek(one) or self._begin_anew(one, since)
        ]:
            del self._seeking[partition]
        messages: list[Message] = []
        if (first := self._consumer.poll(min(timeout_s, 0.01) if self._seeking else timeout_s)) is not None:
            messages = self._consumer.consume(self._batch_records_max - 1, 0)
            messages.insert(0, first)
        errors: list[Message] = []
        records = to_records(messages, errors)
        for error in errors:
            self._note(error)
        changes, self._changes = self._changes, []
        if changes or errors or self._seeking:  # a partition may have gone while its records were being taken
            running = self._next.keys() - self._seeking.keys()
            records = [one for one in records if (one.topic, one.partition) in running]
        # Given and taken away within one call: nobody shall begin with it.
        return [one for one in changes if not isinstance(one, Assigned) or one.partition in self._owned], records

    def start(self, partition: TopicPartition, next_offset: int) -> None:
        """Let an assigned partition run, from `next_offset` on."""
        self._lost.pop(partition, None)
        self._next[partition] = next_offset
        if not self._seek(partition):
            self._seeking[partition] = time.monotonic()

    def stop(self, partitions: Collection[TopicPartition]) -> None:
        """Hold partitions: nothing of them is delivered until `start`."""
        running = [one for one in partitions if one in self._next]
        if running:
            self._consumer.pause([client_partition(one) for one in running])
        for partition in running:
            del self._next[partition]
            self._seeking.pop(partition, None)
            self._still.pop(partition, None)

    def stop_all(self) -> None:
        """Hold every partition."""
        self.stop(tuple(self._next))

    def rewind(self) -> None:
        """Go back, in every partition, to what was last committed."""
        for partition, position in self.positions(self._next).items():
            if position != self._next[partition]:
                self._go_back(partition)

    def watch(self, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Wake partitions that give nothing although there is something: the client may have dropped a call to resume.

        It does when the call crosses its own pause at a rebalance (librdkafka issue 5591). Where an open transaction
        holds the records back, seeking to where it stands does no harm.
        """
        now = time.monotonic()
        for partition, end in ends.items():
            position = positions[partition]
            where, since = self._still.get(partition, (position, now))
            if position >= end or where != position or partition in self._seeking:
                self._still.pop(partition, None)
            elif now - since < _STILL_S:
                self._still[partition] = where, since
            elif self._next.get(partition) == position:  # all that was given is committed: nothing is skipped by it
                _logger.info("%s[%d] gives nothing: it is told again where to go on", *partition)
                self._still.pop(partition, None)
                self._go_back(partition)

    def is_lost(self, partition: TopicPartition) -> bool:
        """Whether the log no longer has what would come next of a partition, which the next poll tells."""
        return partition in self._lost

    def committed(self, partition: TopicPartition, next_offset: int) -> None:
        """Note that a transaction committed this next offset."""
        if partition in self._next:
            self._next[partition] = next_offset

    def positions(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset after the last record that `poll` gave, of the partitions that run."""
        running = [one for one in partitions if one in self._next]
        positions = self._consumer.position([client_partition(one) for one in running]) if running else []
        return {
            one: position.offset if position.offset >= 0 else self._next[one]
            for one, position in zip(running, positions, strict=True)
        }

    @property
    def is_member(self) -> bool:
        """Whether the group knows this member: a commit without a member id would not be fenced at all."""
        return bool(self._consumer.memberid())

    def group_metadata(self) -> object:
        """The member's identity and generation of this moment."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _go_back(self, partition: TopicPartition) -> None:
        """To the next offset as last committed; until the client has done it the partition is held."""
        self._consumer.pause([client_partition(partition)])
        if not self._seek(partition):
            self._seeking[partition] = time.monotonic()

    def _begin_anew(self, partition: TopicPartition, since: float) -> bool:
        """Assign a partition once more whose seek stays impossible: after an offset out of range it always is."""
        if time.monotonic() - since < _SEEK_PATIENCE_S:
            return False
        _logger.warning("%s[%d] cannot be sought in: it is assigned anew", *partition)
        self._consumer.incremental_unassign([client_partition(partition)])
        self._consumer.incremental_assign([client_partition(partition, self._next[partition])])
        self._consumer.resume([client_partition(partition)])
        return True

    def _seek(self, partition: TopicPartition) -> bool:
        """Seek to the committed next offset and let the partition run; False if the client is not ready for it yet."""
        try:
            self._consumer.seek(client_partition(partition, self._next[partition]))
        except KafkaException as exception:
            if error_of(exception).code() in _SEEK_LATER:
                return False
            raise
        self._consumer.resume([client_partition(partition)])
        return True

    def _on_assign(self, consumer: Consumer, partitions: Sequence[confluent_kafka.TopicPartition]) -> None:
        assigned = port_partitions(partitions)
        # An explicit placeholder: asking for committed offsets here would wait for all partitions of the assignment,
        # if one of them has a transaction open. A number: a symbol such as "the end" is looked up in the background,
        # and a seek that overtakes its answer leaves the partition silent for ever (seen in half of all tries).
        placed = [client_partition(one, offset) for one, offset in self._placeholders(assigned).items()]
        consumer.incremental_assign(placed)
        if placed:
            consumer.pause(placed)
        self._owned.update(assigned)
        self._changes.extend(Assigned(partition=one) for one in assigned)
        failpoint("orchestrator.in-rebalance", "assigned")

    def _placeholders(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offsets that are in range, though nothing is read there; 0 for want of an answer."""
        try:
            return self._offsets.starts(partitions, timeout_s=_PLACEHOLDER_TIMEOUT_S)
        except LogUnavailableError:
            _logger.warning("where the assigned partitions begin is not known yet")
            return dict.fromkeys(partitions, 0)

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[confluent_kafka.TopicPartition]) -> None:
        self._forget(port_partitions(partitions))
        consumer.incremental_unassign(list(partitions))
        failpoint("orchestrator.in-rebalance", "revoked")

    def _on_lost(self, consumer: Consumer, partitions: Sequence[confluent_kafka.TopicPartition]) -> None:
        _logger.warning("the group has dropped this member; its partitions are others' by now")
        self._on_revoke(consumer, partitions)

    def _forget(self, revoked: Sequence[TopicPartition]) -> None:
        for partition in revoked:
            self._owned.discard(partition)
            self._next.pop(partition, None)
            self._seeking.pop(partition, None)
            self._still.pop(partition, None)
            self._lost.pop(partition, None)
        self._changes.extend(Revoked(partition=one) for one in revoked)

    def _report_lost(self) -> None:
        try:
            starts = self._offsets.starts(self._lost)
        except LogUnavailableError as error:  # told by the next poll: the group must hear from us meanwhile
            self._failure = error
            return
        for partition, start in starts.items():
            lost = OffsetLost(partition=partition, committed=self._lost.pop(partition), log_start=start)
            self._changes.append(lost)

    def _note(self, message: Message) -> None:
        error, topic, number = message.error(), message.topic(), message.partition()
        if error is None:
            return
        partition = TopicPartition(topic, number) if topic is not None and number is not None else None
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            if partition is not None and partition in self._next:
                self._lost[partition] = self._next[partition]
                self.stop([partition])
        elif error.fatal():
            self._failure = LogUnavailableError(f"the group refuses this member for good: {error.str()}", fatal=True)
        elif error.code() in AUTHORIZATION:
            self._failure = LogUnavailableError(f"{error.str()}. {GRANT}")
        else:
            _logger.warning("Kafka reports: %s", error.str())
