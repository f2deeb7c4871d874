"""Calls that may never come back do not take their caller with them."""

from __future__ import annotations

import threading

import pytest

from sagakit.adapters.bounded_calls import BoundedCalls, CallOverdueError


def test_a_call_that_returns_is_waited_for() -> None:
    done: list[str] = []
    BoundedCalls("test").call(lambda: done.append(threading.current_thread().name), "it", 20)
    assert done == ["test"]


def test_what_a_call_raises_is_raised_here() -> None:
    def fail() -> None:
        raise LookupError("nothing")

    calls = BoundedCalls("test")
    with pytest.raises(LookupError, match="nothing"):
        calls.call(fail, "it", 20)
    calls.call(lambda: None, "it", 20)


def test_a_call_that_does_not_return_is_given_up_and_the_next_one_is_made() -> None:
    hold, done = threading.Event(), threading.Event()
    calls = BoundedCalls("test")
    try:
        with pytest.raises(CallOverdueError, match=r"waiting has not come back within 0\.05 s"):
            calls.call(hold.wait, "waiting", 0.05)
        calls.call(done.set, "it", 20)
        assert done.is_set()
    finally:
        hold.set()
