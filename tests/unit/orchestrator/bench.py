"""One orchestrator on a simulated cluster, driven cycle by cycle, and all that a test wants to give it or see of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from sagakit.app.orchestrator import assemble
from sagakit.app.settings import Settings
from sagakit.contracts import envelope, messages
from sagakit.contracts.envelope import Envelope
from sagakit.contracts.messages import ControlMessage, ReceivedCommand, SignalMessage, StartMessage
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import decode_state
from sagakit.contracts.transitions import UnknownKind, decode_transition
from sagakit.core import ids
from sagakit.core.events import Verb
from sagakit.core.placement import partition_of
from sagakit.core.state import State
from sagakit.core.transitions import Direction, Transition
from sagakit.core.values import Payload
from sagakit.orchestrator.loop import Orchestrator
from sagakit.ports.log import Outgoing, Record, TopicPartition
from sagakit.testing.simulated_cluster import SimulatedClock, SimulatedCluster
from sagakit.testing.simulated_log import SimulatedDefinitionLog, SimulatedLog
from tests.simulation import shop


class Bench:
    """The orchestrator, its cluster, its registry, and everybody who sends to it."""

    def __init__(
        self,
        *definitions: tuple[str, int],
        partitions: int = 1,
        limits: Mapping[str, int] | None = None,
        max_record_bytes: int = 1_000_000,
    ) -> None:
        self.settings = Settings(namespace="sim", partitions=partitions, max_record_bytes=max_record_bytes)
        self.topics = topics = self.settings.topics
        self.partitions = partitions
        self.clock = SimulatedClock()
        counts = dict.fromkeys((topics.inbox, topics.backlog, topics.state), partitions)
        single = (topics.definitions, topics.results, topics.dead_letters, shop.ORDERS, shop.ENDED)
        commands = [topics.commands(service) for service in shop.SERVICES]
        self.cluster = SimulatedCluster(
            # The topics of commands have grown since the definitions were published, which go by one partition.
            counts | dict.fromkeys(single, 1) | dict.fromkeys(commands, 3),
            self.clock,
            Random(1),
            record_bytes_max=limits,
        )
        self.registry = shop.FlakyRegistry()
        self.skew_ms = 0
        self.log: SimulatedLog
        self.orchestrator: Orchestrator
        self._instances = 0
        self._messages = 0
        self._commands_read = dict.fromkeys(commands, 0)
        self._payloads = PlainPayloadCodec(shop.codec())
        for name, version in definitions or (("order", 1), ("visit", 1)):
            self.publish(name, version)
        self.open()

    # The orchestrator

    def open(self) -> None:
        """A new process in place of the one before, if there was one."""
        if self._instances:
            self.log.close(1)
        self._instances += 1
        topics = self.topics
        self.log = SimulatedLog(
            self.cluster,
            group=topics.orchestrator_group,
            transactional_id=f"i{self._instances}",
            state_topics={topics.inbox: topics.state},
            wait_ms=lambda most: min(most, 10),
        )
        self.orchestrator = assemble(
            self.settings,
            self.log,
            SimulatedDefinitionLog(self.cluster, topics.definitions),
            self.registry,
            own=shop.own_records(),
            clock=lambda: self.clock() + self.skew_ms,
        )

    def cycles(self, count: int = 12) -> None:
        """Go round so often: enough for everything that is there, if nothing is in its way. Each takes some 11 ms."""
        for _ in range(count):
            self.orchestrator.cycle()

    def later(self, seconds: int, each_ms: int = 200) -> None:
        """Let so much time pass, with cycles in between."""
        for _ in range(seconds * 1000 // each_ms):
            self.cluster.pass_time(each_ms)
            self.cycles(1)

    def committed(self, topic: str | None = None, partition: int = 0) -> int | None:
        """The group's committed offset, by default of the inbox."""
        place = TopicPartition(topic or self.topics.inbox, partition)
        return self.cluster.group(self.topics.orchestrator_group).committed.get(place)

    # What is sent to it

    def publish(self, name: str, version: int, *, valid_from: int = 0, **fields: object) -> None:
        """Publish a definition of the shop; `fields` of the record stand in for its own."""
        bundle = shop.published(name, version)
        record = {
            "name": bundle.name,
            "version": bundle.version,
            "canonical": bundle.canonical,
            "hash": bundle.hash,
            "source": bundle.source,
            "schemas": dict(bundle.schemas),
            "first_offsets": [{"topic": shop.ORDERS, "partition": 0, "offset": valid_from}],
            "command_partitions": dict.fromkeys(shop.SERVICES, 1),
            "published_at_ms": self.clock(),
            "published_by": None,
        }
        value = shop.own_records().encode("PublishedDefinition", record | fields)
        self.cluster.append(self.topics.definitions, 0, f"{name}/{version}".encode(), value)

    def envelope(self, message_id: str | None = None) -> Envelope:
        """An envelope with an id of its own."""
        self._messages += 1
        return Envelope(message_id=message_id or f"m-{self._messages}", source="/test", at_ms=self.clock())

    def saga(self, key: str = "o-1", definition: str = "order") -> str:
        """The id of a saga."""
        return ids.saga_id("sim", definition, key)

    def home(self, saga_id: str) -> int:
        """The partition that a saga lives in."""
        return partition_of(saga_id.encode(), self.partitions)

    def put(self, record: Outgoing) -> Record:
        """Write a record as it is."""
        return self.cluster.append(*record)

    def start(
        self,
        key: str = "o-1",
        definition: str = "order",
        *,
        payload: Payload | None = None,
        note: str = "",
        message_id: str | None = None,
        partition: int | None = None,
    ) -> str:
        """Start a saga; its id."""
        saga_id = self.saga(key, definition)
        placed = shop.payload("sim.Placed", {"order_id": key[:50], "amount": 1, "note": note})
        message = StartMessage(saga_id=saga_id, definition=definition, key=key, payload=payload or placed)
        to = self.home(saga_id) if partition is None else partition
        self.put(messages.encode_start(message, self.envelope(message_id), shop.own_records(), self.topics, to))
        return saga_id

    def place(self, key: str = "o-1", *, message_id: str | None = None) -> None:
        """The domain event that starts an order."""
        placed = shop.payload("sim.Placed", {"order_id": key, "amount": 1, "note": ""})
        headers = envelope.message_headers(self.envelope(message_id), "sim.Placed", None)
        self.put(Outgoing(shop.ORDERS, 0, key.encode(), placed.framed, headers))

    def signal(self, saga_id: str, *, name: str = "hint", keep_ms: int = 60_000) -> None:
        """A signal."""
        message = SignalMessage(saga_id=saga_id, name=name, payload=None, keep_ms=keep_ms)
        self.put(messages.encode_signal(message, self.envelope(), shop.own_records(), self.topics, self.home(saga_id)))

    def control(self, saga_id: str, verb: Verb, *, reason: str = "because") -> None:
        """An operator's intervention."""
        message = ControlMessage(saga_id=saga_id, verb=verb, actor="ada", reason=reason)
        self.put(messages.encode_control(message, self.envelope(), shop.own_records(), self.topics, self.home(saga_id)))

    def commands(self) -> list[ReceivedCommand]:
        """The commands since the last call."""
        found: list[ReceivedCommand] = []
        for topic, position in self._commands_read.items():
            records, self._commands_read[topic] = self.cluster.logs[TopicPartition(topic, 0)].read(position, 1_000)
            found += [messages.decode_command(record, self._payloads) for record in records]
        return found

    def reply(
        self, command: ReceivedCommand, *, receipt: str = "r", partition: int | None = None, said: str | None = None
    ) -> None:
        """A participant's success; or, with `said`, its rejection with that message."""
        headers = command.headers
        if said is not None:
            record = messages.encode_rejected(headers, "REFUSED", said, {}, shop.own_records(), self.envelope())
        else:
            undone = headers.direction is Direction.COMPENSATION
            name = "sim.Undone" if undone else "sim.Done"
            value = shop.payload(name, {} if undone else {"receipt": receipt}).framed
            record = messages.encode_reply(headers, name, value, self.envelope())
        self.put(record if partition is None else record._replace(partition=partition))

    def run_to_end(self) -> None:
        """Answer whatever is asked until nothing is asked any more."""
        self.cycles()
        while commands := self.commands():
            for command in commands:
                self.reply(command)
            self.cycles()

    # What it did

    def history(self, saga_id: str) -> list[Transition]:
        """The transitions of a saga, in log order."""
        found: list[Transition] = []
        for record in self.cluster.written(self.topics.backlog):
            decoded = decode_transition(record.value or b"", shop.own_records(), self._payloads)
            assert not isinstance(decoded, UnknownKind)
            if decoded[1].header.saga_id == saga_id:
                found.append(decoded[1])
        return found

    def kinds(self, saga_id: str) -> list[str]:
        """What happened to a saga, by the names of the transitions."""
        return [type(one).__name__ for one in self.history(saga_id)]

    def dead_letters(self) -> Sequence[Record]:
        """The dead letters."""
        return self.cluster.written(self.topics.dead_letters)

    def reason(self, letter: Record) -> str:
        """Why a dead letter is one."""
        return (dict(letter.headers)[envelope.REASON] or b"").decode()

    def state(self, key: str, partition: int = 0) -> State | None:
        """What the state topic holds under a key."""
        log = self.cluster.logs[TopicPartition(self.topics.state, partition)]
        latest = {record.key: record.value for record in log.read(log.start, log.end)[0]}
        value = latest.get(key.encode())
        return None if value is None else decode_state(value, shop.own_records(), self._payloads)

    @property
    def blocked(self) -> Mapping[str, str]:
        """Why which partition stands still."""
        return self.orchestrator.health().blocked
