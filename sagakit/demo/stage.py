"""Where the demo plays: brokers, a registry, orchestrators and services, whoever runs them."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sagakit.adapters.client_properties import ClientProperties
from sagakit.app.settings import Settings
from sagakit.contracts.schemas import load_folder
from sagakit.contracts.topics import Topics
from sagakit.language.canonical import Bundle, bundle
from sagakit.language.lint import lint_text
from sagakit.participants import Service
from sagakit.ports.registry import SchemaRegistry
from services.books import SERVICES
from services.demo_orders import ORDERS_FILE
from services.ledger import Ledger

PROJECT: Final = ORDERS_FILE.parents[2]
"""The folder that holds `schemas` and `services`."""

SHOP_SCHEMAS: Final = PROJECT / "schemas" / "shop"
DEFINITION_FILE: Final = ORDERS_FILE.parent / "place_order.yaml"
DEFINITION: Final = "place-order"
ORDERS: Final = "orders.events"
"""The topic, without its prefix, that orders are placed in and their ends told in."""

ORDER_PLACED: Final = "shop.orders.OrderPlaced"
ORDER_ENDS: Final = frozenset({"shop.orders.OrderConfirmed", "shop.orders.OrderRejected"})


class DemoError(Exception):
    """The demo cannot go on; the message says what happened and what to do next."""


class WrongFileError(DemoError):
    """A file or folder that the demo was given will not do; the message says why, and what would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A process that killed itself at a failpoint: who, where, at which moment (epoch ms), and when it was back.

    `detail` is what the place tells, for instance the id of the command in work.
    """

    who: str
    process_id: int
    point: str
    at_ms: int
    detail: str


class Supervisor(Protocol):
    """Watches over orchestrators and services."""

    def look(self) -> None:
        """Notice who ended, and start again who was killed on purpose.

        Raises:
            DemoError: somebody ended who should not.
        """
        ...

    def deaths(self) -> Sequence[Death]:
        """The kills so far, oldest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a play needs to know of its stage.

    Attributes:
        settings: bootstrap, namespace and topic names of this run.
        properties: the client properties of whoever connects.
        registry: the schemas.
        ledgers: folder of the services' databases.
        readers: the topics that each consumer group reads, to know when all is read.
        supervisor: watches over those who work.
    """

    settings: Settings
    properties: ClientProperties
    registry: SchemaRegistry
    ledgers: Path
    readers: Mapping[str, frozenset[str]]
    supervisor: Supervisor


def shop_schemas() -> Mapping[str, str]:
    """The self-contained schemas of the shop's records, by full name."""
    return load_folder(SHOP_SCHEMAS)


def definition_bundle() -> Bundle:
    """The shop's saga definition, as it is published.

    Raises:
        DemoError: lint finds errors in it.
    """
    text, schemas = DEFINITION_FILE.read_text(encoding="utf-8"), shop_schemas()
    linted = lint_text(text, schemas, DEFINITION_FILE.name)
    if linted.document is None or not linted.ok:
        raise DemoError(f"the definition cannot be published: {'; '.join(map(str, linted.findings))}")
    return bundle(linted.document, text, schemas)


def shop_services() -> Mapping[str, tuple[Service, Ledger]]:
    """The shop's services with their ledgers, by name."""
    modules = {name: importlib.import_module(f"services.{name}.app") for name in SERVICES}
    return {name: (module.app, module.ledger) for name, module in modules.items()}


def readers(topics: Topics) -> Mapping[str, frozenset[str]]:
    """The topics that each of the services' consumer groups reads."""
    return {
        topics.service_group(name): frozenset({topics.commands(name)} if service.commands else ())
        | frozenset(topics.service_topic(topic) for topic, _ in service.events)
        for name, (service, _) in shop_services().items()
    }
