"""Restoring partitions beside the loop: the committed offset, then the state up to a mark taken after it.

Per partition, in this order, which is what makes it right: (1) the committed offset of this partition alone, read
committed, which waits for offsets in an open transaction; (2) the high watermark of the state partition; (3) committed
state until the position reaches that mark. The end that a read-committed consumer is told is only the last stable
offset: below the mark it means that a transaction is open here, and never ends a restore.

Two threads with clients of their own: the finder asks for offsets, the reader reads the state of all partitions.
"""

import logging
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from sagakit.adapters.client_properties import ClientProperties, make_consumer
from sagakit.adapters.kafka_consumer import offset_reader_properties
from sagakit.adapters.kafka_fencing import Fencer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_records import AUTHORIZATION, GRANT, client_partition, error_of
from sagakit.failpoints import failpoint
from sagakit.ports.log import Change, LogUnavailableError, OffsetLost, Restored, StateRead, StateRecord, TopicPartition

_logger = logging.getLogger(__name__)

_STATE_READER: Final = {
    # One million snapshots in 2.2 s instead of 8.5 s with the defaults.
    "queued.max.messages.kbytes": 262_144,
    "queued.min.messages": 1_000_000,
    "fetch.queue.backoff.ms": 10,
    "max.partition.fetch.bytes": 8_388_608,
    # A fetch that waits at the end of one partition holds up those that are added meanwhile.
    "fetch.wait.max.ms": 10,
}

_CHUNK_RECORDS: Final = 1_000  # small enough to be still in the processor's cache when the loop takes it
_CHUNKS_AHEAD: Final = 64
_COMMITTED_TIMEOUT_S: Final = 0.25
_STALLED_AFTER_S: Final = 2.0
_OFFSETS_TIMEOUT_S: Final = 3.0  # it is asked again; others wait for their turn meanwhile
_MARK_TIMEOUT_S: Final = 1.0
_POLL_S: Final = 0.01
_METADATA_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 0.1


_OFFSETS_GONE: Final = (
    "sagas have run, but the group has no offset left in any inbox partition: whatever started them would start them "
    "again. Stop all orchestrators, find out why, set the group's offsets by hand in the inbox AND in every trigger "
    "topic, and start them again"
)


@dataclass(slots=True, kw_only=True, eq=False)
class _Restore:
    """One restore; the threads own it in turn. `cancelled` is set by the loop or the reader."""

    partition: TopicPartition
    state: TopicPartition | None  # what belongs to the partition
    read_state: bool
    first_offset: int | None
    cancelled: bool = False
    committed: int | None = None
    next_offset: int = 0
    mark: int = 0
    log_start: int = 0
    position: int = 0
    complaint: str = ""
    progressed_at: float = field(default_factory=time.monotonic)


class Restorer:
    """Restores in the background; the loop takes the changes. `begin`, `cancel`, `take`, `close`: from one thread."""

    def __init__(
        self,
        properties: ClientProperties,
        group: str,
        transactional_id: str,
        state_topics: Mapping[str, str],
        offsets: Offsets,
    ) -> None:
        self._properties = properties
        self._group = group
        self._state_topics = dict(state_topics)
        self._offsets = offsets
        self._fencer = Fencer(properties, group, transactional_id, self._offsets)
        self._active: dict[TopicPartition, _Restore] = {}
        self._wanted: queue.SimpleQueue[_Restore | None] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[_Restore | None] = queue.SimpleQueue()
        self._output: queue.Queue[tuple[_Restore, Change]] = queue.Queue(_CHUNKS_AHEAD)
        self._failed: queue.SimpleQueue[LogUnavailableError] = queue.SimpleQueue()
        self._closed = threading.Event()
        # From the start, so that their clients know the brokers by the time that a partition is assigned.
        self._threads = [
            threading.Thread(target=self._run, args=(name, work), name=name, daemon=True)
            for name, work in (("restore-finder", self._find_all), ("restore-reader", self._read_all))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def active(self) -> bool:
        """Whether a restore is under way."""
        return bool(self._active)

    def begin(self, partition: TopicPartition, first_offset: int | None, *, read_state: bool) -> None:
        """Begin to restore a partition, with its state or only its offset; a restore under way begins anew."""
        self.cancel(partition)
        state_topic = self._state_topics.get(partition.topic)
        state = None if state_topic is None else TopicPartition(state_topic, partition.partition)
        restore = _Restore(
            partition=partition, state=state, read_state=read_state and state is not None, first_offset=first_offset
        )
        self._active[partition] = restore
        self._wanted.put(restore)

    def cancel(self, partition: TopicPartition) -> None:
        """End a restore; none of its changes comes any more."""
        if (restore := self._active.pop(partition, None)) is not None:
            restore.cancelled = True

    def cancel_all(self) -> None:
        """End every restore."""
        for partition in tuple(self._active):
            self.cancel(partition)

    def take(self) -> list[Change]:
        """What was read since the last call.

        Raises:
            LogUnavailableError: if a restore waits for the broker or for rights; fatal, if there is a bug in it.
        """
        if not self._failed.empty():
            raise self._failed.get()
        changes: list[Change] = []
        for _ in range(_CHUNKS_AHEAD):
            try:
                restore, item = self._output.get_nowait()
            except queue.Empty:
                break
            if self._active.get(restore.partition) is not restore:
                continue
            changes.append(item)
            if not isinstance(item, StateRead):
                del self._active[restore.partition]
        return changes

    def close(self, deadline_s: float) -> None:
        """End everything."""
        self.cancel_all()
        self._closed.set()
        self._wanted.put(None)
        self._found.put(None)
        self._fencer.close()
        end = time.monotonic() + deadline_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                _logger.warning("%s did not end within %.1f s; it ends with the process", thread.name, deadline_s)

    def _run(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a thread that ends in silence would leave partitions standing for ever
            _logger.exception("%s ended", name)
            failure = LogUnavailableError(f"{name} ended: {error}. Restart this instance.", fatal=True)
            failure.__cause__ = error
            self._failed.put(failure)

    # The finder: committed offset, then the mark.

    def _find_all(self) -> None:
        consumer = make_consumer(offset_reader_properties(self._properties, self._group))
        waiting: deque[_Restore] = deque()
        while not self._closed.is_set():
            try:  # new ones first: each waiting one may take the whole timeout again
                restore = self._wanted.get(block=not waiting)
            except queue.Empty:
                restore = waiting.popleft()
            if restore is not None and not restore.cancelled and not self._find(consumer, restore):
                waiting.append(restore)
        consumer.close()

    def _find(self, consumer: Consumer, restore: _Restore) -> bool:
        """Find where to begin; False if the answer is not there yet."""
        try:
            answer = consumer.committed([client_partition(restore.partition)], _COMMITTED_TIMEOUT_S)[0]
            if answer.error is not None:
                raise KafkaException(answer.error)
            failpoint("orchestrator.in-restore")
            restore.committed = answer.offset if answer.offset >= 0 else None
            both = [restore.partition] if restore.state is None else [restore.partition, restore.state]
            ends = self._offsets.ends(both, timeout_s=_OFFSETS_TIMEOUT_S)
            starts = self._offsets.starts(both, timeout_s=_OFFSETS_TIMEOUT_S)
            begun_before = restore.state is None and restore.committed is None and self._offsets_are_gone(consumer)
        except KafkaException as exception:
            error = error_of(exception)
            self._complain(restore, f"its committed offset is not known yet: {error.str()}")
            if error.code() in AUTHORIZATION:
                return self._refused(LogUnavailableError(f"{error.str()}. {GRANT}"))
            self._look_after(restore)
            return False
        except LogUnavailableError as unavailable:
            self._complain(restore, str(unavailable))
            return self._refused(unavailable)
        if begun_before:
            self._complain(restore, _OFFSETS_GONE)
            self._closed.wait(_RETRY_S)
            return False
        restore.log_start = starts[restore.partition]
        if _is_lost(restore, log_end=ends[restore.partition]):
            self._hand_over(restore, _offset_lost(restore))
            return True
        restore.next_offset = next(
            one for one in (restore.committed, restore.first_offset, restore.log_start) if one is not None
        )
        if restore.state is None or not restore.read_state or starts[restore.state] >= ends[restore.state]:
            self._hand_over(restore, Restored(partition=restore.partition, next_offset=restore.next_offset))
            return True
        restore.mark, restore.position = ends[restore.state], starts[restore.state]
        restore.progressed_at = time.monotonic()
        self._found.put(restore)
        return True

    def _offsets_are_gone(self, consumer: Consumer) -> bool:
        """Whether the group has no offset in any partition that has state: it has consumed, and that is forgotten.

        A partition without state (of a trigger topic) looks like a new one then, and would be read anew from its
        beginning. A first cycle that is still under way looks the same: its partition has an offset soon.
        """
        for topic, state_topic in self._state_topics.items():
            found = consumer.list_topics(topic, _METADATA_TIMEOUT_S).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            count = len(found.partitions)
            states = [TopicPartition(state_topic, number) for number in range(count)]
            starts, ends = self._offsets.starts(states), self._offsets.ends(states)
            asked = [
                client_partition(TopicPartition(topic, one.partition)) for one in states if starts[one] < ends[one]
            ]
            answers = consumer.committed(asked, _COMMITTED_TIMEOUT_S) if asked else []
            if refused := [one.error for one in answers if one.error is not None]:
                raise KafkaException(refused[0])
            if answers and all(one.offset < 0 for one in answers):
                return True
        return False

    def _refused(self, error: LogUnavailableError) -> bool:
        """Have the loop told, and let some time pass; False: it is not found yet."""
        if self._failed.empty():
            self._failed.put(error)
        self._closed.wait(_RETRY_S)
        return False

    def _complain(self, restore: _Restore, reason: str) -> None:
        """Log why a restore does not begin: each reason once in a row, however often it is tried."""
        if reason != restore.complaint:
            restore.complaint = reason
            _logger.warning("restoring %s[%d]: %s", restore.partition.topic, restore.partition.partition, reason)

    def _look_after(self, restore: _Restore) -> None:
        """See to a restore that stands still: it may wait for an open transaction, or only for its turn."""
        if time.monotonic() - restore.progressed_at >= _STALLED_AFTER_S:
            restore.progressed_at = time.monotonic()
            if restore.state is not None:
                self._fencer.request(restore.state)
                self._mark_anew(restore, restore.state)

    def _mark_anew(self, restore: _Restore, state: TopicPartition) -> None:
        """A later mark is as right, and a log that was cut off at an unclean election no longer has the first one."""
        try:
            mark = self._offsets.ends([state], timeout_s=_MARK_TIMEOUT_S)[state]
        except LogUnavailableError as unavailable:
            return self._complain(restore, str(unavailable))
        if mark < restore.mark:
            _logger.warning("the end of %s[%d] went back from %d to %d", *state, restore.mark, mark)
            restore.mark = mark
        return None

    # The reader: committed state up to the mark.

    def _read_all(self) -> None:
        consumer = make_consumer(
            self._properties.consumer(
                defaults=_STATE_READER,
                fixed={
                    "group.id": self._group,  # the client wants one; it is never joined
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "isolation.level": "read_committed",
                },
            )
        )
        for topic in set(self._state_topics.values()):
            self._learn(consumer, topic)
        reading: dict[TopicPartition, _Restore] = {}
        while not self._closed.is_set():
            self._accept(consumer, reading)
            if not reading:
                continue
            if (first := consumer.poll(_POLL_S)) is not None:
                messages = consumer.consume(_CHUNK_RECORDS - 1, 0)
                messages.insert(0, first)
                self._hand_over_chunks(reading, messages)
            self._finish(consumer, reading)
        consumer.close()

    def _accept(self, consumer: Consumer, reading: dict[TopicPartition, _Restore]) -> None:
        """Begin what the finder has found, and drop what was cancelled; with nothing to read, wait for something."""
        for state in [state for state, restore in reading.items() if restore.cancelled]:
            self._drop(consumer, reading, state)
        while True:
            try:
                restore = self._found.get(block=not reading)
            except queue.Empty:
                return
            if restore is None:
                return
            if restore.cancelled or restore.state is None:
                continue
            if restore.state in reading:
                self._drop(consumer, reading, restore.state)
            if not reading:
                # The client takes up to a second to begin with a topic that it has never heard of.
                self._learn(consumer, restore.state.topic)
            consumer.incremental_assign([client_partition(restore.state, restore.position)])
            reading[restore.state] = restore

    def _learn(self, consumer: Consumer, topic: str) -> None:
        try:
            consumer.list_topics(topic, _METADATA_TIMEOUT_S)
        except KafkaException as exception:  # it will learn by itself
            _logger.warning("asking for %s: %s", topic, error_of(exception).str())

    def _drop(self, consumer: Consumer, reading: dict[TopicPartition, _Restore], state: TopicPartition) -> None:
        del reading[state]
        consumer.incremental_unassign([client_partition(state)])

    def _hand_over_chunks(self, reading: Mapping[TopicPartition, _Restore], messages: Sequence[Message]) -> None:
        chunks: defaultdict[tuple[str | None, int | None], list[StateRecord]] = defaultdict(list)
        new = tuple.__new__  # see `to_records`; this runs for every saga in flight
        only = next(iter(reading)) if len(reading) == 1 else None
        for message in messages:
            if (error := message.error()) is not None:
                self._report(error)
                continue
            chunks[only or (message.topic(), message.partition())].append(
                new(StateRecord, (message.key(), message.value(), message.headers() or ()))
            )
        for (topic, partition), chunk in chunks.items():
            restore = None if topic is None or partition is None else reading.get(TopicPartition(topic, partition))
            if restore is None:
                continue
            if restore.committed is None:  # state without an offset: what was committed once is gone
                self._hand_over(restore, _offset_lost(restore))
                restore.cancelled = True
            else:
                self._hand_over(restore, StateRead(partition=restore.partition, records=chunk))

    def _report(self, error: KafkaError) -> None:
        _logger.warning("reading the state: %s", error.str())
        if error.code() in AUTHORIZATION and self._failed.empty():
            self._failed.put(LogUnavailableError(f"{error.str()}. {GRANT}"))

    def _finish(self, consumer: Consumer, reading: dict[TopicPartition, _Restore]) -> None:
        """Hand over the end of those that have reached their mark, and look after those that stand still."""
        asked = [client_partition(state) for state in reading]
        for position in consumer.position(asked):
            state = TopicPartition(position.topic, position.partition)
            restore = reading[state]
            if position.offset > restore.position:
                restore.position, restore.progressed_at = position.offset, time.monotonic()
            if restore.position >= restore.mark:
                self._drop(consumer, reading, state)
                self._hand_over(restore, Restored(partition=restore.partition, next_offset=restore.next_offset))
            else:
                self._look_after(restore)

    def _hand_over(self, restore: _Restore, change: Change) -> None:
        while not (restore.cancelled or self._closed.is_set()):
            try:
                return self._output.put((restore, change), timeout=0.1)
            except queue.Full:
                continue


def _is_lost(restore: _Restore, *, log_end: int) -> bool:
    """Whether records of the partition were lost, as far as offsets tell; the state's testimony comes with reading it.

    A committed offset must lie within the log. Without one, the partition was never consumed, and then the log must
    still have what it is to begin with; a log whose start has moved although nothing was committed has a past all the
    same if state belongs to it (its records are deleted only below the committed offset).
    """
    if restore.committed is not None:
        return not restore.log_start <= restore.committed <= log_end
    if restore.first_offset is not None:
        return restore.first_offset < restore.log_start
    return restore.state is not None and restore.log_start > 0


def _offset_lost(restore: _Restore) -> OffsetLost:
    return OffsetLost(partition=restore.partition, committed=restore.committed, log_start=restore.log_start)
