"""What the tests of participants share: formats, commands, events, and a service that runs in a thread."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts import envelope as env
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.messages import encode_command
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.schemas import load_folder
from sagakit.contracts.topics import Topics
from sagakit.core import ids
from sagakit.core.actions import SendCommand
from sagakit.core.address import Address
from sagakit.core.events import TraceContext
from sagakit.core.transitions import Direction
from sagakit.participants import Formats, RuntimeSettings, Service, ServiceExchange, ServiceRuntime
from sagakit.ports.log import Outgoing, Record, TopicPartition
from sagakit.ports.registry import SchemaRegistry
from tests.unit.participants.memory_messages import MemoryMessages

SCHEMAS = load_folder(Path(__file__).parents[3] / "schemas" / "shop")
P0 = TopicPartition("payments.commands", 0)
P1 = TopicPartition("payments.commands", 1)
TRACE = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
CHARGE: dict[str, Any] = {
    "order_id": "order-1",
    "customer_id": "customer-1",
    "amount_cents": 4_200,
    "currency": "EUR",
    "card_token": "card-visa-1",
}


def registered(register: bool = True) -> MemoryRegistry:
    """A registry that knows the shop's schemas."""
    registry = MemoryRegistry()
    if register:
        for name, text in SCHEMAS.items():
            registry.register(name, text)
    return registry


def formats(registry: SchemaRegistry, topics: Topics | None = None) -> Formats:
    """Formats over a registry."""
    avro = AvroCodec(registry)
    return Formats(
        registry=registry,
        avro=avro,
        own=OwnRecords(registry, register=True),
        payloads=PlainPayloadCodec(avro),
        topics=topics or Topics(),
    )


def command(
    number: int = 1,
    *,
    with_: Formats,
    type_: str = "shop.payments.ChargeCard",
    data: Mapping[str, Any] | None = None,
    service: str = "payments",
    attempt: int = 1,
    undoes: str | None = None,
    expires_at_ms: int | None = None,
    reply_partition: int = 3,
) -> Outgoing:
    """A command of the `number`-th saga, as the orchestrator sends it."""
    saga_id = ids.saga_id("default", "place-order", f"order-{number}")
    direction = Direction.FORWARD if undoes is None else Direction.COMPENSATION
    schema = with_.avro.compile_schema(SCHEMAS[type_])
    return encode_command(
        SendCommand(
            saga_id=saga_id,
            run=7,
            address=Address("charge"),
            direction=direction,
            attempt=attempt,
            command_id=ids.command_id(saga_id, 7, "charge", direction.value, attempt),
            idempotency_key=ids.idempotency_key(saga_id, 7, "charge", direction.value, 0),
            undoes=undoes,
            service=service,
            type=type_,
            data=CHARGE if data is None else data,
            expires_at_ms=now_ms() + 600_000 if expires_at_ms is None else expires_at_ms,
            causation_id="the-cause",
            trace=TRACE,
        ),
        schema,
        with_.avro,
        with_.topics,
        reply_partition,
        now_ms(),
        key=f"order-{number}",
    )


def event(type_: str, data: Mapping[str, Any], *, with_: Formats, event_id: str = "event-1") -> Outgoing:
    """A domain event on `orders.events`, as a saga publishes it."""
    envelope = env.Envelope(message_id=event_id, source="/sagakit/default", at_ms=now_ms(), trace=TRACE)
    value = with_.avro.encode(with_.avro.compile_schema(SCHEMAS[type_]), data)
    return Outgoing(
        with_.topics.service_topic("orders.events"),
        None,
        str(data["order_id"]).encode(),
        value,
        env.message_headers(envelope, type_, "the-saga"),
    )


def received(outgoing: Outgoing, offset: int = 0, partition: int = 0) -> Record:
    """A sent record as it is read."""
    return Record(outgoing.topic, partition, offset, now_ms(), outgoing.key, outgoing.value, list(outgoing.headers))


def headers(outgoing: Outgoing) -> dict[str, str]:
    """Headers by name, as text."""
    return {name: (value or b"").decode() for name, value in outgoing.headers}


def body(outgoing: Outgoing, with_: Formats) -> Mapping[str, Any]:
    """The data of a sent record."""
    assert outgoing.value is not None
    return with_.avro.decode(outgoing.value).data


def exchange(service: Service, with_: Formats, clock: Any = time.monotonic) -> ServiceExchange:
    """The exchange of a service."""
    return ServiceExchange(service, with_, clock_ms=now_ms, clock=clock)


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


@contextmanager
def running(
    service: Service, messages: MemoryMessages, with_: Formats, settings: RuntimeSettings | None = None
) -> Iterator["RunningService"]:
    """A service that runs in a thread, and is stopped in the end (whatever it raised stands in `error`)."""
    runtime = ServiceRuntime(service, answering=exchange(service, with_), connect=messages.connect, settings=settings)
    started = RunningService(runtime)
    try:
        yield started
    finally:
        started.stop()


class RunningService:
    """A runtime and its thread."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self.runtime = runtime
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.runtime.run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def stop(self) -> None:
        """Stop it and wait for its end."""
        self.runtime.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
