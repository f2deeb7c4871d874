"""The messages that clients send, composed but not sent: pure but for the registry's answers."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import uuid4, uuid5

from sagakit.contracts.codec import AvroCodec, CompiledSchema
from sagakit.contracts.envelope import Envelope, message_headers
from sagakit.contracts.messages import (
    ControlMessage,
    SignalMessage,
    StartMessage,
    encode_control,
    encode_signal,
    encode_start,
)
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.topics import Topics
from sagakit.core import ids
from sagakit.core.events import ReplyTo, TraceContext
from sagakit.core.placement import partition_of
from sagakit.core.values import CONFLUENT, Data, Payload
from sagakit.ports.log import Outgoing
from sagakit.ports.registry import SchemaRegistry, UnknownSchemaError

KEEP_MS: Final = 3_600_000
"""How long a signal is kept that comes before its saga, or before the step that waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A message ready to be sent. `saga_id` is None for a domain event, which names no saga."""

    saga_id: str | None
    message_id: str
    record: Outgoing


class Composer:
    """Composes starts, signals, controls and domain events for one namespace.

    Args:
        registry: where the schemas stand; nothing is registered here.
        topics: the namespace's topics.
        partitions: how many partitions the namespace's inbox has.
        source: the `ce_source` of what is sent, a URI reference that says who this client is.
        own: sagakit's own records; by default those of `registry`.
    """

    def __init__(
        self,
        *,
        registry: SchemaRegistry,
        topics: Topics,
        partitions: int,
        source: str = "/clients",
        own: OwnRecords | None = None,
    ) -> None:
        self._registry = registry
        self._avro = AvroCodec(registry)
        self._own = own or OwnRecords(registry)
        self._topics = topics
        self._partitions = partitions
        self._source = source
        self._schemas: dict[str, CompiledSchema] = {}

    def saga_id(self, definition: str, key: str | int) -> str:
        """The id of the saga of `definition` for a business key.

        Raises:
            InvalidKeyError: the key is empty or of another type.
        """
        return ids.saga_id(self._topics.namespace, definition, ids.business_key(key))

    def payload(self, record: str, data: Data, schema: str | None = None) -> Payload:
        """A record as a payload.

        Args:
            record: full name of the record; its subject in the registry.
            data: its fields, as values (decimals as text, bytes in base64, timestamps in RFC 3339).
            schema: the schema to write it with; by default the newest of the subject.

        Raises:
            UnknownSchemaError: the record is not registered.
            UnencodableError: the data does not fit the schema; the message names the field.
            RegistryUnavailableError: the registry does not answer.
        """
        return Payload(framed=self._avro.encode(self._schema(record, schema), data), encoding=CONFLUENT)

    def start(
        self,
        definition: str,
        key: str | int,
        payload: Payload,
        *,
        at_ms: int,
        reply_to: ReplyTo | None = None,
        deadline_ms: int | None = None,
        message_id: str | None = None,
        trace: TraceContext | None = None,
    ) -> Composed:
        """A start.

        Without `message_id` the id follows from the saga and the payload, so that the same start sent twice starts
        once within the dedupe window, whatever the definition says of `again`. To run an ended key another time with
        the same payload, give an id of your own.
        """
        text_key = ids.business_key(key)
        saga_id = self.saga_id(definition, text_key)
        digest = sha256(payload.framed).hexdigest()
        identity = message_id or str(uuid5(ids.SAGAKIT, f'["start","{saga_id}","{digest}"]'))
        message = StartMessage(
            saga_id=saga_id,
            definition=definition,
            key=text_key,
            payload=payload,
            reply_to=reply_to,
            deadline_ms=deadline_ms,
        )
        record = encode_start(
            message, self._envelope(identity, at_ms, trace), self._own, self._topics, self._partition(saga_id)
        )
        return Composed(saga_id=saga_id, message_id=identity, record=record)

    def signal(
        self,
        saga_id: str,
        name: str,
        payload: Payload | None = None,
        *,
        at_ms: int,
        keep_ms: int = KEEP_MS,
        message_id: str | None = None,
        trace: TraceContext | None = None,
    ) -> Composed:
        """A signal. Two signals with one `message_id` are one; without it each is a new one."""
        identity = message_id or str(uuid4())
        message = SignalMessage(saga_id=saga_id, name=name, payload=payload, keep_ms=keep_ms)
        record = encode_signal(
            message, self._envelope(identity, at_ms, trace), self._own, self._topics, self._partition(saga_id)
        )
        return Composed(saga_id=saga_id, message_id=identity, record=record)

    def control(self, message: ControlMessage, *, at_ms: int, trace: TraceContext | None = None) -> Composed:
        """An operator's intervention; each is a message of its own."""
        identity = str(uuid4())
        envelope, partition = self._envelope(identity, at_ms, trace), self._partition(message.saga_id)
        record = encode_control(message, envelope, self._own, self._topics, partition)
        return Composed(saga_id=message.saga_id, message_id=identity, record=record)

    def event(
        self,
        topic: str,
        key: str,
        record: str,
        payload: Payload,
        *,
        at_ms: int,
        event_id: str | None = None,
        trace: TraceContext | None = None,
    ) -> Composed:
        """A domain event for `topic` (without the prefix). Sent twice under one `event_id`, it starts sagas once."""
        identity = event_id or str(uuid4())
        headers = message_headers(self._envelope(identity, at_ms, trace), record, None)
        outgoing = Outgoing(self._topics.service_topic(topic), None, key.encode(), payload.framed, headers)
        return Composed(saga_id=None, message_id=identity, record=outgoing)

    def _schema(self, record: str, schema: str | None) -> CompiledSchema:
        if schema is not None:
            return self._avro.compile_schema(schema)
        known = self._schemas.get(record)
        if known is None:
            versions = self._registry.versions(record)
            if not versions:
                raise UnknownSchemaError(
                    f"no schema is registered under {record}; register it with `sagakit schemas register`"
                )
            known = self._schemas[record] = self._avro.compile_schema(versions[-1], record)
        return known

    def _envelope(self, message_id: str, at_ms: int, trace: TraceContext | None) -> Envelope:
        return Envelope(message_id=message_id, source=self._source, at_ms=at_ms, trace=trace)

    def _partition(self, saga_id: str) -> int:
        return partition_of(saga_id.encode(), self._partitions)
