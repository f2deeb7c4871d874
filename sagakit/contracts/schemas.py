"""Avro schemas as files: a folder of `.avsc`, one named type each, put together into self-contained texts.

Files name each other's types by full name, in any order; a self-contained text defines each type where it is first
used, so that a registry needs no references and a reader needs no other file.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sagakit.contracts.avro_types import PRIMITIVES, Json, RecordType, full_name, parse
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.writing import compile_writer

_NAMED: Final = frozenset({"record", "error", "enum", "fixed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaFile:
    """One named type, as its file says it. `references` are the full names of other files' types that it uses."""

    name: str
    origin: str
    definition: Json
    references: tuple[str, ...]


def read_folder(folder: Path) -> Mapping[str, SchemaFile]:
    """The types of all `.avsc` files in `folder` and below, by full name, those that are used before their users.

    Raises:
        SchemaError: if the folder has no schemas, a file is not one named type, a type is defined twice or is unknown.
    """
    if not folder.is_dir():
        raise SchemaError(f"{folder} is not a folder; name the one that holds the .avsc files")
    files = sorted(folder.rglob("*.avsc"))
    if not files:
        raise SchemaError(f"{folder} has no .avsc file in it or below; name the folder that holds the schemas")
    return read_texts((str(file), file.read_text(encoding="utf-8")) for file in files)


def read_texts(texts: Iterator[tuple[str, str]]) -> Mapping[str, SchemaFile]:
    """The types of schema texts, each given with its origin; see `read_folder`."""
    found: dict[str, SchemaFile] = {}
    for origin, text in texts:
        file = _read(origin, text)
        if file.name in found:
            raise SchemaError(
                f"{origin}: {file.name} is defined in {found[file.name].origin} already; remove one of the two"
            )
        found[file.name] = file
    for file in found.values():
        for name in file.references:
            if name not in found:
                raise SchemaError(
                    f"{file.origin}: the type {name!r} is unknown; add a file that defines it or mend the name"
                )
    return {name: found[name] for name in _by_dependency(found)}


def self_contained(files: Mapping[str, SchemaFile]) -> Mapping[str, str]:
    """The self-contained Avro JSON text of each type, by full name, in the order of `files`."""
    return {
        name: json.dumps(_composed(file.definition, None, files, set()), separators=(",", ":"), ensure_ascii=False)
        for name, file in files.items()
    }


def canonical_text(text: str) -> str:
    """The same text for the same schema, whatever the white space and the order of JSON keys.

    Raises:
        SchemaError: if the text is not JSON.
    """
    try:
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    except ValueError as error:
        raise SchemaError(f"not an Avro schema: not JSON: {error}") from error


def load_folder(folder: Path) -> Mapping[str, str]:
    """The self-contained text of each type in a folder of `.avsc` files, by full name, in the order of dependency.

    Raises:
        SchemaError: as `read_folder`, and if a type or a default of it is not valid Avro.
    """
    files = read_folder(folder)
    texts = self_contained(files)
    for name, text in texts.items():
        try:
            node = parse(text)
            if isinstance(node, RecordType):
                compile_writer(node)
        except SchemaError as error:
            raise SchemaError(f"{files[name].origin}: {error}") from error
    return texts


def _read(origin: str, text: str) -> SchemaFile:
    try:
        definition = json.loads(text)
    except ValueError as no_json:
        raise SchemaError(f"{origin}: not JSON: {no_json}") from no_json
    if (
        not isinstance(definition, dict)
        or definition.get("type") not in _NAMED
        or not isinstance(definition.get("name"), str)
    ):
        raise SchemaError(f"{origin}: a schema file holds one record, enum or fixed with a name")
    defined: set[str] = set()
    used: dict[str, None] = {}
    try:
        _collect(definition, None, defined, used)
    except (KeyError, TypeError, AttributeError) as no_schema:
        raise SchemaError(f"{origin}: not an Avro schema: {no_schema!r}") from no_schema
    name = full_name(definition["name"], definition.get("namespace"))
    references = tuple(one for one in used if one not in defined)
    return SchemaFile(name=name, origin=origin, definition=definition, references=references)


def _collect(schema: Json, namespace: str | None, defined: set[str], used: dict[str, None]) -> None:
    """The full names that a schema defines and those that it uses."""
    if isinstance(schema, str):
        if schema not in PRIMITIVES:
            used[full_name(schema, namespace)] = None
    elif isinstance(schema, list):
        for branch in schema:
            _collect(branch, namespace, defined, used)
    elif schema["type"] in _NAMED:
        name = full_name(schema["name"], schema.get("namespace", namespace))
        defined.add(name)
        for field in schema.get("fields", ()):
            _collect(field["type"], name.rpartition(".")[0], defined, used)
    elif schema["type"] in ("array", "map"):
        _collect(schema["items" if schema["type"] == "array" else "values"], namespace, defined, used)
    else:
        _collect(schema["type"], namespace, defined, used)


def _by_dependency(files: Mapping[str, SchemaFile]) -> list[str]:
    """All names, each after those that it uses; types that use each other stand in the order of their names."""
    ordered: dict[str, None] = {}
    entered: set[str] = set()

    def enter(name: str) -> None:
        if name in entered:
            return
        entered.add(name)
        for reference in files[name].references:
            enter(reference)
        ordered[name] = None

    for name in sorted(files):
        enter(name)
    return list(ordered)


def _composed(schema: Json, namespace: str | None, files: Mapping[str, SchemaFile], defined: set[str]) -> Json:
    """The schema with full names everywhere and each type of another file defined where it is first used."""
    if isinstance(schema, str):
        if schema in PRIMITIVES:
            return schema
        name = full_name(schema, namespace)
        if name in defined or name not in files:
            return name
        return _composed(files[name].definition, None, files, defined)
    if isinstance(schema, list):
        return [_composed(branch, namespace, files, defined) for branch in schema]
    kind = schema["type"]
    if kind in _NAMED:
        name = full_name(schema["name"], schema.get("namespace", namespace))
        defined.add(name)
        inner, _, short = name.rpartition(".")
        composed = {"type": kind, "name": short, **({"namespace": inner} if inner else {})}
        composed |= {key: part for key, part in schema.items() if key not in ("type", "name", "namespace", "fields")}
        if "fields" in schema:
            composed["fields"] = [
                {**field, "type": _composed(field["type"], inner, files, defined)} for field in schema["fields"]
            ]
        return composed
    if kind in ("array", "map"):
        inside = "items" if kind == "array" else "values"
        return {**schema, inside: _composed(schema[inside], namespace, files, defined)}
    return {**schema, "type": _composed(kind, namespace, files, defined)}
