"""Field types of generated models where pydantic's own do not speak the forms that data has (see `conversion`).

Imported by generated modules only: nothing else in this package needs pydantic.
"""

import base64
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, NaiveDatetime, PlainSerializer


def _decoded(value: Any) -> Any:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _milliseconds(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _microseconds(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _local_milliseconds(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds")


def _time_milliseconds(value: time) -> str:
    return value.isoformat(timespec="milliseconds")


def _as_json(write: Any) -> PlainSerializer:
    return PlainSerializer(write, return_type=str, when_used="json")


Base64 = Annotated[bytes, BeforeValidator(_decoded), _as_json(lambda value: base64.b64encode(value).decode())]
"""Avro's bytes and fixed: bytes in Python, base64 text in data."""

Number = Annotated[Decimal, _as_json(lambda value: f"{value:f}")]
"""Avro's decimal, never in scientific notation."""

TimestampMillis = Annotated[AwareDatetime, _as_json(_milliseconds)]
"""A moment, written in UTC; what is finer than a millisecond is cut off."""

TimestampMicros = Annotated[AwareDatetime, _as_json(_microseconds)]
"""A moment, written in UTC."""

LocalTimestampMillis = Annotated[NaiveDatetime, _as_json(_local_milliseconds)]
"""A date and time of no time zone; what is finer than a millisecond is cut off."""

TimeMillis = Annotated[time, _as_json(_time_milliseconds)]
"""A time of day; what is finer than a millisecond is cut off."""
