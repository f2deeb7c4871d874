"""What the tests of participants share."""

import pytest

from sagakit.participants import Formats
from tests.unit.participants import support
from tests.unit.participants.memory_messages import MemoryMessages


@pytest.fixture
def with_() -> Formats:
    return support.formats(support.registered())


@pytest.fixture
def messages() -> MemoryMessages:
    return MemoryMessages()
