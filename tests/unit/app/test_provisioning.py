"""Which topics a namespace and its services are to have."""

from sagakit.app.provisioning import ServiceTopics, wanted_topics
from sagakit.app.service import topics_of
from sagakit.app.settings import Settings
from sagakit.participants import Service

SETTINGS = Settings(topic_prefix="t.", partitions=6, replication_factor=1)


def names(*services: ServiceTopics, others: tuple[str, ...] = ()) -> set[str]:
    return {topic.name for topic in wanted_topics(SETTINGS, services, others)}


def test_a_service_has_its_topics_and_dead_letters_for_all_that_it_reads() -> None:
    before = names()
    added = names(ServiceTopics(name="stock", event_topics=("orders.events",))) - before
    assert added == {
        "t.stock.commands",
        "t.stock.commands.dlq",
        "t.stock.events",
        "t.orders.events",
        "t.orders.events.stock.dlq",
    }


def test_topics_by_name_are_added_once() -> None:
    listed = [topic.name for topic in wanted_topics(SETTINGS, [ServiceTopics(name="orders")], ["orders.events", "x"])]
    assert len(listed) == len(set(listed))
    assert "t.x" in listed


def test_dead_letters_are_kept_for_ever() -> None:
    for topic in wanted_topics(SETTINGS, [ServiceTopics(name="stock", event_topics=("orders.events",))]):
        if topic.name.endswith("dlq"):
            assert topic.config["retention.ms"] == "-1", topic.name


def test_a_service_process_checks_only_what_it_uses() -> None:
    assert topics_of(SETTINGS, Service("idle")) == ()
