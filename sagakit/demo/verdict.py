"""What the play came to: how orders ended, how long they took, and whether all books agree."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sagakit.contracts.transitions import UnknownKind
from sagakit.core.definition import Definition
from sagakit.demo.watch import Seen, Standing, Watch
from sagakit.proving import invariants
from sagakit.proving.replay import DefinitionOf
from services.audit import Audit, End, OrderEnd, ShopRows, audit
from services.demo_orders import Order

_ENDS: Final = {
    Standing.COMPLETED: End.COMPLETED,
    Standing.COMPENSATED: End.COMPENSATED,
    Standing.PARKED: End.PARKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An order that was placed: its saga's id, its data, and when it was handed to the producer (epoch ms)."""

    saga_id: str
    order: Order
    at_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A saga that waits for a person: which step (None: the saga as a whole), and why."""

    order_id: str
    saga_id: str
    reasons: tuple[tuple[str | None, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Milliseconds from the placing of an order to the arrival of its end event."""

    count: int
    p50: float
    p90: float
    p99: float
    slowest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a play. `complaints` is everything that should not be, besides what the audit found."""

    orders: int
    completed: int
    compensated: Mapping[str, int]
    parked: Sequence[Parked]
    latencies: Latencies | None
    audit: Audit
    sagas_checked: int
    transitions: int
    complaints: Sequence[str] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every book balances and nothing is wrong."""
        return self.audit.passed and not self.complaints


def judge(placed: Sequence[Placed], watch: Watch, shop: ShopRows, definition_of: DefinitionOf) -> Verdict:
    """Everything there is to say once all orders have ended."""
    known = {one.saga_id: one for one in placed}
    ends = [_end(one, watch.sagas[one.saga_id]) for one in placed if _has_ended(watch.sagas.get(one.saga_id))]
    scheduled = {key for seen in watch.sagas.values() for key in seen.scheduled}
    by_standing: dict[Standing, list[Placed]] = {standing: [] for standing in Standing}
    for one in placed:
        seen = watch.sagas.get(one.saga_id)
        by_standing[Standing.RUNNING if seen is None else seen.standing].append(one)
    undone = Counter(watch.sagas[one.saga_id].turned_back or "" for one in by_standing[Standing.COMPENSATED])
    return Verdict(
        orders=len(placed),
        completed=len(by_standing[Standing.COMPLETED]),
        compensated=dict(undone.most_common()),
        parked=[_parked(one, watch.sagas[one.saga_id]) for one in by_standing[Standing.PARKED]],
        latencies=latencies(
            seen.end_seen_ms - known[saga_id].at_ms
            for saga_id, seen in watch.sagas.items()
            if seen.end_seen_ms is not None and saga_id in known
        ),
        audit=audit(ends, shop, scheduled),
        sagas_checked=len(watch.sagas),
        transitions=watch.transitions,
        complaints=[*_unended(placed, watch), *_strangers(known, watch), *_broken_rules(watch, definition_of)],
    )


def latencies(milliseconds: Iterable[float]) -> Latencies | None:
    """The percentiles (nearest rank); None of nothing."""
    ordered = sorted(milliseconds)
    if not ordered:
        return None

    def percentile(share: int) -> float:
        return ordered[-(-len(ordered) * share // 100) - 1]

    return Latencies(
        count=len(ordered), p50=percentile(50), p90=percentile(90), p99=percentile(99), slowest=ordered[-1]
    )


def _has_ended(seen: Seen | None) -> bool:
    return seen is not None and seen.standing is not Standing.RUNNING


def _end(placed: Placed, seen: Seen) -> OrderEnd:
    units: Counter[str] = Counter()
    for item in placed.order["items"]:
        units[item["sku"]] += item["quantity"]
    return OrderEnd(
        saga_id=placed.saga_id,
        order_id=placed.order["order_id"],
        end=_ENDS[seen.standing],
        amount_cents=placed.order["amount_cents"],
        units=units,
    )


def _parked(placed: Placed, seen: Seen) -> Parked:
    return Parked(
        order_id=placed.order["order_id"],
        saga_id=placed.saga_id,
        reasons=tuple((None if step is None else str(step), reason) for step, reason in seen.parked.items()),
    )


def _unended(placed: Sequence[Placed], watch: Watch) -> Iterator[str]:
    for one in placed:
        seen = watch.sagas.get(one.saga_id)
        if seen is None:
            yield f"{one.order['order_id']}: no saga was started"
        elif seen.standing is Standing.RUNNING:
            yield f"{one.order['order_id']}: its saga {one.saga_id} has not ended"


def _strangers(known: Mapping[str, Placed], watch: Watch) -> Iterator[str]:
    for saga_id, seen in watch.sagas.items():
        if saga_id not in known:
            yield f"{saga_id}: a saga of an order that was not placed"
        elif seen.runs > 1:
            yield f"{saga_id}: it ran {seen.runs} times"
        ended = seen.standing in (Standing.COMPLETED, Standing.COMPENSATED)
        if len(seen.end_events) != (1 if ended else 0):
            yield f"{saga_id}: it is {seen.standing.value} and told its end {len(seen.end_events)} times"


def _broken_rules(watch: Watch, definition_of: DefinitionOf) -> Iterator[str]:
    """The rules of every history: no gap, replays alike, compensation in order, nothing but notes after the end."""
    for saga_id, seen in watch.sagas.items():
        if seen.gap is not None:
            yield f"{saga_id}: {seen.gap}"
            continue
        history = [one for one in watch.history(saga_id) if not isinstance(one, UnknownKind)]
        yield from (str(violation) for violation in invariants.check(saga_id, history, definition_of))
        yield from (str(violation) for violation in invariants.check_at_rest(saga_id, history, definition_of))


def definition_finder(definition: Definition) -> DefinitionOf:
    """Finds the one definition of the demo."""

    def find(name: str, version: int) -> Definition:
        if (name, version) != (definition.name, definition.version):
            raise LookupError(f"the backlog names version {version} of {name}, which the demo never published")
        return definition

    return find
