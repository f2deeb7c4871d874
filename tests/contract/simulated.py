"""The simulated cluster as a world of the contract suite."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from sagakit.ports.log import Record, TopicPartition
from sagakit.testing.simulated_cluster import SimulatedClock, SimulatedCluster
from sagakit.testing.simulated_log import SimulatedLog
from tests.contract.worlds import PARTITIONS


class SimulatedWorld:
    """A cluster in memory under a virtual clock."""

    several_instances = True

    def __init__(self, prefix: str) -> None:
        self.inbox, self.state, self.trigger, self.out = (
            f"{prefix}{name}" for name in ("inbox", "state", "trigger", "out")
        )
        topics = dict.fromkeys((self.inbox, self.state, self.trigger, self.out), PARTITIONS)
        self.cluster = SimulatedCluster(topics, SimulatedClock(), Random(prefix))
        self._open: list[SimulatedLog] = []

    def open(self, instance: str = "a") -> SimulatedLog:
        log = SimulatedLog(
            self.cluster, group="group", transactional_id=instance, state_topics={self.inbox: self.state}
        )
        self._open.append(log)
        return log

    def publish(self, topic: str, partition: int, *values: bytes) -> None:
        for value in values:
            self.cluster.append(topic, partition, b"k" + value, value)

    def visible(self, topic: str, partition: int) -> Sequence[Record]:
        log = self.cluster.logs[TopicPartition(topic, partition)]
        return log.read(log.start, log.end)[0]

    def close(self) -> None:
        for log in self._open:
            log.close(10)
