"""The shop's books against what the sagas say of themselves. Pure functions over rows.

The ledgers are written by the services, the ends of the sagas by the orchestrator: that both agree is what the demo
shows and the kill tests prove. Each thing that does not is a `Discrepancy`; an empty list is the proof.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True)
class Call:
    """One row of a ledger's `calls`, in the order in which they were written."""

    id: int
    what: str
    saga_id: str
    step: str
    direction: str
    attempt: int
    command_id: str
    idempotency_key: str
    undoes: str | None
    process_id: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Effect:
    """One row of a ledger's `effects`."""

    idempotency_key: str
    what: str
    saga_id: str
    undoes: str | None
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRows:
    """The rows of one service's ledger."""

    service: str
    calls: tuple[Call, ...]
    effects: tuple[Effect, ...]


class End(Enum):
    """How a saga stands at the end of the day."""

    COMPLETED = "completed"
    COMPENSATED = "compensated"
    PARKED = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEnd:
    """An order as its saga tells it. `amount_cents` and `units` (by article) are what was ordered."""

    saga_id: str
    order_id: str
    end: End
    amount_cents: int
    units: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow:
    """One row of the book of payments."""

    payment_id: str
    order_id: str
    saga_id: str
    charged_cents: int
    refunded_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StockRow:
    """One row of the book of stock, in units."""

    sku: str
    on_hand: int
    reserved: int
    shipped: int
    opening: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationRow:
    """One article of a reservation."""

    order_id: str
    saga_id: str
    sku: str
    quantity: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRow:
    """One notification to a customer."""

    event_id: str
    saga_id: str
    order_id: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """Something that should not be: about which saga (empty if about a total), at which service, and what."""

    saga_id: str
    service: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the ledgers add up to, beside what the sagas' ends let expect, in cents and units.

    `parked_*` is what parked sagas hold: it is charged or taken, and waits for a person.
    """

    charged_cents: int
    refunded_cents: int
    confirmed_cents: int
    parked_cents: int
    taken_units: int
    confirmed_units: int
    parked_units: int

    @property
    def money_balances(self) -> bool:
        """Whether charged minus refunded is what confirmed and parked orders cost."""
        return self.charged_cents - self.refunded_cents == self.confirmed_cents + self.parked_cents

    @property
    def stock_balances(self) -> bool:
        """Whether the units taken out of the free stock are those of confirmed and parked orders."""
        return self.taken_units == self.confirmed_units + self.parked_units


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopRows:
    """All rows of all services; `ledgers` by service."""

    ledgers: Mapping[str, LedgerRows]
    payments: Sequence[PaymentRow]
    stock: Sequence[StockRow]
    reservations: Sequence[ReservationRow]
    notifications: Sequence[NotificationRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The verdict: totals, and all that should not be."""

    books: Books
    discrepancies: tuple[Discrepancy, ...]

    @property
    def passed(self) -> bool:
        """Whether both books balance and nothing else is wrong."""
        return self.books.money_balances and self.books.stock_balances and not self.discrepancies


COMPENSATABLE: Final = ("inventory", "payments")
FORWARD_ONLY: Final = ("shipping", "orders")


def audit(ends: Sequence[OrderEnd], shop: ShopRows, scheduled: Collection[str] | None = None) -> Audit:
    """Everything there is to check. `scheduled` as for `check_ledger`."""
    return Audit(
        books=add_up(ends, shop),
        discrepancies=(
            *check_effects(ends, shop.ledgers),
            *(one for rows in shop.ledgers.values() for one in check_ledger(rows, scheduled)),
            *check_payments(ends, shop.payments),
            *check_stock(shop.stock, shop.reservations),
            *check_reservations(ends, shop.reservations),
            *check_notifications(ends, shop.notifications),
        ),
    )


def add_up(ends: Sequence[OrderEnd], shop: ShopRows) -> Books:
    """The totals. What a parked saga holds is read from the ledgers: nothing else knows how far it came."""
    parked = {end.saga_id for end in ends if end.end is End.PARKED}
    completed = [end for end in ends if end.end is End.COMPLETED]
    return Books(
        charged_cents=sum(row.charged_cents for row in shop.payments),
        refunded_cents=sum(row.refunded_cents for row in shop.payments),
        confirmed_cents=sum(end.amount_cents for end in completed),
        parked_cents=sum(row.charged_cents - row.refunded_cents for row in shop.payments if row.saga_id in parked),
        taken_units=sum(row.opening - row.on_hand for row in shop.stock),
        confirmed_units=sum(sum(end.units.values()) for end in completed),
        parked_units=sum(
            row.quantity for row in shop.reservations if row.saga_id in parked and row.state != "released"
        ),
    )


def check_effects(ends: Iterable[OrderEnd], ledgers: Mapping[str, LedgerRows]) -> list[Discrepancy]:
    """Saga by saga: completed means exactly its effects; compensated means that none is left; no effect without a saga.

    `ledgers` are by service. A parked saga may hold what it holds: it is listed by the demo, and judged by a person.
    """
    known = {end.saga_id: end for end in ends}
    found: list[Discrepancy] = []
    for service in (*COMPENSATABLE, *FORWARD_ONLY):
        standing = _standing(ledgers[service])
        found += (
            Discrepancy(saga_id=saga_id, service=service, what="an effect of a saga that nobody knows")
            for saga_id in sorted(standing.keys() - known.keys())
        )
        for saga_id, end in known.items():
            count = standing.get(saga_id, 0)
            wanted = 1 if end.end is End.COMPLETED else 0
            if end.end is not End.PARKED and count != wanted:
                what = f"the saga is {end.end.value}, and {count} effects stand where {wanted} should"
                found.append(Discrepancy(saga_id=saga_id, service=service, what=what))
    return found


def check_ledger(rows: LedgerRows, scheduled: Collection[str] | None = None) -> list[Discrepancy]:
    """What must hold of one ledger, whatever the sagas say.

    Each effect, of a command or an event, took place once, after an entry into its handler; each was undone at most
    once, and after it was done; nothing took effect behind a fence. `scheduled` are the idempotency keys of all
    commands that the backlog knows: with them, an effect that no command explains is found too.
    """
    found: list[Discrepancy] = []

    def add(call: Call | Effect, what: str) -> None:
        found.append(Discrepancy(saga_id=call.saga_id, service=rows.service, what=f"{what} ({call.idempotency_key})"))

    entered: set[str] = set()
    done: set[tuple[str, str]] = set()
    fenced: set[str] = set()
    undone: Counter[str] = Counter()
    for call in rows.calls:
        if call.what == "entry":
            entered.add(call.idempotency_key)
            continue
        if call.idempotency_key not in entered:
            add(call, f"the {call.what} of a handler that was never entered")
        if (call.what, call.idempotency_key) in done:
            add(call, f"the {call.what} took place twice")
        done.add((call.what, call.idempotency_key))
        if call.what == "effect" and call.idempotency_key in fenced:
            add(call, "an effect after it was fenced")
        if call.what == "fence" and call.undoes is not None:
            fenced.add(call.undoes)
        if call.what == "undo" and call.undoes is not None:
            undone[call.undoes] += 1
            if ("effect", call.undoes) not in done:
                add(call, "an undo of what was not done before")
            if undone[call.undoes] == 2:
                add(call, "an effect that was undone twice")
    for effect in rows.effects:
        call_of = "effect" if effect.what == "event" else effect.what
        if call_of in ("effect", "undo") and (call_of, effect.idempotency_key) not in done:
            add(effect, f"the {effect.what} is in no call")
        if scheduled is not None and effect.what != "event" and effect.idempotency_key not in scheduled:
            add(effect, f"the {effect.what} belongs to no command of the backlog")
    return found


def check_notifications(ends: Iterable[OrderEnd], notifications: Iterable[NotificationRow]) -> list[Discrepancy]:
    """Every completed or compensated saga is told to its customer once, and as what it is; a parked one not yet."""
    told: dict[str, list[str]] = defaultdict(list)
    for row in notifications:
        told[row.saga_id].append(row.kind)
    wanted = {End.COMPLETED: ["confirmed"], End.COMPENSATED: ["rejected"], End.PARKED: []}
    found = []
    for end in ends:
        kinds = told.pop(end.saga_id, [])
        if kinds != wanted[end.end]:
            what = f"the saga is {end.end.value}, and the customer was told: {', '.join(kinds) or 'nothing'}"
            found.append(Discrepancy(saga_id=end.saga_id, service="notifications", what=what))
    for saga_id, kinds in told.items():
        what = f"the customer was told {', '.join(kinds)} of a saga that nobody knows"
        found.append(Discrepancy(saga_id=saga_id, service="notifications", what=what))
    return found


def check_payments(ends: Collection[OrderEnd], payments: Iterable[PaymentRow]) -> list[Discrepancy]:
    """A completed order is paid to the cent, a compensated one has cost nothing; a parked one holds what it holds."""
    paid: Counter[str] = Counter()
    for row in payments:
        paid[row.saga_id] += row.charged_cents - row.refunded_cents
    wanted = {end.saga_id: end.amount_cents if end.end is End.COMPLETED else 0 for end in ends}
    parked = {end.saga_id for end in ends if end.end is End.PARKED}
    return [
        Discrepancy(saga_id=saga_id, service="payments", what=f"{paid[saga_id]} cents are paid where {cents} should be")
        for saga_id, cents in wanted.items()
        if saga_id not in parked and paid[saga_id] != cents
    ]


def check_stock(stock: Iterable[StockRow], reservations: Iterable[ReservationRow]) -> list[Discrepancy]:
    """No unit comes from nowhere or gets lost, article by article, and each that is away is some order's."""
    held: Counter[tuple[str, str]] = Counter()
    for one in reservations:
        held[one.sku, one.state] += one.quantity
    found: list[Discrepancy] = []
    for row in stock:
        if row.on_hand + row.reserved + row.shipped != row.opening:
            what = (
                f"{row.sku}: {row.on_hand} on hand, {row.reserved} reserved and {row.shipped} shipped are not the "
                f"{row.opening} that were there at first"
            )
            found.append(Discrepancy(saga_id="", service="inventory", what=what))
        for state, units in (("reserved", row.reserved), ("shipped", row.shipped)):
            if units != held[row.sku, state]:
                what = f"{row.sku}: {units} are {state}, and the orders have {held[row.sku, state]}"
                found.append(Discrepancy(saga_id="", service="inventory", what=what))
    return found


def check_reservations(ends: Iterable[OrderEnd], reservations: Iterable[ReservationRow]) -> list[Discrepancy]:
    """Saga by saga: a completed order has exactly the units ordered, handed over; a compensated one holds nothing.

    A parked order may hold what it has ordered, reserved, or nothing.
    """
    held: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for row in reservations:
        if row.state != "released":
            held[row.saga_id][row.state, row.sku] += row.quantity
    found: list[Discrepancy] = []
    for end in ends:
        has = held.pop(end.saga_id, Counter())
        states = {End.COMPLETED: ("shipped",), End.COMPENSATED: (), End.PARKED: ("reserved",)}[end.end]
        allowed = [{(state, sku): units for sku, units in end.units.items()} for state in states]
        if end.end is not End.COMPLETED:
            allowed.append({})
        if dict(has) not in allowed:
            what = f"the saga is {end.end.value} and ordered {_units(end.units)}, and {_held(has)}"
            found.append(Discrepancy(saga_id=end.saga_id, service="inventory", what=what))
    found += (
        Discrepancy(saga_id=saga_id, service="inventory", what=f"{_held(has)} for a saga that nobody knows")
        for saga_id, has in held.items()
    )
    return found


def _units(units: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {sku}" for sku, count in sorted(units.items()))


def _held(has: Mapping[tuple[str, str], int]) -> str:
    return ", ".join(f"{count} {sku} are {state}" for (state, sku), count in sorted(has.items())) or "nothing is held"


def _standing(rows: LedgerRows) -> Counter[str]:
    """How many effects of each saga stand: done and not undone."""
    undone = {effect.undoes for effect in rows.effects if effect.what == "undo"}
    return Counter(
        effect.saga_id for effect in rows.effects if effect.what == "effect" and effect.idempotency_key not in undone
    )
