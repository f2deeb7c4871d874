"""Clients, wired: from settings to connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException

from sagakit.adapters.client_properties import ClientProperties, make_admin
from sagakit.adapters.kafka_reader import KafkaReader, NoTopicError
from sagakit.adapters.kafka_records import AUTHORIZATION, GRANT, error_of
from sagakit.adapters.kafka_sender import KafkaSender
from sagakit.app.settings import Settings, SettingsError
from sagakit.client import Client, Composer
from sagakit.ports.log import LogUnavailableError
from sagakit.telemetry.tracing import instrument_producer

if TYPE_CHECKING:
    from sagakit.adapters.confluent_registry import ConfluentRegistry

CONNECT_TIMEOUT_S: Final = 10.0

_ASK_WHY_S: Final = 3.0
"""How long to find out why a broker does not answer: a refusal comes within a round trip or a few."""

_NOT_ADMITTED: Final[Mapping[int, str]] = {
    KafkaError._AUTHENTICATION: "refuses the credentials; mend sasl.username, sasl.password and sasl.mechanism",
    KafkaError._SSL: "and this client do not come to terms over TLS; mend the ssl.* properties and security.protocol",
}


_UNANSWERED: Final = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})
"""A request found no connection; it does not know why there is none."""


class NotAdmittedError(LogUnavailableError):
    """The broker is there and refuses: credentials or TLS properties are wrong, or a right is missing.

    It is not `fatal`: a process that waits for its broker goes on, since a password or a right that was just changed
    reaches brokers and clients one after the other.
    """


def client_properties(settings: Settings) -> ClientProperties:
    """The librdkafka properties of every client.

    Raises:
        ClientPropertyError: a property is protected.
    """
    return ClientProperties({"bootstrap.servers": settings.bootstrap, **settings.kafka_properties})


def connect_registry(settings: Settings) -> ConfluentRegistry:
    """The schema registry; nothing is asked of it yet.

    Raises:
        SettingsError: its address or one of its properties cannot be used.
    """
    # Only now: the HTTP and OAuth libraries of its client are a third of what a command loads; many need none.
    from sagakit.adapters.confluent_registry import ConfluentRegistry  # noqa: PLC0415

    try:
        return ConfluentRegistry(settings.registry_url, settings.registry_properties)
    except ValueError as error:
        raise SettingsError(str(error)) from error


@contextmanager
def connect_reader(settings: Settings) -> Iterator[KafkaReader]:
    """A reader of whole partitions, once the broker has answered.

    Raises:
        LogUnavailableError: it does not answer.
    """
    reader = KafkaReader(client_properties(settings), settings.topics.orchestrator_group)
    try:
        with unreachable(settings):
            yield reader
    finally:
        reader.close()


@contextmanager
def connect(settings: Settings, *, source: str = "/clients") -> Iterator[Client]:
    """A client of one namespace, closed at the end of the block.

    `source` is a URI reference that says in each message who sent it.

    Raises:
        NoTopicError: the namespace has no topics yet, or this user may not see them.
        NotAdmittedError, LogUnavailableError: the broker refuses this client, or does not answer.
        ClientPropertyError: a client property is refused.
    """
    partitions = known_topics(settings).get(settings.topics.inbox)
    if partitions is None:
        raise NoTopicError(
            f"there is no topic {settings.topics.inbox}, or no right to it; `sagakit topics apply` makes it, and "
            "`sagakit doctor --acls` prints the rights"
        )
    with connect_registry(settings) as registry:
        composer = Composer(registry=registry, topics=settings.topics, partitions=partitions, source=source)
        with Client(composer, KafkaSender(client_properties(settings), instrument=instrument_producer)) as client:
            yield client


def known_topics(settings: Settings) -> Mapping[str, int]:
    """The topics that exist and that this user may describe, with their partition counts.

    Raises:
        LogUnavailableError: the broker does not answer.
    """
    with unreachable(settings):
        listed = make_admin(client_properties(settings).admin()).list_topics(timeout=CONNECT_TIMEOUT_S).topics
        return {name: len(topic.partitions) for name, topic in listed.items()}


def require_broker(settings: Settings) -> None:
    """Find out quickly whether there is a broker at all.

    Raises:
        LogUnavailableError: none answers.
    """
    known_topics(settings)


@contextmanager
def unreachable(settings: Settings) -> Iterator[None]:
    """Tell an error of the Kafka client within this block as what it means to the one who waits.

    Raises:
        NotAdmittedError: the broker refuses this client.
        LogUnavailableError: in place of the client's own error.
    """
    try:
        yield
    except KafkaException as exception:
        error = error_of(exception)
        if error.code() in AUTHORIZATION:
            raise NotAdmittedError(f"Kafka at {settings.bootstrap} refuses: {error.str()}. {GRANT}") from exception
        if error.code() in _UNANSWERED and (refusal := _refusal(settings)) is not None:
            how = _NOT_ADMITTED[refusal.code()]
            raise NotAdmittedError(
                f"Kafka at {settings.bootstrap} {how} (SAGAKIT_KAFKA, -X or the table kafka of sagakit.toml): "
                f"{refusal.str()}"
            ) from exception
        raise LogUnavailableError(
            f"Kafka at {settings.bootstrap} does not answer: {error.str()}; check that it runs, and the address and "
            "security properties (SAGAKIT_BOOTSTRAP, SAGAKIT_KAFKA)"
        ) from exception


def _refusal(settings: Settings) -> KafkaError | None:
    """Why the broker does not let us in, if that is what it does: librdkafka tells it to its error callback only."""
    told: list[KafkaError] = []
    admin = make_admin({**client_properties(settings).admin(), "error_cb": told.append})
    asked = admin.describe_cluster(request_timeout=_ASK_WHY_S)
    refusal = None
    while refusal is None and not asked.done():
        admin.poll(0.1)
        # Other errors may come before it: a connection that was refused is also one that was lost.
        refusal = next((error for error in told if error.code() in _NOT_ADMITTED), None)
    return refusal
