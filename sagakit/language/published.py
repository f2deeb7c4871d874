"""Records of the definitions topic, read and compiled: what a process that runs sagas goes by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagakit.contracts.avro_types import parse_record
from sagakit.contracts.errors import SchemaError, UndecodableError, UnknownSchemaIdError
from sagakit.contracts.own import OwnRecords
from sagakit.core.definition import Definition
from sagakit.language.canonical import compile_bundle
from sagakit.language.compile import InvalidDefinitionError
from sagakit.ports.log import Record, TopicPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published version: the compiled definition, the schemas of its records, and where its triggers begin.

    `triggers_from` holds, for each partition of the trigger topic (full name), the first offset that can start a saga
    of this version; a partition that is not named begins at 0, since it did not exist when the version was published.
    `command_partitions` is how many partitions each service's commands had then: a saga of this version goes by that,
    so that a command and what undoes it share a partition although the topic grows between them.
    """

    definition: Definition
    schemas: Mapping[str, str]
    triggers_from: Mapping[TopicPartition, int]
    command_partitions: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """What holds for the whole namespace: how many partitions it was made with, and which engine level it may write."""

    partitions: int
    engine_level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A record of the definitions topic that this process cannot use, and why."""

    key: str
    reason: str


def decode_published(record: Record, own: OwnRecords) -> Published | Namespace | Unusable | None:
    """Read one record of the definitions topic; None for a tombstone.

    Raises:
        UnknownSchemaIdError: the registry denies its schema, which may only be on its way to the asked replica.
        RegistryUnavailableError: the registry has to be asked and does not answer.
    """
    if record.value is None:
        return None
    key = (record.key or b"").decode(errors="replace")
    try:
        found = own.decode(record.value)
    except UnknownSchemaIdError:
        raise
    except UndecodableError as undecodable:
        return Unusable(key=key, reason=undecodable.reason)
    fields = found.fields
    if found.name == "NamespaceRecord":
        return Namespace(partitions=fields["partitions"], engine_level=fields["engine_level"])
    if found.name != "PublishedDefinition":
        return Unusable(key=key, reason=f"it is a sagakit.{found.name}, not a definition")
    try:
        for text in fields["schemas"].values():
            parse_record(text)
        definition = compile_bundle(fields["canonical"], fields["schemas"])
    except (SchemaError, InvalidDefinitionError) as unusable:
        return Unusable(key=key, reason=str(unusable))
    if (reason := _contradiction(key, definition, fields)) is not None:
        return Unusable(key=key, reason=reason)
    return Published(
        definition=definition,
        schemas=fields["schemas"],
        triggers_from={TopicPartition(o["topic"], o["partition"]): o["offset"] for o in fields["first_offsets"]},
        command_partitions=fields["command_partitions"],
    )


def _contradiction(key: str, definition: Definition, fields: Mapping[str, Any]) -> str | None:
    """What of a record cannot be, though each of its parts can be read; None if nothing.

    By the key the topic is compacted, and so no version may stand under that of another.
    """
    if key != f"{definition.name}/{definition.version}":
        return f"it is version {definition.version} of {definition.name!r}, under the key of another"
    if any(count < 1 for count in fields["command_partitions"].values()):
        return "a topic of commands has no partitions"
    if any(first["offset"] < 0 or first["partition"] < 0 for first in fields["first_offsets"]):
        return "a trigger partition, or its first offset, is below zero"
    return None
