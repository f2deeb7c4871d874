"""Between records and handlers: what a record means for a service, and what to answer for what its handler did.

What cannot be handled gets an answer all the same:

| the record | the answer |
| --- | --- |
| has expired before the handler began | `sagakit.Expired` |
| cannot be decoded | `sagakit.Failed`, kind `UndecodableCommand` |
| is of a type without a handler | `sagakit.Failed`, kind `UnknownCommand` |
| does not fit the handler's model | `sagakit.Failed`, kind `InvalidCommand` |
| undoes nothing, but its handler is a compensation | `sagakit.Failed`, kind `NothingToUndo` |
| is a command whose headers do not say whom to answer | the service's `….commands.dlq`, as it came |
| is an event that cannot be decoded or does not fit the handler's model | `<topic>.<service>.dlq`, as it came |
| is an event without a handler | none: a topic may carry more than a service reacts to |

A handler that returns something else than a record of its schema has failed with kind `InvalidReply`, a reply that the
broker finds too large with kind `ReplyTooLarge`. A reply that can never be delivered (its topic does not exist) makes a
dead letter of the command.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ValidationError

from sagakit.contracts import envelope as env
from sagakit.contracts.codec import AvroCodec, CompiledSchema
from sagakit.contracts.denials import Denials
from sagakit.contracts.envelope import CommandHeaders, Envelope
from sagakit.contracts.errors import UndecodableError, UnencodableError, UnknownSchemaIdError
from sagakit.contracts.messages import (
    decode_event,
    encode_dead_letter,
    encode_expired,
    encode_failed,
    encode_rejected,
    encode_reply,
)
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PayloadCodec
from sagakit.contracts.topics import Topics
from sagakit.core.events import Source
from sagakit.core.values import CONFLUENT, Data, Payload
from sagakit.participants.answers import Answer, AnswerKind
from sagakit.participants.context import Context, EventContext
from sagakit.participants.desk import Job
from sagakit.participants.service import Handler, Kind, Rejected, Service, record_name
from sagakit.participants.workers import Call, Outcome
from sagakit.ports.log import Outgoing, Record
from sagakit.ports.messages import DeliveryFailure, Undelivered
from sagakit.ports.registry import RegistryUnavailableError, SchemaRegistry, UnknownSchemaError

_OWN_RECORDS: Final = ("Rejected", "Failed", "Expired")
_TEXT_MAX: Final = 4_000
_DEAD_LETTER_BYTES: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """All that encoding and decoding take."""

    registry: SchemaRegistry
    avro: AvroCodec
    own: OwnRecords
    payloads: PayloadCodec
    topics: Topics


class ServiceExchange:
    """The exchange of one service. Shared by its threads: it holds nothing but caches."""

    def __init__(
        self, service: Service, formats: Formats, *, clock_ms: Callable[[], int], clock: Callable[[], float]
    ) -> None:
        """`clock_ms` is the wall clock in epoch milliseconds; `clock` gives seconds that never go back."""
        self._service = service
        self._formats = formats
        self._clock_ms = clock_ms
        self._clock = clock
        self._source = env.service_source(service.name)
        self._command_topic = formats.topics.commands(service.name)
        self._events = {
            (formats.topics.service_topic(topic), record): handler
            for (topic, record), handler in service.events.items()
        }
        self._schemas: dict[str, CompiledSchema] = {}
        self._denials = Denials()

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics to consume."""
        commands = (self._command_topic,) if self._service.commands else ()
        return (*commands, *dict.fromkeys(topic for topic, _ in self._events))

    @property
    def dead_letter_topics(self) -> tuple[str, ...]:
        """The topics that dead letters go to; they must exist."""
        return tuple(self._dead_letter_topic(topic) for topic in self.topics)

    def prepare_schemas(self) -> None:
        """Look up the schemas of all replies, so that a missing one is found at start and not after an effect.

        Raises:
            UnknownSchemaError: a schema is not registered.
            RegistryUnavailableError: the registry does not answer; try again.
        """
        self._formats.own.prepare(_OWN_RECORDS)
        for handler in self._service.commands.values():
            if handler.reply is not None:
                self._schema(handler.reply)

    def likely_handler(self, record: Record) -> Handler | None:
        """See `Exchange.likely_handler`."""
        for name, value in record.headers:
            if name == env.TYPE and value is not None:
                type_ = value.decode(errors="replace")
                if record.topic == self._command_topic:
                    return self._service.commands.get(type_)
                return self._events.get((record.topic, type_))
        return None

    def prepare(self, record: Record, *, may_have_begun: bool = False) -> Call | Answer | None:
        """See `Exchange.prepare`."""
        if record.topic == self._command_topic:
            return self._prepare_command(record, may_have_begun)
        return self._prepare_event(record)

    def answer(self, record: Record, call: Call, outcome: Outcome) -> Answer | None:
        """See `Exchange.answer`."""
        if call.handler.kind is Kind.EVENT:
            if isinstance(outcome, BaseException):
                tries = f"{call.context.attempt} times, at last with {outcome!r}"
                return self._dead_letter(record, f"the handler {call.handler.name} failed {tries}")
            return None
        command = call.command or env.read_command_headers(record)
        if isinstance(outcome, Rejected):
            return Answer(
                kind=AnswerKind.REPLY,
                record=encode_rejected(
                    command,
                    outcome.code,
                    outcome.message or None,
                    outcome.details,
                    self._formats.own,
                    self._envelope(command, "rejected"),
                ),
            )
        if isinstance(outcome, BaseException):
            call.context.logger.error("the handler failed", handler=call.handler.name, exc_info=outcome)
            return self._failed(command, type(outcome).__name__, str(outcome))
        return self._succeeded(command, call, outcome)

    def replacement(self, job: Job, answer: Answer, failure: DeliveryFailure) -> Answer | None:
        """See `Replacements.replacement`."""
        match answer.kind, failure.kind:
            case AnswerKind.REPLY, Undelivered.TOO_LARGE:
                command = env.read_command_headers(job.item)
                return self._failed(command, "ReplyTooLarge", f"the reply could not be sent: {failure.reason}")
            case ((AnswerKind.REPLY | AnswerKind.SMALL_REPLY), _):
                reason = f"the reply to {answer.record.topic}[{answer.record.partition}] is refused: {failure.reason}"
                return self._dead_letter(job.item, reason)
            case AnswerKind.DEAD_LETTER, Undelivered.TOO_LARGE:
                return self._shortened(answer, failure)
            case _:
                return None

    def _prepare_command(self, record: Record, may_have_begun: bool) -> Call | Answer:
        try:
            command = env.read_command_headers(record)
        except UndecodableError as error:
            return self._dead_letter(record, f"nobody to reply to: {error.reason}")
        if self._clock_ms() >= command.expires_at_ms:
            if may_have_begun:
                return self._failed(command, "ExpiredAfterHandover", "expired; an earlier process may have begun it")
            envelope = self._envelope(command, "expired")
            return Answer(kind=AnswerKind.SMALL_REPLY, record=encode_expired(command, self._formats.own, envelope))
        handler = self._service.commands.get(command.type)
        if handler is None:
            known = ", ".join(self._service.commands) or "none"
            return self._failed(
                command, "UnknownCommand", f"{self._service.name} has no handler for {command.type}; it has {known}"
            )
        if handler.kind is Kind.COMPENSATION and command.undoes is None:
            return self._failed(
                command,
                "NothingToUndo",
                f"{handler.name} is a compensation, and the command does not say what it undoes ({env.UNDOES})",
            )
        try:
            message = handler.model.model_validate(self._open_command(record, command))
        except UndecodableError as error:
            self._ask_again_if_denied(error)
            return self._failed(command, "UndecodableCommand", error.reason)
        except ValidationError as error:
            return self._failed(command, "InvalidCommand", _without_values(error))
        context = Context(
            service=self._service.name,
            saga_id=command.saga_id,
            key=command.key,
            run=command.run,
            address=command.address,
            direction="forward" if command.undoes is None else "compensation",
            attempt=command.attempt,
            command_id=command.command_id,
            idempotency_key=command.idempotency_key,
            undoes=command.undoes,
            correlation_id=command.saga_id,
            expires_at_ms=command.expires_at_ms,
            trace=command.trace,
            source=_source_of(record),
        )
        return Call(handler=handler, message=message, context=context, command=command)

    def _open_command(self, record: Record, command: CommandHeaders) -> Data:
        """The data of a command.

        Raises:
            UndecodableError: it can never be read.
            RegistryUnavailableError: its schema is not known yet and the registry does not answer.
        """
        if record.value is None:
            raise UndecodableError("the command has no value")
        opened = self._formats.payloads.open(Payload(framed=record.value, encoding=CONFLUENT))
        if opened.type != command.type:
            raise UndecodableError(f"the header {env.TYPE} says {command.type}, the value is a {opened.type}")
        return opened.data

    def _prepare_event(self, record: Record) -> Call | Answer | None:
        try:
            event = decode_event(record, self._formats.payloads)
            handler = self._events.get((record.topic, event.opened.type))
            if handler is None:
                return None
            message = handler.model.model_validate(event.opened.data)
            headers = env.last_values(record.headers)
            context = EventContext(
                service=self._service.name,
                event_id=event.cause.message_id,
                type=event.opened.type,
                key=None if record.key is None else record.key.decode(errors="replace"),
                attempt=1,
                correlation_id=event.correlation_id,
                causation_id=env.optional_text(headers, env.CAUSATION_ID),
                trace=event.trace,
                source=_source_of(record),
            )
        except UndecodableError as error:
            self._ask_again_if_denied(error)
            return self._dead_letter(record, error.reason)
        except ValidationError as error:
            return self._dead_letter(record, _without_values(error))
        return Call(handler=handler, message=message, context=context)

    def _succeeded(self, command: CommandHeaders, call: Call, reply: BaseModel | None) -> Answer:
        type_ = record_name(type(reply)) if isinstance(reply, BaseModel) else None
        if type_ is None or not isinstance(reply, BaseModel):
            return self._failed(
                command,
                "InvalidReply",
                f"{call.handler.name} returned a {type(reply).__name__}; a reply is a model of an Avro record",
            )
        try:
            value = self._formats.avro.encode(self._schema(type(reply)), reply.model_dump(mode="json"))
        except (UnencodableError, UnknownSchemaError) as error:
            return self._failed(command, "InvalidReply", f"{call.handler.name}: {error}")
        envelope = self._envelope(command, "succeeded")
        return Answer(kind=AnswerKind.REPLY, record=encode_reply(command, type_, value, envelope))

    def _failed(self, command: CommandHeaders, kind: str, message: str) -> Answer:
        envelope = self._envelope(command, "failed")
        record = encode_failed(command, kind, message[:_TEXT_MAX], self._formats.own, envelope)
        return Answer(kind=AnswerKind.SMALL_REPLY, record=record)

    def _dead_letter(self, record: Record, reason: str) -> Answer:
        topic = self._dead_letter_topic(record.topic)
        return Answer(kind=AnswerKind.DEAD_LETTER, record=encode_dead_letter(record, topic, reason[:_TEXT_MAX]))

    def _shortened(self, answer: Answer, failure: DeliveryFailure) -> Answer:
        """A dead letter that does not fit: the beginning of the value, with the length and hash of the whole."""
        record = answer.record
        value = record.value or b""
        note = (
            f"{failure.reason}; only the first {_DEAD_LETTER_BYTES} of {len(value)} bytes are here, "
            f"SHA-256 of all: {hashlib.sha256(value).hexdigest()}"
        )
        return Answer(
            kind=AnswerKind.SHORTENED_DEAD_LETTER,
            record=Outgoing(
                record.topic,
                record.partition,
                record.key,
                value[:_DEAD_LETTER_BYTES],
                [*record.headers, ("sagakit_shortened", note.encode())],
            ),
        )

    def _dead_letter_topic(self, topic: str) -> str:
        return f"{topic}.dlq" if topic == self._command_topic else f"{topic}.{self._service.name}.dlq"

    def _schema(self, model: type[BaseModel]) -> CompiledSchema:
        """The newest registered schema of a model's record (subject = record full name)."""
        name = record_name(model) or ""
        schema = self._schemas.get(name)
        if schema is None:
            versions = self._formats.registry.versions(name)
            if not versions:
                raise UnknownSchemaError(
                    f"{self._service.name} replies with {name}, which is not registered: "
                    "run `sagakit schemas register` on the folder that has it"
                )
            schema = self._schemas[name] = self._formats.avro.compile_schema(versions[-1])
        return schema

    def _ask_again_if_denied(self, error: UndecodableError) -> None:
        """A schema id that the registry denies may be on its way to it: it is asked again before that is final.

        Raises:
            RegistryUnavailableError: it is not final yet.
        """
        if isinstance(error, UnknownSchemaIdError) and not self._denials.is_final(
            error.schema_id, int(self._clock() * 1000)
        ):
            raise RegistryUnavailableError(error.reason) from error

    def _envelope(self, command: CommandHeaders, outcome: str) -> Envelope:
        return Envelope(
            message_id=f"{command.command_id}:{outcome}",
            source=self._source,
            at_ms=self._clock_ms(),
            trace=command.trace,
        )


def _source_of(record: Record) -> Source:
    return Source(topic=record.topic, partition=record.partition, offset=record.offset)


def _without_values(error: ValidationError) -> str:
    """What is wrong where. The values stay out: they may be nobody else's business."""
    found = (
        f"{'.'.join(str(part) for part in one['loc']) or 'the record'}: {one['msg']}"
        for one in error.errors(include_input=False, include_url=False)
    )
    return f"{error.title}: " + "; ".join(found)
