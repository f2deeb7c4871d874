"""Ending a dead producer's transaction at once instead of waiting for its timeout.

A new producer with the same transactional id makes the broker abort what the old one left open. The id stands in a
header of each state record; the records of the open transaction itself carry it, so they are read uncommitted. A live
producer that is fenced so (its transaction was open for seconds) takes a new epoch and restores: costly, never wrong.
"""

import logging
import queue
import threading
import time
from typing import Final

from confluent_kafka import KafkaException

from sagakit.adapters.client_properties import ClientProperties, make_consumer, make_producer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_records import TRANSACTIONAL_ID_HEADER, client_partition, error_of, to_records
from sagakit.ports.log import LogUnavailableError, TopicPartition

_logger = logging.getLogger(__name__)

_READ_TIMEOUT_S: Final = 5.0
_INIT_TIMEOUT_S: Final = 10.0


class Fencer:
    """Ends the transactions that hold back a state partition: the earliest first, and no other.

    Works in a thread of its own, since fencing takes about a second and nothing else should wait for it.
    """

    def __init__(self, properties: ClientProperties, group: str, own_transactional_id: str, offsets: Offsets) -> None:
        self._properties = properties
        self._group = group
        self._own_id = own_transactional_id
        self._offsets = offsets
        self._requests: queue.SimpleQueue[TopicPartition | None] = queue.SimpleQueue()
        self._requested: set[TopicPartition] = set()
        self._thread: threading.Thread | None = None
        self._in_vain: dict[TopicPartition, int] = {}  # where fencing ended nothing; again, it would hit the living

    def request(self, state: TopicPartition) -> None:
        """Ask for a state partition to be unblocked, if it is blocked; does not wait."""
        if state in self._requested:
            return
        self._requested.add(state)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="restore-fencer", daemon=True)
            self._thread.start()
        self._requests.put(state)

    def close(self) -> None:
        """Take no more requests."""
        self._requests.put(None)

    def _run(self) -> None:
        while (state := self._requests.get()) is not None:
            try:
                self._unblock(state)
            except (KafkaException, LogUnavailableError) as error:
                _logger.warning("the open transaction on %s could not be ended, it is tried again: %s", state, error)
            finally:
                self._requested.discard(state)

    def _unblock(self, state: TopicPartition) -> None:
        fenced: set[str] = set()
        while True:
            stable = self._offsets.stable_ends([state])[state]
            if stable >= self._offsets.ends([state])[state]:
                return
            if self._in_vain.get(state) == stable:
                return
            transactional_id = self._id_at(state, stable)
            if transactional_id is None:
                _logger.warning(
                    "%s[%d] is held back at offset %d by an open transaction of an unknown producer until it times out",
                    state.topic,
                    state.partition,
                    stable,
                )
                return
            if transactional_id == self._own_id:
                return
            if transactional_id in fenced:
                self._in_vain[state] = stable
                _logger.error(
                    "%s[%d] is still held back at offset %d after %s was fenced: if that lasts, the broker has lost "
                    "the mark that ends this transaction; end it with `kafka-transactions.sh abort --topic %s "
                    "--partition %d --start-offset %d`",
                    *state,
                    stable,
                    transactional_id,
                    *state,
                    stable,
                )
                return
            fenced.add(transactional_id)
            self._fence(transactional_id, state)

    def _id_at(self, state: TopicPartition, offset: int) -> str | None:
        """The transactional id in the first record from `offset` on, which belongs to the earliest open transaction."""
        consumer = make_consumer(
            self._properties.consumer(
                defaults={"fetch.wait.max.ms": 100},
                fixed={
                    "group.id": self._group,  # the client wants one that it has rights for; it is never joined
                    "enable.auto.commit": False,
                    "auto.offset.reset": "error",
                    "isolation.level": "read_uncommitted",
                },
            )
        )
        try:
            consumer.assign([client_partition(state, offset)])
            give_up_at = time.monotonic() + _READ_TIMEOUT_S
            while time.monotonic() < give_up_at:
                message = consumer.poll(0.1)
                if message is None or message.error() is not None:
                    continue
                value = dict(to_records([message], [])[0].headers).get(TRANSACTIONAL_ID_HEADER)
                try:
                    return None if value is None else value.decode()
                except UnicodeDecodeError:  # a stranger's: no id of ours
                    return None
            return None
        finally:
            consumer.close()

    def _fence(self, transactional_id: str, state: TopicPartition) -> None:
        _logger.warning(
            "fencing %s, whose open transaction holds back %s[%d]", transactional_id, state.topic, state.partition
        )
        producer = make_producer(
            self._properties.producer(defaults={}, fixed={"transactional.id": transactional_id, "log_level": 3})
        )
        give_up_at = time.monotonic() + _INIT_TIMEOUT_S
        while True:
            try:
                producer.init_transactions(_INIT_TIMEOUT_S)
                break
            except KafkaException as exception:
                if not error_of(exception).retriable() or time.monotonic() > give_up_at:
                    raise
        producer.close()
