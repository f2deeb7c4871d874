"""Whether each service that killed itself died where it says: what its ledger tells, and what came of the command.

A kill that hits nothing proves nothing. So the command that each dead process had in work is looked up: the entry into
its handler, the effect (or none, as the place says), both by the process that died; and that another took it up again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from sagakit.core.events import Reply
from sagakit.core.transitions import Transition
from sagakit.demo.stage import Death
from services.audit import Call, LedgerRows

BETWEEN: Final = "participant.between-effect-and-reply"
IN_COMMAND: Final = frozenset({"participant.in-handler", "participant.in-local-transaction", BETWEEN})
"""The places whose `detail` is the id of the command in work, before its reply."""


def answered(transitions: Iterable[Transition]) -> Iterator[str]:
    """The commands that these transitions have a reply to."""
    for one in transitions:
        if isinstance(one.input, Reply):
            yield one.input.command_id


def unproven(deaths: Iterable[Death], ledgers: Mapping[str, LedgerRows], replied: Collection[str]) -> list[str]:
    """The deaths within a command that were not what they say, a line each; `replied` as `answered` gives them.

    A command that had expired when it came again is answered by the next process without its handler.
    """
    calls: dict[str, list[Call]] = {}
    for rows in ledgers.values():
        for call in rows.calls:
            calls.setdefault(call.command_id, []).append(call)
    return [
        f"{death.who} (process {death.process_id}) died {death.point}, and the command {death.detail} {what}"
        for death in deaths
        if death.point in IN_COMMAND
        if (what := _doubt(death, calls.get(death.detail, []), replied)) is not None
    ]


def _doubt(death: Death, calls: Iterable[Call], replied: Collection[str]) -> str | None:
    own: list[Call] = []  # from the last time on that it entered the handler
    for call in calls:
        if call.process_id == death.process_id:
            own = [call] if call.what == "entry" else [*own, call]
    if not own:
        return "was not in its handler"
    took_effect = any(call.what in ("effect", "undo") for call in own)
    if took_effect and death.point != BETWEEN:
        return "had taken effect already"
    if not took_effect and death.point == BETWEEN:
        return "had not taken effect"
    again = any(call.what == "entry" and call.process_id != death.process_id and call.id > own[-1].id for call in calls)
    if not again and death.detail not in replied:
        return "was never taken up again"
    return None
