"""What is sold in the simulated worlds: schemas, definitions, and a registry that may be away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Final

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords
from sagakit.core.definition import Definition
from sagakit.core.values import CONFLUENT, Data, Payload
from sagakit.language.canonical import Bundle, bundle, compile_bundle
from sagakit.language.parse import parse
from sagakit.ports.registry import RegistryUnavailableError, UnknownSchemaError

ORDERS: Final = "orders.events"
ENDED: Final = "ended.events"
SERVICES: Final = ("stock", "money", "freight")
COMMAND_PARTITIONS: Final = 2
"""Of each service's commands."""

LARGE: Final = 3_000
"""A note of so many bytes makes a command that the freight service's topic refuses."""

TOO_LARGE: Final = 20_000
"""A note of so many bytes makes a record that the backlog refuses."""

LIMITS: Final = {"freight.commands": 2_500, "sim.saga.backlog": 15_000}
"""What these topics take, in bytes a record: less than the orchestrator is told."""

_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "Placed": {"order_id": "string", "amount": "long", "note": "string"},
    "Do": {"order_id": "string", "step": "string", "receipt": "string", "note": "string"},
    "Done": {"receipt": "string"},
    "Undo": {"order_id": "string", "step": "string"},
    "Undone": {},
    "Ended": {"order_id": "string", "how": "string"},
    "Hint": {"text": "string"},
}
SCHEMAS: Final[Mapping[str, str]] = {
    f"sim.{name}": json.dumps(
        {
            "type": "record",
            "name": name,
            "namespace": "sim",
            "fields": [{"name": field, "type": kind} for field, kind in fields.items()],
        }
    )
    for name, fields in _FIELDS.items()
}

_STEP: Final = """
  {name}:
    service: {service}
    kind: {kind}
    after: [{after}]
    {when}
    command: sim.Do
    with: {{order_id: start.order_id, step: '"{name}"', receipt: '{receipt}', note: start.note}}
    reply: sim.Done
    rejects: [REFUSED]
    timeout: 2s
    retry: {{attempts: 3, backoff: 100ms, max: 1s}}
"""
_UNDO: Final = """
    compensate:
      command: sim.Undo
      with: {{order_id: start.order_id, step: '"{name}"'}}
      reply: sim.Undone
      retry: {{attempts: 4, backoff: 100ms, max: 1s}}
"""


def _step(
    name: str, service: str, *, after: str = "", kind: str = "compensatable", when: str = "", receipt: str = '""'
) -> str:
    text = _STEP.format(name=name, service=service, after=after, kind=kind, when=when, receipt=receipt)
    return text + (_UNDO.format(name=name) if kind == "compensatable" else "")


def _order(version: int, *more: str) -> str:
    """An order: two branches beside each other, a pivot, and a step that reads the pivot's reply."""
    steps = [
        _step("reserve", "stock"),
        _step("charge", "money", after="reserve", receipt="reserve.receipt"),
        _step("pack", "stock", after="reserve", when="when: start.amount > 50"),
        _step("ship", "freight", after="charge, pack", kind="pivot"),
        _step("confirm", "stock", after="ship", kind="retriable", receipt="ship.receipt"),
        *more,
    ]
    return f"""
saga: order
version: {version}
owner: team
start: sim.Placed
on: {ORDERS}
key: start.order_id
again: after-compensated
deadline: 30s
dedupe: 20s
steps: {"".join(steps)}
end:
  completed: {{publish: sim.Ended, to: {ENDED}, with: {{order_id: start.order_id, how: '"completed"'}}}}
  compensated: {{publish: sim.Ended, to: {ENDED}, with: {{order_id: start.order_id, how: failure.kind}}}}
"""


def _small(name: str, again: str, on: str = "") -> str:
    """One step that can be undone, then one that cannot."""
    return f"""
saga: {name}
version: 1
owner: team
start: sim.Placed
{on}
key: start.order_id
again: {again}
dedupe: 20s
steps: {_step("look", "money")}{_step("note", "freight", after="look", kind="pivot")}
end:
  completed: {{publish: sim.Ended, to: {ENDED}, with: {{order_id: start.order_id, how: '"completed"'}}}}
"""


TEXTS: Final[Mapping[tuple[str, int], str]] = {
    ("order", 1): _order(1),
    ("order", 2): _order(2, _step("thank", "money", after="ship", kind="retriable")),
    ("visit", 1): _small("visit", "always"),
    ("audit", 1): _small("audit", "never", on=f"on: {ORDERS}"),
}
"""`audit` is started by the orders' trigger too, and `visit` by clients alone."""


@cache
def published(name: str, version: int) -> Bundle:
    """What is published of a definition."""
    parsed = parse(TEXTS[name, version])
    assert not isinstance(parsed, list), parsed
    return bundle(parsed.document, TEXTS[name, version], SCHEMAS)


_compiled: Final[dict[str, Definition]] = {}


def compiled(canonical: str, schemas: Mapping[str, str]) -> Definition:
    """`compile_bundle`, once for each definition: worlds restart orchestrators by the thousand."""
    if canonical not in _compiled:
        _compiled[canonical] = compile_bundle(canonical, schemas)
    return _compiled[canonical]


@cache
def definition_of(name: str, version: int) -> Definition:
    """A definition, compiled from what is published."""
    found = published(name, version)
    return compiled(found.canonical, found.schemas)


@cache
def registry() -> MemoryRegistry:
    """A registry that holds all schemas, shared by all worlds: nobody changes it."""
    filled = MemoryRegistry()
    OwnRecords(filled, register=True).prepare()
    for name, text in SCHEMAS.items():
        filled.register(name, text)
    return filled


@cache
def own_records() -> OwnRecords:
    """sagakit's own records, compiled once for all worlds."""
    own = OwnRecords(registry())
    own.prepare()
    return own


@cache
def codec() -> AvroCodec:
    """The codec of those who meet the orchestrator."""
    return AvroCodec(registry())


def payload(record: str, data: Data) -> Payload:
    """A record of the shop as a payload."""
    avro = codec()
    return Payload(framed=avro.encode(avro.compile_schema(SCHEMAS[record]), data), encoding=CONFLUENT)


class FlakyRegistry:
    """The registry as one world sees it: `available` False, and it does not answer.

    `extra` holds schemas that only this world knows, with their ids; `denied` the ids that it does not know yet.
    """

    def __init__(self) -> None:
        self.available = True
        self.extra: dict[str, int] = {}
        self.denied: set[int] = set()

    def _inner(self) -> MemoryRegistry:
        if not self.available:
            raise RegistryUnavailableError("the simulated registry does not answer")
        return registry()

    def schema(self, schema_id: int) -> str:
        """See `SchemaRegistry.schema`."""
        if schema_id in self.denied:
            raise UnknownSchemaError(f"the simulated registry does not know {schema_id} yet")
        return self._inner().schema(schema_id)

    def schema_id(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry.schema_id`."""
        inner = self._inner()
        return self.extra[schema] if schema in self.extra else inner.schema_id(subject, schema)

    def register(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry.register`."""
        return self._inner().register(subject, schema)

    def versions(self, subject: str) -> tuple[str, ...]:
        """See `SchemaRegistry.versions`."""
        return self._inner().versions(subject)

    def set_compatibility(self, subject: str, level: str) -> None:
        """See `SchemaRegistry.set_compatibility`."""
        self._inner().set_compatibility(subject, level)
