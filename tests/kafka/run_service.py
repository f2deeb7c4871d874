"""A service as a process that tests kill: `python -m tests.kafka.run_service <bootstrap> <prefix> <module:app>`.

`SERVICE_THREADS` is how many sync handlers run at once. Its registry is in memory, with the same schemas under the same
ids as the test's own: both register them in one order.
"""

import importlib
import os
import signal
import sys

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_messages import KafkaMessages
from sagakit.app.running import EXIT_STUCK
from sagakit.contracts.topics import Topics
from sagakit.participants import RuntimeSettings, ServiceRuntime
from tests.unit.participants import support


def main() -> None:
    bootstrap, prefix, place = sys.argv[1:]
    module, _, name = place.partition(":")
    service = getattr(importlib.import_module(module), name)
    topics = Topics(topic_prefix=prefix)
    exchange = support.exchange(service, support.formats(support.registered(), topics))
    runtime = ServiceRuntime(
        service,
        answering=exchange,
        connect=lambda listener: KafkaMessages(
            properties=ClientProperties({"log_level": "0"}),
            bootstrap_servers=bootstrap,
            group=topics.service_group(service.name),
            topics=exchange.topics,
            listener=listener,
        ),
        settings=RuntimeSettings(threads=int(os.environ.get("SERVICE_THREADS", "8"))),
        on_stuck=lambda _: os._exit(EXIT_STUCK),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runtime.stop())
    runtime.run()


if __name__ == "__main__":
    main()
