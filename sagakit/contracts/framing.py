"""The Confluent wire format: one zero byte, the schema id in four bytes (big-endian), then the Avro body."""

from struct import Struct
from typing import Final

MAGIC: Final = 0
PREFIX_BYTES: Final = 5
_PREFIX: Final = Struct(">bI")
_ID_MAX: Final = 2**31 - 1
"""Registries hold an id in a signed int. Asked for a larger one, some answer as if they were not there."""


class FramingError(ValueError):
    """Bytes that are not in the Confluent wire format."""


def prefix(schema_id: int) -> bytes:
    """The five bytes that stand before the Avro body."""
    return _PREFIX.pack(MAGIC, schema_id)


def frame(schema_id: int, body: bytes) -> bytes:
    """The Avro `body` with the id of the schema that it was written with."""
    return _PREFIX.pack(MAGIC, schema_id) + body


def schema_id_of(value: bytes) -> int:
    """The schema id of a framed value.

    Raises:
        FramingError: if the value is too short, does not begin with the zero byte, or names an id that cannot be.
    """
    if len(value) < PREFIX_BYTES:
        raise FramingError(f"{len(value)} bytes are too few for the Confluent wire format, which begins with 5")
    if value[0] != MAGIC:
        raise FramingError(f"the first byte is 0x{value[0]:02x}, not 0x00 as in the Confluent wire format")
    schema_id = int.from_bytes(value[1:PREFIX_BYTES], "big")
    if schema_id > _ID_MAX:
        raise FramingError(f"the schema id {schema_id} is beyond what registries give, which is at most {_ID_MAX}")
    return schema_id


def split(value: bytes) -> tuple[int, bytes]:
    """The schema id and the Avro body of a framed value.

    Raises:
        FramingError: if the value is too short or does not begin with the zero byte.
    """
    return schema_id_of(value), value[PREFIX_BYTES:]
