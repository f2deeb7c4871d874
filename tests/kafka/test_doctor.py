"""The doctor finds a broker that does not keep its promises: a check that never fails would examine nothing.

No such broker is at hand. So real ones are asked by clients that ask for less: what they get is what every client would
get from a broker that cannot do better.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from sagakit.adapters.client_properties import ClientProperties
from sagakit.app.doctor import broker, transactions
from sagakit.app.doctor.findings import Verdict
from sagakit.app.doctor.probe import Probe
from sagakit.app.settings import Settings
from sagakit.testing.embedded import EmbeddedKafka
from sagakit.testing.kafka import KafkaServer


class Stranger(Consumer):
    """A member that shows the papers of one who never joined: without a member id the coordinator checks nothing."""

    def __init__(self, properties: dict[str, Any]) -> None:
        super().__init__(properties)
        self._never_joined = Consumer(properties)

    def consumer_group_metadata(self) -> Any:
        return self._never_joined.consumer_group_metadata()


class CarelessProbe(Probe):
    """Reads what is uncommitted, commits for no member, and lets transactions hang for minutes."""

    def __init__(self, properties: dict[str, Any], prefix: str) -> None:
        settings = Settings(bootstrap=properties["bootstrap.servers"], topic_prefix=prefix)
        super().__init__(settings, ClientProperties(properties))
        self._plain = {**properties, "log_level": "0"}

    def consumer(self, group: str) -> Consumer:
        return Stranger(
            {
                **self._plain,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_uncommitted",
                "partition.assignment.strategy": "range",
            }
        )

    def transactional(self, name: str, *, timeout_ms: int = 10_000) -> Producer:
        return super().transactional(name, timeout_ms=300_000)


@pytest.fixture
def careless(kafka: KafkaServer, topic_prefix: str) -> Iterator[Probe]:
    with CarelessProbe(dict(kafka.client_properties()), topic_prefix) as probe:
        yield probe


@pytest.mark.kafka
@pytest.mark.parametrize(
    "check",
    [
        transactions.hides_aborted_records,
        transactions.fences_a_stale_generation,
        transactions.waits_on_pending_offsets,
        transactions.ends_hanging_transactions,
    ],
    ids=lambda check: check.__name__,
)
def test_rule_26_a_broken_promise_is_found(careless: Probe, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 26: a compatible broker may be used only if it passes, so each of these must be able to say no."""
    monkeypatch.setattr(transactions, "_HANGING_LIMIT_S", 2.0)
    finding = check(careless)
    assert finding.verdict is Verdict.FAIL, finding
    assert "3.7" in finding.remedy


def test_rule_26_a_broker_that_does_not_verify_transactions_is_refused(
    embedded_kafka: EmbeddedKafka, topic_prefix: str
) -> None:
    """Rule 26: without it a late record opens a transaction that nobody ends."""
    properties = dict(embedded_kafka.client_properties())
    with CarelessProbe(properties, topic_prefix) as probe:
        finding = broker.verifies_transactions(probe)
    assert finding.verdict is Verdict.FAIL, finding
    assert "KIP-890" in finding.found
