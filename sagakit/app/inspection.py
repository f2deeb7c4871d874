"""Looking a saga up on the saga topics: its state, its history, and those that wait for a person.

Everything here reads whole partitions: a saga's state and backlog lie in the one partition that its id decides.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import structlog

from sagakit.adapters.kafka_reader import KafkaReader
from sagakit.app.connect import connect_reader, connect_registry
from sagakit.app.published import Catalogue, read_catalogue
from sagakit.app.settings import Settings
from sagakit.contracts.avro_types import parse_record
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.masking import compile_mask
from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import EARLY, decode_state
from sagakit.contracts.transitions import UnknownKind, decode_transition
from sagakit.core import ids, schedule
from sagakit.core.address import Address
from sagakit.core.definition import Definition
from sagakit.core.placement import partition_of
from sagakit.core.state import Early, Marker, Saga, State, StepStatus
from sagakit.core.values import Data
from sagakit.language.compile import InvalidDefinitionError
from sagakit.ports.log import Record, TopicPartition
from sagakit.proving.story import DefinitionOf, Mask, Recorded, Story, tell

_log = structlog.get_logger("sagakit.inspection")

Progress = Callable[[int, int], None]
"""Told how many records of how many were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the state topic says of a saga: its state, or None, and whether a start for it waits in the inbox."""

    saga_id: str
    partition: int
    state: State | None
    waiting_in_inbox: int


def saga_id_of(settings: Settings, definition: str, key: str) -> str:
    """The id of a saga by its definition and business key.

    Raises:
        InvalidKeyError: the key is empty.
    """
    return ids.saga_id(settings.namespace, definition, ids.business_key(key))


def find(settings: Settings, saga_id: str, progress: Progress) -> Found:
    """The saga's state, by reading one partition of the state topic, and of the inbox what is not consumed yet.

    Raises:
        LogUnavailableError, RegistryUnavailableError: a server does not answer.
        UndecodableError: the state cannot be read by this release.
    """
    wanted = {saga_id.encode(), saga_id.encode() + EARLY}
    latest: dict[bytes, bytes | None] = {}
    with connect_reader(settings) as reader:
        partition = _partition(reader, settings.topics.state, saga_id)
        for record in _records(reader, partition, progress):
            if record.key in wanted:
                latest[record.key] = record.value
        waiting = _waiting(reader, settings, TopicPartition(settings.topics.inbox, partition.partition), saga_id)
    values = [value for _, value in sorted(latest.items()) if value is not None]
    state = None
    if values:
        with _codecs(settings) as (own, payloads):
            state = decode_state(values[0], own, payloads)
    return Found(saga_id=saga_id, partition=partition.partition, state=state, waiting_in_inbox=waiting)


def history(settings: Settings, saga_id: str, progress: Progress) -> list[Recorded]:
    """All that the backlog says of a saga, in log order, by reading one partition of it.

    Raises:
        LogUnavailableError, RegistryUnavailableError: a server does not answer.
    """
    prefix = f"{saga_id}/".encode()
    told: list[Recorded] = []
    with connect_reader(settings) as reader, _codecs(settings) as (own, payloads):
        partition = _partition(reader, settings.topics.backlog, saga_id)
        for record in _records(reader, partition, progress):
            if record.value is None or not (record.key or b"").startswith(prefix):
                continue
            try:
                decoded = decode_transition(record.value, own, payloads)
            except UndecodableError as error:
                _log.warning("a record of the backlog cannot be read", offset=record.offset, reason=error.reason)
                continue
            told.append(decoded if isinstance(decoded, UnknownKind) else decoded[1])
    return told


def stories(settings: Settings, saga_id: str, progress: Progress) -> list[Story]:
    """A saga's runs as stories, masked; errors as `history` and `read_catalogue`."""
    recorded = history(settings, saga_id, progress)
    if not recorded:
        return []
    catalogue = read_catalogue(settings)
    return tell(recorded, definitions_of(catalogue), mask_of(catalogue))


def parked(settings: Settings, progress: Progress) -> Iterator[Saga]:
    """Every saga that waits for a person, by reading the whole state topic; errors as `find`."""
    with connect_reader(settings) as reader, _codecs(settings) as (own, payloads):
        for number in range(reader.partitions(settings.topics.state)):
            latest: dict[bytes, bytes | None] = {}
            for record in _records(reader, TopicPartition(settings.topics.state, number), progress):
                latest[record.key or b""] = record.value
            for value in latest.values():
                state = None if value is None else decode_state(value, own, payloads)
                if isinstance(state, Saga) and waits_for_a_person(state):
                    yield state


def waits_for_a_person(saga: Saga) -> bool:
    """Whether the saga, or one of its steps, is parked."""
    waiting = (StepStatus.PARKED, StepStatus.UNDO_PARKED)
    return saga.parked is not None or any(step.status in waiting for step in saga.steps.values())


def stands_in_for(definition: Definition, saga: Saga, step: Address | None) -> str | None:
    """The record that a skip may put in place: the step's reply, or the event of a saga that waits at its end.

    Without a `step` it is the one that waits; None where nothing can be put in place.
    """
    if step is None:
        waiting = [address for address, one in saga.steps.items() if one.status in schedule.WAITING]
        end = schedule.end_reached(definition, saga)
        if end is not None:
            event = schedule.publication(definition, end)
            return None if event is None else event.type
        if len(waiting) != 1:
            return None
        (step,) = waiting
    task = definition.tasks.get(step)
    return None if task is None else task.command.reply


def definitions_of(catalogue: Catalogue) -> DefinitionOf:
    """The compiled definitions of a catalogue, each compiled when it is first asked for."""

    @cache
    def definition_of(name: str, version: int) -> Definition | None:
        published = catalogue.definitions.get((name, version))
        try:
            return None if published is None else published.compiled()
        except InvalidDefinitionError as error:
            _log.warning("a published definition cannot be compiled", name=name, version=version, reason=str(error))
            return None

    return definition_of


def mask_of(catalogue: Catalogue) -> Mask:
    """Masks data by the schemas that were published with definitions; data of an unknown record is not shown."""
    texts = dict(own_schemas())
    for published in catalogue.definitions.values():
        texts.update(published.schemas)

    @cache
    def mask_of_record(record: str) -> Callable[[Data], Data] | None:
        text = texts.get(record)
        return None if text is None else compile_mask(parse_record(text))

    def mask(record: str, data: Data) -> Data | None:
        masked = mask_of_record(record)
        return None if masked is None else masked(data)

    return mask


def state_word(state: State | None) -> str:
    """A state in a word: `running`, `compensating`, `parked`, `completed`, `compensated`, `early`, `unknown`."""
    if isinstance(state, Saga):
        return "parked" if waits_for_a_person(state) else state.status.value
    if isinstance(state, Marker):
        return state.end.value
    return "early" if isinstance(state, Early) else "unknown"


@contextmanager
def _codecs(settings: Settings) -> Iterator[tuple[OwnRecords, PlainPayloadCodec]]:
    with connect_registry(settings) as registry:
        yield OwnRecords(registry), PlainPayloadCodec(AvroCodec(registry))


def _partition(reader: KafkaReader, topic: str, saga_id: str) -> TopicPartition:
    return TopicPartition(topic, partition_of(saga_id.encode(), reader.partitions(topic)))


def _records(reader: KafkaReader, partition: TopicPartition, progress: Progress) -> Iterator[Record]:
    start, end = reader.extent(partition)
    for records in reader.read(partition):
        yield from records
        progress(records[-1].offset + 1 - start, end - start)


def _waiting(reader: KafkaReader, settings: Settings, inbox: TopicPartition, saga_id: str) -> int:
    """How many inbox records of the saga no orchestrator has consumed yet."""
    committed = reader.committed(settings.topics.orchestrator_group, inbox)
    key = saga_id.encode()
    return sum(record.key == key for records in reader.read(inbox, committed) for record in records)
