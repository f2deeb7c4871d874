"""Definitions as lint lets them pass, at random; and events of any kind, also such as nobody should send."""

from hypothesis import settings
from hypothesis import strategies as st

from sagakit.core.address import Address
from sagakit.core.definition import (
    Again,
    Command,
    Definition,
    Expression,
    Kind,
    Publication,
    RetryPolicy,
    Task,
)
from sagakit.core.events import (
    Cause,
    Control,
    Event,
    Outcome,
    Refusal,
    Refused,
    Reply,
    ReplyTo,
    Signal,
    Source,
    Start,
    TimerDue,
    TraceContext,
    Undecodable,
    Verb,
)
from sagakit.core.values import CONFLUENT, Data, Opened, Payload
from sagakit.proving.definitions import Constant, Failing, Path, command, definition, publication

_PROFILE = settings.default
assert _PROFILE is not None
EXAMPLES = _PROFILE.max_examples
TIMEOUT_S = 6 * EXAMPLES
"""A search may take as long as the profile is long; a machine that is busy with others is no failure."""

START: Data = {"order_id": "o-1", "amount": 3, "gift": True}
REPLY: Data = {"id": "r-1", "note": "thank you"}
NAMES = ("ash", "birch", "cedar", "douglas", "elm", "fir", "gorse", "hazel", "ivy", "juniper")


def opened(record: str = "shop.OrderPlaced", data: Data = START) -> Opened:
    """A payload of a record type."""
    return Opened(payload=Payload(framed=record.encode(), encoding=CONFLUENT), type=record, data=data)


def _one_in(number: int) -> st.SearchStrategy[bool]:
    # Not at the bounds, which are drawn more often than what lies between.
    return st.integers(0, 10 * number).map(lambda drawn: drawn % number == 2)


@st.composite
def expressions(draw: st.DrawFn, readable: list[str], failing: int) -> Expression:
    """An expression over the start and the steps in `readable`; one in `failing` has no value."""
    if draw(_one_in(failing)):
        return Failing()
    if len(readable) > 0 and draw(st.booleans()):
        # Without a guard: a step that was skipped has no reply, so this may fail for a good reason.
        step: str = draw(st.sampled_from(readable))
        return Path(f"{step}.id") if draw(_one_in(4)) else Path("start.amount")
    simple: list[Expression] = [Constant(1), Constant(None), Path("start.order_id")]
    return draw(st.sampled_from(simple))


_CONDITIONS: list[Expression] = [
    Constant(True),
    Constant(True),
    Constant(False),
    Path("start.gift"),
    Constant(1),
    Failing(),
]
conditions = st.sampled_from(_CONDITIONS)
"""What `when` may say: also what is no boolean, and what has no value."""

policies = st.builds(
    RetryPolicy, attempts=st.integers(1, 3), backoff_ms=st.sampled_from([0, 1, 100]), max_ms=st.sampled_from([0, 400])
)


@st.composite
def commands(draw: st.DrawFn, name: str, readable: list[str], *, reply: str | None) -> Command:
    """A command that reads the start and what came before it."""
    names = draw(st.lists(st.sampled_from(["a", "b"]), unique=True, max_size=2))
    return command(
        name,
        {field: draw(expressions(readable, 40)) for field in names},
        service=draw(st.sampled_from(["warehouse", "bank"])),
        reply=reply,
        timeout_ms=draw(st.sampled_from([1, 1_000])),
        retry=draw(policies),
    )


@st.composite
def tasks(draw: st.DrawFn, name: str, kind: Kind, after: list[str]) -> Task:
    """A step. Only a compensatable one has a compensation, and not each of them."""
    undone = kind is Kind.COMPENSATABLE and not draw(_one_in(5))
    return Task(
        address=Address(name),
        kind=kind,
        after=tuple(map(Address, after)),
        when=draw(conditions) if draw(_one_in(5)) else None,
        command=draw(commands(f"Do{name}", after, reply=f"shop.Done{name}")),
        rejects=frozenset({"REFUSED"}),
        keep=("id",),
        compensate=draw(commands(f"Undo{name}", after, reply=None)) if undone else None,
    )


@st.composite
def publications(draw: st.DrawFn, name: str) -> Publication | None:
    """The event of an end: none, one, or one that has no value."""
    if draw(st.booleans()):
        return None
    return publication(name, {"order_id": draw(expressions([], 10))})


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """A definition: any graph; every compensatable step an ancestor of the pivot, every retriable one a descendant."""
    names = list(NAMES)
    made: dict[str, Task] = {}

    def add(kind: Kind, after: list[str]) -> str:
        name = names.pop(0)
        made[name] = draw(tasks(name, kind, after))
        return name

    def some(of: list[str]) -> list[str]:
        return draw(st.lists(st.sampled_from(of), unique=True, max_size=3)) if of else []

    before: list[str] = []
    for _ in range(draw(st.integers(0, 5))):
        before.append(add(Kind.COMPENSATABLE, some(before)))
    if not before or draw(st.booleans()):
        sinks = [name for name in before if not any(name in task.after for task in made.values())]
        beyond = [add(Kind.PIVOT, sinks)]
        for _ in range(draw(st.integers(0, 3))):
            first = draw(st.sampled_from(beyond))
            beyond.append(add(Kind.RETRIABLE, [first, *(name for name in some(before + beyond) if name != first)]))
    return definition(
        *made.values(),
        again=draw(st.sampled_from(Again)),
        deadline_ms=draw(st.sampled_from([None, None, 1, 3_000])),
        dedupe_ms=draw(st.sampled_from([1, 10_000])),
        start_keep=("order_id", "amount", "gift"),
        completed=draw(publications("OrderConfirmed")),
        compensated=draw(publications("OrderRejected")),
    )


causes = st.builds(
    Cause,
    message_id=st.sampled_from(["m-1", "m-2", "m-3"]),
    type=st.just("shop.Anything"),
    source=st.none() | st.builds(Source, topic=st.just("saga.inbox"), partition=st.just(0), offset=st.integers(0, 9)),
    actor=st.none() | st.just("kim"),
    reason=st.none() | st.just("because"),
)
traces = st.none() | st.just(TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
refusals = st.lists(
    st.builds(
        Refusal,
        target=st.sampled_from(Refused),
        address=st.none() | st.sampled_from([Address(name) for name in NAMES]),
        reason=st.just("too large"),
    ),
    max_size=2,
).map(tuple)
payloads = st.none() | st.sampled_from(
    [
        opened(),
        opened("shop.Wrong"),
        opened("shop.OrderConfirmed", {}),
        *(opened(f"shop.Done{n}", REPLY) for n in NAMES),
    ]
)


def events(command_ids: list[str]) -> st.SearchStrategy[Event]:
    """Any event at all, replies to `command_ids` among them: the truth of what it says is nobody's promise."""
    common = {"cause": causes, "trace": traces, "refusals": st.just(()) | refusals}
    addresses = st.none() | st.sampled_from([Address(name) for name in NAMES])
    return st.one_of(
        st.builds(
            Start,
            **common,
            definition=st.just("place-order"),
            key=st.just("o-1"),
            run=st.integers(0, 9),
            payload=payloads,
            reply_to=st.none() | st.just(ReplyTo(topic="results", partition=3)),
            deadline_ms=st.none() | st.integers(-1, 5_000),
        ),
        st.builds(
            Reply,
            **common,
            command_id=st.sampled_from([*command_ids, "00000000-0000-5000-8000-000000000000"]),
            outcome=st.sampled_from(Outcome),
            payload=payloads,
            code=st.none() | st.sampled_from(["REFUSED", "UNDECLARED"]),
            message=st.none() | st.just("no"),
        ),
        st.builds(Signal, **common, name=st.just("approve"), payload=payloads, keep_ms=st.sampled_from([0, 1, 5_000])),
        st.builds(Control, **common, verb=st.sampled_from(Verb), address=addresses, payload=payloads),
        st.builds(TimerDue, **common),
        st.builds(Undecodable, **common, reason=st.just("no magic byte"), dead_letter_topic=st.just("saga.dlq")),
    )
