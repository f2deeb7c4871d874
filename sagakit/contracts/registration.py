"""What registering a folder of schemas would do, and doing it: all of them, or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from sagakit.contracts.compatibility import Incompatibility, incompatibilities
from sagakit.contracts.own import NAMESPACE
from sagakit.contracts.schemas import canonical_text
from sagakit.ports.registry import SchemaRegistry


class Standing(Enum):
    """How a schema stands to what the registry has."""

    REGISTERED = "registered"
    NEW_SUBJECT = "new subject"
    NEW_VERSION = "new version"
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One schema and how it stands. `level` is the compatibility that its subject has, or gets."""

    subject: str
    text: str
    level: str
    standing: Standing
    incompatibilities: tuple[Incompatibility, ...] = ()


def level_of(name: str) -> str:
    """The compatibility of a record's subject.

    sagakit's own records are read by older and newer releases at once, so both ways; the others' readers are upgraded
    first.
    """
    return "FULL_TRANSITIVE" if name.startswith(f"{NAMESPACE}.") else "BACKWARD_TRANSITIVE"


def compare(texts: Mapping[str, str], registry: SchemaRegistry) -> tuple[Compared, ...]:
    """How each self-contained schema (by full name, the used before their users) stands to the registry.

    Raises:
        SchemaError: a text is not an Avro schema.
        RegistryUnavailableError: the registry does not answer.
    """
    return tuple(_compared(name, text, registry.versions(name)) for name, text in texts.items())


def register(compared: Sequence[Compared], registry: SchemaRegistry) -> Mapping[str, int]:
    """Register what was compared, in its order, each subject under its level; the ids by subject.

    Nothing is registered if one of them is incompatible: the caller asks first (`Standing.INCOMPATIBLE`).

    Raises:
        ValueError: one of them is incompatible.
        IncompatibleSchemaError: the registry refuses one that was compatible when it was compared.
        RegistryUnavailableError: the registry does not answer; what is registered by then stays, and may be again.
    """
    broken = [one.subject for one in compared if one.standing is Standing.INCOMPATIBLE]
    if broken:
        raise ValueError(f"incompatible schemas are not registered: {', '.join(broken)}")
    ids: dict[str, int] = {}
    for one in compared:
        # The rule can only be set at a subject that exists (Apicurio), and must not come after a second version.
        if one.standing is not Standing.NEW_SUBJECT:
            registry.set_compatibility(one.subject, one.level)
        ids[one.subject] = registry.register(one.subject, one.text)
        if one.standing is Standing.NEW_SUBJECT:
            registry.set_compatibility(one.subject, one.level)
    return ids


def _compared(name: str, text: str, versions: Sequence[str]) -> Compared:
    level = level_of(name)
    canonical = canonical_text(text)
    broken: tuple[Incompatibility, ...] = ()
    if not versions:
        standing = Standing.NEW_SUBJECT
    elif any(canonical_text(version) == canonical for version in versions):
        standing = Standing.REGISTERED
    else:
        broken = incompatibilities(text, versions, level)
        standing = Standing.INCOMPATIBLE if broken else Standing.NEW_VERSION
    return Compared(subject=name, text=text, level=level, standing=standing, incompatibilities=broken)
