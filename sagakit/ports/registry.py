"""The port to a schema registry that speaks the Confluent API."""

from typing import Protocol


class RegistryUnavailableError(Exception):
    """The registry does not answer. Transient: try again later, never take a record for poison because of it."""


class UnknownSchemaError(Exception):
    """The registry answered that it has no such schema, subject or version."""


class IncompatibleSchemaError(Exception):
    """The registry refuses a schema that breaks the subject's compatibility rule; the message says which."""


class SchemaRegistry(Protocol):
    """Schemas by id and by subject. Schemas are Avro JSON text, self-contained (no references)."""

    def schema(self, schema_id: int) -> str:
        """The schema of an id.

        Raises:
            UnknownSchemaError: the registry denies the id.
            RegistryUnavailableError: it does not answer.
        """
        ...

    def schema_id(self, subject: str, schema: str) -> int:
        """The id under which `schema` is registered at `subject`.

        Raises:
            UnknownSchemaError: it is not registered there; `sagakit schemas register` does it.
            RegistryUnavailableError: the registry does not answer.
        """
        ...

    def register(self, subject: str, schema: str) -> int:
        """Register `schema` (again: the same id) and give its id.

        Raises:
            IncompatibleSchemaError: the subject's compatibility rule refuses it.
            RegistryUnavailableError: the registry does not answer.
        """
        ...

    def versions(self, subject: str) -> tuple[str, ...]:
        """All schemas of a subject, oldest first; empty if there is none."""
        ...

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the subject's rule, such as `BACKWARD_TRANSITIVE` or `FULL_TRANSITIVE`."""
        ...
