"""The global options, as they were given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options before the command; `overrides` are settings, `kafka` librdkafka properties as `name=value`."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None
    kafka: tuple[str, ...] = ()
    log_level: str | None = None
