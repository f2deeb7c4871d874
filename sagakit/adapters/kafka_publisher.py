"""Writing records in one transaction, fenced by a fixed transactional id: the last publisher wins, none interleave."""

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self, cast

from confluent_kafka import KafkaError, KafkaException

from sagakit.adapters.client_properties import ClientProperties, make_producer
from sagakit.adapters.kafka_records import error_of
from sagakit.ports.log import LogUnavailableError, Outgoing
from sagakit.ports.sending import RefusedError

_logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 30.0


class KafkaPublisher:
    """A transactional producer for a few records: `with KafkaPublisher(...) as publisher: publisher.write([...])`.

    Entering fences every other publisher with the same id and ends what it left open, so what is read afterwards is
    all there is; a publisher that came later makes `write` fail and nothing of it is written.
    """

    def __init__(self, properties: ClientProperties, transactional_id: str) -> None:
        self._transactional_id = transactional_id
        self._producer = make_producer(
            properties.producer(
                defaults={
                    "transaction.timeout.ms": 10_000,
                    "message.timeout.ms": 9_000,
                    "topic.metadata.propagation.max.ms": 4_000,
                    "linger.ms": 0,
                },
                fixed={
                    "transactional.id": transactional_id,
                    "enable.idempotence": True,
                    "acks": "all",
                    "partitioner": "murmur2_random",
                },
            )
            | cast(dict[str, Any], {"logger": _logger})
        )

    def __enter__(self) -> Self:
        """Take the transactional id over.

        Raises:
            LogUnavailableError: the broker does not answer, or refuses the id.
        """
        try:
            self._producer.init_transactions(_TIMEOUT_S)
        except KafkaException as exception:
            error = error_of(exception)
            raise LogUnavailableError(
                f"the broker does not give the transactional id {self._transactional_id}: {error.str()}",
                fatal=not error.retriable(),
            ) from exception
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._producer.close()

    def write(self, records: Sequence[Outgoing]) -> None:
        """Write the records, all or none; they are durable and visible when this returns.

        Raises:
            RefusedError: the broker refuses them, or another publisher took over; nothing was written.
            LogUnavailableError: the broker did not answer, so it is unknown whether they were written.
        """
        self._stage(records)
        try:
            self._producer.commit_transaction(_TIMEOUT_S)
        except KafkaException as exception:
            error = error_of(exception)
            if error.txn_requires_abort():
                self._producer.abort_transaction(_TIMEOUT_S)
                raise RefusedError(f"nothing was written: {error.str()}") from exception
            if error.code() == KafkaError._FENCED:
                raise self._taken_over(error) from exception
            raise LogUnavailableError(f"whether it was written is unknown: {error.str()}") from exception

    def _stage(self, records: Sequence[Outgoing]) -> None:
        # A failed `produce` does not fail the transaction: without the abort, a commit would leave the record out.
        try:
            self._producer.begin_transaction()
            for record in records:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    -1 if record.partition is None else record.partition,
                    headers=list(record.headers),
                )
        except KafkaException as exception:
            error = error_of(exception)
            if error.fatal():
                raise self._taken_over(error) from exception
            self._producer.abort_transaction(_TIMEOUT_S)
            raise RefusedError(f"nothing was written: {error.str()}") from exception

    def _taken_over(self, error: KafkaError) -> RefusedError:
        return RefusedError(
            f"nothing was written: another publisher with the id {self._transactional_id} took over ({error.str()}); "
            "look at what is published, then try again"
        )
