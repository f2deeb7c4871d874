"""What comes in: starts, replies, controls, signals, domain events and definitions, whole ones and made wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from sagakit.contracts import envelope, messages
from sagakit.contracts.envelope import CommandHeaders, Envelope
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.topics import Topics
from sagakit.core.address import Address
from sagakit.core.events import ReplyTo, Verb
from sagakit.core.ids import saga_id
from sagakit.core.placement import partition_of
from sagakit.core.values import CONFLUENT, VALUES, Payload
from sagakit.ports.log import Outgoing, Record
from tests.fuzz.mutations import LIMIT_BYTES, mutated
from tests.fuzz.texts import mutated_text
from tests.fuzz.world import PARTITIONS, Registry
from tests.simulation import shop

NAMESPACE: Final = "fuzz"
_STEPS: Final = (None, "reserve", "charge", "pack", "ship", "confirm", "look", "note", "nowhere", "look[3]", "look#2")
_VERSIONS: Final = (0, -1, 3, 4, 2**31, 2**63 - 1)


KINDS: Final = ("start", "reply", "control", "signal", "event")
"""What the inbox and the trigger topics bring."""


@dataclass(frozen=True, slots=True)
class Made:
    """A record, what it was made as, and what was then made wrong about it."""

    record: Record
    kind: str
    wrong: tuple[str, ...]


class Maker:
    """Makes the next record; `commands` holds those that may be replied to, `parked` sagas that wait for a person."""

    def __init__(self, random: Random, topics: Topics, own: OwnRecords, registry: Registry) -> None:
        self.commands: list[Record] = []
        self.parked: list[str] = []
        self.now_ms = 1_760_000_000_000
        self._random = random
        self._topics = topics
        self._own = own
        self._registry = registry
        self._numbers = 0

    def next(self) -> Made:
        """A record for the inbox or a trigger topic; half of them have something wrong with them."""
        random, chance = self._random, self._random.random()
        if self.commands and chance < 0.55:
            again = random.random() < 0.2  # else each is answered once, the oldest first
            kind, record = "reply", self.reply(random.choice(self.commands) if again else self.commands.pop(0))
        elif chance < 0.63:
            kind, record = "control", self.control()
        elif chance < 0.7:
            kind, record = "signal", self.signal()
        elif chance < 0.85:
            kind, record = "start", self.start()
        else:
            kind, record = "event", self.event()
        wrong: list[str] = []
        if random.random() < 0.5:
            record = mutated(random, record, self._own, wrong)
            if random.random() < 0.05:  # for another saga, which lives
                record = record._replace(key=self._some_saga()[2].encode())
                wrong.append("another_saga")
        return Made(record, kind, tuple(wrong))

    def start(self) -> Record:
        """A start through the inbox."""
        random = self._random
        definition, key, one = self._some_saga()
        start = messages.StartMessage(
            saga_id=one,
            definition=definition,
            key=key,
            payload=self._odd(self._order(key)),
            reply_to=random.choice(
                (None, ReplyTo(topic=self._topics.results, partition=0), ReplyTo(topic="", partition=-1))
            ),
            deadline_ms=random.choice((None, 100, 60_000)),
        )
        return self.received(messages.encode_start(start, self._said(), self._own, self._topics))

    def event(self) -> Record:
        """A domain event that starts sagas, with or without what CloudEvents say of it; or one that starts none."""
        random = self._random
        key = self._some_saga()[1]
        type_, payload = random.choice(
            (
                ("sim.Placed", self._order(key)),
                ("sim.Placed", self._order(key)),
                ("sim.Placed", self._order("")),
                ("sim.Hint", shop.payload("sim.Hint", {"text": "starts nothing"})),
                ("strange", self._strange()),
            )
        )
        headers = envelope.message_headers(self._said(), type_, None) if random.random() < 0.6 else []
        topic = self._topics.service_topic(shop.ORDERS)
        return self.received(Outgoing(topic, random.randrange(PARTITIONS), key.encode(), payload.framed, headers))

    def reply(self, command: Record) -> Record:
        """What a participant may answer, and what none would."""
        random, headers, kind = self._random, envelope.read_command_headers(command), self._random.random()
        if kind < 0.8:
            out = self._success(headers)
        elif kind < 0.86:
            code = random.choice(("REFUSED", "REFUSED", "NOT_DECLARED", "", "c" * random.choice((400, 9_000))))
            details = {"why": "x" * random.choice((1, 9_000))}
            out = messages.encode_rejected(headers, code, None, details, self._own, self._said())
        elif kind < 0.92:
            text = random.choice((None, "no message", "m" * random.randint(0, LIMIT_BYTES)))
            out = messages.encode_failed(headers, "Broken", text, self._own, self._said())
        elif kind < 0.96:
            out = messages.encode_expired(headers, self._own, self._said())
        else:  # a value that is no answer to anything
            payload = random.choice((self._strange(), shop.payload("sim.Hint", {"text": "no reply"})))
            out = messages.encode_reply(headers, "sim.Done", payload.framed, self._said())
        return self.received(out)

    def _success(self, headers: CommandHeaders) -> Outgoing:
        type_ = "sim.Undone" if headers.undoes is not None else "sim.Done"
        length = self._random.choice((1, 1, 1, 5, 3_000, self._random.randint(0, LIMIT_BYTES)))
        data = {} if type_ == "sim.Undone" else {"receipt": "r" * length}
        return messages.encode_reply(headers, type_, shop.payload(type_, data).framed, self._said())

    def control(self) -> Record:
        """What an operator asks for, sensible or not."""
        random = self._random
        one = self._known_saga()
        step = random.choice(_STEPS)
        control = messages.ControlMessage(
            saga_id=one,
            verb=random.choice(tuple(Verb)),
            address=None if step is None else Address.parse(step),
            payload=random.choice((None, self._odd(shop.payload("sim.Done", {"receipt": "by hand"})))),
            actor=random.choice(("fuzz", "", "\x00", "ä" * 5_000)),
            reason=random.choice(("fuzz", "", "r" * random.randint(0, LIMIT_BYTES))),
            ticket=random.choice((None, "T-1")),
        )
        return self.received(messages.encode_control(control, self._said(), self._own, self._topics))

    def signal(self) -> Record:
        """A signal, for a saga that may never come."""
        random = self._random
        one = self._known_saga()
        payload = random.choice((None, self._odd(shop.payload("sim.Hint", {"text": "t" * random.choice((1, 5_000))}))))
        signal = messages.SignalMessage(
            saga_id=one,
            name=random.choice(("hint", "hint", "", "\u2028", "n" * random.choice((400, 9_000)))),
            payload=payload,
            keep_ms=random.choice((1_000, 60_000)),
        )
        return self.received(messages.encode_signal(signal, self._said(), self._own, self._topics))

    def definition(self) -> Record:
        """A record of the definitions topic: garbage mostly, and what must not disturb the sagas that run."""
        random = self._random
        name, version = random.choice(tuple(shop.TEXTS))
        fields = published_fields(name, version)
        kind = random.random()
        if kind < 0.15:
            return self._definition_record(f"{name}/{version}", fields)  # once more, as it was
        if kind < 0.3:
            partitions = random.choice((PARTITIONS, 1, 7, 0, -1, 2**31 - 1))
            raw = {"namespace": NAMESPACE, "partitions": partitions, "engine_level": 1, "created_at_ms": 0}
            return self._record_of("namespace", self._own.encode("NamespaceRecord", raw))
        if kind < 0.4:
            return Record(self._topics.definitions, 0, 0, 0, random.choice((None, b"", b"x/1", b"\xff")), None, ())
        fields["name"], fields["version"] = f"other-{random.randrange(9)}", random.choice(_VERSIONS)
        fields["first_offsets"] = [
            {"topic": "x", "partition": random.choice((0, -1)), "offset": random.choice((0, -2))}
        ]
        fields["command_partitions"] = {"stock": random.choice((1, 0, -1, 2**31 - 1))}
        fields["canonical"] = self._canonical(str(fields["canonical"]), str(fields["name"]), int(fields["version"]))
        if random.random() < 0.3:
            fields["schemas"] = {name: mutated_text(random, text) for name, text in fields["schemas"].items()}
        record = self._definition_record(f"{fields['name']}/{fields['version']}", fields)
        return mutated(random, record, self._own) if random.random() < 0.3 else record

    def _canonical(self, text: str, name: str, version: int) -> str:
        """The form of another definition, so that those which run stay as they are."""
        head, _, rest = text.partition('"saga":')
        text = f'{head}"saga":"{name}"{rest[rest.index(",") :]}'
        head, _, rest = text.rpartition('"version":')
        text = f'{head}"version":{version}{rest.lstrip("0123456789")}'
        return text if self._random.random() < 0.2 else mutated_text(self._random, text)

    def _definition_record(self, key: str, fields: Mapping[str, Any]) -> Record:
        try:
            value = self._own.encode("PublishedDefinition", fields)
        except UnicodeEncodeError:  # half a pair of surrogates, which nobody can write
            value = b"\x00"
        return self._record_of(key, value)

    def _record_of(self, key: str, value: bytes) -> Record:
        return Record(self._topics.definitions, 0, 0, 0, key.encode(), value, ())

    # Pieces

    def received(self, outgoing: Outgoing) -> Record:
        """A record as it is read; where it does not say, it lies where its key puts it."""
        partition = partition_of(outgoing.key, PARTITIONS) if outgoing.partition is None else outgoing.partition
        return Record(outgoing.topic, partition, 0, 0, outgoing.key, outgoing.value, outgoing.headers)

    def _said(self) -> Envelope:
        self._numbers += 1
        # Now and then an id that was there already.
        number = self._numbers if self._random.random() < 0.98 else self._random.randint(1, self._numbers)
        return Envelope(message_id=f"m{number}", source="/fuzz", at_ms=self.now_ms)

    def _some_saga(self) -> tuple[str, str, str]:
        definition = self._random.choice(("order", "visit", "audit"))
        key = f"k{self._random.randrange(max(1, self._numbers // 4))}"
        return definition, key, saga_id(NAMESPACE, definition, key)

    def _known_saga(self) -> str:
        """The id of a saga: mostly of one that runs or waits for a person."""
        chance = self._random.random()
        if self.parked and chance < 0.4:
            return self._random.choice(self.parked)
        if self.commands and chance < 0.7:
            return (self._random.choice(self.commands).key or b"").decode(errors="replace")
        return self._some_saga()[2]

    def _order(self, key: str) -> Payload:
        random = self._random
        note = "n" * random.choice((0, 10, 10, 10, 10, 4_000, 9_000, 13_000, random.randint(0, LIMIT_BYTES)))
        return shop.payload("sim.Placed", {"order_id": key, "amount": random.choice((1, 100, 2**62)), "note": note})

    def _odd(self, payload: Payload) -> Payload:
        """The payload; now and then encrypted, in another encoding, of a strange schema, or none at all."""
        if self._random.random() < 0.9:
            return payload
        return self._random.choice(
            (
                Payload(framed=payload.framed, encoding=CONFLUENT, key_id="k"),
                Payload(framed=payload.framed, encoding="morse"),
                Payload(framed=b'{"order_id":"k1","amount":1,"note":"","receipt":""}', encoding=VALUES),
                Payload(framed=b"[" * 5_000, encoding=VALUES),
                Payload(
                    framed=b'{"order_id":"\\ud800","amount":1,"note":"\\udc00","receipt":"\\ud800"}', encoding=VALUES
                ),
                Payload(framed=b'{"order_id":"k1","amount":1e999,"note":NaN,"receipt":"x"}', encoding=VALUES),
                Payload(framed=b"", encoding=CONFLUENT),
                self._strange(),
            )
        )

    def _strange(self) -> Payload:
        """Bytes under a schema of strangers: noise, nested as deep as it goes, or announcing very many items."""
        random = self._random
        body = random.choice(
            (
                random.randbytes(random.randint(0, 60)),
                b"\x02" * random.randint(0, LIMIT_BYTES),
                b"\x00" * random.randint(0, 40),
                b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                b"\x80\x80\x80\x80\x01\x00",
                b"\x10sometext\x10sometext",
            )
        )
        return Payload(
            framed=b"\x00" + random.choice(self._registry.strange_ids).to_bytes(4, "big") + body, encoding=CONFLUENT
        )


def published_fields(name: str, version: int) -> dict[str, Any]:
    """What is published of one of the shop's definitions."""
    found = shop.published(name, version)
    return {
        "name": found.name,
        "version": found.version,
        "canonical": found.canonical,
        "hash": found.hash,
        "source": found.source,
        "schemas": dict(found.schemas),
        "first_offsets": [],
        "command_partitions": {},
        "published_at_ms": 0,
        "published_by": None,
    }
