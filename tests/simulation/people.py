"""Those who act in a simulated world besides the orchestrators: services, clients, operators, and bad luck."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from sagakit.contracts import messages
from sagakit.contracts.envelope import TRACEPARENT, Envelope, message_headers
from sagakit.contracts.messages import ControlMessage, ReceivedCommand, SignalMessage, StartMessage
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.core import ids
from sagakit.core.actions import SendCommand
from sagakit.core.address import Address
from sagakit.core.events import Outcome, ReplyTo, TraceContext, Verb
from sagakit.core.placement import partition_of
from sagakit.core.transitions import Direction
from sagakit.core.values import Payload
from sagakit.ports.log import Outgoing
from sagakit.proving.participants import Answer, Mood, Participant
from tests.simulation import shop
from tests.simulation.world import World


class Services:
    """Every service of the shop: reads commands at least once, works, answers late, twice or never."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.participant = Participant()
        self.down_until_ms = 0
        self._payloads = PlainPayloadCodec(shop.codec())
        commands = [world.topics.commands(service) for service in shop.SERVICES]
        self._positions = {one: 0 for one in world.cluster.logs if one.topic in commands}
        self._answers = 0
        world.working.append(self.work)

    def work(self) -> None:
        """Take what has come; each command is handled some time later, some twice."""
        world = self.world
        if not world.cluster.available or world.clock() < self.down_until_ms:
            return
        for partition, position in self._positions.items():
            log = world.cluster.logs[partition]
            if position >= log.stable_end:
                continue
            records, self._positions[partition] = log.read(position, 10)
            for record in records:
                received = messages.decode_command(record, self._payloads)
                self._take(received)
                if world.chance(world.plan.twice):
                    world.note("command twice")
                    self._take(received)

    def _take(self, received: ReceivedCommand) -> None:
        world = self.world
        wait_ms = world.random.randint(2_000, 6_000) if world.chance(world.plan.late) else world.random.randint(1, 30)
        world.after(wait_ms, lambda: self._handle(received))

    def _handle(self, received: ReceivedCommand) -> None:
        world = self.world
        if world.clock() < self.down_until_ms:
            return self._take(received)
        answer = self.participant.handle(_command(received), world.clock(), self._mood())
        if answer is None:
            return world.note("reply lost")
        reply = self._reply(received, answer)
        if self._answers % 2:  # not every service passes the trace on; its saga goes on with what it began with
            reply = self._without_trace(reply)
        self._send(reply)
        if world.chance(world.plan.twice):
            world.note("reply twice")
            self._send(reply)

    def _mood(self) -> Mood:
        plan, chance = self.world.plan, self.world.chance
        if chance(plan.silent):
            return Mood.SILENT
        if chance(plan.refuses):
            return Mood.REFUSES
        if chance(plan.fails):
            return self.world.random.choice((Mood.FAILS_BEFORE, Mood.FAILS_AFTER))
        return Mood.WORKS

    def _reply(self, received: ReceivedCommand, answer: Answer) -> Outgoing:
        self._answers += 1
        said = Envelope(message_id=f"reply-{self._answers}", source="/services/shop", at_ms=self.world.clock())
        headers, own = received.headers, shop.own_records()
        match answer.outcome:
            case Outcome.REJECTED:
                return messages.encode_rejected(headers, answer.code or "", None, {}, own, said)
            case Outcome.FAILED:
                return messages.encode_failed(headers, answer.code or "", None, own, said)
            case Outcome.EXPIRED:
                return messages.encode_expired(headers, own, said)
        undone = headers.direction is Direction.COMPENSATION
        record = "sim.Undone" if undone else "sim.Done"
        value = shop.payload(record, {} if undone else {"receipt": headers.idempotency_key}).framed
        return messages.encode_reply(headers, record, value, said)

    @staticmethod
    def _without_trace(reply: Outgoing) -> Outgoing:
        return reply._replace(headers=[one for one in reply.headers if one[0] != TRACEPARENT])

    def _send(self, reply: Outgoing) -> None:
        self.world.after(self.world.random.randint(0, 20), partial(send, self.world, reply))


def send(world: World, record: Outgoing) -> None:
    """Write a record as a plain producer does: again and again until the cluster answers."""
    if world.cluster.available:
        world.cluster.append(*record)
    else:
        world.after(200, partial(send, world, record))


def _command(received: ReceivedCommand) -> SendCommand:
    headers = received.headers
    return SendCommand(
        saga_id=headers.saga_id,
        run=headers.run,
        address=headers.address,
        direction=headers.direction,
        attempt=headers.attempt,
        command_id=headers.command_id,
        idempotency_key=headers.idempotency_key,
        undoes=headers.undoes,
        service="",
        type=headers.type,
        data=received.opened.data,
        expires_at_ms=headers.expires_at_ms,
        causation_id=headers.causation_id or "",
        trace=None,
    )


@cache
def trace_id(order: str) -> str:
    """The trace in which an order is placed and its sagas are started."""
    return uuid5(NAMESPACE_OID, order).hex


class Clients:
    """They place orders by events, start visits, send signals and controls, and sometimes nonsense."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sagas: list[str] = []
        self._messages = 0
        self.publish("order", 1)
        self.publish("visit", 1)
        for number in range(world.plan.orders):
            order = f"o-{number}"
            self.sagas += [ids.saga_id("sim", name, order) for name in ("order", "visit", "audit")]
            self._later(partial(self.place, order))
            if world.random.random() < 0.5:
                self._later(partial(self.start, "visit", order))
        for _ in range(world.random.choice((0, 3, 8))):
            self._later(world.random.choice((self.signal, self.control, self.control, self.nonsense)))
        for name, version in (("order", 2), ("audit", 1)):
            if world.random.random() < 0.4:
                self._later(partial(self.publish, name, version))

    def _later(self, act: Callable[[], None]) -> None:
        self.world.after(self.world.random.randint(0, self.world.plan.faulty_ms * 3 // 4), act)

    def _envelope(self, order: str | None = None) -> Envelope:
        """Of a message; `order` is what it begins, which then has a trace."""
        self._messages += 1
        return Envelope(
            message_id=f"message-{self._messages}",
            source="/clients",
            at_ms=self.world.clock(),
            trace=None if order is None else TraceContext(traceparent=f"00-{trace_id(order)}-{self._messages:016x}-01"),
        )

    def _twice_perhaps(self, record: Outgoing) -> None:
        send(self.world, record)
        if self.world.chance(self.world.plan.twice):
            self.world.note("message twice")
            self._later(partial(send, self.world, record))

    def publish(self, name: str, version: int) -> None:
        """Publish a definition, valid from where its trigger topic ends now."""
        world = self.world
        if not world.cluster.available:
            return world.after(300, partial(self.publish, name, version))
        bundle, topic = shop.published(name, version), world.topics.service_topic(shop.ORDERS)
        begins = {one: log.end for one, log in world.cluster.logs.items() if one.topic == topic}
        world.valid_from[name, version] = begins
        fields = {
            "name": bundle.name,
            "version": bundle.version,
            "canonical": bundle.canonical,
            "hash": bundle.hash,
            "source": bundle.source,
            "schemas": dict(bundle.schemas),
            "first_offsets": [
                {"topic": one.topic, "partition": one.partition, "offset": offset} for one, offset in begins.items()
            ],
            "command_partitions": dict.fromkeys(shop.SERVICES, shop.COMMAND_PARTITIONS),
            "published_at_ms": world.clock(),
            "published_by": None,
        }
        value = shop.own_records().encode("PublishedDefinition", fields)
        world.cluster.append(world.topics.definitions, 0, f"{name}/{version}".encode(), value)
        return None

    def place(self, order: str) -> None:
        """The domain event that starts an order (and an audit)."""
        payload = self._order(order)
        headers = message_headers(self._envelope(order), "sim.Placed", None)
        topic = self.world.topics.service_topic(shop.ORDERS)
        self._twice_perhaps(Outgoing(topic, None, order.encode(), payload.framed, headers))

    def start(self, definition: str, order: str) -> None:
        """Start a saga directly, sometimes asking for the result, sometimes in the wrong partition."""
        world, saga_id = self.world, ids.saga_id("sim", definition, order)
        payload = self._order(order)
        reply_to = ReplyTo(topic=world.topics.results, partition=0) if world.random.random() < 0.5 else None
        message = StartMessage(saga_id=saga_id, definition=definition, key=order, payload=payload, reply_to=reply_to)
        record = messages.encode_start(
            message, self._envelope(order), shop.own_records(), world.topics, self._partition(saga_id)
        )
        self._twice_perhaps(record)
        if world.random.random() < 0.3:
            self._later(partial(self.start, definition, order))

    def _order(self, order: str) -> Payload:
        """An order; sometimes with a note that some topic refuses."""
        world, note = self.world, ""
        if world.random.random() < world.plan.large:
            world.note("large note")
            note = "n" * world.random.choice((shop.LARGE, shop.TOO_LARGE))
        return shop.payload("sim.Placed", {"order_id": order, "amount": world.random.randint(1, 100), "note": note})

    def _partition(self, saga_id: str) -> int:
        right = partition_of(saga_id.encode(), self.world.plan.partitions)
        return right if self.world.random.random() < 0.9 else self.world.random.randrange(self.world.plan.partitions)

    def signal(self) -> None:
        """A signal for some saga, known or not."""
        saga_id = self.world.random.choice(self.sagas)
        keep_ms = self.world.random.choice((100, 3_000, 60_000))
        message = SignalMessage(
            saga_id=saga_id, name="hint", payload=shop.payload("sim.Hint", {"text": "soon"}), keep_ms=keep_ms
        )
        self._twice_perhaps(
            messages.encode_signal(
                message, self._envelope(), shop.own_records(), self.world.topics, self._partition(saga_id)
            )
        )

    def control(self, verb: Verb | None = None, saga_id: str | None = None, address: Address | None = None) -> None:
        """An operator's intervention."""
        saga_id = saga_id or self.world.random.choice(self.sagas)
        message = ControlMessage(
            saga_id=saga_id,
            verb=verb or self.world.random.choice((Verb.CANCEL, Verb.RETRY)),
            actor="ada",
            reason="because",
            address=address,
        )
        self._twice_perhaps(
            messages.encode_control(
                message, self._envelope(), shop.own_records(), self.world.topics, self._partition(saga_id)
            )
        )

    def nonsense(self) -> None:
        """What can never be read, or is for nobody."""
        world, topics = self.world, self.world.topics
        saga_id = world.random.choice(self.sagas)
        start = StartMessage(
            saga_id=saga_id, definition="nobody", key="k", payload=shop.payload("sim.Hint", {"text": ""})
        )
        strange: Sequence[Outgoing] = (
            Outgoing(topics.inbox, 0, saga_id.encode(), b"no frame", ()),
            Outgoing(topics.inbox, 0, b"", b"\x00\x00\x00\x00\x01x", ()),
            Outgoing(topics.inbox, 0, saga_id.encode(), None, ()),
            Outgoing(topics.service_topic(shop.ORDERS), 0, b"k", b"no frame", ()),
            Outgoing(topics.inbox, 0, b"k", shop.payload("sim.Hint", {"text": "hm"}).framed, ()),
            messages.encode_start(start, self._envelope(), shop.own_records(), topics, 0),
        )
        send(world, world.random.choice(strange))


class BadLuck:
    """Outages, rebalances, compaction and purging, at times that the plan draws."""

    def __init__(self, world: World, services: Services) -> None:
        self.world = world
        self.services = services
        every = (
            self.no_cluster,
            self.no_registry,
            self.no_services,
            self.rebalance,
            self.compact,
            self.purge,
            self.leave,
            self.crash,
        )
        for _ in range(world.plan.disturbances):
            world.after(world.random.randint(100, world.plan.faulty_ms), world.random.choice(every))

    def no_cluster(self) -> None:
        """The brokers do not answer for a while."""
        if not self.world.calm:
            self.world.note("no cluster")
            self.world.cluster.available = False
            self.world.after(self.world.random.choice((100, 3_000)), self._cluster_back)

    def _cluster_back(self) -> None:
        self.world.cluster.available = True

    def no_registry(self) -> None:
        """The registry does not answer for a while."""
        if not self.world.calm:
            self.world.note("no registry")
            self.world.registry.available = False
            self.world.after(self.world.random.choice((100, 3_000)), self._registry_back)

    def _registry_back(self) -> None:
        self.world.registry.available = True

    def no_services(self) -> None:
        """No service takes a command for a while."""
        if not self.world.calm:
            self.world.note("no services")
            self.services.down_until_ms = self.world.clock() + self.world.random.choice((500, 5_000))

    def rebalance(self) -> None:
        """The group gives partitions to others."""
        self.world.note("rebalance")
        group = self.world.cluster.group(self.world.topics.orchestrator_group)
        group.rebalance(self.world.cluster.partition_counts, shuffle=True)

    def compact(self) -> None:
        """The brokers compact the topics that are compacted."""
        self.world.note("compact")
        for partition, log in self.world.cluster.logs.items():
            if partition.topic in (self.world.topics.state, self.world.topics.backlog):
                log.compact(self.world.random.randint(log.start, log.end), self.world.clock())

    def purge(self) -> None:
        """What the group has consumed of the inbox is deleted."""
        self.world.note("purge")
        committed = self.world.cluster.group(self.world.topics.orchestrator_group).committed
        for partition, log in self.world.cluster.logs.items():
            if partition.topic == self.world.topics.inbox and partition in committed:
                log.purge(committed[partition])

    def leave(self) -> None:
        """One process is redeployed."""
        self.world.random.choice(self.world.instances).leave()

    def crash(self) -> None:
        """One process is killed between two cycles."""
        self.world.random.choice(self.world.instances).kill()


def world_of(seed: int, changes: Mapping[str, Any] | None = None) -> tuple[World, Services, Clients]:
    """A world of a seed with everybody in it; `changes` as in `World`."""
    world = World(seed, changes)
    services = Services(world)
    clients = Clients(world)
    BadLuck(world, services)
    return world, services, clients
