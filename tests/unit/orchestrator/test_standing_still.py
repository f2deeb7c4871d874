"""When a partition stands still, how loudly, for how long; and the clock that timers go by."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from sagakit.contracts import envelope
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import encode_state
from sagakit.core.address import Address
from sagakit.core.state import Early, Saga
from sagakit.core.turn import ENGINE_LEVEL
from sagakit.ports.log import Aborted, Batch, LogUnavailableError, Outgoing, Record, TopicPartition, Unknown, Work
from sagakit.testing.simulated_log import SimulatedLog
from tests.simulation import shop
from tests.unit.orchestrator.bench import Bench

INBOX = "sim.saga.inbox[0]"


# What the state topic holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["noise", "of another saga", "no time", "no time at all", "unknown step"])
def test_a_state_that_cannot_be_read_holds_its_partition_loudly_and_is_not_lost(what: str) -> None:
    bench = Bench(partitions=2)
    keys = [next(f"k{n}" for n in range(99) if bench.home(bench.saga(f"k{n}", "visit")) == home) for home in (0, 1)]
    held, goes_on = (bench.start(key, "visit") for key in keys)
    bench.cycles()
    commands = bench.commands()
    state = bench.cluster.written(bench.topics.state)
    good = next(one for one in state if one.key == held.encode())
    _spoil(bench, what, good)
    bench.open()
    for command in commands:
        bench.reply(command)
    bench.later(4)
    assert list(bench.blocked) == [INBOX], bench.blocked
    assert "state" in bench.blocked[INBOX]
    assert bench.kinds(held) == ["SagaStarted", "StepScheduled"]
    assert bench.committed() == 1, "the reply waits too"
    assert "StepSucceeded" in bench.kinds(goes_on)
    bench.cluster.append(bench.topics.state, 0, good.key, good.value, good.headers)
    bench.open()
    bench.run_to_end()
    assert bench.kinds(held)[-1] == "SagaCompleted"


def test_a_state_of_no_saga_holds_its_partition_when_it_is_due(bench: Bench) -> None:
    bench.start()
    bench.cycles()
    bench.cluster.append(bench.topics.state, 0, b"\xff", b"?", [(envelope.DUE, b"1")])
    bench.open()
    bench.later(4)
    assert "is no saga's" in bench.blocked[INBOX]


def _spoil(bench: Bench, what: str, good: Record) -> None:
    """Put something in place of a good state, that nobody of ours would write."""
    state = bench.state((good.key or b"").decode())
    assert isinstance(state, Saga)
    key, value, headers = good.key or b"", good.value or b"", good.headers
    match what:
        case "noise":
            value = b"\x00\x01\x02"
        case "of another saga":
            value = _encoded(replace(state, saga_id=bench.saga("another")))
        case "no time":
            headers = [(envelope.DUE, b"soon")]
        case "no time at all":
            headers = [("x", b"1"), (envelope.DUE, None)]
        case "unknown step":
            value = _encoded(replace(state, steps={Address.parse("nowhere"): next(iter(state.steps.values()))}))
    bench.cluster.append(bench.topics.state, 0, key, value, headers)


def _encoded(state: Saga) -> bytes:
    return encode_state(state, shop.own_records(), PlainPayloadCodec(shop.codec()))


# The registry, the brokers, the definitions --------------------------------------------------------------------------


def test_a_registry_that_is_away_is_waited_for_and_nothing_is_dead_lettered(bench: Bench) -> None:
    """Rule 10: a registry that is away makes no poison."""
    bench.cycles()
    bench.registry.available = False
    saga_id = bench.start()
    bench.later(3)
    assert "registry" in bench.blocked[INBOX]
    assert not bench.orchestrator.health().ready
    assert bench.committed() is None
    bench.registry.available = True
    bench.later(5)
    assert bench.blocked == {}
    assert bench.orchestrator.health().ready
    assert bench.kinds(saga_id)[:1] == ["SagaStarted"]
    assert bench.dead_letters() == []


def test_no_later_record_overtakes_the_one_that_waits(bench: Bench) -> None:
    """A partition that stands still keeps its order, and what came before in the same cycle is done."""
    bench.cycles()
    first = bench.start("first", "visit")
    bench.cycles()
    (command,) = bench.commands()
    bench.registry.available = False
    bench.put(Outgoing(bench.topics.inbox, 0, b"k", b"no frame", ()))
    bench.reply(command)
    bench.signal(first)
    bench.later(2)
    assert bench.kinds(first) == ["SagaStarted", "StepScheduled"]
    assert bench.committed() == 2
    assert len(bench.dead_letters()) == 1
    bench.registry.available = True
    bench.later(4)
    kinds = bench.kinds(first)
    assert kinds.index("StepSucceeded") < kinds.index("SignalKept")


def test_brokers_that_are_away_are_waited_for(bench: Bench) -> None:
    saga_id = bench.start()
    bench.cycles(3)
    bench.cluster.available = False
    bench.later(5)
    bench.cluster.available = True
    bench.run_to_end()
    assert bench.kinds(saga_id)[-1] == "SagaCompleted"


def test_brokers_that_are_away_at_start_are_waited_for(bench: Bench) -> None:
    bench.cluster.available = False
    bench.cycles()
    bench.cluster.available = True
    saga_id = bench.start()
    bench.run_to_end()
    assert bench.kinds(saga_id)[-1] == "SagaCompleted"


def test_while_kafka_refuses_the_process_goes_on_trying_and_says_why(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.cycles()
    saga_id = bench.start("o-1", "visit")
    poll, tries = bench.log.poll, 0

    def refuses(timeout_s: float) -> Batch:
        nonlocal tries
        tries += 1
        bench.cluster.pass_time(200)
        if tries % 2:  # the client does not say it each time
            raise LogUnavailableError("Broker: Group authorization failed")
        return Batch(changes=(), records=())

    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(bench.log, "poll", refuses)
        bench.cycles(50)
        health = bench.orchestrator.health()
    assert tries == 50
    assert (health.ready, health.unavailable) == (False, "Broker: Group authorization failed")
    assert [line["reason"] for line in lines if line["log_level"] == "error"] == ["Broker: Group authorization failed"]
    assert bench.log.poll == poll
    bench.run_to_end()
    assert bench.kinds(saga_id)[-1] == "SagaCompleted"
    bench.later(11)
    assert bench.orchestrator.health().ready


def test_what_kafka_refuses_for_good_ends_the_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(timeout_s: float) -> Batch:
        raise LogUnavailableError("two instances use one transactional id", fatal=True)

    monkeypatch.setattr(bench.log, "poll", refuses)
    with pytest.raises(LogUnavailableError, match="two instances"):
        bench.orchestrator.run(lambda: False)


def test_a_saga_whose_version_is_not_published_waits_for_it(bench: Bench) -> None:
    """Rule 9: a version starts where it was published, and everybody knows it by then."""
    saga_id = bench.start()
    bench.cycles()
    (command,) = bench.commands()
    definitions = bench.cluster.logs[TopicPartition(bench.topics.definitions, 0)]
    definitions.purge(definitions.end)
    bench.publish("visit", 1)
    bench.open()
    bench.reply(command)
    bench.later(2)
    assert "version 1 of 'order'" in bench.blocked[INBOX]
    bench.publish("order", 1)
    bench.later(8)
    assert bench.blocked == {}
    assert "StepSucceeded" in bench.kinds(saga_id) or "StepTimedOut" in bench.kinds(saga_id)


def test_pauses_grow_while_it_stands_still_and_begin_anew_after(bench: Bench) -> None:
    bench.cycles()
    bench.registry.available = False
    bench.start()
    tried: list[int] = []
    restore = bench.log.restore

    def counted(partition: TopicPartition, first_offset: int | None, *, state: bool = True) -> None:
        tried.append(bench.clock())
        restore(partition, first_offset, state=state)

    bench.log.restore = counted  # type: ignore[method-assign]
    bench.later(100)
    pauses = [after - before for before, after in pairwise(tried)]
    assert pauses == sorted(pauses)
    assert 25_000 < pauses[-1] < 32_000


def test_a_clock_that_is_set_back_keeps_nothing_standing(bench: Bench) -> None:
    bench.cycles()
    bench.registry.available = False
    saga_id = bench.start()
    bench.cycles()
    bench.registry.available = True
    bench.skew_ms = -3_600_000
    bench.publish("audit", 1)
    bench.later(2)
    assert bench.kinds(saga_id)[:1] == ["SagaStarted"]
    assert bench.orchestrator._catalog.latest("audit") is not None


# Engine levels, lost offsets -----------------------------------------------------------------------------------------


def test_a_higher_engine_level_is_refused_by_its_partition_alone() -> None:
    bench = Bench(partitions=2)
    keys = [str(number) for number in range(20)]
    high, fine = (next(key for key in keys if bench.home(bench.saga(key, "visit")) == home) for home in (0, 1))
    saga_id = bench.start(high, "visit")
    bench.cycles()
    (command,) = bench.commands()
    state = bench.state(saga_id)
    assert isinstance(state, Saga)
    raised = replace(state, engine_level=ENGINE_LEVEL + 1)
    value = encode_state(raised, shop.own_records(), PlainPayloadCodec(shop.codec()))
    bench.put(Outgoing(bench.topics.state, 0, saga_id.encode(), value, ()))
    bench.open()
    bench.reply(command)
    other = bench.start(fine, "visit")
    bench.run_to_end()
    assert "engine level" in bench.blocked[INBOX]
    assert list(bench.blocked) == [INBOX]
    assert bench.kinds(other)[-1] == "SagaCompleted"
    assert bench.kinds(saga_id) == ["SagaStarted", "StepScheduled"]


def test_a_lost_offset_stops_its_partition_loudly_and_its_state_is_restored_whole_when_it_is_mended(
    bench: Bench,
) -> None:
    """Rule 4: what nobody has read must not go, and a lost offset must be loud."""
    saga_id = bench.start()
    bench.cycles()
    (command,) = bench.commands()
    bench.log.close(1)
    bench.reply(command)
    bench.reply(command)
    inbox = TopicPartition(bench.topics.inbox, 0)
    bench.cluster.logs[inbox].purge(2)
    bench.open()
    bench.later(10)
    assert "records were lost" in bench.blocked[INBOX]
    assert "restart" in bench.blocked[INBOX]
    assert bench.committed() == 1
    bench.cluster.group(bench.topics.orchestrator_group).committed[inbox] = 2
    bench.later(35)
    assert bench.blocked == {}
    assert "StepSucceeded" in bench.kinds(saga_id) or "StepTimedOut" in bench.kinds(saga_id)
    assert not any(one.header.run is None for one in bench.history(saga_id)), "the saga was known"


def test_with_the_groups_offsets_gone_no_trigger_is_read_anew(bench: Bench) -> None:
    """Rule 4: a trigger partition has no state to tell by; it would start every saga of its history once more."""
    bench.place()
    bench.cycles()
    begun = bench.kinds(bench.saga())
    bench.log.close(1)
    bench.cluster.group(bench.topics.orchestrator_group).committed.clear()
    bench.open()
    bench.later(10)
    assert "records were lost" in bench.blocked[INBOX]
    assert f"{shop.ORDERS}[0]" in bench.orchestrator.health().restoring
    assert bench.kinds(bench.saga()) == begun


# Outcomes of a commit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("happened", [True, False])
def test_after_an_unknown_outcome_everything_is_restored(
    bench: Bench, happened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 16: what came of a commit may be unknown."""
    bench.cycles()
    lost = SimulatedLog._answer_lost

    def once(self: SimulatedLog, transaction: object) -> Unknown | None:
        monkeypatch.setattr(SimulatedLog, "_answer_lost", lost)
        if happened:
            self._cluster.commit(transaction)  # type: ignore[arg-type]
        return Unknown(reason="lost")

    monkeypatch.setattr(SimulatedLog, "_answer_lost", once)
    saga_id = bench.start("o-1", "visit")
    bench.run_to_end()
    kinds = bench.kinds(saga_id)
    assert (kinds.count("SagaStarted"), kinds[-1]) == (1, "SagaCompleted")


def test_an_aborted_cycle_is_decided_again_on_the_same_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 16: what came of a commit may be unknown."""
    bench.cycles()
    write = SimulatedLog._write

    def once(self: SimulatedLog, work: Work) -> Aborted:
        monkeypatch.setattr(SimulatedLog, "_write", write)
        return Aborted(reason="for once")

    monkeypatch.setattr(SimulatedLog, "_write", once)
    saga_id = bench.start("o-1", "visit")
    bench.run_to_end()
    kinds = bench.kinds(saga_id)
    assert (kinds.count("SagaStarted"), kinds[-1]) == (1, "SagaCompleted")


# Timers --------------------------------------------------------------------------------------------------------------


def test_a_reply_that_lies_in_the_log_beats_its_timeout(bench: Bench) -> None:
    """Rule 14: a reply in the log beats its timeout."""
    saga_id = bench.start("o-1", "visit")
    bench.cycles()
    (command,) = bench.commands()
    bench.log.close(1)
    bench.reply(command)
    bench.cluster.pass_time(3_600_000)
    bench.open()
    bench.cycles()
    kinds = bench.kinds(saga_id)
    assert "StepSucceeded" in kinds
    assert "StepTimedOut" not in kinds


def test_timers_wait_while_a_record_is_unread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 14: a reply in the log beats its timeout."""
    saga_id = bench.start("o-1", "visit")
    bench.cycles()
    (command,) = bench.commands()
    bench.reply(command)
    with monkeypatch.context() as patch:
        patch.setattr(bench.log, "_delivered", list)
        bench.later(5)
    assert "StepTimedOut" not in bench.kinds(saga_id)
    bench.cycles()
    assert "StepSucceeded" in bench.kinds(saga_id)


def test_a_timer_fires_by_the_wall_clock_once_all_is_read(bench: Bench) -> None:
    saga_id = bench.start("o-1", "visit")
    bench.cycles()
    bench.later(3)
    assert bench.kinds(saga_id)[2:4] == ["StepTimedOut", "StepRetryScheduled"]


def test_an_ended_saga_is_forgotten_after_the_dedupe_window(bench: Bench) -> None:
    """Rule 15: a start that comes again runs once, and one that waited runs."""
    saga_id = bench.start("o-1", "visit")
    bench.run_to_end()
    assert bench.state(saga_id) is not None
    bench.later(22)
    assert bench.state(saga_id) is None


# Signals -------------------------------------------------------------------------------------------------------------


def test_a_signal_before_its_saga_waits_for_it(bench: Bench) -> None:
    """Rule 8: a signal may come before its saga."""
    saga_id = bench.saga()
    bench.signal(saga_id)
    bench.cycles()
    assert isinstance(bench.state(f"{saga_id}/early"), Early)
    bench.start()
    bench.cycles()
    state = bench.state(saga_id)
    assert isinstance(state, Saga)
    assert [signal.name for signal in state.signals] == ["hint"]
    assert bench.state(f"{saga_id}/early") is None


def test_a_signal_and_its_saga_in_one_cycle(bench: Bench) -> None:
    """Rule 8: a signal may come before its saga."""
    bench.cycles()
    saga_id = bench.saga()
    bench.signal(saga_id)
    bench.start()
    bench.cycles()
    state = bench.state(saga_id)
    assert isinstance(state, Saga)
    assert [signal.name for signal in state.signals] == ["hint"]
    assert bench.state(f"{saga_id}/early") is None


def test_a_signal_for_which_no_saga_comes_expires(bench: Bench) -> None:
    """Rule 8: a signal may come before its saga."""
    saga_id = bench.saga()
    bench.signal(saga_id, keep_ms=500)
    bench.cycles()
    bench.later(2)
    assert bench.kinds(saga_id) == ["SignalKept", "SignalExpired"]
    assert bench.state(f"{saga_id}/early") is None


# Health --------------------------------------------------------------------------------------------------------------


def test_it_is_ready_when_everything_is_restored(bench: Bench) -> None:
    bench.cycles()
    health = bench.orchestrator.health()
    assert (health.owned, health.restoring, health.blocked, health.ready) == (2, (), {}, True)
    assert health.last_cycle_ms <= bench.clock()
    bench.cluster.random.seed(3)
    for partition in tuple(bench.orchestrator._memory):
        bench.orchestrator._restore(partition)
    health = bench.orchestrator.health()
    assert INBOX in health.restoring
    assert not health.ready
    bench.cycles()
    assert bench.orchestrator.health().ready
