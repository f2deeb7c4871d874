"""The mutants of the core: each of its modules with one small change in it.

The changes are mutmut's (its operators on syntax trees) and a few that suit this core: it is made of tables, guards,
enumerations and calls that are made for their effect. mutmut itself would leave out whatever stands outside of a
function or in a decorated one, and so the transition table; hence only its operators are used.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path
from typing import Final

import libcst as cst
import libcst.matchers as m
from mutmut.mutation.mutators import mutation_operators

ROOT: Final = Path(__file__).parents[2]
CORE: Final = ROOT / "sagakit" / "core"

_ENUM: Final = re.compile(r"^class (\w+)\(Enum\):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_MEMBER: Final = re.compile(r"^    ([A-Z][A-Z_]*) = ", re.MULTILINE)

_TYPES_ONLY: Final = m.Annotation() | m.Decorator() | m.AnnAssign(annotation=m.Annotation(m.Name("TypeAlias")))
"""What is there for the type checker, or is evaluated before anything runs."""

_NEVER_CALLED_OTHERWISE: Final = m.Call(func=m.Name("isinstance") | m.Name("len"))
"""With another argument such a call only raises: mutmut passes over it, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change in one module.

    Attributes:
        module: the module's name within the core.
        place: the function or class that the change stands in; outside of these the name that is assigned to.
        change: the lines before (`- `) and after (`+ `), without their indentation: whatever moves, this stays.
        source: the whole module with the change in it.
    """

    module: str
    place: str
    change: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the others, wherever in its file it stands."""
        return self.module, self.place, self.change

    def __str__(self) -> str:
        return f"{self.module}.py, {self.place}:\n{self.change}"


def modules() -> list[str]:
    """The core's modules."""
    return sorted(path.stem for path in CORE.glob("*.py") if path.stem != "__init__")


def mutants_of(module: str) -> list[Mutant]:
    """Every mutant of a module; two changes that come to the same text are one."""
    tree = cst.parse_module((CORE / f"{module}.py").read_text(encoding="utf-8"))
    texts = [tree.code_for_node(statement) for statement in tree.body]
    head = "".join(tree.code_for_node(line) for line in tree.header)
    found: dict[str, Mutant] = {}
    for number, statement in enumerate(tree.body):
        changes = _Changes(_enums())
        statement.visit(changes)
        for place, old, new in changes.found:
            changed = statement.deep_replace(old, new)
            assert isinstance(changed, cst.CSTNode)
            text = tree.code_for_node(changed)
            source = head + "".join((*texts[:number], text, *texts[number + 1 :]))
            change = _difference(texts[number], text)
            found.setdefault(source, Mutant(module=module, place=place, change=change, source=source))
    return _told_apart(found.values())


def _difference(before: str, after: str) -> str:
    lines = list(unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines if line[0] in "+-")


def _told_apart(mutants: Iterable[Mutant]) -> list[Mutant]:
    """The same change of equal lines in one function: the second says so, since one may be noticed and one not."""
    seen: dict[tuple[str, str, str], int] = {}
    apart = []
    for mutant in mutants:
        seen[mutant.key] = nth = seen.get(mutant.key, 0) + 1
        apart.append(mutant if nth == 1 else replace(mutant, change=f"{mutant.change}\n({nth})"))
    return apart


def _enums() -> Mapping[str, list[str]]:
    """The members of each enumeration of the core."""
    texts = (path.read_text(encoding="utf-8") for path in CORE.glob("*.py"))
    return {name: _MEMBER.findall(body) for text in texts for name, body in _ENUM.findall(text)}


class _Changes(cst.CSTVisitor):
    """Collects the changes within one statement of a module: where, which node, and what stands there instead."""

    def __init__(self, enums: Mapping[str, list[str]]) -> None:
        super().__init__()
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
        self._enums = enums
        self._names: list[str] = []
        self._assigned = ""

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Change the node, then what is in it."""
        if m.matches(node, _TYPES_ONLY | _NEVER_CALLED_OTHERWISE):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._names.append(node.name.value)
        elif not self._names and isinstance(node, cst.Assign | cst.AnnAssign):
            target = node.target if isinstance(node, cst.AnnAssign) else node.targets[0].target
            self._assigned = cst.ensure_type(target, cst.Name).value
        place = ".".join(self._names) or self._assigned
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                changed_nodes = list(operator(node))
                # Other letters of a text are seen by whoever sees another text; but for a pattern, they are all.
                only_first = isinstance(node, cst.SimpleString) and "r" not in node.prefix
                self.found += ((place, node, changed) for changed in changed_nodes[: 1 if only_first else None])
        for own in _OWN:
            self.found += ((place, node, changed) for changed in own(node))
        self.found += ((place, node, changed) for changed in self._other_member(node))
        # What is assigned to is no value.
        return not isinstance(node, cst.AssignTarget)

    def on_leave(self, original_node: cst.CSTNode) -> None:
        """Leave the function or class."""
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._names.pop()

    def _other_member(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """`Status.RUNNING` -> `Status.COMPENSATING`: the next member of an enumeration, for each that is named."""
        if isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name):
            members = self._enums.get(node.value.value, [])
            if node.attr.value in members:
                other = members[(members.index(node.attr.value) + 1) % len(members)]
                yield node.with_changes(attr=cst.Name(other))


def _no_effect(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A call for its effect is left out: `turn.emit(…)` -> `pass`; nothing is returned: `return x` -> `return None`."""
    if isinstance(node, cst.Expr) and isinstance(node.value, cst.Call):
        yield cst.Pass()
    elif isinstance(node, cst.Return) and node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))


def _other_way(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A condition is turned round: `if a:` -> `if not (a):`; a single comparison and a `not` mutmut turns itself."""
    turned_already = m.Comparison(comparisons=[m.ComparisonTarget()]) | m.UnaryOperation(operator=m.Not())
    if isinstance(node, cst.If | cst.While | cst.CompIf) and not m.matches(node.test, turned_already):
        inner = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.with_changes(test=cst.UnaryOperation(operator=cst.Not(), expression=inner))


def _entry_missing(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A table lacks one of its rows, a collection one of its elements."""
    if isinstance(node, cst.Dict | cst.Set | cst.List | cst.Tuple):
        elements = node.elements
        if isinstance(node, cst.Set) and len(elements) == 1:
            return
        for at in range(len(elements)):
            left = [*elements[:at], *elements[at + 1 :]]
            if isinstance(node, cst.Tuple) and len(left) == 1:
                left = [left[0].with_changes(comma=cst.Comma())]
            if isinstance(node, cst.Tuple) and not left and not node.lpar:
                return
            yield node.with_changes(elements=left)


_OWN: Final[tuple[Callable[[cst.CSTNode], Iterable[cst.CSTNode]], ...]] = (_no_effect, _other_way, _entry_missing)
