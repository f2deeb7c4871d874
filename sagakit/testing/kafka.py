"""A real Apache Kafka of one or more brokers on loopback ports, for tests and for `sagakit dev`.

Brokers are plain child processes of Java (no container): a broker can be killed, paused and started again on its data.
Jars come through `sagakit.testing.jars`, process handling from `sagakit.testing.process`.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from sagakit.testing import jars
from sagakit.testing.errors import ProcessError, ServerError, ServerFailedError
from sagakit.testing.kafka_properties import (
    LOG4J_CONFIGURATION,
    BrokerAddress,
    BrokerTls,
    broker_properties,
    render,
)
from sagakit.testing.ports import PortLease
from sagakit.testing.process import Process

# What the client's constructors take, callbacks left out.
ClientProperties = dict[str, str | int | float | bool]

Security = Literal["plaintext", "tls+scram"]

ADMIN_USER = "admin"  # the super user of a TLS cluster; its password is made up for each cluster

_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 15
_FORMAT_TIMEOUT_S = 60

_LEADS = re.compile(r"Completed transition to Leader(?:State)?\(.*?epoch=(?P<epoch>\d+)")


class KafkaServer(Protocol):
    """A Kafka that clients can be pointed at: a `KafkaCluster`, or an `ExternalKafka`."""

    @property
    def bootstrap(self) -> str:
        """The `bootstrap.servers` of clients."""
        ...

    def client_properties(self, user: str | None = None) -> ClientProperties:
        """The librdkafka properties by which `user` (None: one who may do anything) connects."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalKafka:
    """A plaintext cluster that somebody else runs, named by `SAGAKIT_TEST_BOOTSTRAP`."""

    bootstrap: str

    def client_properties(self, user: str | None = None) -> ClientProperties:
        """The properties to connect with; there are no users here."""
        if user is not None:
            raise ServerError(f"No user {user!r}: the cluster at {self.bootstrap} is used without authentication.")
        return {"bootstrap.servers": self.bootstrap}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """What must stay the same when a cluster is started again on kept data."""

    cluster_id: str
    brokers: int
    security: Security
    passwords: dict[str, str]  # of the SCRAM users: Kafka stores them when the data directory is formatted


class KafkaCluster:
    """A Kafka cluster of this process: `with KafkaCluster(brokers=3) as kafka: ...`.

    Brokers are numbered from 1. Each is also a controller, so a majority must live. Replication is up to three, with
    one replica fewer in sync required. Topics are never created by use.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        data_directory: Path | None = None,
        log_directory: Path | None = None,
        client_ports: Sequence[int] | None = None,
        security: Security = "plaintext",
        users: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        heap_mib: int | None = None,
    ) -> None:
        """Describe the cluster; nothing runs before `start`.

        `data_directory` is kept when the cluster stops, and a later cluster may be started on it; without it the data
        lives in a temporary directory that goes away on `stop`. `log_directory` receives one log per broker, and
        configuration (default: beside the data). `client_ports`, one per broker, default to free ones.
        `security="tls+scram"` makes clients come with TLS and a name and password out of `users`, and gives them
        nothing but what ACLs allow. `properties` are added to each broker's own. `heap_mib` is one broker's heap
        (default: 1024 for a single broker, 512 for each of several).
        """
        if brokers < 1:
            raise ValueError(f"a cluster has at least one broker, not {brokers}")
        if client_ports is not None and len(client_ports) != brokers:
            raise ValueError(f"{brokers} brokers need {brokers} client ports, not {len(client_ports)}")
        if users and security == "plaintext":
            raise ValueError('users need security="tls+scram"')
        self._brokers = brokers
        self._data_directory = data_directory
        self._log_directory = log_directory
        self._client_ports = tuple(client_ports) if client_ports is not None else None
        self._security = security
        self._users = dict(users or {})
        self._properties = dict(properties or {})
        self._heap_mib = heap_mib or (1024 if brokers == 1 else 512)
        self._leases: list[PortLease] = []
        self._addresses: tuple[BrokerAddress, ...] = ()
        self._processes: dict[int, Process] = {}
        self._root = Path()
        self._temporary: Path | None = None
        self._identity: _Identity | None = None
        self._tls: BrokerTls | None = None

    @property
    def bootstrap(self) -> str:
        """The `bootstrap.servers` of clients: all brokers, also those that are down."""
        return ",".join(f"127.0.0.1:{address.client_port}" for address in self._addresses)

    @property
    def brokers(self) -> tuple[int, ...]:
        """The broker numbers, 1 to n."""
        return tuple(range(1, self._brokers + 1))

    def client_properties(self, user: str | None = None) -> ClientProperties:
        """The librdkafka properties by which `user` connects; None is one who may do anything."""
        properties: ClientProperties = {"bootstrap.servers": self.bootstrap}
        if self._tls is None or self._identity is None:
            if user is not None:
                raise ServerError(f"No user {user!r}: this cluster is not running, or runs without authentication.")
            return properties
        name = user or ADMIN_USER
        if name not in self._identity.passwords:
            raise ServerError(f"No user {name!r} in this cluster; it was started with {sorted(self._users)}.")
        return properties | {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": name,
            "sasl.password": self._identity.passwords[name],
            "ssl.ca.location": str(self._tls.authority),
        }

    def process(self, broker: int) -> Process:
        """The process of a broker that has been started, for its number, log and state."""
        try:
            return self._processes[broker]
        except KeyError:
            raise ServerError(f"No broker {broker} was started in this cluster; there are {self.brokers}.") from None

    def start(self) -> Self:
        """Start all brokers and wait until every one answers and knows the others.

        Raises `ServerUnavailableError` if Java or the jars cannot be had, `ServerFailedError` if a broker does not come
        up, `ServerError` if `data_directory` holds a cluster of another shape, `PortsUnavailableError` if one of
        `client_ports` is in use.
        """
        if self._processes:
            raise ServerError("This cluster is running already.")
        java, libraries = jars.java(), jars.kafka_jars()
        if self._data_directory is None:
            self._root = self._temporary = Path(tempfile.mkdtemp(prefix="sagakit-kafka-"))
        else:
            self._root = self._data_directory
        try:
            self._prepare(java, libraries)
            for broker in self.brokers:
                self._launch(java, libraries, broker)
            for broker in self.brokers:
                self._wait_until_ready(broker)
        except BaseException:
            self._end_processes(kill=True)
            if self._log_directory is not None or not self._logs.exists():
                self._remove_temporary()  # where the logs are in it, it stays: the error names them
            raise
        return self

    def stop(self) -> None:
        """Stop all brokers, give back the ports, and remove the data unless `data_directory` was given."""
        # Data that nobody will read again needs no orderly end, and several controllers end in order only slowly.
        self._end_processes(kill=self._data_directory is None)
        self._identity = None
        self._tls = None
        self._addresses = ()
        self._remove_temporary()

    def controller(self) -> int:
        """The broker that leads the controllers' quorum, by what the brokers have logged."""
        led = [
            (int(found["epoch"]), broker)
            for broker, process in self._processes.items()
            for found in _LEADS.finditer(process.log_path.read_text(errors="replace"))
        ]
        if not led:
            raise ServerError(f"No broker has said that it leads the quorum; the logs are in {self._logs}.")
        return max(led)[1]

    def kill_broker(self, broker: int) -> None:
        """Kill a broker (SIGKILL): what a lost machine looks like to the others."""
        self.process(broker).kill()

    def stop_broker(self, broker: int) -> None:
        """Stop a broker in order (SIGTERM): it hands its leaderships over first."""
        self.process(broker).terminate(timeout_s=_STOP_TIMEOUT_S)

    def pause_broker(self, broker: int) -> None:
        """Stop a broker in its tracks (SIGSTOP): connections stay open, nothing answers."""
        self.process(broker).pause()

    def resume_broker(self, broker: int) -> None:
        """Let a paused broker go on (SIGCONT)."""
        self.process(broker).resume()

    def start_broker(self, broker: int) -> None:
        """Start a broker that was killed or stopped, on its data and ports, and wait until it answers."""
        if self.process(broker).is_running:
            raise ServerError(f"Broker {broker} is running already (process {self.process(broker).pid}).")
        self._launch(jars.java(), jars.kafka_jars(), broker)
        self._wait_until_ready(broker)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self, java: Path, libraries: Path) -> None:
        """Everything before the first broker: identity, certificates, ports, configuration, formatted directories."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._identity = self._load_or_make_identity()
        if self._security == "tls+scram":
            # Imported here because only a TLS cluster needs the package that makes certificates.
            from sagakit.testing.certificates import make_certificates  # noqa: PLC0415

            self._tls = make_certificates(self._root / "certificates")
        self._addresses = self._lease_addresses()
        self._logs.mkdir(parents=True, exist_ok=True)
        (self._logs / "log4j2.xml").write_text(LOG4J_CONFIGURATION)
        for address in self._addresses:
            self._properties_path(address.node_id).write_text(render(self._broker_properties(address)))
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda broker: self._format(java, libraries, broker), self.brokers))

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    @property
    def _logs(self) -> Path:
        return self._log_directory or self._root / "logs"

    def _properties_path(self, broker: int) -> Path:
        return self._logs / f"broker-{broker}.properties"

    def _data_path(self, broker: int) -> Path:
        return self._root / f"broker-{broker}"

    def _load_or_make_identity(self) -> _Identity:
        """The identity stored with kept data, checked against what was asked for; a new one for new data."""
        path = self._root / "cluster.json"
        if path.exists():
            kept = _Identity(**json.loads(path.read_text()))
            kept_users = {name: password for name, password in kept.passwords.items() if name != ADMIN_USER}
            if (kept.brokers, kept.security, kept_users) != (self._brokers, self._security, self._users):
                raise ServerError(
                    f"{self._root} holds a cluster of {kept.brokers} brokers, {kept.security}, users "
                    f"{sorted(kept_users)}; asked for were {self._brokers}, {self._security}, users "
                    f"{sorted(self._users)} (or other passwords). Ask for the same, or delete the directory."
                )
            return kept
        passwords = {ADMIN_USER: secrets.token_urlsafe(), **self._users} if self._security == "tls+scram" else {}
        # Kafka's own form of an id: 16 bytes in URL-safe base64; one that began with "-" would look like an option.
        cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        identity = _Identity(cluster_id=cluster_id, brokers=self._brokers, security=self._security, passwords=passwords)
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(identity)))
        return identity

    def _lease_addresses(self) -> tuple[BrokerAddress, ...]:
        if self._client_ports is not None:
            self._leases.append(PortLease.exactly(self._client_ports))
        else:
            self._leases.append(PortLease.free(self._brokers))
        client_ports = self._leases[-1].ports
        self._leases.append(PortLease.free(2 * self._brokers))
        inner_ports = self._leases[-1].ports
        return tuple(
            BrokerAddress(
                node_id=broker,
                client_port=client_ports[broker - 1],
                inter_broker_port=inner_ports[2 * broker - 2],
                controller_port=inner_ports[2 * broker - 1],
            )
            for broker in self.brokers
        )

    def _broker_properties(self, address: BrokerAddress) -> dict[str, str]:
        return broker_properties(
            address,
            cluster=self._addresses,
            log_directory=self._data_path(address.node_id),
            tls=self._tls,
            super_users=[ADMIN_USER],
            extra=self._properties,
        )

    def _format(self, java: Path, libraries: Path, broker: int) -> None:
        """Prepare a broker's empty data directory; one that was prepared before is left alone."""
        if (self._data_path(broker) / "meta.properties").exists():
            return
        assert self._identity is not None
        command = [str(java), "-XX:TieredStopAtLevel=1", "-cp", f"{libraries}/*", "kafka.tools.StorageTool", "format"]
        command += ["-t", self._identity.cluster_id, "-c", str(self._properties_path(broker))]
        for name, password in self._identity.passwords.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        log_path = self._logs / f"broker-{broker}-format.log"
        with log_path.open("wb") as log:
            finished = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_FORMAT_TIMEOUT_S, check=False
            )
        if finished.returncode != 0:
            raise ServerFailedError(
                f"The data directory of broker {broker}, {self._data_path(broker)}, could not be prepared:\n"
                f"{log_path.read_text(errors='replace')}"
            )

    def _launch(self, java: Path, libraries: Path, broker: int) -> None:
        command = [
            str(java),
            f"-Xmx{self._heap_mib}m",
            f"-Dlog4j2.configurationFile={self._logs / 'log4j2.xml'}",
            "-cp",
            f"{libraries}/*",
            "kafka.Kafka",
            str(self._properties_path(broker)),
        ]
        self._processes[broker] = Process.start(f"broker-{broker}", command, log_directory=self._logs)

    def _wait_until_ready(self, broker: int) -> None:
        """Wait until the broker itself answers, and lists every broker that runs."""
        process = self.process(broker)
        port = self._addresses[broker - 1].client_port
        deadline = time.monotonic() + _START_TIMEOUT_S
        try:
            process.wait_for_port(port, timeout_s=_START_TIMEOUT_S)
            own_address = self.client_properties() | {"bootstrap.servers": f"127.0.0.1:{port}"}
            admin = AdminClient({**own_address, "log_level": 0})
            process.wait_until(
                self._lists_running_brokers(admin), timeout_s=deadline - time.monotonic(), what="known to the cluster"
            )
        except ProcessError as error:
            raise ServerFailedError(f"Kafka broker {broker} did not come up. {error}") from None

    def _lists_running_brokers(self, admin: AdminClient) -> Callable[[], bool]:
        running = {number for number, process in self._processes.items() if process.is_running}

        def lists() -> bool:
            try:
                return running <= set(admin.list_topics(timeout=1).brokers)
            except KafkaException:
                return False  # not yet; the wait has a deadline, and its error shows the broker's log

        return lists

    def _end_processes(self, *, kill: bool) -> None:
        def end(process: Process) -> int:
            return process.kill() if kill else process.terminate(timeout_s=_STOP_TIMEOUT_S)

        with ThreadPoolExecutor() as pool:
            list(pool.map(end, self._processes.values()))  # at once: alone, the last ones would wait for a majority
        self._processes.clear()
        for lease in self._leases:
            lease.release()
        self._leases.clear()
