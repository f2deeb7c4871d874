"""What publishing a definition comes to, given what is published already. A version's body never changes."""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sagakit.language.canonical import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedVersion:
    """A version that stands on the definitions topic; `source` is the text that people wrote."""

    name: str
    version: int
    canonical: str
    hash: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """The version is new: write it. `warnings` is what the one who publishes should know."""

    bundle: Bundle
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyPublished:
    """The same body stands there: nothing to do."""

    bundle: Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Another body stands under this version; `difference` is what changed, line by line, as in a unified diff."""

    bundle: Bundle
    reason: str
    difference: tuple[str, ...]


Ruling: TypeAlias = Publish | AlreadyPublished | Refused


class DefinitionStore(Protocol):
    """Where definitions are published, as those who publish and read them need it.

    Both methods raise what the ports raise when Kafka or the registry does not answer or refuses.
    """

    def published(self) -> list[PublishedVersion]:
        """Every published version, read to the end."""
        ...

    def publish(self, bundles: Sequence[Bundle], by: str) -> list[Ruling]:
        """Rule on the bundles together, and write those that are new: all of them, or none if one is refused.

        `by` is who publishes. When this returns, whatever starts afterwards sees them.
        """
        ...


def rule(published: Iterable[PublishedVersion], bundle: Bundle) -> Ruling:
    """Whether `bundle` may be published beside what is there."""
    versions: dict[int, PublishedVersion] = {}
    for one in published:
        if one.name == bundle.name:
            versions.setdefault(one.version, one)
    known = versions.get(bundle.version)
    if known is None:
        newest = max(versions, default=0)
        late = f"version {newest} of {bundle.name} is newer and keeps starting new sagas: this version starts none"
        return Publish(bundle=bundle, warnings=(late,) if newest > bundle.version else ())
    if known.hash == bundle.hash:
        return AlreadyPublished(bundle=bundle)
    return Refused(
        bundle=bundle,
        reason=(
            f"version {bundle.version} of {bundle.name} is published with another body, and sagas may run it; "
            f"publish the change as version {max(versions) + 1}"
        ),
        difference=difference(known.canonical, bundle.canonical),
    )


def rule_all(published: Iterable[PublishedVersion], bundles: Iterable[Bundle]) -> list[Ruling]:
    """Rule on several bundles that are published together, as if one after the other."""
    known = list(published)
    rulings: list[Ruling] = []
    for bundle in bundles:
        rulings.append(rule(known, bundle))
        known.append(
            PublishedVersion(
                name=bundle.name,
                version=bundle.version,
                canonical=bundle.canonical,
                hash=bundle.hash,
                source=bundle.source,
            )
        )
    return rulings


def difference(before: str, after: str) -> tuple[str, ...]:
    """What two canonical forms differ in, as the lines of a unified diff with one line of context."""
    old, new = (
        json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False).splitlines()
        for text in (before, after)
    )
    return tuple(difflib.unified_diff(old, new, "published", "new", lineterm="", n=1))
