"""Records of the definitions topic, read and compiled."""

from sagakit.contracts.avro_types import parse_record
from sagakit.contracts.errors import SchemaError, UndecodableError
from sagakit.contracts.own import OwnRecords
from sagakit.language.canonical import compile_bundle
from sagakit.language.compile import InvalidDefinitionError
from sagakit.orchestrator.blocked import PartitionBlockedError
from sagakit.orchestrator.catalog import DecodeDefinition, Namespace, Published, Unusable
from sagakit.ports.log import Record, TopicPartition
from sagakit.ports.registry import RegistryUnavailableError


def decoder(own: OwnRecords) -> DecodeDefinition:
    """How the catalog reads a record of the definitions topic."""

    def decode(record: Record) -> Published | Namespace | Unusable | None:
        if record.value is None:
            return None
        key = (record.key or b"").decode(errors="replace")
        try:
            found = own.decode(record.value)
        except UndecodableError as undecodable:
            return Unusable(key=key, reason=undecodable.reason)
        except RegistryUnavailableError as unavailable:
            raise PartitionBlockedError(f"the registry does not answer: {unavailable}", transient=True) from unavailable
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
        triggers_from = {TopicPartition(o["topic"], o["partition"]): o["offset"] for o in fields["first_offsets"]}
        return Published(definition=definition, schemas=fields["schemas"], triggers_from=triggers_from)

    return decode
