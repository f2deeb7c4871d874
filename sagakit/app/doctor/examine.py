"""All checks of the doctor, in the order in which their answers matter."""

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from confluent_kafka import KafkaException

from sagakit.adapters.kafka_records import error_of
from sagakit.app.connect import CONNECT_TIMEOUT_S, client_properties, unreachable
from sagakit.app.doctor import broker, registry, transactions
from sagakit.app.doctor.findings import Finding, fail, ok
from sagakit.app.doctor.probe import Probe
from sagakit.app.settings import Settings

CHECKS: Final[dict[str, Callable[[Probe], Finding]]] = {
    "version 3.7 or newer": broker.is_new_enough,
    "fences a stale generation": transactions.fences_a_stale_generation,
    "hides aborted records": transactions.hides_aborted_records,
    "waits on pending offsets": transactions.waits_on_pending_offsets,
    "ends hanging transactions": transactions.ends_hanging_transactions,
    "transaction verification": broker.verifies_transactions,
    "transaction.max.timeout.ms": broker.allows_transaction_timeout,
    "min.insync.replicas": broker.survives_a_broker,
    "compaction": broker.allows_compaction,
    "no topics by use": broker.makes_no_topics_by_use,
    "max.message.bytes": broker.takes_large_records,
    "clock skew": broker.keeps_time,
}
"""The checks of the broker, by the name that their findings carry."""

REGISTRY_CHECKS: Final[tuple[Callable[[Settings], Finding], ...]] = (registry.keeps_schemas, registry.has_own_schemas)

# The slowest check waits for the broker to end a transaction; the others run beside it, few at a time.
_AT_ONCE: Final = 4


def examine(settings: Settings) -> Generator[Finding]:
    """Run all checks, and give each finding in order as soon as it is there.

    Raises:
        LogUnavailableError: the broker does not answer at all.
        ClientPropertyError: a client property is refused.
    """
    with Probe(settings, client_properties(settings)) as probe:
        with unreachable(settings):
            brokers = probe.admin.list_topics(timeout=CONNECT_TIMEOUT_S).brokers
        yield ok("reachable", f"{len(brokers)} broker{'s' * (len(brokers) > 1)} at {settings.bootstrap}")
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            # The slowest is begun first; each is given in its place.
            running: dict[str, Future[Finding]] = {
                name: pool.submit(_run, name, probe)
                for name in sorted(CHECKS, key=lambda name: name != "ends hanging transactions")
            }
            asked = [pool.submit(check, settings) for check in REGISTRY_CHECKS]
            for name in CHECKS:
                yield running[name].result()
            for future in asked:
                yield future.result()
        finally:
            # Also after Ctrl-C: what runs is awaited, so that what it made can be removed.
            pool.shutdown(wait=True, cancel_futures=True)


def _run(name: str, probe: Probe) -> Finding:
    try:
        return CHECKS[name](probe)
    except KafkaException as exception:
        error = error_of(exception)
        return fail(
            name,
            f"it could not be checked: {error.str()}",
            "Give the user who runs the doctor rights on topics, groups and transactional ids that begin with "
            f"{probe.settings.topic_prefix}sagakit-doctor-, or run it as an administrator.",
        )
    except TimeoutError as error:
        return fail(name, str(error), "Look at the brokers' logs; a broker that is this slow stalls every saga.")
