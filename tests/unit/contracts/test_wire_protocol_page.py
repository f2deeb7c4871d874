"""The page of the wire protocol says what the code does: headers, records, ids, links."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

from sagakit.contracts import envelope
from sagakit.contracts.nesting import MAX_DEPTH, MAX_EMPTY_ITEMS
from sagakit.contracts.own import own_schemas
from sagakit.contracts.topics import Topics
from sagakit.core import ids
from sagakit.core.events import Outcome

PAGE = (Path(__file__).parents[3] / "docs" / "wire-protocol.md").read_text(encoding="utf-8")
HEADERS = sorted(
    value for name, value in vars(envelope).items() if name.isupper() and isinstance(value, str) and name[0] != "_"
)


@pytest.mark.parametrize("header", HEADERS)
def test_every_header_is_explained(header: str) -> None:
    assert f"`{header}`" in PAGE


def test_no_header_is_explained_that_does_not_exist() -> None:
    named = set(re.findall(r"`((?:ce|sagakit)_[a-z0-9_]+)`", PAGE))
    assert named == {header for header in HEADERS if header.startswith(("ce_", "sagakit_"))}


@pytest.mark.parametrize("outcome", [one.value for one in Outcome])
def test_every_outcome_is_explained(outcome: str) -> None:
    assert f"| `{outcome}` |" in PAGE


def test_records_are_shown_with_their_fields() -> None:
    shown = re.findall(r"`sagakit\.([A-Z]\w+) \{([^}]*)\}`", PAGE)
    assert {name for name, _ in shown} >= {"Payload", "Rejected", "Failed", "Expired", "Start", "Signal", "Control"}
    for name, fields in shown:
        schema: dict[str, Any] = json.loads(own_schemas()[f"sagakit.{name}"])
        assert [one.strip() for one in fields.split(",") if one.strip()] == [one["name"] for one in schema["fields"]]


def test_ids_are_made_as_the_page_says() -> None:
    (namespace,) = re.findall(r"namespace `([0-9a-f-]{36})`", PAGE)
    name, example = re.findall(r"the saga `(\[[^`]*\])` has the id `([0-9a-f-]{36})`", PAGE)[0]
    assert str(uuid5(UUID(namespace), name)) == example
    assert ids.saga_id(*json.loads(name)[1:]) == example
    assert json.dumps(json.loads(name), separators=(",", ":")) == name
    assert UUID(namespace) == ids.SAGAKIT


def test_topics_are_named_as_the_page_says() -> None:
    topics = Topics(namespace="<namespace>")
    for topic in (topics.inbox, topics.backlog, topics.state, topics.results, topics.definitions, topics.dead_letters):
        assert f"`{topic}`" in PAGE
    for topic in (topics.commands("<service>"), topics.events("<service>"), topics.service_group("<service>")):
        assert f"`{topic}`" in PAGE


@pytest.mark.parametrize("setting", ["isolation.level=read_committed", "enable.auto.commit=false", "acks=all"])
def test_a_participant_in_another_language_is_told_what_it_must_set(setting: str) -> None:
    """Rule 17: the Java client reads aborted commands unless it is told not to."""
    steps = PAGE.split("## A participant, step by step")[1].split("## Replies")[0]
    assert f"`{setting}`" in steps or f"**`{setting}`" in steps
    mandatory = steps.split("isolation.level=read_committed")[1].split("\n")[0]
    assert "mandatory" in mandatory


def test_limits_are_those_of_the_code() -> None:
    assert f"at most {MAX_DEPTH} deep" in PAGE
    assert f"at most {MAX_EMPTY_ITEMS:,} items" in PAGE


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings
