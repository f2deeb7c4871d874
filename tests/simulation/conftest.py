"""The loop's own log lines are switched off in simulations."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from sagakit.language import published
from tests.simulation import shop


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition is a pure function of what is published: all worlds share the compiled ones."""
    monkeypatch.setattr(published, "compile_bundle", shop.compiled)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What worlds full of faults would log, thousands of lines, is worth less than the time it takes."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)
