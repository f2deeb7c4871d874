"""One orchestrator-like process over `KafkaLog`, for tests that stop or kill it: copies each inbox record to `out`.

Tells what it does in lines on its standard output. usage: log_instance <one JSON object>
"""

from __future__ import annotations

import json
import sys

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_log import KafkaLog
from sagakit.ports.log import Assigned, Outgoing, Restored, TopicPartition, Unknown, Work


def tell(*words: object) -> None:
    """Write one line for the test to wait for."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run until killed, or until a commit had another outcome than Committed."""
    given = json.loads(sys.argv[1])
    log = KafkaLog(
        ClientProperties(given["properties"]),
        group=given["group"],
        transactional_id=given["transactional_id"],
        state_topics={given["inbox"]: given["state"]},
    )
    log.subscribe([given["inbox"]])
    while True:
        batch = log.poll(0.5)
        for change in batch.changes:
            tell(type(change).__name__, change.partition.partition)
            if isinstance(change, Assigned):
                log.restore(change.partition, None)
            if isinstance(change, Restored) and given["timers_only"]:
                # A timer fires: no record came, and only `out` is written, which no restore ever looks at.
                record = Outgoing(given["out"], change.partition.partition, b"timer", b"zombie", ())
                outcome = log.commit(Work(records=[record], offsets={change.partition: change.next_offset}))
                tell("outcome", type(outcome).__name__, outcome)
                return
        if not batch.records:
            continue
        for one in batch.records:
            # Each in a commit of its own: one commit may be over too soon for the failpoint within it, not all are.
            records = [Outgoing(given[to], one.partition, b"saga", one.value, ()) for to in ("state", "out")]
            offsets = {TopicPartition(one.topic, one.partition): one.offset + 1}
            outcome = log.commit(Work(records=records, offsets=offsets))
            tell("outcome", type(outcome).__name__, outcome)
            if isinstance(outcome, Unknown):
                return


main()
