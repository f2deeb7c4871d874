"""Pauses double up to their limit, keep half of it as jitter, and are the same in every replay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagakit.core import ids
from sagakit.core.definition import RetryPolicy
from sagakit.core.retry import pause_ms

LEAST, MOST = "00000000-0000-5000-8000-000000000000", "ffffffff-ffff-5fff-bfff-ffffffffffff"


@pytest.mark.parametrize(
    ("attempts", "least", "most"),
    [(1, 100, 200), (2, 200, 400), (3, 400, 800), (4, 500, 1_000), (5, 500, 1_000), (9, 500, 1_000)],
)
def test_the_pause_doubles_up_to_its_limit(attempts: int, least: int, most: int) -> None:
    policy = RetryPolicy(attempts=10, backoff_ms=200, max_ms=1_000)
    assert pause_ms(policy, attempts, LEAST) == least
    assert pause_ms(policy, attempts, MOST) == most - 1


@pytest.mark.parametrize("longest_ms", [1, 5, 999])
def test_a_pause_is_whole_milliseconds(longest_ms: int) -> None:
    policy = RetryPolicy(attempts=2, backoff_ms=longest_ms, max_ms=longest_ms)
    assert [type(pause_ms(policy, 1, command_id)) for command_id in (LEAST, MOST)] == [int, int]


@pytest.mark.parametrize(("allowed", "made"), [(1, 1), (3, 3), (3, 4)])
def test_attempts_are_used_up(allowed: int, made: int) -> None:
    assert pause_ms(RetryPolicy(attempts=allowed, backoff_ms=1, max_ms=1), made, LEAST) is None


def test_sagas_that_failed_together_do_not_come_back_together() -> None:
    policy = RetryPolicy(attempts=2, backoff_ms=10_000, max_ms=10_000)
    sagas = [ids.saga_id("default", "place-order", str(number)) for number in range(1_000)]
    pauses = [pause_ms(policy, 1, ids.command_id(saga, 1, "charge", "forward", 1)) for saga in sagas]
    assert len(set(pauses)) > 800
    assert {p // 1_000 for p in pauses if p is not None} == {5, 6, 7, 8, 9}


@given(st.integers(1, 10**6), st.integers(0, 10**9), st.integers(0, 10**9), st.uuids(version=5).map(str))
def test_a_pause_is_never_longer_than_its_limit(attempts: int, backoff_ms: int, max_ms: int, command_id: str) -> None:
    policy = RetryPolicy(attempts=attempts + 1, backoff_ms=backoff_ms, max_ms=max_ms)
    pause = pause_ms(policy, attempts, command_id)
    assert pause is not None
    assert 0 <= pause <= max_ms
