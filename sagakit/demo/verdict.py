"""What the play came to: how orders ended, how long they took, and whether all books agree."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from sagakit.contracts.transitions import UnknownKind
from sagakit.core.definition import Definition
from sagakit.demo.stage import WrongFileError
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
    """An order that was placed: its saga's id, its data, and when it was handed to the producer (ms, monotonic)."""

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
class Account:
    """What the sagas say of themselves, once nothing is under way any more.

    Attributes:
        orders: how many were placed.
        ends: how each order ended that did.
        compensated: how many orders were undone, by reason.
        undeclared: how many rejections had a code that the definition does not name, by step and code.
        parked: the sagas that wait for a person.
        scheduled: idempotency keys of all commands that were sent.
        sagas: how many sagas the backlog knows, with how many transitions.
        transitions: how many the backlog holds.
        complaints: everything in it that should not be.
    """

    orders: int
    ends: tuple[OrderEnd, ...]
    compensated: Mapping[str, int]
    undeclared: Mapping[str, int]
    parked: tuple[Parked, ...]
    latencies: Latencies | None
    scheduled: frozenset[str]
    sagas: int
    transitions: int
    complaints: tuple[str, ...]

    def count(self, end: End) -> int:
        """How many orders ended so."""
        return sum(one.end is end for one in self.ends)

    def save(self, file: Path) -> None:
        """Write it down as JSON, for `load`."""
        file.write_bytes(_ACCOUNT.dump_json(self, indent=2))

    @staticmethod
    def load(file: Path) -> "Account":
        """Read what `save` wrote.

        Raises:
            WrongFileError: there is nothing, or something else.
        """
        try:
            return _ACCOUNT.validate_json(file.read_bytes())
        except OSError as error:
            raise WrongFileError(
                f"{file} cannot be read ({error.strerror}); name a folder that `--keep` has filled"
            ) from None
        except ValidationError as error:
            raise WrongFileError(f"{file} is not what the demo wrote: {error.errors()[0]['msg']}") from None


_ACCOUNT: Final = TypeAdapter(Account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the sagas say, beside what the services' ledgers say."""

    account: Account
    audit: Audit

    @property
    def passed(self) -> bool:
        """Whether every book balances and nothing else is wrong."""
        return self.audit.passed and not self.account.complaints


def judge(account: Account, shop: ShopRows) -> Verdict:
    """Compare both, saga by saga."""
    return Verdict(account=account, audit=audit(account.ends, shop, account.scheduled))


def account_of(placed: Sequence[Placed], watch: Watch, definition_of: DefinitionOf) -> Account:
    """Everything that the backlog and the end events have to say of the orders placed."""
    known = {one.saga_id: one for one in placed}
    by_standing: dict[Standing, list[Placed]] = {standing: [] for standing in Standing}
    for one in placed:
        seen = watch.sagas.get(one.saga_id)
        by_standing[Standing.RUNNING if seen is None else seen.standing].append(one)
    undone = Counter(watch.sagas[one.saga_id].turned_back or "" for one in by_standing[Standing.COMPENSATED])
    return Account(
        orders=len(placed),
        ends=tuple(_end(one, _ENDS[standing]) for standing in _ENDS for one in by_standing[standing]),
        compensated=dict(undone.most_common()),
        undeclared=dict(sum((seen.undeclared for seen in watch.sagas.values()), Counter()).most_common()),
        parked=tuple(_parked(one, watch.sagas[one.saga_id]) for one in by_standing[Standing.PARKED]),
        latencies=latencies(
            seen.end_seen_ms - known[saga_id].at_ms
            for saga_id, seen in watch.sagas.items()
            if seen.end_seen_ms is not None and saga_id in known
        ),
        scheduled=frozenset(key for seen in watch.sagas.values() for key in seen.scheduled),
        sagas=len(watch.sagas),
        transitions=watch.transitions,
        complaints=(*_unended(placed, watch), *_strangers(known, watch), *_broken_rules(watch, definition_of)),
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


def _end(placed: Placed, end: End) -> OrderEnd:
    units: Counter[str] = Counter()
    for item in placed.order["items"]:
        units[item["sku"]] += item["quantity"]
    return OrderEnd(
        saga_id=placed.saga_id,
        order_id=placed.order["order_id"],
        end=end,
        amount_cents=placed.order["amount_cents"],
        units=dict(units),
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
