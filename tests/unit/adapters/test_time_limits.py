"""Time limits against each other: which of two clocks runs out first decides who waits, and for whom."""

from __future__ import annotations

from sagakit.adapters import client_properties, kafka_producer
from sagakit.participants import RuntimeSettings
from sagakit.testing import simulated_cluster

TRANSACTION_MS = kafka_producer.TRANSACTION_TIMEOUT_MS
SESSION_MS = int(client_properties._SESSION["session.timeout.ms"])
HEARTBEAT_MS = int(client_properties._SESSION["heartbeat.interval.ms"])


def test_a_dead_owner_is_replaced_before_its_transaction_times_out() -> None:
    """Rule 22: with the client's 45 s there would be no transaction left that a new owner could end sooner."""
    assert 3 * HEARTBEAT_MS <= SESSION_MS < TRANSACTION_MS
    assert (simulated_cluster.SESSION_TIMEOUT_MS, simulated_cluster.TRANSACTION_TIMEOUT_MS) == (
        SESSION_MS,
        TRANSACTION_MS,
    ), "what is simulated is what runs"


def test_whatever_a_transaction_waits_for_gives_up_before_the_transaction_does() -> None:
    """Rules 16 and 21: one that outlives its time limit is lost for good, like one that another producer has fenced."""
    defaults = kafka_producer._DEFAULTS
    assert defaults["transaction.timeout.ms"] == TRANSACTION_MS
    for name in ("message.timeout.ms", "topic.metadata.propagation.max.ms"):
        assert int(defaults[name]) < TRANSACTION_MS, name
    assert kafka_producer._SEND_OFFSETS_TIMEOUT_S * 1000 < TRANSACTION_MS
    assert kafka_producer._SEND_OFFSETS_TIMEOUT_S < kafka_producer._SEND_OFFSETS_OVERDUE_S < TRANSACTION_MS / 1000


def test_a_handler_that_does_not_end_ends_the_process_before_the_group_gives_its_partition_away() -> None:
    """Rule 18: nobody may undo what another process is still doing."""
    assert RuntimeSettings().handover_s * 1000 < SESSION_MS
