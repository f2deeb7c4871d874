"""The participant of `by_hand.yaml`: the proof itself, which answers what it likes, when, how often, in which order."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from confluent_kafka import Consumer

from sagakit.adapters.client_properties import make_consumer
from sagakit.adapters.kafka_records import client_partition, to_records
from sagakit.contracts.envelope import CommandHeaders, Envelope
from sagakit.contracts.messages import decode_command, encode_rejected, encode_reply
from sagakit.core.values import Data
from sagakit.ports.log import Outgoing
from tests.prove.house import ProofFailedError
from tests.prove.shop import DESK, Shop, now_ms

_TICK_S: Final = 0.1
_WAIT_S: Final = 60.0


class Desk:
    """Reads the desk's commands, and writes replies into the inbox."""

    def __init__(self, shop: Shop, consumer: Consumer) -> None:
        self._shop = shop
        self._consumer = consumer
        self.commands: list[CommandHeaders] = []

    def await_commands(self, wanted: Callable[[CommandHeaders], bool], count: int) -> list[CommandHeaders]:
        """Wait until that many commands of a kind have come, since the beginning; in the order in which they came."""
        deadline = time.monotonic() + _WAIT_S
        while len(found := [one for one in self.commands if wanted(one)]) < count:
            if time.monotonic() > deadline:
                raise ProofFailedError(f"{len(found)} of {count} commands came to the desk within {_WAIT_S:.0f} s")
            self.take()
            self._shop.look()
        return found

    def answer(self, command: CommandHeaders, data: Data | None = None, record: str | None = None) -> Outgoing:
        """A reply that says what the definition wants to hear, or `data` in a `record`."""
        wanted, usual = _USUAL[str(command.address), command.undoes is not None]
        payload = self._shop.payload(record or wanted, usual if data is None else data)
        return encode_reply(command, record or wanted, payload.framed, self._envelope())

    def rejection(self, command: CommandHeaders, code: str) -> Outgoing:
        """A reply that refuses."""
        return encode_rejected(command, code, "not today", {}, self._shop.own, self._envelope())

    def serve(self, until: Callable[[], bool], what: str) -> None:
        """Answer every command as wished for, until something has happened."""
        done = len(self.commands)
        deadline = time.monotonic() + _WAIT_S
        while not until():
            if time.monotonic() > deadline:
                raise ProofFailedError(f"not {what} after {_WAIT_S:.0f} s")
            self.take()
            self._shop.write(*(self.answer(one) for one in self.commands[done:]))
            done = len(self.commands)
            self._shop.look()

    def take(self) -> None:
        """Take in the commands that have come."""
        messages = self._consumer.consume(1_000, _TICK_S)
        records = to_records([one for one in messages if one.error() is None], [])
        self.commands += [decode_command(one, self._shop.payloads).headers for one in records]

    def _envelope(self) -> Envelope:
        return Envelope(message_id=str(uuid.uuid4()), source="/proof/desk", at_ms=now_ms())


_USUAL: Final[dict[tuple[str, bool], tuple[str, Data]]] = {
    ("reserve", False): ("shop.inventory.StockReserved", {"reservation_id": "shelf 7"}),
    ("reserve", True): ("shop.inventory.StockReleased", {"order_id": "x", "released": 1}),
    ("charge", False): ("shop.payments.CardCharged", {"payment_id": "paid", "charged_cents": 1}),
    ("charge", True): ("shop.payments.CardRefunded", {"order_id": "x", "refunded_cents": 1}),
    ("confirm", False): ("shop.orders.OrderMarked", {"order_id": "x", "status": "confirmed"}),
}


def of(
    saga_ids: Sequence[str], step: str, *, attempt: int = 1, undoes: bool = False
) -> Callable[[CommandHeaders], bool]:
    """Picks the commands of a step of these sagas."""
    known = frozenset(saga_ids)

    def wanted(one: CommandHeaders) -> bool:
        if one.saga_id not in known or one.attempt != attempt:
            return False
        return str(one.address) == step and (one.undoes is not None) == undoes

    return wanted


@contextmanager
def open_desk(shop: Shop) -> Iterator[Desk]:
    """The desk of a shop; it is no member of any group."""
    consumer = make_consumer(
        shop.properties.consumer(
            defaults={},
            fixed={"group.id": "proof.desk", "enable.auto.commit": False, "isolation.level": "read_committed"},
        )
    )
    try:
        consumer.assign([client_partition(one, 0) for one in shop.partitions(shop.topics.commands(DESK))])
        yield Desk(shop, consumer)
    finally:
        consumer.close()
