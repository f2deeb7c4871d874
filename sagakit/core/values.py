"""The data that a saga sees: JSON values, and the opaque payload that they were opened from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

Value: TypeAlias = bool | int | float | str | list["Value"] | dict[str, "Value"] | None
"""What expressions read and yield. Avro data is converted to it once, on arrival."""

Data: TypeAlias = Mapping[str, Value]
"""The fields of one record, by name."""

CONFLUENT: Final = "confluent"
"""Encoding of a payload that was received: the original Confluent-framed Avro bytes."""

VALUES: Final = "values"
"""Encoding of a payload that sagakit derived: canonical JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A business payload as it is stored: opaque everywhere but in the payload codec.

    `key_id` names the key that the bytes are encrypted with; None when they are in the clear.
    """

    framed: bytes
    encoding: str
    key_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A payload with its record type and its converted data: what `decide` is given."""

    payload: Payload
    type: str
    data: Data


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationError:
    """Why an expression has no value. It is a value itself: an evaluation never raises.

    `column` counts from 1 within `expression`; 0 where the runtime does not tell.
    """

    expression: str
    column: int
    message: str
