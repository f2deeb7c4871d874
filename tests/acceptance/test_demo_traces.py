"""The demo where OpenTelemetry is set up: its clients make spans, and an order's trace goes on to its end event."""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from services.demo_orders import PARKING_ORDERS_FILE, read_orders

pytestmark = pytest.mark.acceptance

READ = (
    "default.saga.backlog",
    "orders.events",
    *(f"{service}.commands" for service in ("inventory", "payments", "shipping", "orders")),
)
"""The topics that the demo watches."""

TRACED = """
import json, sys, threading
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sagakit.cli.main import run

class Whose(SpanProcessor):
    def on_start(self, span, parent_context=None):
        span.set_attribute("thread", threading.current_thread().name)

spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(Whose())
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
code = run(["demo", "--orders", sys.argv[1]])
told = [
    {
        "name": span.name,
        "kind": span.kind.name,
        "thread": span.attributes["thread"],
        "trace": span.context.trace_id,
        "has_parent": span.parent is not None,
        "links": [link.context.trace_id for link in span.links],
    }
    for span in spans.get_finished_spans()
]
with open(sys.argv[2], "w") as file:
    json.dump(told, file)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every span of a run of the demo."""
    file = tmp_path_factory.mktemp("traces") / "spans.json"
    done = subprocess.run(
        [sys.executable, "-c", TRACED, str(PARKING_ORDERS_FILE), str(file)],
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "detach" not in done.stderr
    told: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return told


def test_each_order_begins_a_trace_of_its_own_and_nobody_but_the_demos_clients_makes_spans(
    spans: list[dict[str, Any]],
) -> None:
    orders = list(read_orders(PARKING_ORDERS_FILE))
    sent = [span for span in spans if span["kind"] == "PRODUCER"]
    assert [span["name"] for span in sent] == ["orders.events send"] * len(orders)
    assert not any(span["has_parent"] for span in sent)
    assert len({span["trace"] for span in sent}) == len(orders)
    # Orchestrators and services have threads of their own, and read the inbox and the state; the demo does neither.
    assert {span["kind"] for span in spans} == {"PRODUCER", "CONSUMER"}
    assert {span["thread"] for span in spans} == {"MainThread"}
    assert {span["name"] for span in spans if span["kind"] == "CONSUMER"} <= {
        "recv",
        *(f"{one} process" for one in READ),
    }


def test_the_trace_of_an_order_goes_through_its_commands_to_its_end_event(spans: list[dict[str, Any]]) -> None:
    """Each record that the demo reads is a link of the span that took it; which ones carry the order's trace?"""
    begun = [span["trace"] for span in spans if span["kind"] == "PRODUCER"]
    linked = Counter(link for span in spans if span["kind"] == "CONSUMER" for link in span["links"])
    assert set(linked) == set(begun)
    placed, ended = 1, 1
    records = {
        "completed": placed + 4 + ended,
        "declined": placed + 2 + 1 + ended,
        "not served": placed + 3 + 2 + ended,
        "parked": placed + 2 + 5,
    }
    ways = ["completed", "parked", "completed", "declined", "parked", "not served"]
    for way, trace in zip(ways, begun, strict=True):
        assert linked[trace] == records[way], (way, linked[trace])
