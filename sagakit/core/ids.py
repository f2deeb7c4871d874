"""Ids that are derived, never drawn: the same facts give the same id on every instance and in every replay.

Each id is a version 5 UUID (RFC 9562 §5.5) in one fixed namespace over compact UTF-8 JSON of a tagged list. The tags keep
the kinds of id apart; JSON keeps `("a", "bc")` and `("ab", "c")` apart.
"""

import json
from hashlib import sha1
from typing import Final
from uuid import UUID

SAGAKIT: Final = UUID("5a6a1d7e-4b1f-5c02-9d53-7361676b6974")
"""The namespace of every id that sagakit derives. Part of the wire protocol: it never changes."""


class InvalidKeyError(ValueError):
    """A business key must be a non-empty string that UTF-8 can hold; convert integers to decimal text first."""


def _derive(*parts: str | int) -> str:
    name = json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()
    digest = bytearray(sha1(SAGAKIT.bytes + name, usedforsecurity=False).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x50
    digest[8] = (digest[8] & 0x3F) | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def business_key(value: object) -> str:
    """The text form of a business key: a string as it is, an integer in decimal; no normalisation.

    Raises:
        InvalidKeyError: for null, an empty string, a boolean, any other type, or text that UTF-8 cannot hold.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidKeyError(f"a business key must be a non-empty string or an integer, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"the business key {value!r} is not valid Unicode text: {error.reason}") from error
    return value


def saga_id(namespace: str, definition: str, key: str) -> str:
    """The id of the saga of `definition` for one business key: a redelivered trigger gives the same one."""
    return _derive("saga", namespace, definition, key)


def command_id(saga_id: str, run: int, address: str, direction: str, attempt: int) -> str:
    """The id of one command; the reply names it, so a late reply can never be taken for another step's or attempt's."""
    return _derive("command", saga_id, run, address, direction, attempt)


def idempotency_key(saga_id: str, run: int, address: str, direction: str, rerun: int) -> str:
    """What a participant deduplicates by. The attempt is left out on purpose: a retry must not charge twice."""
    return _derive("effect", saga_id, run, address, direction, rerun)


def event_id(saga_id: str, run: int, seq: int, number: int) -> str:
    """The id of the `number`-th domain event (from 0) that the transition `seq` published."""
    return _derive("event", saga_id, run, seq, number)
