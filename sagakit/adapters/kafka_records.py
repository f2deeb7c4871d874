"""Between the client's messages, partitions and errors and those of the port."""

from collections.abc import Iterable, Sequence
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from sagakit.ports.log import Record, TopicPartition

TRANSACTIONAL_ID_HEADER: Final = "sagakit_transactional_id"
"""Header of a transaction's first state record in a partition: the producer's id, so that others can fence it."""


AUTHORIZATION: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
"""Rights are missing: they may be granted (again) while this process runs, and then what was refused works."""

GRANT: Final = "Grant the rights that `sagakit doctor --acls` prints."


def to_records(messages: Iterable[Message], errors: list[Message]) -> list[Record]:
    """The messages as records, in order; those that stand for an error go to `errors` instead."""
    records: list[Record] = []
    append = records.append
    new = tuple.__new__  # half the cost of the named tuple's own constructor; this line runs for every record read
    for message in messages:
        if message.error() is not None:
            errors.append(message)
            continue
        append(
            new(
                Record,
                (
                    message.topic(),
                    message.partition(),
                    message.offset(),
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    message.headers() or (),
                ),
            )
        )
    return records


def client_partition(
    partition: TopicPartition, offset: int = confluent_kafka.OFFSET_INVALID
) -> confluent_kafka.TopicPartition:
    """The client's form of a partition."""
    return confluent_kafka.TopicPartition(partition.topic, partition.partition, offset)


def port_partitions(partitions: Sequence[confluent_kafka.TopicPartition]) -> list[TopicPartition]:
    """The port's form of the client's partitions."""
    return [TopicPartition(one.topic, one.partition) for one in partitions]


def error_of(exception: KafkaException) -> KafkaError:
    """The client's error inside its exception."""
    error: KafkaError = exception.args[0]
    return error
