"""A definition made in Python: the same data as the YAML, checked by the same rules.

order = definition(
    "place-order", version=1, owner="team-orders", start="shop.orders.OrderPlaced", key="start.order_id",
    steps=[
        step(
            "reserve", service="inventory", command="shop.inventory.ReserveStock", timeout="5s",
            fields={"order_id": "start.order_id"},
            compensate=compensation("shop.inventory.ReleaseStock", {"order_id": "start.order_id"}),
        ),
    ],
    completed=event("shop.orders.OrderConfirmed", {"order_id": "start.order_id"}, to="orders.events"),
)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sagakit.language.document import Document, FieldValue
from sagakit.language.findings import Finding
from sagakit.language.parse import parse_data
from sagakit.language.source import Source


class DefinitionError(ValueError):
    """What was built is no definition; `findings` says why, each with a remedy."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltStep:
    """A step with its name."""

    name: str
    data: Mapping[str, Any]


def step(
    name: str, *, service: str, command: str, timeout: str, fields: Mapping[str, FieldValue], **rest: Any
) -> BuiltStep:
    """A step; `rest` are the other keys of the YAML (`after`, `when`, `kind`, `reply`, `rejects`, `retry`, …)."""
    data = {"service": service, "command": command, "timeout": timeout, "with": dict(fields), **rest}
    return BuiltStep(name=name, data=data)


def compensation(command: str, fields: Mapping[str, FieldValue], **rest: Any) -> dict[str, Any]:
    """What undoes a step; `rest` are the other keys of the YAML."""
    return {"command": command, "with": dict(fields), **rest}


def event(record: str, fields: Mapping[str, FieldValue], *, to: str | None = None) -> dict[str, Any]:
    """What an end publishes, to the trigger topic if `to` does not name another."""
    return {"publish": record, "with": dict(fields), "to": to}


def definition(
    saga: str,
    *,
    steps: Iterable[BuiltStep],
    completed: Mapping[str, Any] | None = None,
    compensated: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Document:
    """A definition; `rest` are the top-level keys of the YAML (`version`, `owner`, `start`, `key`, …).

    Raises:
        DefinitionError: if a key, a type or a name is wrong, or two steps share a name.
    """
    source = Source(file=saga)
    named: dict[str, Any] = {}
    twice: list[Finding] = []
    for built in steps:
        if built.name in named:
            message = f"there are two steps called `{built.name}`"
            twice.append(source.finding("SK102", ("steps", built.name), message, "Rename one of the two."))
        named[built.name] = built.data
    data = {"saga": saga, **rest, "steps": named, "end": {"completed": completed, "compensated": compensated}}
    result = parse_data(data, source)
    if isinstance(result, list) or twice:
        raise DefinitionError([*twice, *(result if isinstance(result, list) else ())])
    return result.document
