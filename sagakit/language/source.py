"""A definition's text with the line and column of everything in it.

YAML is read as version 1.2 (in 1.1 the key `on` is a boolean), as a graph of nodes and not through a constructor, so
that duplicate keys are seen and every place is known.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sagakit.language.findings import RULES, Finding

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the root of a document on."""

_NODES_MAX: Final = 100_000
"""More nodes than any definition has; aliases of aliases would otherwise expand without bound."""

_DEPTH_MAX: Final = 64
"""Deeper than any mapping is nested; whatever walks a document may then recurse."""

_TAG: Final = "tag:yaml.org,2002:"
_CONSTRUCTOR: Final = YAML(typ="safe", pure=True).constructor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    key: Node | None
    value: Node


def dotted(path: Path) -> str:
    """A path as people write it: `steps.reserve.after[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the parts of a document stand in its text; `Source(file=…)` alone knows no places."""

    file: str
    text: str = ""
    places: dict[Path, _Place] = field(default_factory=dict, repr=False)

    def position(self, path: Path, *, offset: int | None = None, key: bool = False) -> tuple[int, int]:
        """Line and column, from 1, of a value (or its key); (0, 0) if the document has no text.

        With `offset`, the place of that character of a string value, whatever its quoting or folding. A path that is
        not in the text stands where its nearest parent stands.
        """
        for length in range(len(path), -1, -1):
            place = self.places.get(path[:length])
            if place is None:
                continue
            exact = length == len(path)
            node = place.key if place.key is not None and (key or not exact) else place.value
            if exact and not key and offset is not None and isinstance(node, ScalarNode):
                return self._within(node, offset)
            return node.start_mark.line + 1, node.start_mark.column + 1
        return 0, 0

    def finding(
        self, code: str, path: Path, message: str, remedy: str, *, offset: int | None = None, key: bool = False
    ) -> Finding:
        """A finding about what stands at `path`."""
        line, column = self.position(path, offset=offset, key=key)
        return Finding(
            code=code,
            severity=RULES[code].severity,
            file=self.file,
            line=line,
            column=column,
            path=dotted(path),
            message=message,
            remedy=remedy,
        )

    def _within(self, node: ScalarNode, offset: int) -> tuple[int, int]:
        """Align the value with the raw text: equal characters, and any run of white space for white space."""
        raw, at, end = self.text, node.start_mark.index, node.end_mark.index
        value: str = node.value
        if node.style in ("|", ">"):
            at = raw.find("\n", at, end) + 1
        elif node.style in ("'", '"'):
            at += 1
        for index, character in enumerate(value):
            if character.isspace() and not (at < end and raw[at] == character):
                if index >= offset:
                    break
                if raw[at : at + 1] == "\\":
                    at += 2
                continue
            while at < end and raw[at] != character:
                at += 1
            if index >= offset:
                break
            at += 1
        at = min(at, end)
        return raw.count("\n", 0, at) + 1, at - (raw.rfind("\n", 0, at) + 1) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a YAML text holds, as plain data; `findings` is not empty if the text is broken or has duplicate keys."""

    data: object
    source: Source
    findings: tuple[Finding, ...]


def load(text: str, file: str) -> Loaded:
    """Read a YAML 1.2 text; it never raises for what stands in it."""
    source = Source(file=file, text=text)
    try:
        with warnings.catch_warnings():
            # An anchor that is set again is valid YAML, and no reader of a definition wants to hear of it.
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        return Loaded(data=None, source=source, findings=(_broken(file, line, column, problem),))
    except YAMLError as error:
        return Loaded(data=None, source=source, findings=(_broken(file, 1, 1, " ".join(str(error).split())),))
    except RecursionError:
        return Loaded(data=None, source=source, findings=(_broken(file, 1, 1, "it is nested too deeply"),))
    if root is None:
        return Loaded(data=None, source=source, findings=(_broken(file, 1, 1, "the text is empty"),))
    reader = _Reader(source)
    data = reader.read(root, (), None)
    return Loaded(data=data, source=source, findings=tuple(reader.findings))


def _broken(file: str, line: int, column: int, problem: str) -> Finding:
    return Finding(
        code="SK101",
        severity=RULES["SK101"].severity,
        file=file,
        line=line,
        column=column,
        path="",
        message=f"this is not YAML: {problem}",
        remedy="Correct the text; what follows this place was not checked.",
    )


class _Reader:
    """Nodes to plain data, noting each place on the way."""

    def __init__(self, source: Source) -> None:
        self.findings: list[Finding] = []
        self._source = source
        self._open: set[int] = set()
        self._count = 0

    def read(self, node: Node, path: Path, key: Node | None) -> object:
        self._source.places[path] = _Place(key=key, value=node)
        self._count += 1
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open or self._count > _NODES_MAX:
            self._refuse(
                path, "an alias that contains itself, or aliases that expand without bound", "Write the value out."
            )
            return None
        if len(path) > _DEPTH_MAX:
            self._refuse(path, f"what is nested more than {_DEPTH_MAX} deep", "Flatten it.")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self.read(child, (*path, index), None) for index, child in enumerate(node.value)]
            assert isinstance(node, MappingNode), node
            return dict(self._mapping(node, path))
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: MappingNode, path: Path) -> Iterator[tuple[str, object]]:
        first: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._source.places[(*path, "?")] = _Place(key=key, value=value)
                self._refuse((*path, "?"), "a key that is not a plain word", "Write keys as plain words.", key=True)
                continue
            name = str(key.value)
            if name in first:
                line = first[name].start_mark.line + 1
                self._source.places[(*path, name)] = _Place(key=key, value=value)
                finding = self._source.finding(
                    "SK102",
                    (*path, name),
                    f"the key `{name}` stands here a second time (first in line {line})",
                    "Rename or remove one of the two.",
                    key=True,
                )
                self.findings.append(finding)
                self._source.places[(*path, name)] = _Place(key=first[name], value=value)
                continue
            first[name] = key
            yield name, self.read(value, (*path, name), key)

    def _scalar(self, node: ScalarNode, path: Path) -> object:
        tag = str(node.tag)
        kind = tag.removeprefix(_TAG)
        text: str = node.value
        if kind in ("str", "timestamp", "value", "merge"):
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(_CONSTRUCTOR.construct_yaml_int(node))
        if kind == "float":
            return float(_CONSTRUCTOR.construct_yaml_float(node))
        self._refuse(path, f"the tag {tag}", "Write plain text, numbers, true, false or null.")
        return None

    def _refuse(self, path: Path, what: str, remedy: str, *, key: bool = False) -> None:
        self.findings.append(self._source.finding("SK101", path, f"definitions do not take {what}", remedy, key=key))
