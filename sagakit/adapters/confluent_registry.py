"""A schema registry over HTTP: any that speaks the Confluent API, through confluent-kafka's client.

The line that matters is between a registry that says no and one that does not answer: a record is given up only for the
former. So a 404 counts as a denial only with the API's own error code in it; without one the URL is wrong, or a proxy
speaks.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self, TypeVar

import httpx2
import stamina
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

from sagakit.contracts import schemas
from sagakit.contracts.compatibility import LEVELS
from sagakit.contracts.errors import SchemaError
from sagakit.ports.registry import IncompatibleSchemaError, RegistryUnavailableError, UnknownSchemaError

T = TypeVar("T")

_NOT_FOUND: Final = frozenset({40401, 40402, 40403})
"""No such subject, version, schema."""

_NUMBERS: Final = frozenset(
    {"timeout", "cache.capacity", "cache.latest.ttl.sec", "max.retries", "retries.wait.ms", "retries.max.wait.ms"}
)

_OURS: Final[Mapping[str, Any]] = {
    # Retries are ours: the client's would hold a process for many seconds.
    "max.retries": 0,
    "timeout": 2.0,
    "cache.capacity": 10_000,
}

_DENIALS_MAX: Final = 10_000
DENIAL_REMEMBERED_S: Final = 0.2
"""For how long a denied id is not asked for again: a thousand records with one unknown id cost one question."""


class ConfluentRegistry:
    """`SchemaRegistry` over the Confluent API; may be shared by threads.

    `properties` go to `confluent_kafka.schema_registry.SchemaRegistryClient` (`basic.auth.user.info`,
    `ssl.ca.location`, …); numbers may be given as text, as they come from the environment. Several URLs are separated
    by commas. Nothing is ever registered but by `register`.

    Raises:
        ValueError: a property is unknown or malformed.
    """

    def __init__(
        self,
        url: str,
        properties: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = re.sub(r"//[^/@]*@", "//", url)  # as it may be shown: without credentials
        self._clock = clock
        self._denied: dict[int, float] = {}
        self._lock = threading.Lock()
        given = {name: _number(name, value) for name, value in (properties or {}).items()}
        try:
            self._client = SchemaRegistryClient({**_OURS, **given, "url": url})
        except (TypeError, ValueError) as error:
            raise ValueError(f"the schema registry's properties cannot be used: {error}") from error

    def schema(self, schema_id: int) -> str:
        """See `SchemaRegistry.schema`. A denial is remembered for a moment: many records may name the same wrong id."""
        now = self._clock()
        denied_at = self._denied.get(schema_id)
        if denied_at is not None and now - denied_at < DENIAL_REMEMBERED_S:
            raise UnknownSchemaError(f"the registry at {self._url} has no schema {schema_id}")
        try:
            return self._asked(lambda: self._self_contained(self._client.get_schema(schema_id)))
        except UnknownSchemaError:
            with self._lock:
                if len(self._denied) >= _DENIALS_MAX:
                    self._denied.clear()
                self._denied[schema_id] = self._clock()
            raise

    def schema_id(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry.schema_id`.

        Some registries compare texts: what another tool registered with other white space is found among the versions.
        """
        try:
            return _id(self._asked(lambda: self._client.lookup_schema(subject, Schema(schema, "AVRO"))).schema_id)
        except UnknownSchemaError as error:
            wanted = schemas.canonical_text(schema)
            for number in self._version_numbers(subject):
                schema_id, text = self._version(subject, number)
                if schemas.canonical_text(text) == wanted:
                    return schema_id
            raise UnknownSchemaError(
                f"the schema is not registered at {subject}; register it with `sagakit schemas register` ({error})"
            ) from error

    def register(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry.register`.

        Raises:
            SchemaError: the registry does not take the text for an Avro schema.
        """
        return _id(self._asked(lambda: self._client.register_schema(subject, Schema(schema, "AVRO")), subject))

    def versions(self, subject: str) -> tuple[str, ...]:
        """See `SchemaRegistry.versions`."""
        return tuple(self._version(subject, number)[1] for number in self._version_numbers(subject))

    def set_compatibility(self, subject: str, level: str) -> None:
        """See `SchemaRegistry.set_compatibility`.

        Raises:
            SchemaError: the level is unknown.
        """
        if level not in LEVELS:
            raise SchemaError(f"the compatibility level {level!r} is unknown; choose one of {', '.join(LEVELS)}")
        self._asked(lambda: self._client.set_compatibility(subject, level), subject)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _version_numbers(self, subject: str) -> list[int]:
        try:
            return sorted(self._asked(lambda: self._client.get_versions(subject)))
        except UnknownSchemaError:
            return []

    def _version(self, subject: str, version: int) -> tuple[int, str]:
        found = self._asked(lambda: self._client.get_version(subject, version))
        return _id(found.schema_id), self._asked(lambda: self._self_contained(found.schema))

    def _asked(self, ask: Callable[[], T], subject: str = "") -> T:
        """The registry's answer; a blip is tried over for a second or so, no longer: the caller decides what to do."""
        for attempt in stamina.retry_context(
            on=_Blip, attempts=3, timeout=3.0, wait_initial=0.1, wait_max=0.5, wait_jitter=0.1
        ):
            with attempt:
                try:
                    return ask()
                except SchemaRegistryError as error:
                    raise self._classified(error, subject) from error
                except (httpx2.TransportError, OAuthTokenError) as error:
                    raise _Blip(f"the registry at {self._url} does not answer: {error!r}") from error
                except ValueError as error:  # a body that is no JSON
                    raise _Blip(f"the registry at {self._url} gives no answer of the Confluent API: {error}") from error
        raise AssertionError("stamina returns, or raises the last error")

    def _classified(self, error: SchemaRegistryError, subject: str) -> Exception:
        status = error.http_status_code
        said = f"the registry at {self._url} says: {error}"
        if status == 404:
            if error.error_code in _NOT_FOUND:
                return UnknownSchemaError(said)
            return RegistryUnavailableError(f"{said}; that is no answer of the Confluent API: is the URL right?")
        if status == 409:
            return IncompatibleSchemaError(f"{subject}: {said}")
        if status == 422:
            return SchemaError(f"{subject}: {said}")
        if status in (401, 403):
            return RegistryUnavailableError(f"{said}; check the credentials and what they may do")
        if status in (408, 429) or status >= 500:
            return _Blip(said)
        return RegistryUnavailableError(said)

    def _self_contained(self, schema: Schema) -> str:
        """The schema with its references put in, since the port knows none."""
        text = schema.schema_str
        if text is None:
            raise RegistryUnavailableError(f"the registry at {self._url} gives a schema without its text")
        if not schema.references:
            return text
        texts: dict[str, str] = {}
        self._collect(schema, texts)
        files = schemas.read_texts(iter(texts.items()))
        main = schemas.read_texts(iter([*texts.items(), ("the schema itself", text)]))
        (name,) = main.keys() - files.keys()
        return schemas.self_contained(main)[name]

    def _collect(self, schema: Schema, texts: dict[str, str]) -> None:
        for reference in schema.references or ():
            subject, version = reference.subject, reference.version
            origin = f"{subject} version {version}"
            if subject is None or version is None or origin in texts:
                continue
            referred = self._client.get_version(subject, version).schema
            texts[origin] = referred.schema_str or ""
            self._collect(referred, texts)


class _Blip(RegistryUnavailableError):
    """No answer, for a reason that may be gone in a moment."""


def _number(name: str, value: Any) -> Any:
    if name in _NUMBERS and isinstance(value, str):
        try:
            return float(value)
        except ValueError as error:
            raise ValueError(f"the schema registry's property {name} must be a number, not {value!r}") from error
    return value


def _id(schema_id: int | None) -> int:
    if schema_id is None:
        raise RegistryUnavailableError("the registry gives no schema id")
    return schema_id
