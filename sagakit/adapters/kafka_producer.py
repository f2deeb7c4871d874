"""One transaction per cycle: what is written, the offsets, and what each kind of error means for the outcome.

Errors are read by their flags alone: fatal (this producer is finished and the outcome unknown), abortable, and
retriable (repeat the call). No flag counts as fatal (librdkafka, INTRODUCTION.md, "Transactional producer API").
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from sagakit.adapters.bounded_calls import BoundedCalls, CallOverdueError
from sagakit.adapters.client_properties import ClientProperties, Property, make_producer
from sagakit.adapters.kafka_records import AUTHORIZATION, TRANSACTIONAL_ID_HEADER, error_of
from sagakit.failpoints import failpoint, is_armed
from sagakit.ports.log import Aborted, Committed, LogUnavailableError, Outcome, Outgoing, Unknown

_logger = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS: Final = 10_000
"""A dead producer's transaction stalls its readers at most this long. Nothing slow runs while one is open."""

_DEFAULTS: Final[dict[str, Property]] = {
    "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
    # Below the transaction's own: a record that cannot be delivered makes the transaction abort, not time out (fatal).
    "message.timeout.ms": 9_000,
    # The same for a topic that is not there: 30 s by default.
    "topic.metadata.propagation.max.ms": 4_000,
    # How soon a call is repeated that came while the marks of the last transaction were still being written: 100 ms by
    # default, which under load was most of what a commit took. It doubles, up to a second, while a broker is away.
    "retry.backoff.ms": 5,
    # A cycle is one burst; it fills batches by itself and an idle cycle waits for nothing.
    "linger.ms": 0,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 1_048_576,
}

_QUEUE_FULL_WAIT_S: Final = 1.0
_GIVE_UP_S: Final = 60.0
_INIT_TIMEOUT_S: Final = 10.0
_SEND_OFFSETS_TIMEOUT_S: Final = 5.0
# After a broker was away the client may wait for ever for a coordinator that it took down itself, whatever its timeout
# (https://github.com/confluentinc/librdkafka/issues/5511 and /5456). Another producer finds the coordinator at once.
_SEND_OFFSETS_OVERDUE_S: Final = 6.0
_FENCES_MAX: Final = 3
_OPEN: Final = "orchestrator.transaction-open"
_OPENING_S: Final = 5.0
_IN_COMMIT: Final = "orchestrator.in-commit"
_AT_ONCE_S: Final = 0.0005
_FENCES_WINDOW_S: Final = 30.0

_REFUSED: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""Delivery errors that lie in the record or its topic: trying it again would fail again."""


class _CycleFailedError(Exception):
    """Staging failed before the commit; the transaction is to be aborted."""

    def __init__(self, reason: str, culprit: int | None = None) -> None:
        super().__init__(reason)
        self.culprit = culprit


class TransactionalProducer:
    """A producer with one transactional id, made anew after a fatal error.

    Raises:
        LogUnavailableError: if the broker does not answer within 30 s; fatal if it refuses the id.
    """

    def __init__(self, properties: ClientProperties, transactional_id: str, state_topics: frozenset[str]) -> None:
        self._properties = properties.producer(
            defaults=_DEFAULTS,
            fixed={
                "transactional.id": transactional_id,
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "delivery.report.only.error": True,
            },
        )
        self._transactional_id = transactional_id
        self._state_topics = state_topics
        self._id_header = (TRANSACTIONAL_ID_HEADER, transactional_id.encode())
        self._failed: list[Message] = []
        self._fences: list[float] = []
        self._bounded = BoundedCalls("send-offsets")
        self._producer: Producer | None = None
        try:
            if any(self.settle() for _ in range(3)):
                return
        except LogUnavailableError as error:  # at the start nobody has had these rights yet
            raise LogUnavailableError(str(error), fatal=True) from error
        raise LogUnavailableError(
            f"Kafka at {self._properties.get('bootstrap.servers')} did not answer within {3 * _INIT_TIMEOUT_S:.0f} s; "
            "check that it runs and that the address, TLS and SASL properties are right."
        )

    @property
    def settled(self) -> bool:
        """Whether there is a producer, and so no transaction of an earlier one whose outcome is open."""
        return self._producer is not None

    def settle(self) -> bool:
        """Make a producer if there is none, which ends what an earlier one left open; False if the broker is silent.

        Raises:
            LogUnavailableError: if the broker refuses the transactional id: fatal, but for lack of rights.
        """
        if self._producer is not None:
            return True
        producer = make_producer({**self._properties, "on_delivery": self._delivery_failed, "logger": _logger})
        try:
            producer.init_transactions(_INIT_TIMEOUT_S)
        except KafkaException as exception:
            error = error_of(exception)
            if error.retriable():
                _logger.warning("the transactional producer cannot begin yet: %s", error.str())
                return False
            raise LogUnavailableError(
                f"The broker refuses the transactional id {self._transactional_id}: {error.str()}. Check the ACLs of "
                "transactional ids and that no other process uses this id.",
                fatal=error.code() not in AUTHORIZATION,
            ) from exception
        self._producer = producer
        return True

    def write(
        self,
        records: Sequence[Outgoing],
        offsets: list[confluent_kafka.TopicPartition],
        group_metadata: Callable[[], object],
    ) -> Outcome:
        """Write `records` and `offsets` in one transaction."""
        producer = self._producer
        if producer is None:
            return Aborted(reason="the broker has not answered since the last transaction's outcome was lost")
        self._failed.clear()
        began = time.monotonic()
        try:
            try:
                _repeat(producer.begin_transaction)
                self._produce(producer, records)
                if is_armed(_OPEN) and records:
                    _pass_within_transaction(producer)
                _repeat(lambda: self._send_offsets(producer, offsets, group_metadata()))
                failpoint("orchestrator.before-commit")
            except _CycleFailedError as failure:
                return self._abort(producer, records, str(failure), failure.culprit)
            except KafkaException as exception:
                error = error_of(exception)
                if error.fatal() or not (error.txn_requires_abort() or error.retriable()):
                    raise
                return self._abort(producer, records, error.str())
            try:
                if is_armed(_IN_COMMIT):
                    _commit_past_failpoint(producer)
                else:
                    _repeat(producer.commit_transaction)
            except KafkaException as exception:
                if not error_of(exception).txn_requires_abort() or error_of(exception).fatal():
                    raise
                return self._abort(producer, records, error_of(exception).str())
        except KafkaException as exception:
            return self._lost(error_of(exception), time.monotonic() - began)
        except CallOverdueError as overdue:
            return self._begin_anew(str(overdue))
        failpoint("orchestrator.after-commit")
        return Committed()

    def close(self) -> None:
        """Release the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.close()
            except KafkaException as exception:  # fenced meanwhile: there was nothing left to write anyway
                _logger.warning("the producer was closed with an error: %s", error_of(exception).str())

    def _send_offsets(
        self, producer: Producer, offsets: list[confluent_kafka.TopicPartition], group_metadata: object
    ) -> None:
        send = partial(producer.send_offsets_to_transaction, offsets, group_metadata, _SEND_OFFSETS_TIMEOUT_S)
        self._bounded.call(send, "sending offsets to the transaction", _SEND_OFFSETS_OVERDUE_S)

    def _produce(self, producer: Producer, records: Sequence[Outgoing]) -> None:
        produce = producer.produce
        state_topics, id_header = self._state_topics, self._id_header
        # The last stable offset of a partition is the first record that an open transaction wrote there: that one names
        # the producer, and the others stay small (a header costs a restore as much as the rest of the record).
        named: set[tuple[str, int | None]] = set()
        done = 0
        try:
            for topic, partition, key, value, given in records:
                headers: Any = given if type(given) is list else list(given)  # the client takes no other sequence
                if topic in state_topics and (topic, partition) not in named:
                    named.add((topic, partition))
                    headers = [*headers, id_header]
                try:
                    produce(topic, value, key, -1 if partition is None else partition, headers=headers)
                except BufferError:
                    producer.flush(_QUEUE_FULL_WAIT_S)
                    produce(topic, value, key, -1 if partition is None else partition, headers=headers)
                done += 1
        except BufferError as error:
            raise _CycleFailedError(f"the producer's queue stayed full for {_QUEUE_FULL_WAIT_S} s: {error}") from error
        except (KafkaException, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, KafkaException) and error_of(error).fatal():
                raise
            culprit = done if not isinstance(error, KafkaException) or error_of(error).code() in _REFUSED else None
            topic = records[done].topic
            raise _CycleFailedError(f"a record for {topic} cannot be produced: {error}", culprit) from error

    def _abort(
        self, producer: Producer, records: Sequence[Outgoing], reason: str, culprit: int | None = None
    ) -> Outcome:
        _repeat(producer.abort_transaction)
        producer.poll(0)
        if culprit is None and (refused := self._refused()) is not None:
            culprit = _index_of(refused, records)
            error = refused.error()
            reason = f"the broker refuses a record for {refused.topic()}: {error.str() if error else reason}"
        return Aborted(reason=reason, culprit=culprit)

    def _refused(self) -> Message | None:
        """The record that the broker refuses, by the delivery reports; None if there is none.

        A batch that is too large is refused as a whole and all its records are reported: then it is the largest one.
        """
        refused = [one for one in self._failed if (error := one.error()) is not None and error.code() in _REFUSED]
        return max(refused, key=len, default=None)

    def _delivery_failed(self, _error: KafkaError, message: Message) -> None:
        self._failed.append(message)

    def _lost(self, error: KafkaError, lasted_s: float) -> Unknown:
        """After a fatal error: a new producer with the same id, which settles what the old one left.

        Raises:
            LogUnavailableError: fatal, if it was fenced again and again: another process uses the same id.
        """
        now = time.monotonic()
        # A transaction that outlived its timeout ends in the same error as a real fence; only quick ones count.
        if error.code() == KafkaError._FENCED and lasted_s * 1000 < TRANSACTION_TIMEOUT_MS * 0.8:
            self._fences = [at for at in self._fences if now - at < _FENCES_WINDOW_S] + [now]
            if len(self._fences) >= _FENCES_MAX:
                raise LogUnavailableError(
                    f"Fenced {len(self._fences)} times within {_FENCES_WINDOW_S:.0f} s: two instances use the "
                    f"transactional id {self._transactional_id}. Give each instance a name of its own.",
                    fatal=True,
                )
        return self._begin_anew(error.str())

    def _begin_anew(self, reason: str) -> Unknown:
        """Go on with a new producer, which settles what the old one left."""
        _logger.warning("the transaction's outcome is unknown: %s", reason)
        self._producer = None  # dropped, not closed: closing would try to end the transaction
        try:
            self.settle()
        except LogUnavailableError as error:
            if error.fatal:
                raise
            _logger.warning("%s", error)  # and raised again where restores begin, which wait for it
        return Unknown(reason=reason)


def _pass_within_transaction(producer: Producer) -> None:
    """Pass the failpoint once the broker has the records, and so has the transaction open: not while they are queued.

    A transaction that the broker does not take is not open, and the point is not passed.
    """
    if producer.flush(_OPENING_S) == 0:
        failpoint(_OPEN)


def _commit_past_failpoint(producer: Producer) -> None:
    """Commit, and pass the failpoint while that is under way; one that is over at once does not pass it.

    In a thread, and not by a call that times out and is repeated: that can end the process with an assertion of the
    client's (librdkafka 2.16, "Invalid transaction state transition").
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit") as pool:
        committing = pool.submit(_repeat, producer.commit_transaction)
        if not wait([committing], _AT_ONCE_S).done:
            failpoint(_IN_COMMIT)
        committing.result()


def _repeat(call: Callable[[], None]) -> None:
    """Call again as long as the error says that this is right, and gives up after a minute."""
    give_up_at = time.monotonic() + _GIVE_UP_S
    while True:
        try:
            return call()
        except KafkaException as exception:
            error = error_of(exception)
            if error.fatal() or error.txn_requires_abort() or not error.retriable() or time.monotonic() > give_up_at:
                raise
            _logger.warning("a transaction call is repeated: %s", error.str())


def _index_of(message: Message, records: Sequence[Outgoing]) -> int | None:
    wanted = message.topic(), message.key(), message.value()
    for index, record in enumerate(records):
        placed = record.partition is None or record.partition == message.partition()
        if placed and (record.topic, record.key, record.value) == wanted:
            return index
    return None
