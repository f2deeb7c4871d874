"""Whatever comes, each record has its answer, nothing is lost, and the loop goes on."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from sagakit.contracts import envelope, framing
from sagakit.core.events import Verb
from sagakit.core.state import Marker, Saga
from sagakit.core.transitions import SagaParked
from sagakit.ports.log import Outgoing, TopicPartition
from tests.simulation import shop
from tests.unit.orchestrator.bench import Bench

NIL = "00000000-0000-0000-0000-000000000000"


def good_after(bench: Bench) -> None:
    """A saga that comes after the bad record runs to its end."""
    saga_id = bench.start("good", "visit")
    bench.run_to_end()
    assert bench.kinds(saga_id)[-1] == "SagaCompleted"
    assert bench.blocked == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"k", b"no frame at all"),
        (b"k", b"\x00\x00\x00\xff\xffx"),
        (b"k", None),
        (b"", b"\x00\x00\x00\x00\x01x"),
        (b"k", shop.payload("sim.Hint", {"text": "no reply, no start"}).framed),
    ],
    ids=["no frame", "unknown schema id", "no value", "no key", "a record of the wrong type"],
)
def test_what_can_never_be_read_is_dead_lettered_raw(bench: Bench, key: bytes, value: bytes | None) -> None:
    """Rule 10: a registry that is away makes no poison."""
    bench.put(Outgoing(bench.topics.inbox, 0, key, value, [("x", b"1")]))
    bench.cycles()
    bench.later(3)  # an id that the registry denies is asked for again before that is final
    (letter,) = bench.dead_letters()
    assert (letter.key, letter.value) == (key, value)
    assert dict(letter.headers)["x"] == b"1"
    assert dict(letter.headers)[envelope.SOURCE_OFFSET] == b"0"
    assert bench.reason(letter)
    assert bench.kinds(NIL) == ["RecordDeadLettered"]
    good_after(bench)


def test_a_header_without_a_value_is_read_as_missing_and_kept_in_the_dead_letter(bench: Bench) -> None:
    """Kafka knows null headers, and a bad record with one once ended every orchestrator that came to it."""
    for key, name in ((b"k", "x"), (bench.saga().encode(), envelope.OUTCOME)):
        bench.put(Outgoing(bench.topics.inbox, 0, key, b"no frame", [(name, None)]))
    bench.start("large", note="n" * 900_000)
    bench.cycles()
    assert [
        dict(letter.headers)[name] for letter, name in zip(bench.dead_letters(), ("x", envelope.OUTCOME), strict=False)
    ] == [None, None]
    good_after(bench)


def test_a_schema_that_the_registry_does_not_know_yet_is_waited_for_while_other_partitions_go_on() -> None:
    """Rule 10: denied once is not poison. The loop once waited for the second answer itself, and everybody with it."""
    bench = Bench(partitions=2)
    keys = [next(f"k{n}" for n in range(99) if bench.home(bench.saga(f"k{n}", "visit")) == home) for home in (0, 1)]
    waits, goes_on = (bench.start(key, "visit") for key in keys)
    bench.cycles()
    first, second = sorted(bench.commands(), key=lambda one: bench.home(one.headers.saga_id))
    done = framing.schema_id_of(shop.payload("sim.Done", {"receipt": "r"}).framed)
    bench.registry.denied.add(done)
    bench.reply(first)
    bench.reply(second, said="not today")
    bench.cycles()
    assert list(bench.blocked) == ["sim.saga.inbox[0]"]
    assert bench.kinds(goes_on)[-1] == "SagaCompensated"
    bench.registry.denied.clear()
    bench.later(1)
    bench.run_to_end()
    assert bench.kinds(waits)[-1] == "SagaCompleted"
    assert bench.dead_letters() == []


def test_a_stream_of_unknown_schemas_is_passed_at_half_a_second_each() -> None:
    """Each got on with the partition: the pause once doubled from one to the next, up to half a minute for each."""
    bench = Bench(partitions=1)
    unknown = [b"\x00" + (90_000 + number).to_bytes(4, "big") + b"{}" for number in range(8)]
    for value in unknown:
        bench.put(Outgoing(bench.topics.inbox, 0, bench.saga().encode(), value, ()))
    bench.cycles()
    bench.later(8)
    assert [letter.value for letter in bench.dead_letters()] == unknown
    good_after(bench)


def test_a_start_without_a_key_is_dead_lettered(bench: Bench) -> None:
    bench.start("")
    bench.cycles()
    (letter,) = bench.dead_letters()
    assert "business key" in bench.reason(letter)
    good_after(bench)


def test_a_start_of_an_unknown_definition_is_dead_lettered(bench: Bench) -> None:
    saga_id = bench.start("o-1", "nobody")
    bench.cycles()
    (letter,) = bench.dead_letters()
    assert "'nobody'" in bench.reason(letter)
    assert bench.kinds(saga_id) == ["RecordDeadLettered"]
    good_after(bench)


def test_a_start_with_another_record_is_dead_lettered(bench: Bench) -> None:
    saga_id = bench.start(payload=shop.payload("sim.Hint", {"text": "no order"}))
    bench.cycles()
    (letter,) = bench.dead_letters()
    assert "sim.Hint" in bench.reason(letter)
    assert "sim.Placed" in bench.reason(letter)
    assert bench.kinds(saga_id) == ["RecordDeadLettered"]
    good_after(bench)


def test_a_reply_for_an_unknown_saga_is_recorded(bench: Bench) -> None:
    """Rule 7: nothing that comes later replaces a record of the history."""
    bench.start()
    bench.cycles()
    (command,) = bench.commands()
    bench.open()
    bench.cluster.logs[TopicPartition(bench.topics.state, 0)].purge(10_000)
    bench.cycles()
    bench.reply(command)
    bench.cycles()
    last = bench.history(bench.saga())[-1]
    assert (type(last).__name__, last.header.run) == ("ReplyIgnored", None)


def test_replies_to_an_ended_saga_are_recorded_in_its_run(bench: Bench) -> None:
    """Rule 7: nothing that comes later replaces a record of the history."""
    saga_id = bench.start("o-1", "visit")
    bench.cycles()
    (look,) = bench.commands()
    bench.reply(look)
    bench.run_to_end()
    assert isinstance(bench.state(saga_id), Marker)
    bench.reply(look)
    bench.cycles()
    last = bench.history(saga_id)[-1]
    assert (type(last).__name__, last.header.run) == ("ReplyIgnored", 0)


def test_two_starts_of_one_key_in_one_cycle_are_one_saga(bench: Bench) -> None:
    bench.cycles()
    saga_id = bench.start(message_id="first")
    bench.start(message_id="second")
    bench.start(message_id="first")
    bench.cycles()
    assert bench.kinds(saga_id) == ["SagaStarted", "StepScheduled", "StartIgnored", "StartIgnored"]
    assert len(bench.commands()) == 1


# Records that are too large ------------------------------------------------------------------------------------------

SMALL = 20_000
"""What the brokers take, so that a test need not make a megabyte."""


def small() -> Bench:
    """An orchestrator whose brokers take little."""
    inbox_takes_more = {"sim.saga.inbox": 10_000_000}
    topics = ("sim.saga.backlog", "sim.saga.state", "sim.saga.dlq", *(f"{one}.commands" for one in shop.SERVICES))
    return Bench(limits=dict.fromkeys(topics, SMALL) | inbox_takes_more, max_record_bytes=SMALL)


@pytest.mark.parametrize(
    "what", ["payload", "key", "definition", "message id", "signal name", "record key", "header", "control reason"]
)
def test_whatever_is_large_in_a_record_for_no_saga_it_is_dead_lettered(what: str) -> None:
    """Rule 21: one record that the broker refuses stops one saga."""
    bench, large = small(), "n" * 100_000
    if what == "payload":
        bench.start(note=large)
    elif what == "key":
        bench.start(large)
    elif what == "definition":
        bench.start("o-1", large)
    elif what == "message id":
        bench.start(message_id=large)
    elif what == "signal name":
        bench.signal(bench.saga(), name=large)
    elif what == "control reason":
        bench.control(bench.saga(), Verb.CANCEL, reason=large)
    elif what == "record key":
        bench.put(Outgoing(bench.topics.inbox, 0, large.encode(), b"no frame", ()))
    else:
        bench.put(Outgoing(bench.topics.inbox, 0, b"k", b"no frame", [("large", large.encode()), ("small", b"1")]))
    bench.cycles()
    (letter,) = bench.dead_letters()
    cut = dict(letter.headers)
    assert envelope.CUT_LENGTH in cut
    assert len(cut[envelope.CUT_SHA256] or b"") == 64
    assert cut[envelope.SOURCE_TOPIC] == bench.topics.inbox.encode()
    assert bench.committed() == 1
    good_after(bench)


@pytest.mark.parametrize("what", ["receipt", "rejection", "message id", "signal name", "control reason", "start"])
def test_whatever_is_large_in_a_record_for_a_live_saga_it_parks_that_saga_alone(what: str) -> None:
    """Rule 21: one record that the broker refuses stops one saga."""
    bench, large = small(), "n" * 100_000
    saga_id = bench.start()
    other = bench.start("other", "visit")
    bench.cycles()
    command = next(one for one in bench.commands() if one.headers.saga_id == saga_id)
    if what == "receipt":
        bench.reply(command, receipt=large)
    elif what == "rejection":
        bench.reply(command, said=large)
    elif what == "message id":
        bench.signal(saga_id)
        last = bench.cluster.logs[TopicPartition(bench.topics.inbox, 0)].written[-1].record
        assert last is not None
        headers = [(name, large.encode() if name == envelope.ID else value) for name, value in last.headers]
        bench.put(Outgoing(last.topic, 0, last.key or b"", last.value, headers))
    elif what == "signal name":
        bench.signal(saga_id, name=large)
    elif what == "control reason":
        bench.control(saga_id, Verb.CANCEL, reason=large)
    else:
        bench.start(note=large)
    with capture_logs() as lines:
        bench.cycles()
    assert not [line for line in lines if "aborted" in line["event"]], "known before anything was written"
    assert len(bench.dead_letters()) == 1
    state = bench.state(saga_id)
    assert isinstance(state, Saga)
    if what == "start":  # a start that changes nothing is worth no park
        assert bench.kinds(saga_id)[-1] == "StartIgnored"
    else:
        assert bench.kinds(saga_id)[-2:] == ["SendFailed", "SagaParked"]
        assert state.parked is not None
    assert bench.blocked == {}
    for command in bench.commands():
        bench.reply(command)
    good_after(bench)
    assert isinstance(bench.state(other), Saga)


def test_a_command_that_cannot_be_encoded_parks_its_saga_alone() -> None:
    """A version whose command's schema is narrower than what lint knew of: it cannot be written, whatever is tried."""
    bench = Bench(("visit", 1))
    bundle = shop.published("order", 1)
    fixed = '{"type":"fixed","name":"N","size":2}'
    narrow = shop.SCHEMAS["sim.Do"].replace(
        '{"name": "note", "type": "string"}', f'{{"name": "note", "type": {fixed}}}'
    )
    assert narrow != shop.SCHEMAS["sim.Do"]
    bench.registry.extra[narrow] = 9_000
    bench.publish("order", 1, schemas=dict(bundle.schemas) | {"sim.Do": narrow})
    saga_id = bench.start()
    with capture_logs() as lines:
        bench.cycles()
    (line,) = [line for line in lines if line["event"] == "a saga waits for a person"]
    said = {"saga_id": saga_id, "business_key": "o-1", "definition": "order", "step": "reserve"}
    assert line.items() >= said.items()
    assert bench.kinds(saga_id) == ["SagaStarted", "SendFailed", "SagaParked"]
    parked = bench.history(saga_id)[-1]
    assert isinstance(parked, SagaParked)
    assert parked.header.step == "reserve"
    assert bench.commands() == []
    good_after(bench)


def test_a_command_whose_schema_is_not_registered_parks_its_saga_alone() -> None:
    """Standing still would stop every other definition's sagas too. `retry` sends it once the schema is registered."""
    bench = Bench(("visit", 1))
    bundle, other = shop.published("order", 1), shop.SCHEMAS["sim.Do"].replace('"sim"', '"sim", "doc": "new"')
    bench.publish("order", 1, schemas=dict(bundle.schemas) | {"sim.Do": other})
    saga_id = bench.start()
    bench.cycles()
    assert bench.kinds(saga_id) == ["SagaStarted", "SendFailed", "SagaParked"]
    good_after(bench)
    bench.registry.extra[other] = bench.registry.schema_id("sim.Do", shop.SCHEMAS["sim.Do"])
    bench.control(saga_id, Verb.RETRY)
    bench.run_to_end()
    assert bench.kinds(saga_id)[-1] == "SagaCompleted"


def test_a_record_that_the_broker_refuses_parks_its_saga_and_the_others_go_on() -> None:
    """Rule 21: the orchestrator is told of a larger limit than one topic has: it learns of it only by the abort."""
    bench = Bench(limits={"stock.commands": 1_000})
    bad = bench.start("bad", note="n" * 2_000)
    good = bench.start("good", "visit")
    bench.cycles()
    assert bench.kinds(bad) == ["SagaStarted", "SendFailed", "SagaParked"]
    assert bench.kinds(good) == ["SagaStarted", "StepScheduled"]
    good_after(bench)


def test_a_refused_record_is_remembered_until_its_own_cycle_commits() -> None:
    """Other work may commit in between: the record is not tried again and again because of it."""
    bench = Bench(limits={"stock.commands": 1_000}, partitions=2)
    keys = [f"k-{number}" for number in range(20)]
    bad = next(key for key in keys if bench.home(bench.saga(key)) == 0)
    others = [key for key in keys if bench.home(bench.saga(key, "visit")) == 1]
    bench.cycles()
    saga_id = bench.start(bad, note="n" * 2_000)
    for key in others:
        bench.start(key, "visit")
    bench.log._batch_records_max = 1
    bench.cycles(60)
    assert bench.kinds(saga_id) == ["SagaStarted", "SendFailed", "SagaParked"]
    aborted = [one for one in bench.cluster.logs.values() for stored in one.written if _aborted(stored)]
    assert len(aborted) <= 3, "the cycle that was refused was tried once"


def _aborted(stored: object) -> bool:
    transaction = getattr(stored, "transaction", None)
    record = getattr(stored, "record", None)
    return record is not None and transaction is not None and transaction.status.value == "aborted"


def test_a_dead_letter_that_the_broker_refuses_stops_its_partition_loudly_and_not_the_others() -> None:
    bench = Bench(limits={"sim.saga.dlq": 10}, partitions=2)
    good = next(key for key in map(str, range(20)) if bench.home(bench.saga(key, "visit")) == 1)
    bench.put(Outgoing(bench.topics.inbox, 0, b"k", b"no frame", ()))
    saga_id = bench.start(good, "visit")
    bench.cycles(20)
    assert list(bench.blocked) == [f"{bench.topics.inbox}[0]"]
    assert "dead letter" in bench.blocked[f"{bench.topics.inbox}[0]"]
    assert bench.committed(partition=0) is None
    bench.run_to_end()
    assert bench.kinds(saga_id)[-1] == "SagaCompleted"
    bench.cluster.record_bytes_max["sim.saga.dlq"] = 1_000_000
    for _ in range(40):
        bench.cluster.pass_time(1_000)
        bench.cycles(2)
    assert bench.blocked == {}
    assert len(bench.dead_letters()) == 1


# The wrong partition -------------------------------------------------------------------------------------------------


def test_what_comes_to_the_wrong_partition_is_passed_on(bench: Bench) -> None:
    """Rule 6: another partition count moves sagas."""
    bench = Bench(partitions=2)
    saga_id = bench.saga()
    wrong = 1 - bench.home(saga_id)
    bench.start(partition=wrong)
    bench.cycles()
    assert bench.kinds(saga_id) == ["SagaStarted", "StepScheduled"]
    (command,) = bench.commands()
    bench.reply(command, partition=wrong)
    bench.cycles()
    assert "StepSucceeded" in bench.kinds(saga_id)
    assert bench.dead_letters() == []
    for topic in (bench.topics.state, bench.topics.backlog):
        assert {record.partition for record in bench.cluster.written(topic)} == {bench.home(saga_id)}


# Triggers ------------------------------------------------------------------------------------------------------------


def test_a_domain_event_without_headers_starts_a_saga(bench: Bench) -> None:
    placed = shop.payload("sim.Placed", {"order_id": "o-1", "amount": 1, "note": ""})
    bench.put(Outgoing(shop.ORDERS, 0, b"o-1", placed.framed, ()))
    bench.cycles()
    started = bench.history(bench.saga())[0]
    assert started.header.cause.message_id == f"{shop.ORDERS}/0/0"


def test_an_event_of_another_type_starts_nothing(bench: Bench) -> None:
    bench.put(Outgoing(shop.ORDERS, 0, b"k", shop.payload("sim.Hint", {"text": ""}).framed, ()))
    bench.cycles()
    assert bench.committed(shop.ORDERS) == 1
    assert bench.cluster.written(bench.topics.backlog) == []


def test_an_event_that_cannot_be_read_is_dead_lettered(bench: Bench) -> None:
    bench.put(Outgoing(shop.ORDERS, 0, b"k", b"no frame", ()))
    bench.place()
    bench.cycles()
    (letter,) = bench.dead_letters()
    assert dict(letter.headers)[envelope.SOURCE_TOPIC] == shop.ORDERS.encode()
    assert bench.kinds(bench.saga())[0] == "SagaStarted"


def test_a_definition_whose_key_has_no_value_keeps_no_other_from_the_event() -> None:
    bench = Bench(("order", 1), ("audit", 1))
    broken = json.loads(shop.published("audit", 1).canonical) | {"key": "start.amount / 0"}
    bench.publish("audit", 1, canonical=json.dumps(broken))
    bench.place()
    bench.cycles()
    assert bench.kinds(bench.saga())[0] == "SagaStarted"
    assert bench.kinds(bench.saga(definition="audit")) == []
    (letter,) = bench.dead_letters()
    assert "'audit'" in bench.reason(letter)
