"""Two releases beside each other under load: a rolling upgrade, rolled back before it is final, refused after.

The proof itself runs as the newer build, in a process of its own: only that one can read and check both levels.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from sagakit.app.settings import Settings
from sagakit.app.upgrading import upgrade_status
from sagakit.cli import exits
from sagakit.core import transitions as t
from sagakit.core.turn import ENGINE_LEVELS
from sagakit.demo.cluster import child_environment
from sagakit.demo.processes import COMMAND_LINE
from sagakit.demo.stage import PROJECT, DemoError
from sagakit.telemetry.logging import configure_logging
from sagakit.testing.errors import ServerError
from tests.prove.builds import FIELD, RULE_MS, last_build, last_tag, next_build
from tests.prove.evidence import examine, transitions
from tests.prove.house import House, ProofFailedError, open_house, require
from tests.prove.shop import Cast, Shop

PER_SECOND: Final = 30.0
_TIMEOUT_S: Final = 1_800
_COMMAND_S: Final = 120
_SHOWN: Final = 4_000
_WHY: Final = "every instance was upgraded"
_RESULT: Final = "result.json"


def prove(folder: Path, *, orders: int, seed: int = 1) -> dict[str, Any]:
    """Make both builds, and run the proof as the newer one, with `orders` between each step and the next."""
    folder.mkdir(parents=True, exist_ok=True)
    newer, older = next_build(folder / "next"), last_build(folder / "last")
    arguments = [str(older), str(folder), str(orders), str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.prove.upgrade", *arguments],
        cwd=newer,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    require(done.returncode == 0, f"{done.stdout[-_SHOWN:]}{done.stderr[-_SHOWN:]}")
    found: dict[str, Any] = json.loads((folder / _RESULT).read_text())
    return {"older_build": last_tag(PROJECT) or "this tree", **found}


def main() -> int:
    """The newer build's part."""
    older, folder, orders, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    try:
        with (folder / "proof.log").open("a", encoding="utf-8") as log, open_house(folder / "house") as house:
            configure_logging(style="console", level="info", stream=log)
            found = _upgrade(house, folder / "shop", older, orders, seed)
    except (ProofFailedError, DemoError, ServerError) as error:
        print(error)
        return 1
    (folder / _RESULT).write_text(json.dumps(found))
    return 0


def _upgrade(house: House, folder: Path, older: Path, orders: int, seed: int) -> dict[str, Any]:
    settings = house.settings("upgrade.")
    folder.mkdir(parents=True)
    require(2 in ENGINE_LEVELS, f"the newer build runs level {ENGINE_LEVELS}: this is not it")
    code, said = _command(settings, folder, older, "topics", "apply")
    require(code == 0, f"the older build could not make the namespace: {said}")
    with Shop(house, folder, "upgrade.", Cast(orchestrators=0, seed=seed)) as shop:
        for number in (1, 2):
            shop.start_orchestrator(number, root=older)
        shop.wait_until_ready()
        _more(shop, orders)
        for number, root in ((1, PROJECT), (2, PROJECT), (1, older)):  # forth, both of them; and one back
            _replace(shop, number, root, orders)
        _refuse_to_finalize(shop)
        _replace(shop, 1, PROJECT, orders)
        began = _began(shop)
        require(set(began) == {1}, f"sagas began at these levels before it was final: {dict(began)}")
        _finalize(shop, orders)
        _refuse_to_roll_back(shop, older)
        _more(shop, orders)
        shop.settle()
        return {**_told_apart(shop), **examine(shop)}


def _replace(shop: Shop, number: int, root: Path, orders: int) -> None:
    """Restart an orchestrator as another build, under load."""
    shop.place(20)
    code = shop.troupe.stop(f"orchestrator-{number}")
    require(code == 0, f"orchestrator-{number} was asked to end and ended with exit code {code}")
    _more(shop, orders)
    shop.start_orchestrator(number, root=root)
    shop.wait_until_ready()
    _more(shop, orders)


def _refuse_to_finalize(shop: Shop) -> None:
    """While one instance runs the older build it is not final, and that one is named."""
    shop.wait(
        lambda: _levels(shop) == {"orchestrator-1": 1, "orchestrator-2": 2},
        "the group tells of one instance that runs level 1, and of one that runs level 2",
    )
    code, said = _command(shop.settings, shop.folder, PROJECT, "upgrade", "finalize", "--reason", _WHY)
    require(code == exits.REFUSED and "orchestrator-1" in said, f"it was not refused: exit code {code}, {said}")
    code, said = _command(shop.settings, shop.folder, PROJECT, "upgrade", "status")
    require(code == exits.NO and "not yet" in said, f"the status does not tell of it: exit code {code}, {said}")


def _levels(shop: Shop) -> dict[str, int | None]:
    """What each member of the group says that it runs; nobody, while the group is changing."""
    found = upgrade_status(shop.settings)
    return {one.name: one.level for one in found.instances} if found.settled else {}


def _finalize(shop: Shop, orders: int) -> None:
    """Raise the level in the middle of the load, after a dry run that changes nothing."""
    command = ("upgrade", "finalize", "--reason", _WHY)
    shop.wait(lambda: set(_levels(shop).values()) == {2}, "every instance runs level 2")
    code, said = _command(shop.settings, shop.folder, PROJECT, *command, "--dry-run")
    require(code == 0 and upgrade_status(shop.settings).namespace.engine_level == 1, f"the dry run: {code}, {said}")
    shop.place(orders)
    code, said = _command(shop.settings, shop.folder, PROJECT, *command)
    require(code == 0, f"it could not be made final: exit code {code}, {said}")
    raised = upgrade_status(shop.settings).namespace
    require((raised.engine_level, raised.raised_because) == (2, _WHY), f"the namespace is {raised}")
    shop.load(PER_SECOND, lambda: _began(shop)[2] > 0, "a saga has begun at the new level")


def _refuse_to_roll_back(shop: Shop, older: Path) -> None:
    """An instance of the older build that starts now says what is wrong, and ends."""
    code, said = _command(shop.settings, shop.folder, older, "orchestrator", SAGAKIT_INSTANCE="orchestrator-3")
    require(code == exits.REFUSED and "engine level 2" in said, f"it was let in: exit code {code}, {said[-_SHOWN:]}")


def _told_apart(shop: Shop) -> dict[str, Any]:
    """Each saga ran by the rules of the level that it began with, and its snapshots have that level's fields."""
    began = _began(shop)
    require(min(began[1], began[2]) > 0, f"sagas began at these levels: {dict(began)}")
    ended = Counter[int]()
    for one in transitions(shop):
        if isinstance(one, t.SagaCompleted | t.SagaCompensated):
            level = one.header.engine_level or 0
            stands_ms = one.marker_expires_at_ms - one.header.partition_ms
            rule_ms = stands_ms - shop.definition_of("place-order", 1).dedupe_ms
            require(rule_ms == (RULE_MS if level == 2 else 0), f"{one.header.saga_id} of level {level}: {rule_ms} ms")
            ended[level] += 1
    fields = Counter[tuple[int, bool]]()
    for record in shop.read(shop.topics.state):
        if record.value is not None and (state := shop.own.decode(record.value)).name == "Snapshot":
            fields[state.fields["engine_level"], state.fields[FIELD] is not None] += 1
    require(fields[2, True] > 0 and not fields[1, True], f"snapshots by level, and whether they have it: {fields}")
    return {"began_at_level": dict(began), "ended_at_level": dict(ended), "snapshots_of_level_2": fields[2, True]}


def _began(shop: Shop) -> Counter[int]:
    return Counter(one.header.engine_level or 0 for one in transitions(shop) if isinstance(one, t.SagaStarted))


def _more(shop: Shop, orders: int) -> None:
    placed = len(shop.placed)
    shop.load(PER_SECOND, lambda: len(shop.placed) >= placed + orders, "some more orders are placed")


def _command(settings: Settings, folder: Path, root: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run `sagakit <arguments>` from a build; its exit code, and what it said."""
    done = subprocess.run(
        [*COMMAND_LINE, *arguments],
        cwd=root,
        env={**os.environ, **child_environment(settings, folder), **environment},
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
