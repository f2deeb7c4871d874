"""A real schema registry (Apicurio, which speaks the Confluent API) on a loopback port, as a child process of Java."""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from sagakit.testing import jars
from sagakit.testing.errors import ProcessError, ServerError, ServerFailedError
from sagakit.testing.ports import PortLease
from sagakit.testing.process import Process

_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 10


class RealRegistry:
    """An Apicurio registry of this process: `with RealRegistry() as registry: ... registry.url ...`.

    It checks compatibility for real and answers 409, unlike the client's own `mock://` registry.
    """

    def __init__(
        self,
        *,
        data_directory: Path | None = None,
        log_directory: Path | None = None,
        port: int | None = None,
        heap_mib: int = 512,
    ) -> None:
        """Describe the registry; nothing runs before `start`.

        With `data_directory` the schemas are kept in a file there, without it in memory. `log_directory` receives
        `registry.log` (default: beside the data). `port` defaults to a free one.
        """
        self._data_directory = data_directory
        self._log_directory = log_directory
        self._port = port
        self._heap_mib = heap_mib
        self._lease: PortLease | None = None
        self._process: Process | None = None
        self._temporary: Path | None = None

    @property
    def url(self) -> str:
        """The base URL of the Confluent API."""
        return f"http://127.0.0.1:{self._running_port()}/apis/ccompat/v7"

    @property
    def process(self) -> Process:
        """The registry's process, for its number, log and state, and to pause or kill it."""
        if self._process is None:
            raise ServerError("This registry is not running; call start() first.")
        return self._process

    def start(self) -> Self:
        """Start the registry and wait until it answers.

        Raises `ServerUnavailableError` if Java or the jar cannot be had, `ServerFailedError` if it does not come up,
        `PortsUnavailableError` if `port` is in use.
        """
        if self._process is not None:
            raise ServerError("This registry is running already.")
        java, jar = jars.java(), jars.apicurio_jar()
        self._lease = PortLease.free(1) if self._port is None else PortLease.exactly((self._port,))
        try:
            self._launch(java, jar)
        except BaseException:
            self._end_process()  # the log directory stays: the error names the log in it
            raise
        return self

    def stop(self) -> None:
        """Stop the registry and give back the port."""
        self._end_process()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def kill(self) -> None:
        """Kill the registry (SIGKILL) and keep the port: what a registry that is away looks like to its clients."""
        self.process.kill()

    def restart(self) -> None:
        """Start a registry that was killed, on the same port; without `data_directory` it has forgotten all schemas."""
        if self.process.is_running:
            raise ServerError(f"The registry is running already (process {self.process.pid}).")
        self._launch(jars.java(), jars.apicurio_jar())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _running_port(self) -> int:
        if self._lease is None:
            raise ServerError("This registry is not running; call start() first.")
        return self._lease.ports[0]

    def _logs(self) -> Path:
        directory = self._log_directory or self._data_directory
        if directory is None:
            directory = self._temporary = self._temporary or Path(tempfile.mkdtemp(prefix="sagakit-registry-"))
        return directory

    def _launch(self, java: Path, jar: Path) -> None:
        command = [
            str(java),
            f"-Xmx{self._heap_mib}m",
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self._running_port()}",
            "-jar",
            str(jar),
        ]
        environment = {}
        if self._data_directory is not None:
            self._data_directory.mkdir(parents=True, exist_ok=True)
            # Without a write delay of zero H2 loses the last half second when it is killed.
            file = self._data_directory.resolve() / "registry"
            environment["REGISTRY_DATASOURCE_URL"] = f"jdbc:h2:file:{file};WRITE_DELAY=0"
        self._process = Process.start("registry", command, log_directory=self._logs(), environment=environment)
        try:
            self._process.wait_until(self._answers, timeout_s=_START_TIMEOUT_S, what=f"answering at {self.url}")
        except ProcessError as error:
            raise ServerFailedError(f"The Apicurio registry did not come up. {error}") from None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False  # not yet; the wait has a deadline, and its error shows the registry's log

    def _end_process(self) -> None:
        if self._process is not None:
            # In memory there is nothing to end in order; a file database wants to be closed.
            if self._data_directory is None:
                self._process.kill()
            else:
                self._process.terminate(timeout_s=_STOP_TIMEOUT_S)
            self._process = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None
