"""What all of these tests need."""

from __future__ import annotations

import pytest

from tests.unit.orchestrator.bench import Bench


@pytest.fixture
def bench() -> Bench:
    """An orchestrator that knows `order` and `visit`."""
    return Bench()
