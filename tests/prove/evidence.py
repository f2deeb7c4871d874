"""What is compared at the end of a proof, when nothing is under way any more. Each complaint is one line; none is the
proof.

Backlog against ledgers, saga by saga; every history against the rules; the state topic against the fold of the backlog;
the inbox against the causes in the backlog: each record was decided, and once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from sagakit.contracts.snapshots import decode_state
from sagakit.core import transitions as t
from sagakit.core.evolve import BrokenHistoryError, fold
from sagakit.core.placement import partition_of
from sagakit.core.state import Early, Marker, State
from sagakit.core.transitions import Transition
from sagakit.demo.stage import ORDER_PLACED
from sagakit.demo.verdict import account_of, judge
from sagakit.demo.watch import Standing
from sagakit.orchestrator.decider import NIL_SAGA
from sagakit.proving import invariants
from services.books import read_shop
from tests.prove.house import ProofFailedError
from tests.prove.shop import Shop, now_ms

_SHOWN: Final = 20
_SHOWN_LENGTH: Final = 600


def examine(shop: Shop, *, books: bool = True, at_rest: bool = True) -> dict[str, int]:
    """Compare everything, and count what was compared.

    `books`: all sagas are orders of the shop's own definition. `at_rest`: every saga has ended, or waits for a person.

    Raises:
        ProofFailedError: something is not as it must be; the first twenty complaints are shown.
    """
    complaints = [*_state(shop), *_inbox(shop)]
    if not books:
        complaints += _histories(shop, at_rest=at_rest)
    else:
        account = account_of(shop.placed, shop.watch, shop.definition_of)
        verdict = judge(account, read_shop(shop.ledgers))
        complaints += account.complaints
        complaints += [f"{one.saga_id} at {one.service}: {one.what}" for one in verdict.audit.discrepancies]
        totals = verdict.audit.books
        if not (totals.money_balances and totals.stock_balances):
            complaints.append(f"the books do not balance: {asdict(totals)}")
    return _counted(shop, complaints)


def examine_rules(shop: Shop) -> dict[str, int]:
    """As `examine`, where the inbox holds what nobody would write: every history and state against the rules alone."""
    return _counted(shop, [*_state(shop), *_histories(shop)])


def _counted(shop: Shop, complaints: Sequence[str]) -> dict[str, int]:
    if complaints:
        shown = "\n  ".join(one[:_SHOWN_LENGTH] for one in complaints[:_SHOWN])
        raise ProofFailedError(f"{len(complaints)} complaints; logs are in {shop.folder}:\n  {shown}")
    tally = shop.watch.tally()
    return {
        "sagas": sum(1 for one in shop.watch.sagas if one != NIL_SAGA),
        "transitions": shop.watch.transitions,
        **{standing.value: tally.get(standing, 0) for standing in Standing if standing is not Standing.RUNNING},
    }


def transitions(shop: Shop) -> Iterator[Transition]:
    """All that the backlog holds, saga by saga."""
    for saga_id in shop.watch.sagas:
        yield from shop.history(saga_id)


def count(shop: Shop, kind: type[Transition]) -> int:
    """How many transitions of a kind the backlog holds."""
    return sum(isinstance(one, kind) for one in transitions(shop))


def _histories(shop: Shop, *, at_rest: bool = True) -> Iterator[str]:
    for saga_id, seen in shop.watch.sagas.items():
        if saga_id == NIL_SAGA:
            continue
        if seen.gap is not None:
            yield f"{saga_id}: {seen.gap}"
            continue
        history = shop.history(saga_id)
        for rules in (invariants.check, invariants.check_at_rest) if at_rest else (invariants.check,):
            yield from (str(violation) for violation in rules(saga_id, history, shop.definition_of))


def _state(shop: Shop) -> Iterator[str]:
    """The state topic's latest record of a saga is what its transitions fold to; a marker may have expired and gone."""
    held = latest_states(shop)
    for saga_id in shop.watch.sagas:
        if saga_id == NIL_SAGA:
            continue
        try:
            folded = fold(shop.history(saga_id))
        except BrokenHistoryError:
            continue  # told of among the histories
        found = held.pop(saga_id, None)
        if found is None and (folded is None or _may_be_gone(folded)):
            continue
        if isinstance(found, Early):
            continue
        if found != folded:
            yield f"{saga_id}: the state topic holds {found}, the backlog folds to {folded}"
    for saga_id, found in held.items():
        if not isinstance(found, Early):
            yield f"{saga_id}: the state topic holds {found}, and the backlog knows no such saga"


def _may_be_gone(folded: State) -> bool:
    """A marker goes by the clock, once its partition was read to the end."""
    return isinstance(folded, Marker) and folded.expires_at_ms <= now_ms()


def latest_states(shop: Shop) -> dict[str, State]:
    """What a restore would find, by saga id."""
    held: dict[str, State] = {}
    for record in shop.read(shop.topics.state):
        saga_id = (record.key or b"").decode().partition("/")[0]
        if record.value is None:
            held.pop(saga_id, None)
            continue
        held[saga_id] = decode_state(record.value, shop.own, shop.payloads)
    return held


def _inbox(shop: Shop) -> Iterator[str]:
    """Each record of the inbox is the cause of one decision, no more and no less; and each trigger of one start.

    What came into another saga's partition is passed on instead: the copy is decided.
    """
    decided: Counter[tuple[int, int]] = Counter()
    for one in transitions(shop):
        source = one.header.cause.source
        # What is dead-lettered because it cannot be recorded has no input: there the record itself tells.
        first = one.input is not None or isinstance(one, t.RecordDeadLettered)
        if first and source is not None and source.topic == shop.topics.inbox:
            decided[source.partition, source.offset] += 1
    starts: Counter[str] = Counter()
    astray: Counter[tuple[bytes | None, bytes]] = Counter()
    at_home: Counter[tuple[bytes | None, bytes]] = Counter()
    for record in shop.read(shop.topics.inbox):
        headers = {name: value or b"" for name, value in record.headers}
        message = record.key, headers.get("ce_id", b"")
        home = partition_of(record.key or b"", shop.settings.partitions) == record.partition
        times = decided.pop((record.partition, record.offset), 0)
        if times == 0 and not home:
            astray[message] += 1
        elif times != 1:
            what = f"{headers.get('ce_type')!r} of {headers.get('ce_source')!r} for {record.key!r}"
            yield f"the inbox record {record.partition}/{record.offset}, {what}, was decided {times} times"
        at_home[message] += home
        if headers.get("ce_source", b"").startswith(b"/sagakit/") and headers.get("ce_type") == b"sagakit.Start":
            starts[headers["ce_id"].decode()] += 1
    for message, times in astray.items():
        if at_home[message] < times:
            yield f"{message} was in the wrong partition {times} times and was passed on {at_home[message]} times"
    yield from (f"{where} was decided and is not in the inbox" for where in decided)
    yield from _triggers(shop, starts)


def _triggers(shop: Shop, starts: Mapping[str, int]) -> Iterator[str]:
    events: Counter[str] = Counter()
    for name in {one.trigger_topic for one in shop.definitions.values() if one.trigger_topic is not None}:
        for record in shop.read(shop.topics.service_topic(name)):
            headers = {name: value or b"" for name, value in record.headers}
            if headers.get("ce_type") == ORDER_PLACED.encode():  # not what cannot be read, which is dead-lettered
                events[headers["ce_id"].decode()] += 1
    for message_id in events.keys() | starts.keys():
        came, went = events[message_id], starts.get(message_id, 0) - shop.copied_starts[message_id]
        if came != went:
            yield f"the event {message_id} came {came} times and was re-keyed {went} times"
