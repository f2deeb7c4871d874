"""A schema registry within the process, for the embedded demo and tests. It ends with the process."""

import threading

from sagakit.contracts import compatibility
from sagakit.contracts.avro_types import parse
from sagakit.contracts.compatibility import incompatibilities
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.schemas import canonical_text
from sagakit.ports.registry import IncompatibleSchemaError, UnknownSchemaError


class MemoryRegistry:
    """`SchemaRegistry` in memory. It enforces compatibility as a real one does, and may be shared by threads.

    `default_compatibility` holds for subjects that have no level of their own.
    """

    def __init__(self, default_compatibility: str = "BACKWARD") -> None:
        self._default = default_compatibility
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._ids: dict[str, int] = {}
        self._subjects: dict[str, list[int]] = {}
        self._levels: dict[str, str] = {}

    def schema(self, schema_id: int) -> str:
        """See `SchemaRegistry.schema`."""
        with self._lock:
            if not 0 < schema_id <= len(self._texts):
                raise UnknownSchemaError(f"no schema has the id {schema_id}")
            return self._texts[schema_id - 1]

    def schema_id(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry.schema_id`."""
        with self._lock:
            known = self._ids.get(_normal(schema))
            if known is None or known not in self._subjects.get(subject, ()):
                raise UnknownSchemaError(
                    f"the schema is not registered at {subject}; register it with `sagakit schemas register`"
                )
            return known

    def register(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry.register`."""
        normal = _normal(schema)
        with self._lock:
            versions = self._subjects.get(subject, [])
            known = self._ids.get(normal)
            if known is not None and known in versions:
                return known
            level = self._levels.get(subject, self._default)
            broken = incompatibilities(schema, [self._texts[version - 1] for version in versions], level)
            if broken:
                shown = "; ".join(f"{one.field or 'the record'}: {one.rule}: {one.message}" for one in broken)
                raise IncompatibleSchemaError(f"{subject} ({level}) refuses the schema: {shown}")
            if known is None:
                self._texts.append(schema)
                known = self._ids[normal] = len(self._texts)
            self._subjects.setdefault(subject, []).append(known)
            return known

    def versions(self, subject: str) -> tuple[str, ...]:
        """See `SchemaRegistry.versions`."""
        with self._lock:
            return tuple(self._texts[version - 1] for version in self._subjects.get(subject, ()))

    def set_compatibility(self, subject: str, level: str) -> None:
        """See `SchemaRegistry.set_compatibility`.

        Raises:
            SchemaError: the level is unknown.
        """
        if level not in compatibility.LEVELS:
            raise SchemaError(
                f"the compatibility level {level!r} is unknown; choose one of {', '.join(compatibility.LEVELS)}"
            )
        with self._lock:
            self._levels[subject] = level


def _normal(schema: str) -> str:
    """The schema's canonical text, once it is known to be one."""
    parse(schema)
    return canonical_text(schema)
