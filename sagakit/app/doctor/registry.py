"""Checks of the schema registry, on a subject that is removed again."""

import contextlib
import json
from typing import Final
from uuid import uuid4

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from sagakit.app.connect import connect_registry
from sagakit.app.doctor.findings import Finding, fail, ok, warn
from sagakit.app.settings import Settings
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.own import own_schemas
from sagakit.ports.registry import (
    IncompatibleSchemaError,
    RegistryUnavailableError,
    SchemaRegistry,
    UnknownSchemaError,
)

_FIELD: Final = {"name": "number", "type": "long"}


def keeps_schemas(settings: Settings) -> Finding:
    """It answers, gives the same id for the same schema, and refuses what breaks a subject's rule."""
    check = "schema registry"
    if not settings.registry_url:
        return warn(check, "none is set, so none was asked", "Set SAGAKIT_REGISTRY_URL.")
    subject = f"sagakit.doctor.probe{uuid4().hex[:10]}.Probe"
    try:
        with connect_registry(settings) as registry:
            return _try(check, registry, subject)
    except SchemaError as error:
        return fail(
            check, f"it does not take a simple schema: {error}", "Use a registry that speaks the Confluent API."
        )
    except RegistryUnavailableError as error:
        return fail(
            check,
            f"{settings.registry_url} does not answer: {error}",
            "Check that it runs, SAGAKIT_REGISTRY_URL and SAGAKIT_REGISTRY.",
        )
    finally:
        _remove(settings, subject)


def has_own_schemas(settings: Settings) -> Finding:
    """Sagakit's own records must be registered before anything is written."""
    check = "sagakit's own schemas"
    if not settings.registry_url:
        return warn(check, "no registry is set", "Set SAGAKIT_REGISTRY_URL.")
    missing: list[str] = []
    with connect_registry(settings) as registry:
        for name, text in own_schemas().items():
            try:
                registry.schema_id(name, text)
            except UnknownSchemaError:
                missing.append(name)
            except RegistryUnavailableError as error:
                return fail(check, f"the registry does not answer: {error}", "Check that it runs.")
    if missing:
        found = f"{len(missing)} of {len(own_schemas())} are not registered, among them {missing[0]}"
        return warn(check, found, "Run `sagakit schemas register`.")
    return ok(check, f"all {len(own_schemas())} are registered")


def _try(check: str, registry: SchemaRegistry, subject: str) -> Finding:
    first = _record(subject, _FIELD)
    schema_id = registry.register(subject, first)
    if registry.register(subject, first) != schema_id:
        return fail(check, "the same schema got two ids", "Use a registry that speaks the Confluent API.")
    if "number" not in registry.schema(schema_id):
        return fail(
            check, f"the id {schema_id} gives another schema back", "Use a registry that speaks the Confluent API."
        )
    registry.set_compatibility(subject, "FULL_TRANSITIVE")
    try:
        registry.register(subject, _record(subject, _FIELD, {"name": "text", "type": "string"}))
    except IncompatibleSchemaError:
        return ok(check, "it keeps ids, and refuses a schema that breaks FULL_TRANSITIVE")
    return fail(
        check,
        "it took a new field without a default under FULL_TRANSITIVE",
        "Have compatibility enforced (Apicurio: the ccompat API; Confluent: compatibility per subject).",
    )


def _record(subject: str, *fields: object) -> str:
    namespace, _, name = subject.rpartition(".")
    return json.dumps({"type": "record", "name": name, "namespace": namespace, "fields": fields})


def _remove(settings: Settings, subject: str) -> None:
    client = SchemaRegistryClient({"url": settings.registry_url, "max.retries": 0, **settings.registry_properties})
    for permanent in (False, True):
        # A registry that may not delete, or is away: the subject is unique and harms nobody.
        with contextlib.suppress(SchemaRegistryError, OSError):
            client.delete_subject(subject, permanent=permanent)
    client.close()
