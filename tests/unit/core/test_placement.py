"""A saga's partition is the one that Kafka's Java client computes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagakit.core.placement import murmur2, partition_of


# The vectors of Kafka's own test of `Utils.murmur2`: signed 32-bit numbers there.
@pytest.mark.parametrize(
    ("data", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_the_java_client(data: bytes, hashed: int) -> None:
    """Rule 6: another partition count moves sagas."""
    assert murmur2(data) == hashed & 0xFFFFFFFF


@given(st.binary(max_size=40), st.integers(1, 100))
def test_a_partition_exists(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions
    assert partition_of(key, 2**31) == murmur2(key) & 0x7FFFFFFF
