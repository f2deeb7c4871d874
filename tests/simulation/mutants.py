"""Known defects, each put back into the engine by a small patch. A proof that finds none of them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import pytest

from sagakit.contracts import snapshots, transitions
from sagakit.contracts.binary import NULL
from sagakit.core import decide as deciding
from sagakit.core import ids, replies, schedule, turn
from sagakit.core.definition import Definition, Task
from sagakit.core.state import Early, Marker, Saga
from sagakit.core.transitions import Transition
from sagakit.orchestrator.clock import BrokerClock
from sagakit.orchestrator.cycle import Cycle, Staged
from sagakit.orchestrator.decider import Decider
from sagakit.orchestrator.loop import Orchestrator
from sagakit.ports.log import Aborted, Committed, Outcome, Revoked, TopicPartition, Unknown, Work
from sagakit.testing.simulated_cluster import SimulatedCluster
from sagakit.testing.simulated_log import SimulatedLog

Mutant: TypeAlias = Callable[[pytest.MonkeyPatch], None]


def _unchecked(patch: pytest.MonkeyPatch) -> None:
    """An adapter that checks nothing of the work before it writes it."""
    patch.setattr(SimulatedLog, "_check", lambda _self, _offsets: None)


def no_offsets_for_timers(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: work of timers alone goes without offsets, and so without a fence."""
    _unchecked(patch)
    fire = Orchestrator._fire

    def without(self: Orchestrator, cycle: Cycle, partition: TopicPartition, *rest: Any) -> bool:
        known = partition in cycle.offsets
        went_on = fire(self, cycle, partition, *rest)
        if not known:
            cycle.offsets.pop(partition, None)
        return went_on

    def always(self: Orchestrator, cycle: Cycle) -> None:
        if cycle.offsets or cycle.staged:
            outcome = self._log.commit(cycle.work())
            if isinstance(outcome, Committed):
                self._keep(cycle)
            elif isinstance(outcome, Aborted):
                self._discard(cycle, outcome)
            else:
                for partition in self._memory:
                    self._restore(partition)

    patch.setattr(Orchestrator, "_fire", without)
    patch.setattr(Orchestrator, "_commit", always)


def invalid_offsets_for_timers(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: work of timers alone goes with the offset -1001, which the client drops."""
    _unchecked(patch)
    fire, commit = Orchestrator._fire, SimulatedLog.commit

    def invalid(self: Orchestrator, cycle: Cycle, partition: TopicPartition, *rest: Any) -> bool:
        known = partition in cycle.offsets
        went_on = fire(self, cycle, partition, *rest)
        if not known and partition in cycle.offsets:
            cycle.offsets[partition] = -1001
        return went_on

    def keeps(self: SimulatedLog, work: Work) -> Outcome:
        before = dict(self._next)
        outcome = commit(self, work)
        self._next.update(
            {one: before[one] for one, offset in work.offsets.items() if offset < 0 and one in self._next}
        )
        return outcome

    keep = Orchestrator._keep

    def kept(self: Orchestrator, cycle: Cycle) -> None:
        cycle.offsets = {one: offset for one, offset in cycle.offsets.items() if offset >= 0}
        keep(self, cycle)

    patch.setattr(Orchestrator, "_fire", invalid)
    patch.setattr(Orchestrator, "_keep", kept)
    patch.setattr(SimulatedLog, "commit", keeps)


def restore_to_the_stable_end(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: a restore ends where the client says EOF: at the last stable offset."""
    read = SimulatedLog._read_state

    def short(self: SimulatedLog, restore: Any, changes: Any) -> None:
        if restore.state is not None:
            restore.mark = min(restore.mark, self._cluster.logs[restore.state].stable_end)
        read(self, restore, changes)

    patch.setattr(SimulatedLog, "_read_state", short)


def memory_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Rule 16: memory takes over what was decided before the commit has returned."""
    commit = Orchestrator._commit

    def early(self: Orchestrator, cycle: Cycle) -> None:
        for partition, states in cycle.staged.items():
            for key, staged in states.items():
                self._memory[partition].apply(key, staged.entry)
        commit(self, cycle)

    patch.setattr(Orchestrator, "_commit", early)


def commit_for_a_lost_partition(patch: pytest.MonkeyPatch) -> None:
    """Rule 3: what was revoked is still decided and committed: the broker checks the member alone."""
    _unchecked(patch)
    take, stop = Orchestrator._take_change, SimulatedLog._revoke

    def deaf(self: Orchestrator, change: Any) -> None:
        if not isinstance(change, Revoked):
            take(self, change)

    def keeps(self: SimulatedLog, partition: TopicPartition) -> Revoked:
        running = self._next.get(partition), self._position.get(partition)
        revoked = stop(self, partition)
        if running[0] is not None and running[1] is not None:
            self._next[partition], self._position[partition] = running[0], running[1]
        return revoked

    restore = SimulatedLog.restore

    def only_owned(self: SimulatedLog, partition: TopicPartition, first_offset: int | None, **named: bool) -> None:
        if partition in self._owned:
            restore(self, partition, first_offset, **named)

    patch.setattr(Orchestrator, "_take_change", deaf)
    patch.setattr(SimulatedLog, "_revoke", keeps)
    patch.setattr(SimulatedLog, "restore", only_owned)


def attempt_in_the_idempotency_key(patch: pytest.MonkeyPatch) -> None:
    """Rule 12: a retry has an idempotency key of its own, and is charged again."""
    send = turn.Turn.send

    def sent(self: turn.Turn, task: Any, command: Any, direction: Any, attempt: int, data: Any) -> tuple[str, int]:
        with pytest.MonkeyPatch.context() as inner:
            key = ids.idempotency_key
            inner.setattr(ids, "idempotency_key", lambda s, r, a, d, _rerun: key(s, r, a, d, attempt - 1))
            return send(self, task, command, direction, attempt, data)

    patch.setattr(turn.Turn, "send", sent)


def timers_on_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """Rule 14: a timer fires as soon as the clock on the wall says so, whatever waits in the log."""
    due = Orchestrator._due

    def due_at_once(self: Orchestrator, cycle: Cycle) -> dict[TopicPartition, int]:
        return dict.fromkeys(due(self, cycle), cycle.now_ms)

    patch.setattr(Orchestrator, "_due", due_at_once)


def reply_without_attempt(patch: pytest.MonkeyPatch) -> None:
    """Rule 13: a reply is taken for the attempt in flight, whichever it answers."""
    find = replies._find

    def found(saga: Any, command_id: str) -> Any:
        matched = find(saga, command_id)
        if matched is None:
            return None
        address, direction, _ = matched
        step = saga.steps[address]
        return address, direction, step.attempt if direction.value == "forward" else step.undo_attempt

    patch.setattr(replies, "_find", found)


def undo_beside_what_is_in_flight(patch: pytest.MonkeyPatch) -> None:
    """Compensation begins while a branch may still take effect."""
    undoable = schedule.undoable

    def hasty(definition: Definition, saga: Saga) -> list[Task]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(schedule, "_ACTIVE", frozenset())
            return undoable(definition, saga)

    patch.setattr(schedule, "undoable", hasty)


def early_signal_dropped(patch: pytest.MonkeyPatch) -> None:
    """Rule 8: a start forgets the signals that waited for it."""
    start = deciding._start

    def forgetful(one: turn.Turn, event: Any) -> None:
        if isinstance(one.state, Early):
            one.state = None
        start(one, event)

    patch.setattr(deciding, "_start", forgetful)


def no_terminal_marker(patch: pytest.MonkeyPatch) -> None:
    """Rule 15: an ended saga leaves nothing behind, so a message that comes again starts it again."""
    states = Decider._states

    def unmarked(
        self: Decider, state: Any, before: Any, held_by: Any, *rest: Any, **named: Any
    ) -> list[tuple[bytes, Staged]]:
        if isinstance(state, Marker) and not isinstance(before, Marker):
            return states(self, None, before, held_by, *rest, **named)
        return states(self, state, before, held_by, *rest, **named)

    patch.setattr(Decider, "_states", unmarked)


def swallowed_produce_error(patch: pytest.MonkeyPatch) -> None:
    """Rule 11: a record that the client refuses is left out, and the rest is committed."""
    write = SimulatedLog._write

    def lenient(self: SimulatedLog, work: Work) -> Outcome:
        records = [record for record in work.records if self._cluster.refusal(record) is None]
        return write(self, Work(records=records, offsets=work.offsets))

    patch.setattr(SimulatedLog, "_write", lenient)


def memory_kept_after_unknown(patch: pytest.MonkeyPatch) -> None:
    """Rule 16: after an unknown outcome the records are decided again on the memory of before."""
    commit = SimulatedLog.commit

    def forgetful(self: SimulatedLog, work: Work) -> Outcome:
        running = dict(self._next)
        outcome = commit(self, work)
        if not isinstance(outcome, Unknown):
            return outcome
        self._next, self._position = dict(running), dict(running)
        self._epoch = self._cluster.init_transactions(self._transactional_id)
        return Aborted(reason=outcome.reason)

    patch.setattr(SimulatedLog, "commit", forgetful)


def offsets_committed_first(patch: pytest.MonkeyPatch) -> None:
    """Offsets are committed for themselves before the records: a crash between the two loses the cycle."""
    write = SimulatedLog._write

    def apart(self: SimulatedLog, work: Work) -> Outcome:
        first = write(self, Work(records=[], offsets=work.offsets))
        return write(self, work) if isinstance(first, Committed) else first

    patch.setattr(SimulatedLog, "_write", apart)


def pending_offsets_overlooked(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: a new owner takes the committed offset while a transaction holds another one open."""
    patch.setattr(SimulatedCluster, "committed_offset", lambda self, group, one: self.group(group).committed.get(one))


def old_records_taken_for_new(patch: pytest.MonkeyPatch) -> None:
    """Rule 14: a host's clock is compared with what waited in the log or comes again, as if it had just come."""
    reached = BrokerClock.reached

    def anew(self: BrokerClock, next_offsets: Mapping[TopicPartition, int], at_ms: int) -> None:
        reached(self, dict.fromkeys(next_offsets, 0), at_ms)

    patch.setattr(BrokerClock, "reached", anew)


def history_keyed_without_its_run(patch: pytest.MonkeyPatch) -> None:
    """Rule 7: a second run of an id writes its history over that of the first, which compaction then removes."""
    key = transitions.backlog_key

    def shared(transition: Transition) -> str:
        header = transition.header
        return key(transition) if header.seq is None else f"{header.saga_id}/{header.seq}"

    patch.setattr(transitions, "backlog_key", shared)


def trace_of_the_event_alone(patch: pytest.MonkeyPatch) -> None:
    """What a timer causes, or a reply that names no trace, belongs to no trace."""
    patch.setattr(turn.Turn, "_trace", lambda self: self.event.trace)


def trace_left_out_of_the_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A snapshot keeps no trace context, and a failover loses it."""
    patch.setattr(snapshots, "put_trace", lambda parts, _trace: parts.append(NULL))


MUTANTS: Final[Mapping[str, Mutant]] = {
    mutant.__name__: mutant
    for mutant in (
        no_offsets_for_timers,
        invalid_offsets_for_timers,
        restore_to_the_stable_end,
        memory_before_commit,
        commit_for_a_lost_partition,
        attempt_in_the_idempotency_key,
        timers_on_the_wall_clock,
        reply_without_attempt,
        undo_beside_what_is_in_flight,
        early_signal_dropped,
        no_terminal_marker,
        swallowed_produce_error,
        memory_kept_after_unknown,
        offsets_committed_first,
        pending_offsets_overlooked,
        old_records_taken_for_new,
        history_keyed_without_its_run,
        trace_of_the_event_alone,
        trace_left_out_of_the_snapshot,
    )
}
