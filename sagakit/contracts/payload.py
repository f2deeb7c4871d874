"""The one place where payloads are opened and sealed: encryption can come here, without a new format."""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UndecodableError, UnencodableError
from sagakit.core.values import CONFLUENT, VALUES, Data, Opened, Payload


class PayloadCodec(Protocol):
    """Opens payloads for `decide` and seals what it yields."""

    def open(self, payload: Payload) -> Opened:
        """The payload with its record type and data.

        The type of `values`, which are no record, is `values`.

        Raises:
            UndecodableError: the payload can never be opened.
            RegistryUnavailableError: its schema is not known yet and the registry does not answer.
        """
        ...

    def seal(self, data: Data) -> Payload:
        """Data that sagakit derived, as a payload of `values`.

        Raises:
            UnencodableError: the data is not made of JSON values.
        """
        ...


class PlainPayloadCodec:
    """Payloads in the clear."""

    def __init__(self, avro: AvroCodec) -> None:
        self._avro = avro

    def open(self, payload: Payload) -> Opened:
        """See `PayloadCodec.open`; an encrypted payload can never be opened by this codec."""
        if payload.key_id is not None:
            raise UndecodableError(
                f"the payload is encrypted with the key {payload.key_id!r}, and no keys are configured"
            )
        if payload.encoding == CONFLUENT:
            decoded = self._avro.decode(payload.framed)
            return Opened(payload=payload, type=decoded.type, data=decoded.data)
        if payload.encoding == VALUES:
            return Opened(payload=payload, type=VALUES, data=_parsed(payload.framed))
        raise UndecodableError(f"the payload's encoding {payload.encoding!r} is unknown")

    def seal(self, data: Data) -> Payload:
        """See `PayloadCodec.seal`."""
        return Payload(framed=canonical_json(data), encoding=VALUES)


def canonical_json(data: Data) -> bytes:
    """Compact UTF-8 JSON with sorted keys.

    Raises:
        UnencodableError: the data is not made of JSON values: an integer beyond 64 bits, a double that is no number,
            text that UTF-8 cannot hold, more than some 250 levels of nesting.
    """
    try:
        text = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise UnencodableError("values", (), str(error)) from error
    if b"null" in text and (path := _not_finite(data)) is not None:  # orjson writes a double that is no number as null
        raise UnencodableError("values", path, "a double that is no finite number; an expression must not yield it")
    return text


def _not_finite(value: Any) -> tuple[str | int, ...] | None:
    """The path to the first double that is infinite or not a number."""
    if isinstance(value, float):
        return () if value - value != 0.0 else None
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        inner = _not_finite(part)
        if inner is not None:
            return (name, *inner)
    return None


def _parsed(text: bytes) -> Data:
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UndecodableError(f"the payload is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise UndecodableError("the payload is JSON, but no object")
    return data
