"""Ids are the ones that any language can derive: version 5 UUIDs of compact JSON, with known answers."""

import json
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagakit.core import ids

SAGA = "1530cd38-bee4-54f1-a3cd-c62cbe986b4f"
text = st.text(st.characters(exclude_categories=["Cs"]))
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}(\[[0-9]\])?(#[1-9])?", fullmatch=True)


def derived(*parts: str | int) -> str:
    """The rule, in the words of the standard library."""
    return str(uuid5(ids.SAGAKIT, json.dumps(parts, separators=(",", ":"), ensure_ascii=False)))


@pytest.mark.parametrize(
    ("derivation", "answer"),
    [
        (ids.saga_id("default", "place-order", "o-1"), SAGA),
        (ids.saga_id("default", "place-order", 'é"\\/\u2028\n\x7f\x01😀'), "d2a95194-b85c-5d43-93ac-aa325d710c8e"),
        (ids.command_id(SAGA, 42, "reserve", "forward", 1), "35816b3c-b2d0-5957-af3e-80feae9f410a"),
        (ids.command_id(SAGA, 42, "items/reserve[3]#2", "compensation", 7), "533a0d37-e094-5297-bcf6-6aaedecc7ee2"),
        (ids.idempotency_key(SAGA, 42, "reserve", "forward", 0), "81bb22ef-4f73-5cce-b6c3-47823a51aac7"),
        (ids.event_id(SAGA, 42, 9, 0), "9101401e-88c7-5e98-abec-5503ccea36f8"),
    ],
)
def test_known_answers_for_other_languages(derivation: str, answer: str) -> None:
    assert derivation == answer


@given(text, text, text)
def test_a_saga_id_is_the_standard_uuid5_of_compact_json(namespace: str, definition: str, key: str) -> None:
    assert ids.saga_id(namespace, definition, key) == derived("saga", namespace, definition, key)


@given(names, st.integers(0, 2**62), st.sampled_from(["forward", "compensation"]), st.integers(0, 99))
def test_the_ids_within_a_run_are_the_standard_uuid5_too(address: str, run: int, direction: str, number: int) -> None:
    assert ids.command_id(SAGA, run, address, direction, number) == derived(
        "command", SAGA, run, address, direction, number
    )
    assert ids.idempotency_key(SAGA, run, address, direction, number) == derived(
        "effect", SAGA, run, address, direction, number
    )
    assert ids.event_id(SAGA, run, number, 1) == derived("event", SAGA, run, number, 1)


def test_rule_12_a_retry_has_its_own_command_id_and_the_same_idempotency_key() -> None:
    """Rule 12: matched by command, deduplicated without the attempt."""
    assert ids.command_id(SAGA, 1, "charge", "forward", 1) != ids.command_id(SAGA, 1, "charge", "forward", 2)
    forward = ids.idempotency_key(SAGA, 1, "charge", "forward", 0)
    assert forward != ids.idempotency_key(SAGA, 1, "charge", "compensation", 0)
    assert forward != ids.idempotency_key(SAGA, 2, "charge", "forward", 0)


@pytest.mark.parametrize(
    ("value", "key"), [("o-1", "o-1"), (" A\u0301 ", " A\u0301 "), (42, "42"), (-7, "-7"), (0, "0")]
)
def test_a_business_key_is_taken_as_it_is(value: object, key: str) -> None:
    assert ids.business_key(value) == key


NO_KEY = "a business key must be a non-empty string or an integer, not"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", f"{NO_KEY} an empty one"),
        (None, f"{NO_KEY} a value of type NoneType"),
        (True, f"{NO_KEY} a value of type bool"),
        (False, f"{NO_KEY} a value of type bool"),
        (1.0, f"{NO_KEY} a value of type float"),
        (float("nan"), f"{NO_KEY} a value of type float"),
        (b"o-1", f"{NO_KEY} a value of type bytes"),
        (b"", f"{NO_KEY} a value of type bytes"),
        (["o-1"], f"{NO_KEY} a value of type list"),
        ({}, f"{NO_KEY} a value of type dict"),
        ("\ud800", "the business key is not valid Unicode text: surrogates not allowed"),
        ("a\udfff", "the business key is not valid Unicode text: surrogates not allowed"),
    ],
)
def test_what_cannot_be_a_business_key(value: object, said: str) -> None:
    with pytest.raises(ids.InvalidKeyError) as refused:
        ids.business_key(value)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (SAGA, True),
        (SAGA.upper(), False),
        (SAGA.replace("-", ""), False),
        (f"{{{SAGA}}}", False),
        (f"{SAGA}\n", False),
        (f"{SAGA}0", False),
        (f"0{SAGA}", False),
        ("00000000-0000-0000-0000-000000000000", True),
        ("g0000000-0000-0000-0000-000000000000", False),
        ("", False),
    ],
)
def test_a_saga_id_has_one_form(text: str, wanted: bool) -> None:
    assert ids.is_saga_id(text) is wanted
