"""An address has one text form, and no other text is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagakit.core.address import Address, InvalidAddressError, Part

parts = st.builds(
    Part,
    name=st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True),
    element=st.none() | st.integers(0, 10**6),
    turn=st.integers(0, 10**6),
)


@given(st.lists(parts, min_size=1, max_size=4))
def test_text_and_parts_are_the_same(wanted: list[Part]) -> None:
    address = Address.parse("/".join(map(str, wanted)))
    assert address.parts == tuple(wanted)
    assert address.name == wanted[-1].name


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("reserve", (Part(name="reserve"),)),
        ("items/reserve[0]", (Part(name="items"), Part(name="reserve", element=0))),
        ("a[10]#2/b_1", (Part(name="a", element=10, turn=2), Part(name="b_1"))),
    ],
)
def test_addresses(text: str, wanted: tuple[Part, ...]) -> None:
    assert Address.parse(text).parts == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "Reserve",
        "1a",
        "_a",
        "a-b",
        "a[01]",
        "a[]",
        "a[-1]",
        "a#0",
        "a#01",
        "a#1[2]",
        "a b",
        "a\n",
        "é",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidAddressError, match="is not a step address"):
        Address.parse(text)


def test_what_is_said_of_a_text_that_is_no_address() -> None:
    with pytest.raises(InvalidAddressError) as refused:
        Address.parse("a/B")
    assert str(refused.value) == (
        "'a/B' is not a step address: 'B' must read name[element]#turn with a name of lower-case letters, digits and "
        "underscores that begins with a letter"
    )
