"""What all tests share: the servers, and how much Hypothesis searches."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["sagakit.testing.fixtures"]

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
