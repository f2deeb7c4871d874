"""`Messages` over confluent-kafka: what a participant reads and sends on a real Kafka, and on the mock of the demo.

Where a partition begins is never left to `auto.offset.reset`. It is found out when it is assigned (`kafka_starts`), and
assigned there and nowhere else (a placeholder and a later `seek` lose the race against the client's own first fetch or
offset query now and then). A partition of which that is not known yet begins later, and holds up no other.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from sagakit.adapters.client_properties import ClientProperties, Property, make_consumer, make_producer
from sagakit.adapters.kafka_records import AUTHORIZATION, GRANT
from sagakit.adapters.kafka_starts import Start, committed_offset, find_starts, log_range
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
_ANSWER_S: Final = 1.0
"""How long polling waits for what only some partitions need, while the others wait with them."""
_PLACE_PAUSE_S: Final = 0.1
_LONGEST_PLACE_PAUSE_S: Final = 2.0
_UNPLACED_FOR_S: Final = 5.0
"""How long a partition may wait for its beginning before that is told as a failure."""
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
        self._unplaced_since = self._place_at = 0.0
        self._place_pause_s = _PLACE_PAUSE_S
        self._muted: set[TopicPartition] = set()  # paused in the client, whose pause outlasts the assignment
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
        self._serve_producer()
        if self._renew_at is not None and time.monotonic() >= self._renew_at:
            self._renew_producer()
        if self._unplaced and time.monotonic() >= self._place_at:
            self._place(_ANSWER_S)
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure
        if limit > 0 and self._held:
            records, self._held = self._held, []
            return records
        message = self._consumer.poll(timeout_s)
        if message is None:
            self._serve_producer()
            return ()
        messages = [message]
        if limit > 1:
            messages += self._consumer.consume(limit - 1, 0)
        records = [record for one in messages if (record := self._record(one)) is not None]
        self._serve_producer()
        if limit == 0:  # a partition that has just begun: the caller will have paused it by the next call
            self._held += records
            return ()
        return records

    def _serve_producer(self, flush_s: float = 0) -> None:
        """Take delivery reports. A fatal error may come out of the call itself, instead of by its call-back."""
        try:
            if flush_s > 0:
                self._producer.flush(flush_s)
            else:
                self._producer.poll(0)
        except KafkaException as fatal:
            self._on_producer_error(fatal.args[0])

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
        self._serve_producer(timeout_s)

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        *,
        wait: bool,
        begun_below: Mapping[TopicPartition, int] | None = None,
    ) -> bool:
        """See `Messages.commit`."""
        begun = begun_below or {}
        positions = [committed_offset(one, offset, begun.get(one)) for one, offset in offsets.items()]
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
            self._mute(leaving)
        if returning := self._paused - wanted:
            self._unmute(returning)
        self._paused = wanted

    def positions(self) -> Mapping[TopicPartition, int]:
        """See `Messages.positions`."""
        held = {TopicPartition(record.topic, record.partition) for record in self._held}
        asked = [KafkaPartition(*one) for one in self._owned - held]
        return {
            TopicPartition(position.topic, position.partition): position.offset
            for position in (self._consumer.position(asked) if asked else ())
            if position.error is None and position.offset >= 0
        }

    def _mute(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.pause([KafkaPartition(*one) for one in partitions])
        self._muted.update(partitions)

    def _unmute(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.resume([KafkaPartition(*one) for one in partitions])
        self._muted.difference_update(partitions)

    def close(self) -> None:
        """See `Messages.close`."""
        self._consumer.close()
        self._serve_producer(_REQUEST_TIMEOUT_S)
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
                found, _ = log_range(self._consumer, partition, _ANSWER_S)
                self._stand_still(partition, message.offset(), None if found is None else found[0])
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
        with suppress(KafkaException):  # the fatal error again, for which it is replaced
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
        if not self._unplaced:
            self._unplaced_since = time.monotonic()
        self._unplaced |= {TopicPartition(one.topic, one.partition) for one in partitions}
        self._place_pause_s = _PLACE_PAUSE_S
        self._place(_REQUEST_TIMEOUT_S)

    def _place(self, timeout_s: float) -> None:
        """Let assigned partitions begin where they must; those without an answer later."""
        asked_at = time.monotonic()
        starts, failure = find_starts(self._consumer, sorted(self._unplaced), timeout_s)
        self._unplaced -= starts.keys()
        if starts:
            self._begin(starts)
        if self._unplaced:
            now = time.monotonic()
            self._place_at = now + max(self._place_pause_s, 2 * (now - asked_at))
            self._place_pause_s = min(2 * self._place_pause_s, _LONGEST_PLACE_PAUSE_S)
            if failure is not None:
                self._tell_unplaced(failure, now)

    def _begin(self, starts: Mapping[TopicPartition, Start]) -> None:
        self._consumer.incremental_assign(
            [KafkaPartition(one.topic, one.partition, start.assigned) for one, start in starts.items()]
        )
        self._owned.update(starts)
        if muted := self._muted & starts.keys():  # in an earlier assignment
            self._unmute(muted)
        for partition, start in starts.items():
            if start.next_offset is None:
                self._stand_still(partition, start.committed, start.log_start)
            else:
                self._listener.on_assigned({partition: start.next_offset}, {partition: start.begun_below})

    def _tell_unplaced(self, failure: KafkaError, now: float) -> None:
        """Right after a rebalance it is usual that the group's coordinator does not answer for a moment."""
        refused = failure.code() in _MISSING_RIGHTS
        if refused or now - self._unplaced_since > _UNPLACED_FOR_S:
            message = f"where {_text(self._unplaced)} begin could not be found out yet: {failure.str()}"
            self._fail(MessagesUnavailableError(f"{message}. {GRANT}" if refused else message))

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

    def _stand_still(self, partition: TopicPartition, committed: int | None, log_start: int | None) -> None:
        self._mute([partition])
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


def _text(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(f"{topic}[{number}]" for topic, number in sorted(partitions))
