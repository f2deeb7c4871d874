"""What the build writes out for the compiler: the constructors of frozen dataclasses, the same as `dataclass` makes."""

import dataclasses
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLAIN = dedent('''
    from dataclasses import dataclass

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Base:
        """A base."""

        name: str
        number: int | None = None

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Derived(Base):
        """Its fields come after those of the base, one without a default among them."""

        path: tuple[str, ...]

        @property
        def last(self) -> str:
            return self.path[-1]

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Bare(Base):
        """No field of its own."""

    @dataclass(frozen=True, slots=True)
    class Positional:
        first: int
        second: int = 2
''')


def run(source: str) -> dict[str, Any]:
    """The classes of a source, not frozen: interpreted, a frozen class would forbid its own constructor."""
    scope: dict[str, Any] = {"__name__": __name__}
    exec(source.replace("frozen=True", "unsafe_hash=True"), scope)
    return scope


def test_written_constructors_do_what_the_generated_ones_do(build: ModuleType) -> None:
    source = build.with_constructors(PLAIN)
    assert source.count("def __init__") == 4
    written, generated = run(source), run(PLAIN)
    for scope in (written, generated):
        derived = scope["Derived"](path=("a", "b"), name="x")
        assert (derived.name, derived.number, derived.path, derived.last) == ("x", None, ("a", "b"), "b")
        assert scope["Bare"](name="x", number=3) == scope["Bare"](number=3, name="x")
        assert scope["Positional"](1) == scope["Positional"](1, 2)
        assert dataclasses.replace(derived, number=5).number == 5
        with pytest.raises(TypeError):
            scope["Derived"]("x", path=())
        with pytest.raises(TypeError):
            scope["Derived"](name="x")
    for name in ("Base", "Derived", "Bare", "Positional"):
        told = [
            [(one.name, one.type, one.default) for one in dataclasses.fields(scope[name])]
            for scope in (written, generated)
        ]
        assert told[0] == told[1]


@pytest.mark.parametrize(
    "body",
    [
        "@dataclass(frozen=True)\nclass One:\n    names: list[str] = field(default_factory=list)\n",
        "@dataclass(frozen=True)\nclass One:\n    number: int\n    def __post_init__(self) -> None: ...\n",
        "@dataclass(frozen=True)\nclass One:\n    number: ClassVar[int] = 1\n",
        "@dataclass(frozen=True)\nclass One(Elsewhere):\n    number: int\n",
        "@dataclass(slots=True)\nclass One:\n    number: int\n",
        "class One:\n    number: int\n",
    ],
    ids=["factory", "post-init", "class-variable", "foreign-base", "not-frozen", "no-dataclass"],
)
def test_a_class_that_does_more_is_left_alone(build: ModuleType, body: str) -> None:
    assert build.with_constructors(body).strip() == body.strip()


def test_every_module_that_is_compiled_exists(build: ModuleType) -> None:
    missing = [name for name in build.COMPILED if not (ROOT / "sagakit" / name).is_file()]
    assert not missing
