"""Every message that crosses a service boundary: inbox records, commands, replies, domain events, results.

Decoding gives the core's events; encoding takes the core's actions. Nothing here does I/O but ask the registry's port.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sagakit.contracts import envelope as env
from sagakit.contracts import framing
from sagakit.contracts.codec import AvroCodec, CompiledSchema
from sagakit.contracts.envelope import CommandHeaders, Envelope
from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.own import NAMESPACE, OwnRecords
from sagakit.contracts.parts import (
    Raw,
    address_of,
    opened_of,
    optional_payload,
    payload_fields,
    payload_of,
    reply_to_fields,
    reply_to_of,
)
from sagakit.contracts.payload import PayloadCodec
from sagakit.contracts.topics import Topics
from sagakit.core.actions import PublishEvent, SendCommand, SendResult
from sagakit.core.address import Address
from sagakit.core.events import (
    Cause,
    Control,
    Outcome,
    Reply,
    ReplyTo,
    Signal,
    Source,
    Start,
    TraceContext,
    Verb,
)
from sagakit.core.values import CONFLUENT, Opened, Payload
from sagakit.ports.log import Outgoing, Record

_OUTCOME_RECORDS: Final[Mapping[str, Outcome]] = {
    f"{NAMESPACE}.Rejected": Outcome.REJECTED,
    f"{NAMESPACE}.Failed": Outcome.FAILED,
    f"{NAMESPACE}.Expired": Outcome.EXPIRED,
}
_DURATION_MAX_MS: Final = 10 * 365 * 86_400_000
"""As in a definition."""

_INBOX_RECORDS: Final = ("Start", "Signal", "Control")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMessage:
    """A start on its way to the inbox. `deadline_ms` (a duration) overrides the definition's deadline."""

    saga_id: str
    definition: str
    key: str
    payload: Payload
    reply_to: ReplyTo | None = None
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalMessage:
    """A signal on its way to the inbox, kept for `keep_ms` if nothing waits for it yet."""

    saga_id: str
    name: str
    payload: Payload | None
    keep_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMessage:
    """An operator's intervention on its way to the inbox: what, who (`actor`) and why."""

    saga_id: str
    verb: Verb
    actor: str
    reason: str
    address: Address | None = None
    payload: Payload | None = None
    ticket: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCommand:
    """A command as a participant reads it."""

    headers: CommandHeaders
    opened: Opened


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """A domain event, ours or somebody else's. `correlation_id` is the saga id, where a saga published it."""

    cause: Cause
    opened: Opened
    correlation_id: str | None
    trace: TraceContext | None


# Reading -------------------------------------------------------------------------------------------------------------


def saga_id_of(record: Record) -> str:
    """The saga that an inbox record belongs to: its key.

    Raises:
        UndecodableError: it has no key, or one that is not UTF-8.
    """
    if not record.key:
        raise UndecodableError("the record has no key; the key is the saga id")
    try:
        return record.key.decode()
    except UnicodeDecodeError as error:
        raise UndecodableError("the record's key is not UTF-8; the key is the saga id") from error


def decode_inbox(record: Record, own: OwnRecords, payloads: PayloadCodec) -> Start | Reply | Signal | Control:
    """The event that a record of the inbox brings.

    Raises:
        UndecodableError: it can never be read.
        RegistryUnavailableError: a schema is not known yet and the registry does not answer.
    """
    value = _value(record)
    headers = env.last_values(record.headers)
    if headers.get(env.OUTCOME) is not None:
        return _reply(record, value, headers, payloads)
    name = own.name_of(_schema_id(value))
    if name not in _INBOX_RECORDS:
        raise UndecodableError(
            f"no start, signal or control, and no reply either: the header {env.OUTCOME} is missing"
            + ("" if name is None else f" on a {NAMESPACE}.{name}")
        )
    raw = own.decode(value).fields
    trace = env.trace_context(headers)
    try:
        match name:
            case "Start":
                return _start(record, headers, raw, trace, payloads)
            case "Signal":
                payload = opened_of(raw["payload"], payloads)
                cause = _cause(record, headers, "sagakit.Signal")
                keep_ms = _duration_ms(raw["keep_ms"], "keep_ms")
                return Signal(cause=cause, trace=trace, name=raw["name"], payload=payload, keep_ms=keep_ms)
            case _:
                return _control(record, headers, raw, trace, payloads)
    except ValueError as error:  # a verb or an address that is none
        raise UndecodableError(f"a {NAMESPACE}.{name} that cannot be read: {error}") from error


def decode_command(record: Record, payloads: PayloadCodec) -> ReceivedCommand:
    """A command, for a participant. Where this fails, `read_command_headers` tells whether one can still reply.

    Raises:
        UndecodableError: it can never be read.
        RegistryUnavailableError: its schema is not known yet and the registry does not answer.
    """
    headers = env.read_command_headers(record)
    opened = payloads.open(Payload(framed=_value(record), encoding=CONFLUENT))
    if opened.type != headers.type:
        raise UndecodableError(f"the header {env.TYPE} says {headers.type}, the value is a {opened.type}")
    return ReceivedCommand(headers=headers, opened=opened)


def decode_event(record: Record, payloads: PayloadCodec) -> DomainEvent:
    """A domain event. It needs no headers: its id is then where it was read.

    Raises:
        UndecodableError: it can never be read.
        RegistryUnavailableError: its schema is not known yet and the registry does not answer.
    """
    headers = env.last_values(record.headers)
    opened = payloads.open(Payload(framed=_value(record), encoding=CONFLUENT))
    return DomainEvent(
        cause=_cause(record, headers, opened.type),
        opened=opened,
        correlation_id=env.optional_text(headers, env.CORRELATION_ID),
        trace=env.trace_context(headers),
    )


def _value(record: Record) -> bytes:
    if record.value is None:
        raise UndecodableError("the record has no value")
    return record.value


def _schema_id(value: bytes) -> int:
    try:
        return framing.schema_id_of(value)
    except framing.FramingError as error:
        raise UndecodableError(str(error)) from error


def _cause(record: Record, headers: Mapping[str, bytes | None], type_: str, raw: Raw | None = None) -> Cause:
    return Cause(
        message_id=env.message_id(record, headers),
        type=type_,
        source=Source(topic=record.topic, partition=record.partition, offset=record.offset),
        actor=None if raw is None else raw["actor"],
        reason=None if raw is None else raw["reason"],
        ticket=None if raw is None else raw["ticket"],
    )


def _reply(record: Record, value: bytes, headers: Mapping[str, bytes | None], payloads: PayloadCodec) -> Reply:
    outcome = env.read_outcome(headers)
    opened = payloads.open(Payload(framed=value, encoding=CONFLUENT))
    if _OUTCOME_RECORDS.get(opened.type, Outcome.SUCCEEDED) is not outcome:
        raise UndecodableError(f"the header {env.OUTCOME} says {outcome.value}, but the value is a {opened.type}")
    code = message = None
    if outcome is Outcome.REJECTED:
        code, message = opened.data["code"], opened.data["message"]
    elif outcome is Outcome.FAILED:
        code, message = opened.data["kind"], opened.data["message"]
    return Reply(
        cause=_cause(record, headers, opened.type),
        trace=env.trace_context(headers),
        command_id=env.required_text(headers, env.CAUSATION_ID),
        outcome=outcome,
        payload=opened,
        code=None if code is None else str(code),
        message=None if message is None else str(message),
    )


def _start(
    record: Record, headers: Mapping[str, bytes | None], raw: Raw, trace: TraceContext | None, payloads: PayloadCodec
) -> Start:
    if not raw["key"]:
        raise UndecodableError("a start without a business key")
    return Start(
        cause=_cause(record, headers, "sagakit.Start"),
        trace=trace,
        definition=raw["definition"],
        key=raw["key"],
        run=record.offset,
        payload=payloads.open(payload_of(raw["payload"])),
        reply_to=reply_to_of(raw["reply_to"]),
        deadline_ms=None if raw["deadline_ms"] is None else _duration_ms(raw["deadline_ms"], "deadline_ms"),
    )


def _duration_ms(milliseconds: int, name: str) -> int:
    """A duration as it came; what it is added to still has to be a time that the wire can hold."""
    if not 0 < milliseconds <= _DURATION_MAX_MS:
        raise UndecodableError(f"{name} is {milliseconds}: it must be above zero and at most ten years")
    return milliseconds


def _control(
    record: Record, headers: Mapping[str, bytes | None], raw: Raw, trace: TraceContext | None, payloads: PayloadCodec
) -> Control:
    return Control(
        cause=_cause(record, headers, "sagakit.Control", raw),
        trace=trace,
        verb=Verb(raw["verb"]),
        address=address_of(raw["address"]),
        payload=opened_of(raw["payload"], payloads),
    )


# What the orchestrator sends -----------------------------------------------------------------------------------------


def encode_command(
    action: SendCommand,
    schema: CompiledSchema,
    avro: AvroCodec,
    topics: Topics,
    reply_partition: int,
    at_ms: int,
    partition: int | None = None,
    key: str | None = None,
) -> Outgoing:
    """The command's record, for `partition` of its topic; None leaves the placing to the client.

    `reply_partition` is the partition of the inbox that the saga lives in, `key` the saga's business key, for the
    participant's logs.

    Raises:
        UnencodableError: the data does not fit the schema.
    """
    envelope = Envelope(
        message_id=action.command_id,
        source=env.orchestrator_source(topics.namespace),
        at_ms=at_ms,
        causation_id=action.causation_id,
        trace=action.trace,
    )
    headers = env.message_headers(envelope, action.type, action.saga_id)
    headers += (
        (env.IDEMPOTENCY_KEY, action.idempotency_key.encode()),
        (env.RUN, b"%d" % action.run),
        (env.ADDRESS, action.address.encode()),
        (env.ATTEMPT, b"%d" % action.attempt),
        (env.EXPIRES_AT, b"%d" % action.expires_at_ms),
        (env.REPLY_TOPIC, topics.inbox.encode()),
        (env.REPLY_PARTITION, b"%d" % reply_partition),
    )
    if action.undoes is not None:
        headers.append((env.UNDOES, action.undoes.encode()))
    if key is not None:
        headers.append((env.KEY, key.encode()))
    value = avro.encode(schema, action.data)
    return Outgoing(topics.commands(action.service), partition, action.saga_id.encode(), value, headers)


def encode_event(action: PublishEvent, schema: CompiledSchema, avro: AvroCodec, topics: Topics, at_ms: int) -> Outgoing:
    """The record of a domain event that a saga publishes, keyed by the business key.

    Raises:
        UnencodableError: the data does not fit the schema.
    """
    envelope = Envelope(
        message_id=action.event_id,
        source=env.orchestrator_source(topics.namespace),
        at_ms=at_ms,
        causation_id=action.causation_id,
        trace=action.trace,
    )
    headers = env.message_headers(envelope, action.type, action.saga_id)
    value = avro.encode(schema, action.data)
    return Outgoing(topics.service_topic(action.topic), None, action.key.encode(), value, headers)


def encode_result(action: SendResult, own: OwnRecords, topics: Topics, at_ms: int) -> Outgoing:
    """The record that tells the one who started a saga how it ended."""
    envelope = Envelope(
        message_id=action.event_id,
        source=env.orchestrator_source(topics.namespace),
        at_ms=at_ms,
        causation_id=action.causation_id,
        trace=action.trace,
    )
    value = own.encode(
        "Result",
        {
            "saga_id": action.saga_id,
            "run": action.run,
            "definition": action.definition,
            "key": action.key,
            "end": action.end,
        },
    )
    headers = env.message_headers(envelope, f"{NAMESPACE}.Result", action.saga_id)
    return Outgoing(action.reply_to.topic, action.reply_to.partition, action.saga_id.encode(), value, headers)


def encode_dead_letter(record: Record, topic: str, reason: str) -> Outgoing:
    """A record that can never be read, as it came: key, value and headers, with where it was read and what is wrong."""
    headers = [
        *record.headers,
        (env.REASON, reason.encode(errors="replace")),
        (env.SOURCE_TOPIC, record.topic.encode()),
        (env.SOURCE_PARTITION, b"%d" % record.partition),
        (env.SOURCE_OFFSET, b"%d" % record.offset),
        (env.SOURCE_TIMESTAMP, b"%d" % record.timestamp_ms),
    ]
    return Outgoing(topic, None, record.key or b"", record.value, headers)


# What clients send ---------------------------------------------------------------------------------------------------


def encode_start(
    message: StartMessage, envelope: Envelope, own: OwnRecords, topics: Topics, partition: int | None = None
) -> Outgoing:
    """A start for the inbox; without `partition` it goes where murmur2 of the saga id puts it."""
    value = own.encode(
        "Start",
        {
            "definition": message.definition,
            "key": message.key,
            "payload": payload_fields(message.payload),
            "reply_to": reply_to_fields(message.reply_to),
            "deadline_ms": message.deadline_ms,
        },
    )
    headers = env.message_headers(envelope, f"{NAMESPACE}.Start", message.saga_id)
    return Outgoing(topics.inbox, partition, message.saga_id.encode(), value, headers)


def encode_signal(
    message: SignalMessage, envelope: Envelope, own: OwnRecords, topics: Topics, partition: int | None = None
) -> Outgoing:
    """A signal for the inbox; `partition` as for `encode_start`."""
    value = own.encode(
        "Signal",
        {"name": message.name, "payload": optional_payload(message.payload), "keep_ms": message.keep_ms},
    )
    headers = env.message_headers(envelope, f"{NAMESPACE}.Signal", message.saga_id)
    return Outgoing(topics.inbox, partition, message.saga_id.encode(), value, headers)


def encode_control(
    message: ControlMessage, envelope: Envelope, own: OwnRecords, topics: Topics, partition: int | None = None
) -> Outgoing:
    """A control for the inbox; `partition` as for `encode_start`."""
    value = own.encode(
        "Control",
        {
            "verb": message.verb.value,
            "address": message.address,
            "payload": optional_payload(message.payload),
            "actor": message.actor,
            "reason": message.reason,
            "ticket": message.ticket,
        },
    )
    headers = env.message_headers(envelope, f"{NAMESPACE}.Control", message.saga_id)
    return Outgoing(topics.inbox, partition, message.saga_id.encode(), value, headers)


# What participants send ----------------------------------------------------------------------------------------------


def encode_reply(command: CommandHeaders, type_: str, value: bytes, envelope: Envelope) -> Outgoing:
    """The reply to a command: `value` is a framed record of the type `type_`, which also decides the outcome.

    It goes to the topic and partition that the command names, so that no partitioner can lead it astray. The envelope's
    causation is the command, whatever it says itself.
    """
    outcome = _OUTCOME_RECORDS.get(type_, Outcome.SUCCEEDED)
    caused = Envelope(
        message_id=envelope.message_id,
        source=envelope.source,
        at_ms=envelope.at_ms,
        causation_id=command.command_id,
        trace=command.trace if envelope.trace is None else envelope.trace,
    )
    headers = env.message_headers(caused, type_, command.saga_id)
    headers.append((env.OUTCOME, outcome.value.encode()))
    return Outgoing(command.reply_to.topic, command.reply_to.partition, command.saga_id.encode(), value, headers)


def encode_rejected(
    command: CommandHeaders,
    code: str,
    message: str | None,
    details: Mapping[str, str],
    own: OwnRecords,
    envelope: Envelope,
) -> Outgoing:
    """The reply that a participant refuses for a business reason, without any effect."""
    texts = {_text(name): _text(text) for name, text in details.items()}
    value = own.encode("Rejected", {"code": _text(code), "message": _optional_text(message), "details": texts})
    return encode_reply(command, f"{NAMESPACE}.Rejected", value, envelope)


def encode_failed(
    command: CommandHeaders, kind: str, message: str | None, own: OwnRecords, envelope: Envelope
) -> Outgoing:
    """The reply that a participant failed, possibly after the effect."""
    value = own.encode("Failed", {"kind": _text(kind), "message": _optional_text(message)})
    return encode_reply(command, f"{NAMESPACE}.Failed", value, envelope)


def _text(said: object) -> str:
    """What a handler has said, as text that can be written: a file's name, say, may hold half of a surrogate pair."""
    return str(said).encode(errors="replace").decode()


def _optional_text(said: object | None) -> str | None:
    return None if said is None else _text(said)


def encode_expired(command: CommandHeaders, own: OwnRecords, envelope: Envelope) -> Outgoing:
    """The reply that the command had expired before the participant began."""
    return encode_reply(command, f"{NAMESPACE}.Expired", own.encode("Expired", {}), envelope)
