"""Ids that are derived, never drawn: the same facts give the same id on every instance and in every replay.

Each id is a version 5 UUID (RFC 9562 §5.5) in one fixed namespace over compact UTF-8 JSON of a tagged list. The tags
keep the kinds of id apart; JSON keeps `("a", "bc")` and `("ab", "c")` apart.
"""

import re
from hashlib import sha1
from json import JSONEncoder
from typing import Final
from uuid import UUID

SAGAKIT: Final = UUID("5a6a1d7e-4b1f-5c02-9d53-7361676b6974")
"""The namespace of every id that sagakit derives. Part of the wire protocol: it never changes."""


_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class InvalidKeyError(ValueError):
    """A business key must be a non-empty string that UTF-8 can hold; convert integers to decimal text first."""


_SEEDED: Final = sha1(SAGAKIT.bytes, usedforsecurity=False)
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_json: Final = JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _version_5(name: str) -> str:
    hashed = _SEEDED.copy()
    hashed.update(name.encode())
    text = hashed.hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANTS[text[16]]}{text[17:20]}-{text[20:32]}"


def business_key(value: object) -> str:
    """The text form of a business key: a string as it is, an integer in decimal; no normalisation.

    Raises:
        InvalidKeyError: for null, an empty string, a boolean, any other type, or text that UTF-8 cannot hold.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        given = "an empty one" if value == "" else f"a value of type {type(value).__name__}"
        raise InvalidKeyError(f"a business key must be a non-empty string or an integer, not {given}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"the business key is not valid Unicode text: {error.reason}") from error
    return value


def is_saga_id(text: str) -> bool:
    """Whether `text` has the one form that saga ids have: a UUID in lower-case hexadecimal with hyphens."""
    return _UUID.fullmatch(text) is not None


def saga_id(namespace: str, definition: str, key: str) -> str:
    """The id of the saga of `definition` for one business key: a redelivered trigger gives the same one."""
    return _version_5(_json(("saga", namespace, definition, key)))


def command_id(saga_id: str, run: int, address: str, direction: str, attempt: int) -> str:
    """The id of one command; the reply names it, so a late reply can never be taken for another step's or attempt's."""
    # No character of a saga id, an address or a direction is one that JSON escapes: see `saga_id`, `Address`.
    return _version_5(f'["command","{saga_id}",{run},"{address}","{direction}",{attempt}]')


def idempotency_key(saga_id: str, run: int, address: str, direction: str, rerun: int) -> str:
    """What a participant deduplicates by. The attempt is left out on purpose: a retry must not charge twice."""
    return _version_5(f'["effect","{saga_id}",{run},"{address}","{direction}",{rerun}]')


def event_id(saga_id: str, run: int, seq: int, number: int) -> str:
    """The id of the `number`-th domain event (from 0) that the transition `seq` published."""
    return _version_5(f'["event","{saga_id}",{run},{seq},{number}]')
