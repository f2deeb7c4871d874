"""Settings: read once at the edge, from the environment and a file, then frozen.

Precedence: command line, environment (`SAGAKIT_…`), the TOML file that `SAGAKIT_CONFIG` names (default `sagakit.toml`
in the working directory, if there is one), defaults.
"""

import os
import re
import socket
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from sagakit.contracts.topics import Topics

_SECRET_NAME: Final = re.compile(r"password|secret|private|\.key$|key\.pem|token|credential|user\.info", re.IGNORECASE)


# The file that `Settings.load` was given: where pydantic asks for its sources, it passes nothing of ours.
_file: ContextVar[Path | None] = ContextVar("settings_file", default=None)


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line for each, and says where it can be set."""


class Settings(BaseSettings):
    """Everything that a process needs to know of its surroundings.

    Attributes:
        bootstrap: the Kafka brokers, `host:port,host:port`.
        registry_url: the schema registry (Confluent API).
        namespace: goes into every id and before every saga topic; two namespaces share nothing but the services.
        topic_prefix: stands before every topic name.
        partitions: partition count of inbox, backlog and state when a namespace is made; fixed for its life.
        replication_factor: of the topics that `topics apply` makes.
        instance: stable name of this instance, unique in its group: a restart under the same name frees at once what
            its predecessor left open.
        schemas: folder of the user's `.avsc` files.
        kafka: any librdkafka property, for every client; passwords and keys are masked wherever settings are shown.
        registry: any property of the registry client.
        health_port: port of the health endpoint on `health_host`; 0 takes a free one, None has none.
        max_record_bytes: the brokers' limit on one record; sagakit writes up to four fifths of it.
        log_format: `console` for people, `json` for machines.
    """

    model_config = SettingsConfigDict(env_prefix="SAGAKIT_", frozen=True, extra="forbid", toml_file="sagakit.toml")

    bootstrap: str = Field(default="", description="SAGAKIT_BOOTSTRAP")
    registry_url: str = ""
    namespace: str = Field(default="default", pattern=r"^[a-z][a-z0-9-]*$")
    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    partitions: int = Field(default=32, ge=1, le=1024)
    replication_factor: int = Field(default=3, ge=1)
    instance: str = Field(default_factory=socket.gethostname, min_length=1)
    schemas: Path = Path("schemas")
    kafka: dict[str, str | SecretStr] = Field(default_factory=dict)
    registry: dict[str, str | SecretStr] = Field(default_factory=dict)
    health_host: str = "127.0.0.1"
    health_port: int | None = Field(default=None, ge=0, le=65535)
    max_record_bytes: int = Field(default=1_000_000, ge=10_000)
    log_format: str = Field(default="console", pattern=r"^(console|json)$")
    log_level: str = Field(default="info", pattern=r"^(debug|info|warning|error)$")

    @field_validator("kafka", "registry", mode="before")
    @classmethod
    def _mask_secrets(cls, properties: Any) -> Any:
        if not isinstance(properties, dict):
            return properties
        return {
            name: SecretStr(str(value))
            if _SECRET_NAME.search(name) and not isinstance(value, SecretStr)
            else (value if isinstance(value, SecretStr) else _text(value))
            for name, value in properties.items()
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _file.get() or Path("sagakit.toml"))

    @classmethod
    def load(cls, *, config: Path | None = None, **overrides: Any) -> Self:
        """Read the settings; `overrides` (the command line's) that are None do not count.

        `config` is the settings file; without it `SAGAKIT_CONFIG` names one.

        Raises:
            SettingsError: something is wrong; every wrong setting is named.
        """
        named = os.environ.get("SAGAKIT_CONFIG")
        file = config or (Path(named) if named else None)
        if file is not None and not file.is_file():
            origin = "--config" if config else "SAGAKIT_CONFIG"
            raise SettingsError(f"{origin} names {file}, which is no file; mend the path, or leave it out")
        chosen = _file.set(file)
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise SettingsError(
                f"settings are wrong (environment SAGAKIT_<NAME> or sagakit.toml): {'; '.join(lines)}"
            ) from None
        except ValueError as error:
            raise SettingsError(f"the settings file cannot be read: {error}") from None
        finally:
            _file.reset(chosen)

    def require(self, *names: str) -> Self:
        """These settings must not be empty.

        Raises:
            SettingsError: some are; the message says how to set them.
        """
        missing = [name for name in names if not getattr(self, name)]
        if missing:
            how = ", ".join(f"SAGAKIT_{name.upper()} (or {name} in sagakit.toml)" for name in missing)
            raise SettingsError(f"not set: {how}")
        return self

    @property
    def topics(self) -> Topics:
        """The topic names of this namespace."""
        return Topics(namespace=self.namespace, topic_prefix=self.topic_prefix)

    @property
    def kafka_properties(self) -> dict[str, str]:
        """The librdkafka properties in the clear, for the clients only."""
        return _revealed(self.kafka)

    @property
    def registry_properties(self) -> dict[str, str]:
        """The registry client's properties in the clear, for the client only."""
        return _revealed(self.registry)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _revealed(properties: dict[str, str | SecretStr]) -> dict[str, str]:
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in properties.items()
    }
