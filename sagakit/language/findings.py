"""What is wrong with a definition: findings with a place and a remedy, and the one table of rules behind them."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Severity(Enum):
    """An error keeps a definition from being published; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of the linter: what it demands (`title`) and why (`explanation`)."""

    code: str
    severity: Severity
    title: str
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One break of one rule.

    `line` and `column` count from 1; both are 0 when the definition was not read from a text. `path` is the place
    within the definition, `steps.reserve.with.order_id`. `message` says what is wrong with what, `remedy` what to do.
    """

    code: str
    severity: Severity
    file: str
    line: int
    column: int
    path: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else f"{self.file} {self.path}".rstrip()
        return f"{place}: {self.severity.value} {self.code}: {self.message}. {self.remedy}"


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by their place, each once."""
    return sorted(set(findings), key=lambda f: (f.file, f.line, f.column, f.code, f.path, f.message))


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Only those that keep a definition from being published."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def _error(code: str, title: str, explanation: str) -> Rule:
    return Rule(code=code, severity=Severity.ERROR, title=title, explanation=explanation)


def _warning(code: str, title: str, explanation: str) -> Rule:
    return Rule(code=code, severity=Severity.WARNING, title=title, explanation=explanation)


_ALL: Final = (
    # The text -------------------------------------------------------------------------------------------------------
    _error("SK101", "The text is YAML 1.2.", "Nothing can be read from a broken text; only its first break is known."),
    _error("SK102", "A key stands once in a mapping.", "YAML would silently keep one of two steps of the same name."),
    _error("SK103", "Every key is known.", "A misspelt key would otherwise do nothing, and nobody would notice."),
    _error(
        "SK104", "Every required key is there.", "A timeout, an owner, a version have no default that suits everyone."
    ),
    _error("SK105", "Every value has its key's type and range.", "Durations read 200ms, 5s, 15m, 1h, 7d or 1h30m."),
    _error(
        "SK106",
        "Names have the form of names.",
        "Step names are variables of expressions and parts of step addresses ([a-z][a-z0-9_]*); saga and service names "
        "are parts of topic names and keys; records are named in full.",
    ),
    _error(
        "SK107",
        "A step is not called by a reserved word.",
        "`start`, `failure` and `saga` are variables of their own; the words of CEL cannot be variables.",
    ),
    _error("SK108", "Rejection codes are UPPER_SNAKE.", "They are metric labels and are compared literally."),
    # The graph ------------------------------------------------------------------------------------------------------
    _error(
        "SK201", "`after` names steps of the definition.", "A step that waits for an unknown one would never start."
    ),
    _error("SK202", "Steps do not wait for each other in a circle.", "None of them would ever start."),
    _error("SK203", "There is at most one pivot.", "The point of no return must be one point."),
    _error(
        "SK204",
        "Every compensatable step comes before the pivot.",
        "Past the pivot nothing is undone, so a compensatable step that may run beside or after it could never be.",
    ),
    _error(
        "SK205",
        "Every retriable step comes after the pivot.",
        "Before the pivot the saga may turn back, and a retriable step has nothing that undoes it.",
    ),
    _error("SK206", "Only a compensatable step has a compensation.", "A pivot and what follows it are never undone."),
    _error("SK207", "A retry's backoff is not above its max.", "The first pause would already be cut."),
    _error("SK208", "An end event has a topic.", "`to` of the event, or the trigger topic `on` of the definition."),
    _warning("SK209", "The saga's deadline leaves each step its time.", "A step with a longer timeout is cut short."),
    _warning(
        "SK210",
        "A compensatable step has a compensation.",
        "Its effect stays when the saga turns back. If there is nothing to undo, say so: `compensate: null`.",
    ),
    # Records and expressions ----------------------------------------------------------------------------------------
    _error("SK301", "Every record is known.", "Mappings are checked against the Avro schema of the record they fill."),
    _error(
        "SK302", "Every schema is a valid, complete Avro record.", "An unreadable schema can check and encode nothing."
    ),
    _error("SK303", "An expression is well-formed CEL.", "It is compiled by the same runtime that evaluates it later."),
    _error("SK304", "A field that is read exists.", "Reading it would fail at run time, in every saga."),
    _error(
        "SK305", "A name that is read exists.", "Expressions read `start`, steps by name, and `failure` while undoing."
    ),
    _error(
        "SK306",
        "Operators and functions fit their operands.",
        "CEL converts no types on its own: write int(), double().",
    ),
    _error(
        "SK307",
        "Only steps that are settled before are read.",
        "A step reads its ancestors (`after`, and theirs); a compensation its own step too; an end event every step.",
    ),
    _error("SK308", "`failure` is read only while undoing.", "Going forward and in `completed` there is no failure."),
    _error(
        "SK309",
        "A value that may be null is guarded.",
        "With x != null, has(x), a condition `? :`, or default(x, …).",
    ),
    _error(
        "SK310",
        "A reply that may be absent is guarded.",
        "A step with `when` may have been skipped; while undoing, a step's own reply may be unknown; in `compensated` "
        "any step's reply may be absent. Guard with has(step.field), or default(step.field, …).",
    ),
    _error(
        "SK311",
        "An index or key that may not exist is guarded.",
        "With size(x) > n or `'key' in x` as the condition, or default(x[n], …).",
    ),
    _error(
        "SK312", "A division by what may be zero is guarded.", "With y != 0 as the condition, or default(x / y, …)."
    ),
    _error(
        "SK313",
        "A conversion that may fail is guarded.",
        "With x.matches('…') as the condition, or default(int(x), …).",
    ),
    _error(
        "SK314", "A loop variable does not hide a name.", "In list.map(start, …) nobody can tell which `start` is read."
    ),
    _error(
        "SK315", "An expression stays within the language.", "Message literals and types as values have no JSON form."
    ),
    # What a mapping fills -------------------------------------------------------------------------------------------
    _error("SK401", "A field that is filled exists in the record.", "It would silently be left out when encoding."),
    _error("SK402", "Every field without a default is filled.", "The record could not be encoded."),
    _error(
        "SK403", "A value fits the field that it fills.", "The record could not be encoded, and the saga would park."
    ),
    _error("SK404", "An enum field gets one of its symbols.", "Any other text cannot be encoded."),
    _error("SK405", "The business key is a string or an integer.", "The saga's id is derived from its text."),
    _error("SK406", "A condition is a boolean.", "CEL has no notion of a value that counts as true."),
    _warning(
        "SK407",
        "A text that fills a logical type is checked.",
        "Whether a computed text is a UUID, a date or a decimal shows only at run time; if not, the saga parks.",
    ),
)

RULES: Final = {rule.code: rule for rule in _ALL}
"""Every rule by its code. Codes are stable: a rule may go, its code is never used again."""


def rules_table() -> str:
    """All rules as a table in Markdown: what the documentation shows."""
    rows = [f"| {rule.code} | {rule.severity.value} | {rule.title} {rule.explanation} |" for rule in _ALL]
    return "\n".join(["| code | severity | rule |", "| --- | --- | --- |", *rows])
