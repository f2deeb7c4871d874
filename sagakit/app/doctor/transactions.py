"""Checks of the promises on which exactly-once rests, each provoked on the broker."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from sagakit.adapters.kafka_records import error_of
from sagakit.app.doctor.findings import Finding, fail, ok, warn
from sagakit.app.doctor.probe import TIMEOUT_S, Probe

_REMEDY: Final = "Do not run sagakit on this broker: use Apache Kafka 3.7 or newer, or one that passes."

_FENCED: Final = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID})

_HANGING_TIMEOUT_MS: Final = 1_000
_HANGING_LIMIT_S: Final = 30.0
_HANGING_SLOW_S: Final = 15.0


def hides_aborted_records(probe: Probe) -> Finding:
    """A read-committed consumer must never see a record of an aborted transaction."""
    check = "hides aborted records"
    topic = probe.topic("aborted")
    producer = probe.transactional("aborted")
    _produce(producer, topic, b"aborted")
    producer.abort_transaction(TIMEOUT_S)
    _produce(producer, topic, b"committed")
    producer.commit_transaction(TIMEOUT_S)
    producer.close()
    seen = _read(probe, topic)
    if seen == [b"committed"]:
        return ok(check, "an aborted record is invisible to a read-committed consumer")
    return fail(check, f"a read-committed consumer saw {[value.decode() for value in seen]}", _REMEDY)


def fences_a_stale_generation(probe: Probe) -> Finding:
    """Offsets sent by a member whose group has moved on must be refused, or two instances run the same saga."""
    check = "fences a stale generation"
    topic, group = probe.topic("generation", partitions=2), probe.group("generation")
    first = probe.consumer(group)
    second = probe.consumer(group)
    producer = probe.transactional("generation")
    try:
        first.subscribe([topic])
        _poll_until([first], lambda: len(first.assignment()) == 2)
        stale = first.consumer_group_metadata()
        second.subscribe([topic])
        _poll_until([first, second], lambda: len(first.assignment()) == len(second.assignment()) == 1)
        _produce(producer, topic, b"zombie")
        producer.send_offsets_to_transaction([KafkaPartition(topic, 0, 1)], stale, TIMEOUT_S)
        producer.commit_transaction(TIMEOUT_S)
    except KafkaException as exception:
        if error_of(exception).code() not in _FENCED:
            raise
        producer.abort_transaction(TIMEOUT_S)
        return ok(
            check, f"offsets of a member that the group has left behind are refused ({error_of(exception).name()})"
        )
    finally:
        for client in (first, second, producer):
            client.close()
    return fail(check, "offsets of a member that the group has left behind were committed", _REMEDY)


def waits_on_pending_offsets(probe: Probe) -> Finding:
    """Offsets that a transaction is about to change must not be given out, or a new owner starts from the old ones."""
    check = "waits on pending offsets"
    topic, group = probe.topic("pending"), probe.group("pending")
    member, asking = probe.consumer(group), probe.consumer(group)
    producer = probe.transactional("pending")
    try:
        member.subscribe([topic])
        _poll_until([member], lambda: len(member.assignment()) == 1)
        _produce(producer, topic, b"record")
        producer.send_offsets_to_transaction([KafkaPartition(topic, 0, 1)], member.consumer_group_metadata(), TIMEOUT_S)
        early = _committed(asking, topic, 1.0)
        producer.commit_transaction(TIMEOUT_S)
        late = _committed(asking, topic, TIMEOUT_S)
    finally:
        for client in (member, asking, producer):
            client.close()
    if early is not None:
        return fail(check, f"the broker answered {early} while a transaction was about to commit offset 1", _REMEDY)
    if late != 1:
        return fail(check, f"the committed offset is {late} after a transaction committed offset 1", _REMEDY)
    return ok(check, "an offset that a transaction is about to change is not given out before it ends")


def ends_hanging_transactions(probe: Probe) -> Finding:
    """A transaction whose producer died must end by its timeout, or its readers stand still for ever."""
    check = "ends hanging transactions"
    topic = probe.topic("hanging")
    producer = probe.transactional("hanging", timeout_ms=_HANGING_TIMEOUT_MS)
    _produce(producer, topic, b"left behind")
    began = time.monotonic()

    def ended() -> bool:
        stable, high = probe.ends(topic)
        return stable == high

    try:
        probe.wait(ended, "the end of a hanging transaction", _HANGING_LIMIT_S)
    except TimeoutError:
        return fail(
            check,
            f"a transaction with a timeout of {_HANGING_TIMEOUT_MS} ms was still open after {_HANGING_LIMIT_S:.0f} s",
            _REMEDY,
        )
    finally:
        # Its transaction is gone, so ending it fails: that is what was asked for.
        with contextlib.suppress(KafkaException):
            producer.close()
    took_s = time.monotonic() - began
    found = f"a transaction with a timeout of {_HANGING_TIMEOUT_MS / 1_000:.0f} s was ended after {took_s:.1f} s"
    if took_s > _HANGING_SLOW_S:
        return warn(
            check, found, "Set transaction.abort.timed.out.transaction.cleanup.interval.ms=1000 on the brokers."
        )
    return ok(check, found)


def _produce(producer: Producer, topic: str, value: bytes) -> None:
    """Begin a transaction with one record in it that has reached the broker."""
    producer.begin_transaction()
    producer.produce(topic, value, partition=0)
    producer.flush(TIMEOUT_S)


def _read(probe: Probe, topic: str) -> list[bytes]:
    """What a read-committed consumer sees of partition 0, up to its end."""
    consumer = probe.consumer(f"{probe.prefix}.reader")  # never joined, so there is nothing to remove
    _, high = probe.ends(topic)
    consumer.assign([KafkaPartition(topic, 0, 0)])
    seen: list[bytes] = []
    deadline = time.monotonic() + TIMEOUT_S
    while consumer.position([KafkaPartition(topic, 0)])[0].offset < high:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic} was not read to its end within {TIMEOUT_S:.0f} s")
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            seen.append(message.value() or b"")
    consumer.close()
    return seen


def _committed(consumer: Consumer, topic: str, timeout_s: float) -> int | None:
    """The committed offset of partition 0; None if the broker does not give one out in time."""
    try:
        found = consumer.committed([KafkaPartition(topic, 0)], timeout=timeout_s)[0]
    except KafkaException as exception:
        if error_of(exception).code() in (KafkaError._TIMED_OUT, KafkaError.UNSTABLE_OFFSET_COMMIT):
            return None
        raise
    return found.offset


def _poll_until(consumers: list[Consumer], condition: Callable[[], bool]) -> None:
    """Let the consumers join, in turns: one that polls in another thread would hold up every question asked of it."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the members of a group had no partitions within {TIMEOUT_S:.0f} s")
        for consumer in consumers:
            consumer.poll(0.05)
