"""The librdkafka properties of every client that sagakit makes: the user's, merged with those that correctness needs.

A user may set any property (https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md) for all clients,
or for one kind of client by a prefix: `consumer.fetch.max.bytes`, `producer.linger.ms`, `admin.log_level`. Refused are
those on which exactly-once rests: with `enable.auto.commit=true` every promise of the engine is void.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

# From where they are defined: `opentelemetry-instrument` replaces the names in `confluent_kafka`.
# The client's and the demo's own are instrumented by `sagakit.telemetry`; those of a transaction or a group never are.
from confluent_kafka.cimpl import Consumer, Producer

Property: TypeAlias = str | int | float | bool
Properties: TypeAlias = Mapping[str, Property]

_logger = logging.getLogger(__name__)

Client = TypeVar("Client", Consumer, Producer, AdminClient)

_KINDS: Final = ("consumer", "producer", "admin")

PROTECTED: Final[Mapping[str, str]] = {
    "group.id": "it follows from the namespace or the service",
    "transactional.id": "it follows from the namespace and the instance; two processes with one id fence each other",
    "enable.auto.commit": "offsets are committed with what was done, never on a timer",
    "enable.auto.offset.store": "offsets are committed with what was done, never on a timer",
    "auto.offset.reset": "a lost offset is an incident; a reset would hide it",
    "isolation.level": "reading uncommitted records would act on work that never happened",
    "enable.partition.eof": "the end of a partition is found by its high watermark",
    "partition.assignment.strategy": "members of a group must not mix strategies; group.protocol may be set",
    "enable.idempotence": "without it a retry writes records twice or out of order",
    "acks": "fewer acknowledgements lose records that were reported as written",
    "partitioner": "the place of a saga must be the same for every client",
    "delivery.report.only.error": "delivery reports name the record that the broker refuses",
}
"""Properties that cannot be set, each with the reason."""

# Takeover must come before the dead member's transaction times out (10 s), or fencing it buys nothing.
_SESSION: Final[dict[str, Property]] = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 2_000}

# A broker that stands still with its connections open (a frozen machine, a network that swallows packets) is given up
# after so long, and its partitions are looked for elsewhere; librdkafka's own 60 s would hold up whoever waits. A
# transactional producer takes its transaction's timeout for it by itself.
_STILL: Final[dict[str, Property]] = {"socket.timeout.ms": 9_000}

_SECRET: Final = re.compile(r"password|secret|\.pem$|oauthbearer\.config|token|assertion|sasl\.username")


class ClientPropertyError(ValueError):
    """A client property is protected, unknown to librdkafka, or has a value that it refuses; the message names it."""


class ClientProperties:
    """What the user set, checked once; gives the full properties of each kind of client.

    Raises:
        ClientPropertyError: if a protected property is set.
    """

    def __init__(self, user: Properties) -> None:
        for name in user:
            plain = _plain(name)
            if plain in PROTECTED:
                raise ClientPropertyError(f"the Kafka property {name} cannot be set: {PROTECTED[plain]}. Remove it.")
        self._user = dict(user)

    def consumer(self, *, defaults: Properties, fixed: Properties) -> dict[str, Property]:
        """The properties of a consumer: `defaults`, over them the user's, over them `fixed`.

        Every one has our session timeouts, also those that join no group: librdkafka compares them with the user's
        `max.poll.interval.ms` all the same, and its own 45 s refuse a shorter one.
        """
        session = _SESSION if self.group_protocol == "classic" else {}  # else the broker's group configuration says it
        return self._merge("consumer", {**_STILL, **session, **defaults}, fixed)

    def producer(self, *, defaults: Properties, fixed: Properties) -> dict[str, Property]:
        """The properties of a producer: `defaults`, over them the user's, over them `fixed`."""
        still = {} if "transactional.id" in fixed else _STILL
        return self._merge("producer", {**still, **defaults}, fixed)

    def admin(self) -> dict[str, Property]:
        """The properties of an admin client.

        It has no poll through which its log lines would reach Python, and librdkafka's own output is not ours: what
        goes wrong is in its exceptions, so by default it only logs what is critical.
        """
        return self._merge("admin", {"log_level": 2}, {})

    @property
    def group_protocol(self) -> str:
        """`classic`, or `consumer` (KIP-848) if the user chose it."""
        merged = self._merge("consumer", {"group.protocol": "classic"}, {})
        return str(merged["group.protocol"]).lower()

    def masked(self) -> dict[str, Property]:
        """What the user set, fit for logs: the value of each secret is replaced."""
        return {name: "********" if _SECRET.search(name) else value for name, value in self._user.items()}

    def __repr__(self) -> str:
        return f"ClientProperties({self.masked()})"

    def _merge(self, kind: str, defaults: Properties, fixed: Properties) -> dict[str, Property]:
        merged = dict(defaults)
        merged.update({name: value for name, value in self._user.items() if _kind(name) is None})
        merged.update({_plain(name): value for name, value in self._user.items() if _kind(name) == kind})
        merged.update(fixed)
        return merged


def make_consumer(properties: Mapping[str, object]) -> Consumer:
    """A consumer; it logs through the standard library, to `logger` if `properties` name one.

    Raises:
        ClientPropertyError: if librdkafka does not know a property, or refuses its value.
    """
    return _make(Consumer, {"logger": _logger, **properties})


def make_producer(properties: Mapping[str, object]) -> Producer:
    """A producer; it logs as a consumer does.

    Raises:
        ClientPropertyError: if librdkafka does not know a property, or refuses its value.
    """
    return _make(Producer, {"logger": _logger, **properties})


def make_admin(properties: Mapping[str, object]) -> AdminClient:
    """An admin client. Keep it referenced until its futures are done.

    Raises:
        ClientPropertyError: if librdkafka does not know a property, or refuses its value.
    """
    return _make(AdminClient, properties)


def _make(client: Callable[[dict[str, Any]], Client], properties: Mapping[str, object]) -> Client:
    try:
        return client(dict(properties))
    except KafkaException as error:
        raise ClientPropertyError(f"librdkafka refuses a client property: {error.args[0].str()}") from error


def _kind(name: str) -> str | None:
    head = name.partition(".")[0]
    return head if head in _KINDS else None


def _plain(name: str) -> str:
    return name if _kind(name) is None else name.partition(".")[2]
