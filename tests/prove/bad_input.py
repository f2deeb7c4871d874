"""Bad input: whatever comes, and whoever is away, has its answer; nothing is lost, nobody crashes, others go on."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from sagakit.contracts import envelope
from sagakit.contracts.envelope import CommandHeaders, Envelope
from sagakit.contracts.messages import StartMessage, encode_start
from sagakit.core import ids
from sagakit.core import transitions as t
from sagakit.core.placement import partition_of
from sagakit.core.state import Saga
from sagakit.demo.stage import ORDER_PLACED
from sagakit.demo.watch import Standing
from sagakit.ports.log import Outgoing, Record
from services.demo_orders import Order
from tests.prove.desk import Desk, of, open_desk
from tests.prove.evidence import count, examine, latest_states
from tests.prove.house import House, require
from tests.prove.shop import BY_HAND, DESK, Cast, Shop, now_ms

MAX_RECORD_BYTES: Final = 20_000
"""What the orchestrators are told that the broker takes, so that a proof need not make megabytes."""

SAGA: Final = "by-hand"
_NOBODY: Final = str(UUID(int=7))
_SURPRISE: Final = '{"type": "record", "name": "Surprise", "namespace": "shop.proof", "fields": []}'


def by_hand(seed: int) -> Cast:
    """A shop whose sagas the proof itself answers, and whose orchestrators think the broker takes little."""
    return Cast(
        services=("inventory",),
        definitions=(BY_HAND,),
        orchestrator_environment={"SAGAKIT_MAX_RECORD_BYTES": str(MAX_RECORD_BYTES)},
        seed=seed,
    )


def prove(house: House, folder: Path, *, prefix: str, rounds: int, seed: int = 1) -> dict[str, Any]:
    """Send all of it, that many times; then let the registry and the broker go away, at start and later."""
    with Shop(house, folder, prefix, by_hand(seed)) as shop, open_desk(shop) as desk:
        proof = _BadInput(shop, desk, Random(seed))
        for _ in range(rounds):
            proof.what_cannot_be_read()
            proof.replies_that_nobody_waits_for()
            proof.replies_in_any_order()
            proof.records_too_large_for_the_settings()
            proof.records_that_the_broker_refuses()
            proof.definitions_that_are_none()
        proof.registry_away()
        proof.broker_away()
        proof.others_go_on()
        shop.settle()
        proof.compare_dead_letters()
        found = {"rounds": rounds, "dead_letters": len(proof.letters), "replies_ignored": count(shop, t.ReplyIgnored)}
        return {**found, **examine(shop, books=False)}


class _BadInput:
    """One kind of bad input a method; each ends when its answer was seen."""

    def __init__(self, shop: Shop, desk: Desk, random: Random) -> None:
        self._shop = shop
        self._desk = desk
        self._random = random
        self.letters: list[bytes | None] = []
        """The values of all records that must lie in the dead-letter topic, as they came."""

    def what_cannot_be_read(self) -> None:
        """Bytes, schema ids, types, keys and headers that are none: dead-lettered raw, with the reason."""
        shop = self._shop
        inbox, key = shop.topics.inbox, _NOBODY.encode()
        order = shop.payload(ORDER_PLACED, shop.next_orders(1)[0]).framed
        reply = [(envelope.OUTCOME, b"succeeded"), (envelope.CAUSATION_ID, b"x")]
        bad = [
            Outgoing(inbox, 0, key, self._noise(40), []),
            Outgoing(inbox, 1, key, b"\x00\x7f\xff\xff\xf0" + self._noise(9), []),
            Outgoing(inbox, 2, key, order + self._noise(1), []),
            Outgoing(inbox, 3, key, order[:-3] + b"\xff\xff", [*reply]),  # its last number never ends
            Outgoing(inbox, 0, b"", order, [*reply]),
            Outgoing(inbox, 1, b"no saga id", order, [*reply]),
            Outgoing(inbox, 2, key, order, [(envelope.OUTCOME, b"perhaps")]),
            Outgoing(inbox, 3, key, None, [*reply]),
            self._start_message(SAGA, "", ORDER_PLACED),
            self._start_message("nobody-published-it", "k", ORDER_PLACED),
            self._start_message(SAGA, "another record", "shop.orders.OrderMarked"),
        ]
        before = count(shop, t.RecordDeadLettered)
        shop.write(*bad)
        self.letters += [one.value for one in bad]
        nameless = {**shop.next_orders(1)[0], "order_id": ""}
        event = shop.order_event(nameless, f"{DESK}.events").record
        event = event._replace(headers=[(envelope.ID, f"bad-{self._random.random()}".encode())])
        noise = self._noise(7)
        shop.write(event, event._replace(value=noise))
        self.letters += [event.value, noise]
        shop.settle()
        recorded = count(shop, t.RecordDeadLettered) - before
        require(recorded == len(bad) + 2, f"{recorded} of {len(bad) + 2} bad records were recorded as dead-lettered")
        self.others_go_on()

    def replies_that_nobody_waits_for(self) -> None:
        """For an unknown saga, an ended one, another one's command: recorded as ignored, each in its place."""
        shop, desk = self._shop, self._desk
        ended = self.others_go_on()
        commands = desk.await_commands(of(ended, "reserve"), len(ended))
        before = count(shop, t.ReplyIgnored)
        answers = [desk.answer(one) for one in commands]
        strangers = [one._replace(key=_NOBODY.encode()) for one in answers]
        swapped = [one._replace(key=other.key) for one, other in pairwise(answers)]
        shop.write(*answers, *strangers, *swapped)
        shop.settle()
        ignored = count(shop, t.ReplyIgnored) - before
        sent = len(answers) + len(strangers) + len(swapped)
        require(ignored == sent, f"{ignored} of {sent} replies that nobody waits for were recorded as ignored")

    def replies_in_any_order(self) -> None:
        """The last first, each one twice, one before its command, one after the next attempt."""
        shop, desk = self._shop, self._desk
        sagas = self._start(20)
        commands = desk.await_commands(lambda one: one.saga_id in sagas, 2 * len(sagas))
        answers = [desk.answer(one) for one in reversed(commands)]
        early = [_to_a_command_to_come(shop, desk.answer(one), one) for one in commands[:5]]
        shop.write(*early, *answers, *answers)
        confirms = desk.await_commands(of(sagas, "confirm"), len(sagas))
        again = desk.await_commands(of(sagas, "confirm", attempt=2), len(sagas))
        shop.write(*(desk.answer(one) for one in confirms), *(desk.rejection(one, "LATE") for one in again))
        shop.wait(lambda: shop.has_ended(sagas), "the sagas whose replies came in any order have ended")
        for saga_id in sagas:
            kinds = Counter(type(one) for one in shop.history(saga_id))
            require(kinds[t.SagaCompleted] == 1, f"{saga_id} did not complete: {kinds}")
            require(kinds[t.StepSucceeded] == 3, f"{saga_id} took {kinds[t.StepSucceeded]} successes for 3 steps")

    def records_too_large_for_the_settings(self) -> None:
        """A reply that cannot be recorded, a snapshot that grew too large: the saga parks, the reply is kept raw."""
        shop, desk = self._shop, self._desk
        (huge,) = self._start(1)
        (command,) = desk.await_commands(of([huge], "reserve"), 1)
        reply = desk.answer(command, {"reservation_id": self._text(MAX_RECORD_BYTES)})
        items = [{"sku": self._text(60), "quantity": 1, "unit_price_cents": 1} for _ in range(40)]
        (grown,) = self._start(1, items=items)
        reserve = desk.await_commands(of([grown], "reserve"), 1)[0]
        charge = desk.await_commands(of([grown], "charge"), 1)[0]
        first = desk.answer(reserve, {"reservation_id": self._text(6_000)})
        second = desk.answer(charge, {"payment_id": self._text(6_000), "charged_cents": 1})
        shop.write(reply, first, second)
        self.letters += [reply.value, second.value]
        shop.wait(lambda: shop.has_ended([huge, grown]), "the sagas of too large records are parked")
        self._are_parked([huge, grown])
        self.others_go_on()

    def records_that_the_broker_refuses(self) -> None:
        """A command or a snapshot that a topic does not take parks its saga; with room again, a retry completes it."""
        shop, desk = self._shop, self._desk
        with self._limited(shop.topics.commands(DESK), 4_000):
            (refused,) = self._start(1, customer_id=self._text(6_000))
            desk.serve(lambda: shop.has_ended([refused]), "the saga of a refused command is parked")
            _await_line(shop, f"a saga waits for a person.*the broker refuses.*{refused}")
        shop.client.retry(refused, actor="proof", reason="the topic takes larger records now")
        desk.serve(lambda: shop.standing(refused) is Standing.COMPLETED, "the saga of a refused command has completed")
        (heavy,) = self._start(1)
        (command,) = desk.await_commands(of([heavy], "reserve"), 1)
        with self._limited(shop.topics.state, 4_000):
            reply = desk.answer(command, {"reservation_id": self._text(6_000)})
            shop.write(reply)
            shop.wait(lambda: shop.has_ended([heavy]), "the saga of a refused snapshot is parked")
        self.letters += [reply.value]
        self._are_parked([heavy])
        self.others_go_on()

    def definitions_that_are_none(self) -> None:
        """Noise and a definition that cannot be compiled on the definitions topic: said aloud, and nobody stumbles."""
        shop = self._shop
        fields: dict[str, Any] = {
            "name": "broken",
            "version": 1,
            "canonical": "{}",
            "hash": "",
            "source": "",
            "schemas": {},
        }
        fields |= {"first_offsets": [], "command_partitions": {}, "published_at_ms": now_ms(), "published_by": "proof"}
        broken = shop.own.encode("PublishedDefinition", fields)
        shop.write(
            Outgoing(shop.topics.definitions, 0, b"noise/1", self._noise(20), []),
            Outgoing(shop.topics.definitions, 0, b"broken/1", broken, []),
        )
        for number in (1, 2):
            process = shop.troupe.process(f"orchestrator-{number}")
            for key in ("noise/1", "broken/1"):
                process.wait_for_line(f"a published definition cannot be used.*{key}", timeout_s=30)
        self.others_go_on()

    def registry_away(self) -> None:
        """What is known already goes on; what has to be asked for waits, and so does whoever starts now."""
        shop = self._shop
        shop.registry.register("shop.proof.Surprise", _SURPRISE)
        surprise = shop.payload("shop.proof.Surprise", {}).framed
        shop.house.registry.kill()
        try:
            self.others_go_on()
            shop.start_orchestrator(3).wait_for_line("waiting for Kafka and the registry", timeout_s=60)
            held = partition_of(_NOBODY.encode(), shop.settings.partitions)
            shop.write(Outgoing(shop.topics.inbox, held, _NOBODY.encode(), surprise, []))
            self.letters += [surprise]
            _await_line(shop, "partition stands still.*registry")
            elsewhere = [one for one in self._start(12) if partition_of(one.encode(), 4) != held]
            self._desk.serve(lambda: shop.has_ended(elsewhere), "sagas of other partitions go on without a registry")
        finally:
            shop.house.registry.restart()
        self.others_go_on()

    def broker_away(self) -> None:
        """Everybody waits for it, also who starts now."""
        shop = self._shop
        shop.house.kafka.kill_broker(1)
        try:
            newcomer, service = shop.start_orchestrator(4), shop.start_service("inventory", "inventory-2")
            for process in (newcomer, service):
                process.wait_for_line("waiting for Kafka and the registry", timeout_s=60)
        finally:
            shop.house.kafka.start_broker(1)
        self.others_go_on()
        for process in (shop.troupe.process("orchestrator-3"), newcomer, service):
            process.wait_for_line("starts  ", timeout_s=60)

    def others_go_on(self) -> list[str]:
        """Sagas in every partition run to their end."""
        sagas = self._start(8)
        self._desk.serve(lambda: self._shop.has_ended(sagas), "other sagas go on")
        return sagas

    def compare_dead_letters(self) -> None:
        """Every record that could not be taken in is a dead letter, once; a long one in part, with a digest."""
        found = Counter(_digest_of_letter(one) for one in self._shop.read(self._shop.topics.dead_letters))
        wanted = Counter(_digest(value) for value in self.letters)
        require(found == wanted, f"dead letters that are missing: {wanted - found}; that nobody sent: {found - wanted}")

    def _start(self, sagas: int, **fields: Any) -> list[str]:
        shop = self._shop
        starts = [shop.start(SAGA, {**order, **fields}) for order in shop.next_orders(sagas)]
        return [one.saga_id or "" for one in shop.client.send(starts)]

    def _start_message(self, definition: str, key: str, record: str) -> Outgoing:
        shop = self._shop
        data: Order = {"order_id": "x", "status": "y"} if record != ORDER_PLACED else shop.next_orders(1)[0]
        message = StartMessage(saga_id=_NOBODY, definition=definition, key=key, payload=shop.payload(record, data))
        said = Envelope(message_id=f"bad-{self._random.random()}", source="/proof", at_ms=now_ms())
        saga_id = ids.saga_id("default", definition, key)
        to = partition_of(saga_id.encode(), shop.settings.partitions)
        return encode_start(message, said, shop.own, shop.topics, to)

    def _are_parked(self, sagas: Sequence[str]) -> None:
        states = latest_states(self._shop)
        for one in sagas:
            state = states[one]
            require(isinstance(state, Saga) and state.parked is not None, f"{one} is not parked but {state}")
            _await_line(self._shop, f"a saga waits for a person.*{one}")

    @contextmanager
    def _limited(self, topic: str, limit: int) -> Iterator[None]:
        """The topic takes only small records for a while."""
        self._alter(topic, AlterConfigOpType.SET, limit)
        try:
            yield
        finally:
            self._alter(topic, AlterConfigOpType.DELETE, limit)

    def _alter(self, topic: str, operation: AlterConfigOpType, limit: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin = self._shop.admin
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def _text(self, length: int) -> str:
        """Text that does not compress."""
        return "".join(self._random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", k=length))

    def _noise(self, length: int) -> bytes:
        return b"\xff" + self._random.randbytes(length)


def _to_a_command_to_come(shop: Shop, answer: Outgoing, command: CommandHeaders) -> Outgoing:
    """A reply to the saga's next command, which does not exist yet; its id can be foretold."""
    command_id = ids.command_id(command.saga_id, command.run, "confirm", "forward", 1)
    value = shop.payload("shop.orders.OrderMarked", {"order_id": "x", "status": "too early"}).framed
    headers = [(name, command_id.encode() if name == envelope.CAUSATION_ID else text) for name, text in answer.headers]
    return answer._replace(value=value, headers=headers)


def _digest(value: bytes | None) -> str:
    return "no value" if value is None else sha256(value).hexdigest()


def _digest_of_letter(letter: Record) -> str:
    cut = dict(letter.headers).get(envelope.CUT_SHA256)
    return _digest(letter.value) if cut is None else cut.decode()


def _await_line(shop: Shop, pattern: str) -> None:
    """Wait until some orchestrator says it."""
    said = re.compile(pattern)
    processes = [shop.troupe.process(name) for name in shop.troupe.names if name.startswith("orchestrator")]
    shop.wait(lambda: any(said.search(one.output()) for one in processes), f"said by an orchestrator: {pattern}")
