"""`Messages` over confluent-kafka: what a participant reads and sends on a real Kafka, and on the mock of the demo.

Where a partition begins is never left to `auto.offset.reset`. When it is assigned, the committed offset is asked for
and compared with the log, and it is assigned there and nowhere else (a placeholder and a later `seek` lose the race
against the client's own first fetch or offset query now and then):

- the group has no offset for any partition of the topic: it is new to the topic, and begins everywhere at its start.
  That is committed for all partitions at once, before any record is delivered, so that "no offset" keeps its meaning;
- a committed offset within the log: from there on;
- none, and the log still has its first record: from there (nothing can have been deleted unhandled);
- anything else means that records were deleted unhandled: the partition stands still and the listener is told.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import stamina
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from sagakit.adapters.client_properties import ClientProperties, Property, make_consumer, make_producer
from sagakit.adapters.kafka_records import AUTHORIZATION, GRANT
from sagakit.ports.log import Outgoing, Record, TopicPartition
from sagakit.ports.messages import (
    AssignmentListener,
    Delivery,
    DeliveryFailure,
    MessagesUnavailableError,
    Undelivered,
)

_logger: Final = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S: Final = 5.0
_PATIENCE_S: Final = 10.0
"""How long a rebalance waits for the answer where partitions begin; without it they begin later, outside."""
_BEGUN_BELOW: Final = "sagakit.begun-below="
"""In a committed offset's metadata, from its last owner to its next: see `Messages.commit`."""

_PLACE_PAUSE_S: Final = 1.0
_RENEW_PAUSE_S: Final = 2.0

_TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_REFUSED: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG,
    }
)
_HOPELESS: Final = frozenset({KafkaError.UNSUPPORTED_ASSIGNOR, KafkaError.INCONSISTENT_GROUP_PROTOCOL})
_MISSING_RIGHTS: Final = AUTHORIZATION | {KafkaError._AUTHENTICATION}


def starting_offset(committed: int | None, log_start: int, log_end: int) -> int | None:
    """Where a partition of a group that is not new begins; None if records were deleted before anyone handled them."""
    if committed is None:
        return 0 if log_start == 0 else None
    return committed if log_start <= committed <= log_end else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Where a partition begins, and why. `next_offset` None means that it must not."""

    committed: int | None
    log_start: int
    next_offset: int | None
    begun_below: int | None

    @property
    def assigned(self) -> int:
        """The offset to assign it at; one that is in range also for a partition that will stand still."""
        return self.log_start if self.next_offset is None else self.next_offset


class KafkaMessages:
    """A consumer and an idempotent, non-transactional producer. See the port for the contract."""

    def __init__(
        self,
        *,
        properties: ClientProperties,
        bootstrap_servers: str,
        group: str,
        topics: Collection[str],
        listener: AssignmentListener,
        client_id: str = "",
    ) -> None:
        """Connect and join `group` for `topics`; records come from the first `poll` on.

        Raises:
            ClientPropertyError: if librdkafka refuses a property.
        """
        self._listener = listener
        self._owned: set[TopicPartition] = set()  # all that is assigned but what stands still
        self._paused: set[TopicPartition] = set()
        self._held: list[Record] = []
        self._unplaced: set[TopicPartition] = set()  # assigned, but where they begin is not known yet
        self._place_at = 0.0
        self._failure: MessagesUnavailableError | None = None
        common: dict[str, Property] = {
            "bootstrap.servers": bootstrap_servers,
            "client.id": client_id or f"sagakit-{group}",
        }
        consumer_defaults: dict[str, Property] = {
            # The local queue is thrown away when a partition is paused: keep little in it, and refill it at once.
            "queued.min.messages": 2_000,
            "fetch.queue.backoff.ms": 10,
        }
        fixed: dict[str, Property] = common | {
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "cooperative-sticky",
        }
        if properties.group_protocol != "classic":
            del fixed["partition.assignment.strategy"]
        self._consumer: Consumer = make_consumer(
            properties.consumer(defaults=consumer_defaults, fixed=fixed)
            | {"on_commit": self._on_commit, "error_cb": self._on_error, "logger": _logger}
        )
        self._producer_properties = properties.producer(
            defaults={"linger.ms": 0, "compression.type": "lz4"},
            fixed=common | {"enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random"},
        )
        self._producer = self._new_producer()
        self._renew_at: float | None = None
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, timeout_s: float, limit: int) -> Sequence[Record]:
        """See `Messages.poll`."""
        self._producer.poll(0)
        if self._renew_at is not None and time.monotonic() >= self._renew_at:
            self._renew_producer()
        if self._unplaced and time.monotonic() >= self._place_at:
            self._place(self._unplaced)
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure
        if limit > 0 and self._held:
            records, self._held = self._held, []
            return records
        message = self._consumer.poll(timeout_s)
        if message is None:
            self._producer.poll(0)
            return ()
        messages = [message]
        if limit > 1:
            messages += self._consumer.consume(limit - 1, 0)
        records = [record for one in messages if (record := self._record(one)) is not None]
        self._producer.poll(0)
        if limit == 0:  # a partition that has just begun: the caller will have paused it by the next call
            self._held += records
            return ()
        return records

    def send(self, record: Outgoing, delivery: Delivery) -> DeliveryFailure | None:
        """See `Messages.send`."""

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            delivery(None if error is None else self._classify(error))

        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                partition=-1 if record.partition is None else record.partition,
                headers=list(record.headers),
                on_delivery=on_delivery,
            )
        except BufferError:
            return DeliveryFailure(kind=Undelivered.LATER, reason="the local queue of the producer is full")
        except KafkaException as failure:
            return self._classify(failure.args[0])
        return None

    def flush(self, timeout_s: float) -> None:
        """See `Messages.flush`."""
        self._producer.flush(timeout_s)

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        *,
        wait: bool,
        begun_below: Mapping[TopicPartition, int] | None = None,
    ) -> bool:
        """See `Messages.commit`."""
        begun = begun_below or {}
        positions = [
            KafkaPartition(*one, offset, f"{_BEGUN_BELOW}{begun[one]}" if one in begun else "")
            for one, offset in offsets.items()
        ]
        try:
            if not wait:
                self._consumer.commit(offsets=positions, asynchronous=True)
                return True
            outcome = self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as failure:
            _logger.warning("offsets %s were not committed: %s", _text(offsets), failure.args[0].str())
            return False
        refused = [position for position in outcome if position.error is not None]
        for position in refused:
            _logger.warning(
                "the offset of %s[%s] was not committed: %s", position.topic, position.partition, position.error
            )
        return not refused

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """See `Messages.pause`."""
        wanted = self._owned.intersection(partitions)
        if wanted == self._paused:
            return
        if leaving := wanted - self._paused:
            self._consumer.pause([KafkaPartition(one.topic, one.partition) for one in leaving])
        if returning := self._paused - wanted:
            self._consumer.resume([KafkaPartition(one.topic, one.partition) for one in returning])
        self._paused = wanted

    def close(self) -> None:
        """See `Messages.close`."""
        self._consumer.close()
        self._producer.flush(_REQUEST_TIMEOUT_S)
        self._producer.close()

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        if error is not None:
            self._on_message_error(error, message)
            return None
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None:  # a message without an error has them: for the types
            return None
        if TopicPartition(topic, partition) not in self._owned:
            return None
        headers = cast(list[tuple[str, bytes | None]] | None, message.headers())
        return Record(
            topic,
            partition,
            offset,
            message.timestamp()[1],
            message.key(),
            message.value(),
            [(name, value or b"") for name, value in headers or ()],
        )

    def _on_message_error(self, error: KafkaError, message: Message) -> None:
        topic, number = message.topic(), message.partition()
        if error.code() == KafkaError._AUTO_OFFSET_RESET and topic is not None and number is not None:
            partition = TopicPartition(topic, number)
            if partition in self._owned:
                self._stand_still(partition, message.offset(), self._log_range(partition)[0])
            return
        self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        """Client-wide errors: librdkafka goes on by itself after all but the fatal ones."""
        if error.fatal() or error.code() in _HOPELESS:
            self._fail(MessagesUnavailableError(f"the Kafka client cannot go on: {error.str()}", fatal=True))
        elif error.code() in _MISSING_RIGHTS:
            self._fail(MessagesUnavailableError(f"{error.str()}. {GRANT}"))
        else:
            _logger.warning("Kafka: %s", error.str())

    def _new_producer(self) -> Producer:
        return make_producer(self._producer_properties | {"error_cb": self._on_producer_error, "logger": _logger})

    def _on_producer_error(self, error: KafkaError) -> None:
        """As `_on_error`; but one that got no producer id for want of rights is finished, and another one is made."""
        if error.fatal() and error.code() in AUTHORIZATION:
            self._renew_at = time.monotonic() + _RENEW_PAUSE_S
            self._fail(MessagesUnavailableError(f"{error.str()}. {GRANT}"))
        else:
            self._on_error(error)

    def _renew_producer(self) -> None:
        """What the old producer still held is told as undelivered, and sent again by the new one."""
        old, self._producer, self._renew_at = self._producer, self._new_producer(), None
        old.purge()
        old.flush(_REQUEST_TIMEOUT_S)

    def _fail(self, failure: MessagesUnavailableError) -> None:
        """Have the next poll say so; what is fatal is not covered up by what is not."""
        if self._failure is None or not self._failure.fatal:
            self._failure = failure

    def _on_commit(self, error: KafkaError | None, positions: Sequence[KafkaPartition]) -> None:
        failed = [position for position in positions if (error or position.error) is not None]
        if failed:
            _logger.warning("offsets were not committed, and will be again: %s", error or failed[0].error)
            self._listener.on_commit_failed([TopicPartition(one.topic, one.partition) for one in failed])

    def _on_assign(self, consumer: Consumer, partitions: Sequence[KafkaPartition]) -> None:
        consumer.incremental_assign([])  # the client's own assignment, which else follows an error here, is not wanted
        self._place({TopicPartition(one.topic, one.partition) for one in partitions})

    def _place(self, assigned: set[TopicPartition]) -> None:
        """Let assigned partitions begin where they must; without an answer, later."""
        try:
            starts = self._patient(assigned)
        except MessagesUnavailableError as failure:
            self._unplaced = self._unplaced | assigned
            self._place_at = time.monotonic() + _PLACE_PAUSE_S
            return self._fail(failure)
        self._unplaced = self._unplaced - assigned
        self._consumer.incremental_assign(
            [KafkaPartition(one.topic, one.partition, start.assigned) for one, start in starts.items()]
        )
        self._owned.update(assigned)
        for partition, start in starts.items():
            if start.next_offset is None:
                self._stand_still(partition, start.committed, start.log_start)
            else:
                begun = {} if start.begun_below is None else {partition: start.begun_below}
                self._listener.on_assigned({partition: start.next_offset}, begun)

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[KafkaPartition]) -> None:
        self._listener.on_revoked(self._leaving(partitions))
        self._forget(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: Sequence[KafkaPartition]) -> None:
        self._listener.on_lost(self._leaving(partitions))
        self._forget(consumer, partitions)

    def _leaving(self, partitions: Sequence[KafkaPartition]) -> set[TopicPartition]:
        return {TopicPartition(one.topic, one.partition) for one in partitions} & self._owned

    def _forget(self, consumer: Consumer, partitions: Sequence[KafkaPartition]) -> None:
        gone = {TopicPartition(one.topic, one.partition) for one in partitions}
        unplaced, self._unplaced = self._unplaced, self._unplaced - gone
        self._owned -= gone
        self._paused -= gone
        self._held = [record for record in self._held if TopicPartition(record.topic, record.partition) not in gone]
        consumer.incremental_unassign(
            [one for one in partitions if TopicPartition(one.topic, one.partition) not in unplaced]
        )

    def _patient(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, "_Start"]:
        """Where partitions begin. What the broker does not answer is asked again for a while.

        Raises:
            MessagesUnavailableError: it went on not answering, or refuses for now.
        """
        retrying = stamina.retry_context(on=_is_transient, attempts=None, timeout=_PATIENCE_S, wait_max=2.0)
        try:
            for attempt in retrying:
                with attempt:
                    return self._starts(partitions)
        except KafkaException as failure:
            reason = failure.args[0].str()
            message = f"where {_text(partitions)} begin could not be found out yet: {reason}"
            raise MessagesUnavailableError(message) from failure
        raise AssertionError("a retry ends with a result or an error")

    def _starts(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, "_Start"]:
        committed = self._committed(partitions)
        for topic in sorted({one.topic for one, position in committed.items() if position.offset < 0}):
            self._begin_topic_if_new(topic)
            committed = self._committed(partitions)
        starts = {}
        for partition, position in committed.items():
            offset = None if position.offset < 0 else position.offset
            log_start, log_end = self._log_range(partition)
            starts[partition] = _Start(
                committed=offset,
                log_start=log_start,
                next_offset=starting_offset(offset, log_start, log_end),
                begun_below=_begun_below(position.metadata),
            )
        self._take_back([one for one in committed.values() if _begun_below(one.metadata) is not None])
        return starts

    def _take_back(self, told: Sequence[KafkaPartition]) -> None:
        """What the last owner has said holds until something is begun here: after that nobody may read it any more."""
        if told:
            self._commit_or_raise([KafkaPartition(one.topic, one.partition, one.offset) for one in told])

    def _commit_or_raise(self, positions: list[KafkaPartition]) -> None:
        for position in self._consumer.commit(offsets=positions, asynchronous=False):
            if position.error is not None:
                raise KafkaException(position.error)

    def _committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, KafkaPartition]:
        asked = [KafkaPartition(one.topic, one.partition) for one in sorted(partitions)]
        positions = {}
        for position in self._consumer.committed(asked, timeout=_REQUEST_TIMEOUT_S) if asked else ():
            if position.error is not None:
                raise KafkaException(position.error)
            positions[TopicPartition(position.topic, position.partition)] = position
        return positions

    def _begin_topic_if_new(self, topic: str) -> None:
        """Commit the log's start for every partition, in one request, if the group has no offset for the topic.

        Where there is no record yet, nobody has begun one either.
        """
        metadata = self._consumer.list_topics(topic, timeout=_REQUEST_TIMEOUT_S).topics[topic]
        partitions = [TopicPartition(topic, number) for number in metadata.partitions]
        if any(position.offset >= 0 for position in self._committed(partitions).values()):
            return
        starts = []
        for partition in partitions:
            start, end = self._log_range(partition)
            starts.append(KafkaPartition(*partition, start, f"{_BEGUN_BELOW}{start}" if start == end else ""))
        self._commit_or_raise(starts)

    def _log_range(self, partition: TopicPartition) -> tuple[int, int]:
        """The first offset of the log and the one after its last stable record."""
        return self._consumer.get_watermark_offsets(
            KafkaPartition(partition.topic, partition.partition), timeout=_REQUEST_TIMEOUT_S
        )

    def _stand_still(self, partition: TopicPartition, committed: int | None, log_start: int) -> None:
        self._consumer.pause([KafkaPartition(partition.topic, partition.partition)])
        self._owned.discard(partition)
        self._paused.discard(partition)
        self._listener.on_offset_lost(partition, committed, log_start)

    def _classify(self, error: KafkaError) -> DeliveryFailure:
        if error.code() in _TOO_LARGE:
            kind = Undelivered.TOO_LARGE
        elif error.code() in _REFUSED:
            kind = Undelivered.REFUSED
        else:
            kind = Undelivered.LATER
        return DeliveryFailure(kind=kind, reason=error.str())


def _begun_below(metadata: str | None) -> int | None:
    """What the last owner has said in the metadata of its offset; None if it is another's, or nothing."""
    number = (metadata or "").removeprefix(_BEGUN_BELOW)
    return int(number) if number != metadata and number.isdecimal() else None


def _is_transient(error: Exception) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() not in _MISSING_RIGHTS


def _text(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(f"{topic}[{number}]" for topic, number in sorted(partitions))
