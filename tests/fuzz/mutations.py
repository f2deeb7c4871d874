"""Records made wrong in every way that we could think of: bytes, Avro fields, headers, keys, sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, TypeAlias

from sagakit.contracts import envelope, framing
from sagakit.contracts.errors import SchemaError, UndecodableError
from sagakit.contracts.own import OwnRecords
from sagakit.ports.log import Record

Mutation: TypeAlias = Callable[[Random, Record], Record]

_INTEGERS: Final = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, -(2**31), 2**53 + 1, 2**62, 2**63 - 1, -(2**63))
_TEXTS: Final = ("", "\x00", "a", "null", "x" * 300, "ä\u2028\U0001f600", "../..", "charge#1[2]", "0" * 40, "9" * 30)
_BYTES: Final = (b"", b"\x00", b"\xff\xfe", b"-1", b"1e9", b"99999999999999999999", b"x" * 500, "ä".encode("latin-1"))
_HEADERS: Final = tuple(
    value for name, value in sorted(vars(envelope).items()) if name.isupper() and isinstance(value, str)
)
_SAID: Final = (*_BYTES, b"succeeded", b"rejected", b"failed", b"expired", b"perhaps", b"sagakit.Start", b"0")
"""What a header may be made to say: nothing, noise, or what another message would say there."""

_IDS: Final = 130
"""More schema ids than the fuzzed registries have given; the few beyond are denied."""
_NULLABLE: Final = {
    ("Start", "reply_to"): "sagakit.ReplyTo",
    ("Signal", "payload"): "sagakit.Payload",
    ("Control", "payload"): "sagakit.Payload",
    ("Snapshot", "failure"): "sagakit.Failure",
    ("Snapshot", "reply_to"): "sagakit.ReplyTo",
    ("Snapshot", "trace"): "sagakit.TraceContext",
    ("signals", "payload"): "sagakit.Payload",
}
LIMIT_BYTES: Final = 16_000
"""What the fuzzed orchestrators are told that the broker takes, so that records of megabytes need not be made."""

LARGE_BYTES: Final = 30_000
"""More than that."""

_SHARES: Final = (0.25, 0.8, 0.9, 1.0)
"""The parts of the limit at which something changes: whether a header is kept, a record is safe, a park still fits."""


def _cut(random: Random, record: Record) -> Record:
    value = record.value or b""
    return record._replace(value=value[: random.randint(0, len(value))])


def _longer(random: Random, record: Record) -> Record:
    return record._replace(value=(record.value or b"") + random.randbytes(random.randint(1, 20)))


def _flipped(random: Random, record: Record) -> Record:
    value = bytearray(record.value or b"\x00")
    for _ in range(random.choice((1, 1, 2, 5))):
        value[random.randrange(len(value))] ^= 1 << random.randrange(8)
    return record._replace(value=bytes(value))


def _noise(random: Random, record: Record) -> Record:
    return record._replace(value=random.randbytes(random.randint(0, 200)))


def _framed_noise(random: Random, record: Record) -> Record:
    schema_id = random.choice((0, 1, random.randint(1, _IDS), 2**31 - 1, 2**31, 2**32 - 1))
    return record._replace(value=b"\x00" + schema_id.to_bytes(4, "big") + random.randbytes(random.randint(0, 80)))


def _other_schema(random: Random, record: Record) -> Record:
    schema_id = random.randint(1, _IDS)
    return record._replace(value=b"\x00" + schema_id.to_bytes(4, "big") + (record.value or b"")[5:])


def _no_value(_: Random, record: Record) -> Record:
    return record._replace(value=None)


def _huge(random: Random, record: Record) -> Record:
    return record._replace(value=(record.value or b"") + bytes(random.randint(LARGE_BYTES // 2, LARGE_BYTES)))


def _other_key(random: Random, record: Record) -> Record:
    key = record.key or b""
    wrong = (None, b"", key[:-1], key.upper(), key + b"\x00", b"\xff" * 36, str(random.getrandbits(128)).encode())
    return record._replace(key=random.choice(wrong))


def _header_changed(random: Random, record: Record) -> Record:
    headers = list(record.headers)
    if not headers:
        return _header_added(random, record)
    at = random.randrange(len(headers))
    headers[at] = (headers[at][0], random.choice(_SAID))
    return record._replace(headers=headers)


def _header_dropped(random: Random, record: Record) -> Record:
    headers = list(record.headers)
    if headers:
        del headers[random.randrange(len(headers))]
    return record._replace(headers=headers)


def _header_added(random: Random, record: Record) -> Record:
    headers = list(record.headers)
    headers.insert(random.randint(0, len(headers)), (random.choice(_HEADERS), random.choice(_SAID)))
    return record._replace(headers=headers)


def _header_twice(random: Random, record: Record) -> Record:
    headers = list(record.headers)
    if headers:
        headers.insert(random.randint(0, len(headers)), random.choice(headers))
    return record._replace(headers=headers)


def _header_without_value(random: Random, record: Record) -> Record:
    headers = list(record.headers)
    headers.insert(random.randint(0, len(headers)), (random.choice((*_HEADERS, "x", "")), None))
    return record._replace(headers=headers)


def _many_headers(random: Random, record: Record) -> Record:
    more = [(random.choice(_HEADERS), random.choice(_BYTES)) for _ in range(random.choice((30, 31, 200)))]
    return record._replace(headers=[*more, *record.headers] if random.random() < 0.5 else [*record.headers, *more])


def _at_a_limit(random: Random, record: Record) -> Record:
    """As large as something may just be, or a few bytes more or less: by its key, its value or a header."""
    there = len(record.key or b"") + len(record.value or b"") + sum(len(n) + len(v or b"") for n, v in record.headers)
    more = bytes(max(0, int(LIMIT_BYTES * random.choice(_SHARES)) + random.randint(-300, 100) - there))
    kind = random.random()
    if kind < 0.4:
        return record._replace(value=(record.value or b"") + more)
    if kind < 0.5:
        return record._replace(key=(record.key or b"") + more)
    return record._replace(headers=[*record.headers, (random.choice((*_HEADERS, "x")), more)])


def _large_header(random: Random, record: Record) -> Record:
    return record._replace(headers=[*record.headers, (random.choice(_HEADERS), bytes(random.randint(1, LARGE_BYTES)))])


def _no_headers(_: Random, record: Record) -> Record:
    return record._replace(headers=())


def _as_it_is(_: Random, record: Record) -> Record:
    return record


MUTATIONS: Final[Sequence[Mutation]] = (
    _as_it_is,
    _cut,
    _longer,
    _flipped,
    _flipped,
    _noise,
    _framed_noise,
    _other_schema,
    _no_value,
    _huge,
    _other_key,
    _header_changed,
    _header_changed,
    _header_dropped,
    _header_added,
    _header_twice,
    _header_without_value,
    _many_headers,
    _large_header,
    _at_a_limit,
    _no_headers,
)


NAMES: Final = frozenset(one.__name__.removeprefix("_") for one in MUTATIONS) | {"fields_changed"}
"""What can be wrong with a record."""


def mutated(random: Random, record: Record, own: OwnRecords, wrong: list[str] | None = None) -> Record:
    """A record with one, sometimes several things wrong with it; now and then nothing. `wrong` is told their names."""
    done: list[str] = [] if wrong is None else wrong
    if random.random() < 0.3 and (changed := _fields_changed(random, record, own)) is not record:
        record = changed
        done.append("fields_changed")
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        mutation = random.choice(MUTATIONS)
        record = mutation(random, record)
        done.append(mutation.__name__.removeprefix("_"))
    return record


def _fields_changed(random: Random, record: Record, own: OwnRecords) -> Record:
    """A record of our own that decodes, with other values in some of its fields."""
    try:
        framing.schema_id_of(record.value or b"")
        found = own.decode(record.value or b"")
    except (framing.FramingError, UndecodableError):
        return record
    changed = {
        name: _wrapped(found.name, name, _another(random, value)) for name, value in sorted(found.fields.items())
    }
    try:
        return record._replace(value=own.encode(found.name, changed))
    except (
        OverflowError,
        ValueError,
        SchemaError,
    ):  # beyond what the field holds; half a surrogate pair; of a later release
        return record


def _wrapped(record: str, name: str, value: Any) -> Any:
    """A field as it is to be written: a nullable record is named there, and comes without its name."""
    if name == "signals":
        return [{field: _wrapped(name, field, inner) for field, inner in one.items()} for one in value]
    return (_NULLABLE[record, name], value) if isinstance(value, dict) and (record, name) in _NULLABLE else value


def _another(random: Random, value: Any) -> Any:
    if random.random() < 0.6:
        return value
    match value:
        case bool():
            return not value
        case int():
            return random.choice(_INTEGERS)
        case str():
            return random.choice(_TEXTS)
        case bytes():
            return random.choice(_BYTES)
        case dict():
            return {name: _another(random, inner) for name, inner in value.items()}
        case tuple():
            return value[0], _another(random, value[1])
        case list():
            return [_another(random, inner) for inner in value] * random.randint(0, 2)
    return value
