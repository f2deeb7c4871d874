"""A running service: order, back-pressure, commits, handovers, shutdown, and answers that do not get through."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sagakit.participants import (
    Context,
    Formats,
    HandlersStuckError,
    Rejected,
    RuntimeSettings,
    Service,
    ServiceExchange,
    ServiceRuntime,
)
from sagakit.participants.answers import Answer
from sagakit.participants.workers import Call
from sagakit.ports.log import Outgoing, Record
from sagakit.ports.messages import DeliveryFailure, MessagesUnavailableError, Undelivered
from sagakit.ports.registry import RegistryUnavailableError
from services.shop_models import CardCharged, ChargeCard
from tests.unit.participants import support
from tests.unit.participants.memory_messages import MemoryMessages
from tests.unit.participants.support import P0, P1, running

WAIT_S = 20
EVENTS = P0._replace(topic="orders.events")


def charged(command: ChargeCard) -> CardCharged:
    return CardCharged(payment_id=command.order_id, charged_cents=command.amount_cents)


def trivial() -> Service:
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard) -> CardCharged:
        return charged(command)

    return service


class Gate:
    """A handler's door: it tells who has come in, and lets nobody out before it is opened."""

    def __init__(self) -> None:
        self.entered: list[int] = []
        self.open = threading.Event()

    def pass_through(self, attempt: int) -> None:
        self.entered.append(attempt)
        assert self.open.wait(WAIT_S)


def gated(gate: Gate, only_attempt: int | None = None) -> Service:
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        if only_attempt in (None, ctx.attempt):
            gate.pass_through(ctx.attempt)
        return charged(command)

    return service


def command(number: int, offset: int, with_: Formats, *, attempt: int = 1, partition: int = 0) -> Record:
    return support.received(support.command(number, with_=with_, attempt=attempt), offset, partition)


def outcomes(messages: MemoryMessages) -> list[str]:
    return [support.headers(one).get("sagakit_outcome", one.topic) for one in messages.delivered]


def test_a_command_is_handled_answered_and_committed(messages: MemoryMessages, with_: Formats) -> None:
    with running(trivial(), messages, with_) as service:
        messages.assign(P0, 5)
        messages.arrive(command(1, 5, with_), command(2, 6, with_))
        messages.until(lambda: messages.committed == {P0: 7})
        assert service.runtime.assigned == {P0}
    assert outcomes(messages) == ["succeeded", "succeeded"]
    assert messages.closed
    assert service.error is None


def test_nothing_is_committed_before_the_delivery_report(messages: MemoryMessages, with_: Formats) -> None:
    """Rule 18: a participant finishes what it was given, or leaves it to the next."""
    messages.hold_deliveries = True
    with running(trivial(), messages, with_):
        messages.assign(P0)
        messages.arrive(command(1, 0, with_))
        messages.until(lambda: len(messages.sent) == 1)
        polls = messages.polls
        messages.until(lambda: messages.polls > polls + 20)
        assert messages.committed.get(P0, 0) == 0
        messages.hold_deliveries = False
        messages.until(lambda: messages.committed == {P0: 1})


def test_a_slow_handler_holds_up_neither_others_nor_polling(messages: MemoryMessages, with_: Formats) -> None:
    gate = Gate()
    with running(gated(gate, only_attempt=9), messages, with_):
        messages.assign(P0)
        messages.arrive(command(1, 0, with_, attempt=9), command(2, 1, with_), command(3, 2, with_))
        messages.until(lambda: len(messages.delivered) == 2)
        polls = messages.polls
        messages.until(lambda: messages.polls > polls + 5)
        assert messages.committed.get(P0, 0) == 0  # the oldest is unfinished
        gate.open.set()
        messages.until(lambda: messages.committed == {P0: 3})


def test_records_of_one_saga_are_handled_in_order(messages: MemoryMessages, with_: Formats) -> None:
    gate = Gate()
    with running(gated(gate), messages, with_):
        messages.assign(P0)
        messages.arrive(*(command(1, offset, with_, attempt=offset + 1) for offset in range(3)), command(2, 3, with_))
        messages.until(lambda: len(gate.entered) == 2)  # the first of each saga
        gate.open.set()
        messages.until(lambda: messages.committed == {P0: 4})
    of_first_saga = [attempt for attempt in gate.entered if attempt > 1]
    assert of_first_saga == [2, 3]


def test_a_crowded_partition_pauses_and_the_others_go_on(messages: MemoryMessages, with_: Formats) -> None:
    gate = Gate()
    settings = RuntimeSettings(threads=2, in_work_max_per_partition=10)
    service = gated(gate, only_attempt=1)
    with running(service, messages, with_, settings):
        messages.assign(P0)
        messages.assign(P1)
        messages.arrive(command(0, 0, with_), *(command(0, offset, with_, attempt=2) for offset in range(1, 12)))
        messages.until(lambda: messages.paused == {P0})
        messages.arrive(command(50, 0, with_, attempt=2, partition=1))
        messages.until(lambda: messages.committed == {P1: 1})
        gate.open.set()
        messages.until(lambda: messages.committed == {P0: 12, P1: 1} and not messages.paused)


def test_work_is_bounded_altogether(messages: MemoryMessages, with_: Formats) -> None:
    gate = Gate()
    settings = RuntimeSettings(threads=2, in_work_max=4)
    with running(gated(gate), messages, with_, settings):
        messages.assign(P0)
        messages.arrive(*(command(number, number, with_) for number in range(20)))
        messages.until(lambda: messages.paused == {P0})
        assert len(messages._records[P0]) == 16
        gate.open.set()
        messages.until(lambda: messages.committed == {P0: 20})


def test_async_handlers_run_at_the_same_time(messages: MemoryMessages, with_: Formats) -> None:
    service = Service("payments")
    inside: list[str] = []

    @service.command
    async def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        inside.append(ctx.saga_id)
        while len(inside) < 50:
            await asyncio.sleep(0)
        return charged(command)

    with running(service, messages, with_, RuntimeSettings(threads=1)):
        messages.assign(P0)
        messages.arrive(*(command(number, number, with_) for number in range(50)))
        messages.until(lambda: messages.committed == {P0: 50})
    assert outcomes(messages) == ["succeeded"] * 50


@pytest.mark.parametrize("is_async", [False, True])
def test_exceptions_are_answered(messages: MemoryMessages, with_: Formats, is_async: bool) -> None:
    service = Service("payments")

    def outcome_of(ctx: Context) -> Exception | BaseException:
        errors: dict[int, BaseException] = {1: Rejected("CARD_DECLINED"), 2: ValueError("no"), 3: SystemExit(1)}
        return errors[ctx.attempt]

    if is_async:

        @service.command
        async def charge_async(command: ChargeCard, ctx: Context) -> CardCharged:
            raise outcome_of(ctx)

    else:

        @service.command
        def charge(command: ChargeCard, ctx: Context) -> CardCharged:
            raise outcome_of(ctx)

    with running(service, messages, with_) as started:
        messages.assign(P0)
        messages.arrive(*(command(1, offset, with_, attempt=offset + 1) for offset in range(3)))
        messages.until(lambda: messages.committed == {P0: 3})
    assert outcomes(messages) == ["rejected", "failed", "failed"]
    assert started.error is None


def test_a_handover_waits_for_running_handlers_and_forgets_the_rest(messages: MemoryMessages, with_: Formats) -> None:
    """Rule 18: a participant finishes what it was given, or leaves it to the next."""
    gate = Gate()
    with running(gated(gate), messages, with_):
        messages.assign(P0)
        messages.arrive(command(1, 0, with_), command(1, 1, with_, attempt=2))
        messages.until(lambda: gate.entered == [1])
        messages.revoke(P0)
        polls = messages.polls
        threading.Timer(0.2, gate.open.set).start()
        messages.until(lambda: messages.polls > polls + 2)
        assert messages.committed == {P0: 1}
        assert gate.entered == [1]


def test_a_stuck_handler_ends_the_process_and_its_record_is_not_committed(
    messages: MemoryMessages, with_: Formats
) -> None:
    gate = Gate()
    with running(gated(gate, only_attempt=9), messages, with_, RuntimeSettings(handover_s=0.1)) as service:
        messages.assign(P0)
        messages.arrive(command(1, 0, with_), command(2, 1, with_, attempt=9))
        messages.until(lambda: gate.entered == [9] and len(messages.delivered) == 1)
        messages.revoke(P0)
        service.thread.join(WAIT_S)
        assert isinstance(service.error, HandlersStuckError)
        assert "payments.commands[0]@1" in str(service.error)
        assert messages.committed == {P0: 1}
        assert not messages.closed  # it must not leave the group while the handler runs
        gate.open.set()


def test_the_process_can_be_ended_before_the_partition_of_a_stuck_handler_leaves(
    messages: MemoryMessages, with_: Formats
) -> None:
    gate = Gate()
    service = gated(gate)
    left_by_then: list[bool] = []
    runtime = ServiceRuntime(
        service,
        answering=support.exchange(service, with_),
        connect=messages.connect,
        settings=RuntimeSettings(handover_s=0.1),
        on_stuck=lambda _: left_by_then.append(P0 not in messages._owned),
    )
    started = support.RunningService(runtime)
    messages.assign(P0)
    messages.arrive(command(1, 0, with_))
    messages.until(lambda: gate.entered == [1])
    messages.revoke(P0)
    started.thread.join(WAIT_S)
    gate.open.set()
    assert left_by_then == [False]
    assert isinstance(started.error, HandlersStuckError)


@pytest.mark.parametrize("in_the_end", [False, True])
def test_offsets_pass_what_is_no_record(messages: MemoryMessages, with_: Formats, in_the_end: bool) -> None:
    """Else retention deletes the marks of a quiet topic's transactions, and its partition stands still for nothing."""
    now = [0.0]
    gate = Gate()
    service = gated(gate)
    runtime = ServiceRuntime(
        service, answering=support.exchange(service, with_), connect=messages.connect, clock=lambda: now[0]
    )
    started = support.RunningService(runtime)
    messages.assign(P0)
    messages.assign(P1)
    messages.arrive(command(1, 0, with_))
    messages.until(lambda: gate.entered == [1])
    messages.position = {P0: 2, P1: 7}
    if not in_the_end:
        now[0] = 61.0
        messages.until(lambda: messages.committed == {P1: 7})  # and P0 not before its record is handled
        gate.open.set()
        now[0] = 62.0
        messages.until(lambda: messages.committed == {P0: 2, P1: 7})
    gate.open.set()
    started.stop()
    assert messages.committed == {P0: 2, P1: 7}
    assert messages.begun_below == {P0: 1, P1: 0}


def test_records_that_wait_for_a_thread_are_given_back_at_once(messages: MemoryMessages, with_: Formats) -> None:
    gate = Gate()
    with running(gated(gate), messages, with_, RuntimeSettings(threads=1, handover_s=3_600.0)) as started:
        messages.assign(P0)
        messages.assign(P1)
        messages.arrive(command(1, 0, with_))
        messages.until(lambda: gate.entered == [1])
        messages.arrive(command(2, 0, with_, attempt=2, partition=1))
        messages.until(lambda: not messages._records[P1])
        messages.revoke(P1)
        messages.until(lambda: started.runtime.assigned == {P0})  # though the only thread is busy
        gate.open.set()
        messages.until(lambda: messages.committed == {P0: 1, P1: 0})
    assert gate.entered == [1]


def test_a_stuck_async_handler_is_cancelled_which_is_no_failure(messages: MemoryMessages, with_: Formats) -> None:
    service = Service("payments")
    begun, cancelled = threading.Event(), threading.Event()

    @service.command
    async def charge(command: ChargeCard) -> CardCharged:
        begun.set()
        try:
            await asyncio.Event().wait()  # for ever
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return charged(command)

    with running(service, messages, with_, RuntimeSettings(handover_s=0.1)) as started:
        messages.assign(P0)
        messages.arrive(command(1, 0, with_))
        assert begun.wait(WAIT_S)
        messages.revoke(P0)
        assert cancelled.wait(WAIT_S)
        messages.assign(P1)
        messages.until(lambda: P1 in started.runtime.assigned)
    assert (messages.sent, messages.committed, started.error) == ([], {P0: 0, P1: 0}, None)


def test_a_cancellation_of_the_handlers_own_making_is_a_failure(messages: MemoryMessages, with_: Formats) -> None:
    service = Service("payments")

    @service.command
    async def charge(command: ChargeCard) -> CardCharged:
        raise asyncio.CancelledError

    with running(service, messages, with_):
        messages.assign(P0)
        messages.arrive(command(1, 0, with_))
        messages.until(lambda: messages.committed == {P0: 1})
    assert outcomes(messages) == ["failed"]


@pytest.mark.parametrize("is_async", [False, True])
def test_shutdown_finishes_what_runs(messages: MemoryMessages, with_: Formats, is_async: bool) -> None:
    gate = Gate()
    service = gated(gate)
    if is_async:
        service = Service("payments")

        @service.command
        async def charge(command: ChargeCard, ctx: Context) -> CardCharged:
            gate.entered.append(ctx.attempt)
            await asyncio.to_thread(gate.open.wait)
            return charged(command)

    with running(service, messages, with_) as started:
        messages.assign(P0)
        messages.arrive(command(1, 0, with_), command(1, 1, with_, attempt=2))
        messages.until(lambda: gate.entered == [1])
        threading.Timer(0.2, gate.open.set).start()
        started.stop()
    assert gate.entered == [1]
    assert (outcomes(messages), messages.committed, messages.closed) == (["succeeded"], {P0: 1}, True)


def test_lost_partitions_commit_nothing(messages: MemoryMessages, with_: Formats) -> None:
    """Rule 18: a participant finishes what it was given, or leaves it to the next."""
    gate = Gate()
    with running(gated(gate), messages, with_) as started:
        messages.assign(P0)
        messages.arrive(command(1, 0, with_))
        messages.until(lambda: gate.entered == [1])
        messages.lose(P0)
        threading.Timer(0.2, gate.open.set).start()
        messages.until(lambda: len(messages.delivered) == 1 and not started.runtime.assigned)
        polls = messages.polls
        messages.until(lambda: messages.polls > polls + 3)
    assert messages.committed.get(P0, 0) == 0


def test_a_refused_commit_is_tried_again(messages: MemoryMessages, with_: Formats) -> None:
    messages.refuse_commits = True
    with running(trivial(), messages, with_):
        messages.assign(P0)
        messages.arrive(command(1, 0, with_))
        messages.until(lambda: len(messages.delivered) == 1)
        polls = messages.polls
        messages.until(lambda: messages.polls > polls + 3)
        messages.refuse_commits = False
        messages.until(lambda: messages.committed == {P0: 1})


def failing(times: int, kind: Undelivered) -> Callable[[Outgoing], DeliveryFailure | None]:
    left = [times]

    def refuse(_: Outgoing) -> DeliveryFailure | None:
        left[0] -= 1
        return DeliveryFailure(kind=kind, reason="not today") if left[0] >= 0 else None

    return refuse


def test_a_reply_that_the_broker_does_not_take_now_is_sent_again(messages: MemoryMessages, with_: Formats) -> None:
    messages.refuse = failing(2, Undelivered.LATER)
    with running(trivial(), messages, with_):
        messages.assign(P0)
        messages.arrive(command(1, 0, with_))
        messages.until(lambda: messages.committed == {P0: 1})
    assert len(messages.sent) == 3
    assert outcomes(messages) == ["succeeded"]


def test_a_reply_that_is_too_large_is_replaced(messages: MemoryMessages, with_: Formats) -> None:
    messages.refuse = failing(1, Undelivered.TOO_LARGE)
    with running(trivial(), messages, with_):
        messages.assign(P0)
        messages.arrive(command(1, 0, with_))
        messages.until(lambda: messages.committed == {P0: 1})
    assert outcomes(messages) == ["failed"]


def test_without_a_dead_letter_topic_a_poison_command_is_not_lost(messages: MemoryMessages, with_: Formats) -> None:
    messages.refuse = failing(2, Undelivered.REFUSED)
    with running(trivial(), messages, with_):
        messages.assign(P0)
        messages.arrive(command(1, 0, with_)._replace(headers=[]))
        messages.until(lambda: messages.committed == {P0: 1})
    assert [one.topic for one in messages.delivered] == ["payments.commands.dlq"]


class SometimesAway(ServiceExchange):
    """An exchange whose registry is away for its first calls."""

    def __init__(self, *arguments: Any, away: int, **names: Any) -> None:
        super().__init__(*arguments, **names)
        self.away = away
        self.asked = 0

    def _ask(self) -> None:
        self.asked += 1
        if self.asked <= self.away:
            raise RegistryUnavailableError("the registry does not answer")

    def prepare(self, record: Record, *, may_have_begun: bool = False) -> Call | Answer | None:
        self._ask()
        return super().prepare(record, may_have_begun=may_have_begun)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_registry_that_is_away_delays_commands_and_fails_none(
    messages: MemoryMessages, with_: Formats, is_async: bool
) -> None:
    """Rule 10: a registry that is away makes no poison."""
    service = Service("payments")
    if is_async:

        @service.command
        async def charge_async(command: ChargeCard) -> CardCharged:
            return charged(command)

    else:

        @service.command
        def charge(command: ChargeCard) -> CardCharged:
            return charged(command)

    exchange = SometimesAway(service, with_, clock_ms=support.now_ms, clock=lambda: 0.0, away=1)
    runtime = ServiceRuntime(service, answering=exchange, connect=messages.connect)
    started = support.RunningService(runtime)
    messages.assign(P0)
    messages.arrive(command(1, 0, with_))
    messages.until(lambda: messages.committed == {P0: 1})
    started.stop()
    assert outcomes(messages) == ["succeeded"]
    assert exchange.asked == 2


def test_a_service_waits_at_start_for_its_registry(messages: MemoryMessages, with_: Formats) -> None:
    class LateRegistry(ServiceExchange):
        asked = 0

        def prepare_schemas(self) -> None:
            LateRegistry.asked += 1
            if LateRegistry.asked == 1:
                raise RegistryUnavailableError("the registry does not answer")
            super().prepare_schemas()

    service = trivial()
    exchange = LateRegistry(service, with_, clock_ms=support.now_ms, clock=lambda: 0.0)
    started = support.RunningService(ServiceRuntime(service, answering=exchange, connect=messages.connect))
    messages.until(lambda: messages.polls > 0)
    assert LateRegistry.asked == 2
    started.stop()


def test_a_bug_of_ours_ends_the_service_and_is_not_swallowed(messages: MemoryMessages, with_: Formats) -> None:
    class Broken(ServiceExchange):
        def prepare(self, record: Record, *, may_have_begun: bool = False) -> Call | Answer | None:
            raise RuntimeError("a bug")

    service = trivial()
    exchange = Broken(service, with_, clock_ms=support.now_ms, clock=lambda: 0.0)
    settings = RuntimeSettings(handover_s=0.1)
    started = support.RunningService(
        ServiceRuntime(service, answering=exchange, connect=messages.connect, settings=settings)
    )
    messages.assign(P0)
    messages.arrive(command(1, 0, with_))
    started.thread.join(WAIT_S)
    assert started.error is not None
    assert "a bug" in f"{started.error!r} {started.error.__context__!r}"
    assert messages.committed.get(P0, 0) == 0


def test_a_client_that_can_go_on_no_more_ends_the_service(messages: MemoryMessages, with_: Formats) -> None:
    with running(trivial(), messages, with_) as started:
        messages.until(lambda: messages.polls > 0)
        messages.failure = MessagesUnavailableError("fenced", fatal=True)
        started.thread.join(WAIT_S)
    assert isinstance(started.error, MessagesUnavailableError)


def test_a_client_that_is_refused_for_a_while_goes_on_and_says_why(
    messages: MemoryMessages, with_: Formats, caplog: pytest.LogCaptureFixture
) -> None:
    with running(trivial(), messages, with_) as started:
        messages.assign(P0)
        messages.until(lambda: started.runtime.assigned == {P0})
        messages.failure = MessagesUnavailableError("not authorised")
        before = messages.polls
        messages.until(lambda: messages.polls > before + 5)
        assert started.runtime.unavailable == "not authorised"
        messages.failure = None
        messages.arrive(command(1, 0, with_))
        messages.until(lambda: messages.committed == {P0: 1})
    assert started.error is None
    assert caplog.text.count("not authorised") == 1


def test_a_partition_whose_records_were_deleted_stands_still(messages: MemoryMessages, with_: Formats) -> None:
    with running(trivial(), messages, with_) as started:
        messages.assign(P0)
        messages.lose_offset(P0)
        messages.until(lambda: started.runtime.standing_still == {P0})
        assert started.runtime.assigned == frozenset()


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"in_work_max": 0}, {"handover_s": -1.0}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RuntimeSettings(**wrong)
