"""What follows from a decision, as records: mapped, encoded and checked for size before anything is staged."""

from hashlib import sha256
from typing import Final, get_args

from sagakit.contracts import envelope, messages
from sagakit.contracts.codec import AvroCodec, CompiledSchema
from sagakit.contracts.errors import SchemaError, UnencodableError
from sagakit.contracts.messages import DomainEvent
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PayloadCodec
from sagakit.contracts.snapshots import encode_state
from sagakit.contracts.topics import Topics
from sagakit.contracts.transitions import encode_transition
from sagakit.core.actions import Action, PublishEvent, SendCommand
from sagakit.core.address import Address
from sagakit.core.decide import Decision
from sagakit.core.events import Refusal, Refused
from sagakit.core.placement import partition_of
from sagakit.core.schedule import next_due_ms
from sagakit.core.state import Saga, State
from sagakit.core.transitions import Direction, Transition
from sagakit.language.published import Published
from sagakit.orchestrator.blocked import PartitionBlockedError
from sagakit.orchestrator.cycle import Produced
from sagakit.orchestrator.memory import Entry
from sagakit.ports.log import Headers, Outgoing, Record
from sagakit.ports.registry import RegistryUnavailableError, UnknownSchemaError

SAFE_SHARE: Final = 0.8
"""The part of the broker's record limit that is used: the rest is for batch framing and headers added on the way."""

LAST_SHARE: Final = 0.9
"""The part that a state may use that parks its saga because something did not fit: the park itself has to fit."""

_CUT_HEADER_BYTES: Final = 256
"""Room for what is said of a dead letter that had to be cut."""

_SMALL_HEADER_BYTES: Final = 1_000
_SMALL_HEADERS: Final = 30
"""Which headers of a dead letter stay when they are too large together: the last ones, which say why it is one."""

_HEADER_BYTES: Final = 16
"""What the broker adds to a header's name and value, and more."""


_TYPE_HEADERS: Final = {kind: [(envelope.TYPE, f"sagakit.{kind.__name__}".encode())] for kind in get_args(Transition)}
"""The headers of a transition's record: its type, to filter by without opening the value. The rest of the envelope
stands in the record's own header."""


class RefusedRecordError(Exception):
    """A record that follows from a decision cannot be encoded, or is larger than the broker takes."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Writer:
    """Makes the records of one orchestrator."""

    def __init__(
        self,
        namespace: str,
        topics: Topics,
        partitions: int,
        own: OwnRecords,
        payloads: PayloadCodec,
        avro: AvroCodec,
        max_record_bytes: int,
    ) -> None:
        self._namespace = namespace
        self._topics = topics
        self._partitions = partitions
        self._own = own
        self._payloads = payloads
        self._avro = avro
        self._limit = int(max_record_bytes * SAFE_SHARE)
        self._last_limit = int(max_record_bytes * LAST_SHARE)

    def decision(self, decision: Decision, partition: int, published: Published | None) -> list[Produced]:
        """The records of a decision's transitions and actions; its state is written by `state`.

        Raises:
            RefusedRecordError: one of them cannot be sent; it says which.
            PartitionBlockedError: the registry has to be asked and does not answer.
        """
        backlog = self._topics.backlog
        produced = []
        for transition in decision.transitions:
            try:
                key, value = encode_transition(transition, self._namespace, self._own, self._payloads)
            except UnencodableError as error:
                raise RefusedRecordError(Refusal(target=Refused.INPUT, address=None, reason=str(error))) from error
            record = Outgoing(backlog, partition, key, value, _TYPE_HEADERS[type(transition)])
            produced.append(self._checked(record, Refused.INPUT, None))
        if decision.actions:
            at_ms = decision.transitions[0].header.at_ms
            business_key = decision.state.key if isinstance(decision.state, Saga) else None
            produced += [self._action(one, partition, published, at_ms, business_key) for one in decision.actions]
        return produced

    def _action(
        self, action: Action, partition: int, published: Published | None, at_ms: int, key: str | None
    ) -> Produced:
        assert published is not None
        target, address = _target(action)
        try:
            if isinstance(action, SendCommand):
                schema = self._schema(published, action.type)
                to = self._placed(action, partition, published)
                record = messages.encode_command(action, schema, self._avro, self._topics, partition, at_ms, to, key)
            elif isinstance(action, PublishEvent):
                schema = self._schema(published, action.type)
                record = messages.encode_event(action, schema, self._avro, self._topics, at_ms)
            else:
                record = messages.encode_result(action, self._own, self._topics, at_ms)
        except (UnencodableError, UnknownSchemaError, SchemaError) as error:
            raise RefusedRecordError(Refusal(target=target, address=address, reason=str(error))) from error
        return self._checked(record, target, address)

    def _placed(self, command: SendCommand, home: int, published: Published) -> int | None:
        """The partition of a command, by the count that its topic had when the definition was published.

        A command and what undoes it so share a partition although the topic grows between them. Where it has as many
        as the inbox, that is the saga's `home`. None, where no count was recorded, leaves the placing to the client.
        """
        count = published.command_partitions.get(command.service)
        if count is None:
            return None
        return home if count == self._partitions else partition_of(command.saga_id.encode(), count)

    def _schema(self, published: Published, name: str) -> CompiledSchema:
        try:
            return self._avro.compile_schema(published.schemas[name])
        except RegistryUnavailableError as error:
            raise PartitionBlockedError(f"the registry does not answer: {error}", transient=True) from error

    def state(self, state: State, key: bytes, partition: int, *, last_resort: bool = False) -> tuple[Entry, Outgoing]:
        """A state as memory holds it and as the state topic gets it. `last_resort`: it is to say that it is too large.

        Raises:
            RefusedRecordError: it is larger than the broker takes.
        """
        try:
            value = encode_state(state, self._own, self._payloads)
        except UnencodableError as error:
            raise RefusedRecordError(Refusal(target=Refused.INPUT, address=None, reason=str(error))) from error
        due_ms = next_due_ms(state)
        headers = () if due_ms is None else ((envelope.DUE, b"%d" % due_ms),)
        record = Outgoing(self._topics.state, partition, key, value, headers)
        self._checked(record, Refused.INPUT, None, self._last_limit if last_resort else self._limit)
        return Entry(value, due_ms), record

    def tombstone(self, key: bytes, partition: int) -> Outgoing:
        """What removes a key from the state topic."""
        return Outgoing(self._topics.state, partition, key, None, ())

    def start(
        self, trigger: DomainEvent, definition: str, key: str, saga_id: str, partition: int, at_ms: int
    ) -> Produced:
        """The start that a domain event leads to, for the inbox partition of its saga."""
        message = messages.StartMessage(saga_id=saga_id, definition=definition, key=key, payload=trigger.opened.payload)
        said = envelope.Envelope(
            message_id=trigger.cause.message_id,
            source=envelope.orchestrator_source(self._namespace),
            at_ms=at_ms,
            causation_id=trigger.cause.message_id,
            trace=trigger.trace,
        )
        record = messages.encode_start(message, said, self._own, self._topics, partition)
        return self._checked(record, Refused.INPUT, None)

    def dead_letter(self, record: Record, reason: str) -> Produced:
        """A record that can never be taken in, raw; cut to size where even that does not fit."""
        letter = messages.encode_dead_letter(record, self._topics.dead_letters, reason)
        return Produced(self._cut(letter), Refused.INPUT, None)

    def _cut(self, letter: Outgoing) -> Outgoing:
        """As much of a letter as fits: what was large goes, the value first, and it is said how long it was."""
        value, most = letter.value or b"", self._limit - _CUT_HEADER_BYTES
        if len(letter.key) + len(value) + _headers_size(letter) <= most:
            return letter
        said = (
            (envelope.CUT_LENGTH, b"%d" % len(value)),
            (envelope.CUT_SHA256, sha256(value).hexdigest().encode()),
        )
        each = most // 4
        key = letter.key[:each]
        headers = letter.headers if _headers_size(letter) <= each else _small(letter.headers)
        cut = letter._replace(key=key, headers=(*headers, *said))
        return cut._replace(value=value[: most - len(key) - _headers_size(cut)])

    def _checked(
        self, record: Outgoing, target: Refused, address: Address | None, limit: int | None = None
    ) -> Produced:
        size, limit = len(record.key) + len(record.value or b""), limit or self._limit
        if size * 2 > limit and size + _headers_size(record) > limit:
            reason = f"a record of {size} bytes for {record.topic}; the brokers safely take {limit}"
            raise RefusedRecordError(Refusal(target=target, address=address, reason=reason))
        return Produced(record, target, address)


def _headers_size(record: Outgoing) -> int:
    return sum(len(name) + len(value or b"") + _HEADER_BYTES for name, value in record.headers)


def _small(headers: Headers) -> Headers:
    """Those of the headers that take little room, up to as many as a message of ours has."""
    small = [(name, value) for name, value in headers if len(name) + len(value or b"") <= _SMALL_HEADER_BYTES]
    return small[-_SMALL_HEADERS:]


def _target(action: Action) -> tuple[Refused, Address | None]:
    if isinstance(action, SendCommand):
        forward = action.direction is Direction.FORWARD
        return (Refused.COMMAND if forward else Refused.COMPENSATION), action.address
    return (Refused.EVENT if isinstance(action, PublishEvent) else Refused.RESULT), None
