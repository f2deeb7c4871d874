"""The servers of a proof, to be killed and started again, and how a proof fails."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sagakit.app.settings import Settings
from sagakit.demo.cluster import BROKER, CLIENTS
from sagakit.testing.kafka import KafkaCluster
from sagakit.testing.registry import RealRegistry

PARTITIONS: Final = 4

_PROPERTIES: Final = {**BROKER, "log.cleaner.backoff.ms": "500"}
"""What is to be compacted is, without a wait of 15 seconds."""

Say = Callable[[str], None]


class ProofFailedError(AssertionError):
    """What was to be proven does not hold, or nothing was provoked that would have shown it."""


def require(condition: bool, otherwise: str) -> None:
    """Fail the proof unless `condition` holds."""
    if not condition:
        raise ProofFailedError(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Brokers and one registry, each on data that outlives its death. Proofs keep apart by their topics' prefix."""

    kafka: KafkaCluster
    registry: RealRegistry

    def settings(self, prefix: str) -> Settings:
        """The settings of everybody whose topics begin with `prefix`."""
        return Settings(
            bootstrap=self.kafka.bootstrap,
            registry_url=self.registry.url,
            namespace="default",
            topic_prefix=prefix,
            partitions=PARTITIONS,
            replication_factor=min(3, len(self.kafka.brokers)),
            kafka={**CLIENTS, "reconnect.backoff.max.ms": "1000"},
            registry={},
        )


def describe_house(folder: Path, brokers: int = 1) -> House:
    """A house whose data and logs go under `folder`; nothing runs yet."""
    kafka = KafkaCluster(
        brokers, log_directory=folder / "logs", data_directory=folder / "kafka", properties=_PROPERTIES
    )
    return House(kafka=kafka, registry=RealRegistry(log_directory=folder / "logs", data_directory=folder / "registry"))


@contextmanager
def open_house(folder: Path, brokers: int = 1) -> Iterator[House]:
    """A running house, closed at the end of the block."""
    house = describe_house(folder, brokers)
    with ExitStack() as closings:
        closings.enter_context(house.kafka)
        closings.enter_context(house.registry)
        yield house
