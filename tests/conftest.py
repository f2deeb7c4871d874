"""What all tests share: the servers, and how much Hypothesis searches."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["sagakit.testing.fixtures"]

# The tests start hundreds of processes. Each of Python would compile again all that it imports, were it forbidden to
# keep what it has compiled; and a Java that lives for minutes never earns back what its optimizing compiler costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

# A run that was started in the background ignores Ctrl-C, and so would all that it starts; some tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `ci`: the same examples at each run, few enough to belong to every run. `long`: a search, with new examples each time;
# its failures print the blob that reproduces them. A machine that is busy is not a failure, so no example has a
# deadline.
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", deadline=None, max_examples=10_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("SAGAKIT_HYPOTHESIS", "ci"))
