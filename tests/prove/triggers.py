"""Choreography meets orchestration: an event starts a saga once, however often it comes; a version that was published
runs for every event that comes after `publish` has returned."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sagakit.app.published import PublishedDefinitions
from sagakit.core import transitions as t
from sagakit.demo.stage import DEFINITION_FILE, ORDER_PLACED, ORDERS
from sagakit.ports.log import Outgoing, Record
from tests.prove.evidence import count, examine, transitions
from tests.prove.house import House, require
from tests.prove.shop import Cast, Shop, bundle_of, now_ms

PER_SECOND: Final = 40.0


def prove(house: House, folder: Path, *, prefix: str, versions: int, orders: int, seed: int = 1) -> dict[str, Any]:
    """Publish versions under load, send every event and every message again; then compare everything."""
    with Shop(house, folder, prefix, Cast(seed=seed)) as shop:
        shop.place(orders)
        for version in range(2, 2 + versions):
            publish(shop, version, orders)
        shop.settle()
        repeated = send_everything_again(shop)
        return {"versions": versions, **repeated, **examine(shop)}


def publish(shop: Shop, version: int, orders: int) -> None:
    """Publish the next version of the shop's definition under load: whatever is placed from then on runs it."""
    text = DEFINITION_FILE.read_text(encoding="utf-8").replace("version: 1\n", f"version: {version}\n")
    published = bundle_of(DEFINITION_FILE, text.replace("deadline: 15m", f"deadline: {15 + version}m"))
    shop.know(published)
    shop.place(orders)  # under way while it is published: these may run either version
    PublishedDefinitions(shop.settings, now_ms).publish([published], "proof")
    after = [one.saga_id for one in shop.place(orders)]
    shop.settle()
    late = [one for one in after if _version_of(shop, one) != version]
    require(
        not late, f"{len(late)} of {len(after)} sagas that came after version {version} was published run an old one"
    )


def send_everything_again(shop: Shop) -> dict[str, int]:
    """Write every order's event, command, reply and start a second time, as it stands: nothing may happen twice."""
    started = count(shop, t.SagaStarted)
    topics = shop.topics
    events = [
        one for one in shop.read(topics.service_topic(ORDERS)) if dict(one.headers)["ce_type"] == ORDER_PLACED.encode()
    ]
    commands = [one for name in shop.cast.services for one in _read_if_there(shop, topics.commands(name))]
    messages = list(shop.read(topics.inbox))
    shop.copied_starts.update((dict(one.headers)["ce_id"] or b"").decode() for one in messages if _is_start(one))
    for records in (messages, commands, events):
        shop.write(*(_again(one) for one in records))
    shop.settle()
    ignored = sum(isinstance(one, t.StartIgnored | t.ReplyIgnored) for one in transitions(shop))
    # Each message, the start that each event became, and the answer that each command was given again.
    repeats = len(messages) + len(events) + len(commands)
    require(ignored >= repeats, f"{ignored} records say that they changed nothing, of {repeats} repeated ones")
    require(count(shop, t.SagaStarted) == started, "a repeated event or start began a saga anew")
    return {"repeated_events": len(events), "repeated_commands": len(commands), "repeated_messages": len(messages)}


def _version_of(shop: Shop, saga_id: str) -> int | None:
    return shop.history(saga_id)[0].header.version


def _is_start(record: Record) -> bool:
    return dict(record.headers)["ce_type"] == b"sagakit.Start"


def _read_if_there(shop: Shop, topic: str) -> Iterable[Record]:
    return shop.read(topic) if topic in shop.admin.list_topics(timeout=10).topics else ()


def _again(record: Record) -> Outgoing:
    return Outgoing(record.topic, record.partition, record.key or b"", record.value, record.headers)
