"""`Sender` over a plain idempotent producer: no transaction, each record confirmed by its delivery report."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from sagakit.adapters.client_properties import ClientProperties, make_producer
from sagakit.adapters.kafka_records import error_of
from sagakit.ports.log import Outgoing
from sagakit.ports.sending import Placed, RefusedError, SendTimeoutError

_logger = logging.getLogger(__name__)

_UNCONFIRMED: Final = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT})


class PlainProducer(Protocol):
    """What a sender needs of a producer; the client's own has it, and so has an instrumented one."""

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        *,
        headers: list[tuple[str, str | bytes | None]],
        on_delivery: Callable[..., None] | None = None,
    ) -> None:
        """Send without waiting."""
        ...

    def poll(self, timeout: float = -1) -> int:
        """Serve delivery reports."""
        ...

    def flush(self, timeout: float = -1) -> int:
        """Wait for delivery."""
        ...


class KafkaSender:
    """Sends and waits. One instance may be shared by threads.

    Raises:
        ClientPropertyError: if a client property is refused.
    """

    def __init__(
        self,
        properties: ClientProperties,
        *,
        timeout_s: float = 30.0,
        instrument: Callable[[Producer], PlainProducer] | None = None,
    ) -> None:
        """`timeout_s` bounds the delivery of each record; `instrument` puts tracing around the producer."""
        self._timeout_s = timeout_s
        producer = make_producer(
            properties.producer(
                defaults={
                    "linger.ms": 0,
                    "compression.type": "lz4",
                    "topic.metadata.propagation.max.ms": 4_000,
                    "message.timeout.ms": int(timeout_s * 1_000),
                },
                fixed={"enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random"},
            )
            | cast(dict[str, Any], {"logger": _logger})
        )
        self._owned = producer
        self._producer = cast(PlainProducer, producer) if instrument is None else instrument(producer)

    def send(self, records: Sequence[Outgoing]) -> Sequence[Placed]:
        """See `Sender.send`."""
        placed: list[Placed | None] = [None] * len(records)
        failed: list[tuple[Outgoing, KafkaError]] = []

        def delivered(index: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append((records[index], error))
            else:
                placed[index] = Placed(records[index].topic, message.partition() or 0, message.offset() or 0)

        for index, record in enumerate(records):
            self._produce(record, partial(delivered, index))
        try:
            self._producer.flush(self._timeout_s + 1)
        except SystemError as error:  # how the client reports a Ctrl-C that came within one of its call-backs
            raise KeyboardInterrupt from error
        except KafkaException as fatal:
            raise _error(records[0], error_of(fatal)) from fatal
        if failed:
            raise _error(*failed[0])
        if None in placed:
            raise SendTimeoutError(f"{placed.count(None)} records were not confirmed within {self._timeout_s} s")
        return [one for one in placed if one is not None]

    def close(self) -> None:
        """See `Sender.close`."""
        self._owned.flush(self._timeout_s)
        self._owned.close()

    def _produce(self, record: Outgoing, delivered: Callable[..., None]) -> None:
        partition = -1 if record.partition is None else record.partition
        headers: list[tuple[str, str | bytes | None]] = list(record.headers)
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, partition, headers=headers, on_delivery=delivered
                )
            except BufferError:  # the local queue is full: delivery reports make room, and none may take for ever
                self._producer.poll(1)
            except KafkaException as exception:
                raise _error(record, error_of(exception)) from exception
            else:
                return


def _error(record: Outgoing, error: KafkaError) -> RefusedError | SendTimeoutError:
    if error.code() in _UNCONFIRMED:
        return SendTimeoutError(f"a record for {record.topic} was not confirmed: {error.str()}")
    return RefusedError(f"a record for {record.topic} is refused: {error.str()}")
