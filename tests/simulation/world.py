"""One simulated world: real orchestrators over a simulated cluster, services, clients, and what goes wrong, by a seed.

Everything is drawn from one generator, so a seed is a world: it fails again in the same place. First the world runs
with its faults; then it is healed, and has to come to rest.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any, Final

from sagakit.app.orchestrator import assemble
from sagakit.app.settings import Settings
from sagakit.orchestrator.clock import SKEW_MAX_MS
from sagakit.orchestrator.loop import Orchestrator
from sagakit.ports.log import Aborted, Outcome, TopicPartition, Unknown, Work
from sagakit.testing.simulated_cluster import SimulatedClock, SimulatedCluster
from sagakit.testing.simulated_log import SimulatedDefinitionLog, SimulatedLog
from tests.simulation import shop

STEPS_MAX: Final = 60_000
"""A world that takes more steps than this does not come to rest."""

FAULTY_MS: Final = 20_000
"""How long a world stays faulty, virtual milliseconds."""


WHERE_IT_HURTS: Final = frozenset(
    {"before-begin", "transaction-open", "before-commit", "after-commit", "before-restore"}
)
HURTS: Final = 5
"""How much likelier a crash or a stop is there than elsewhere."""


class SimulatedCrash(BaseException):
    """The process ends here and now; nothing that it would still have done is done."""


class RestlessError(AssertionError):
    """The world was healed and did not come to rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a world is made of and how much goes wrong in it. Shares are per point passed, or per message."""

    partitions: int
    instances: int
    orders: int
    crashes: float
    stalls: float
    unknown: float
    skew_ms: int
    session_ms: int
    silent: float
    refuses: float
    fails: float
    late: float
    twice: float
    large: float
    disturbances: int
    faulty_ms: int = FAULTY_MS


def plan_of(random: Random) -> Plan:
    """A plan: in each world some things go wrong often, some seldom and some not at all."""
    return Plan(
        partitions=random.choice((1, 2, 3, 4)),
        instances=random.choice((1, 2, 2, 3)),
        orders=random.randint(2, 6),
        crashes=random.choice((0, 0.003, 0.01, 0.03)),
        stalls=random.choice((0, 0.003, 0.01, 0.03)),
        unknown=random.choice((0, 0, 0.02, 0.1)),
        skew_ms=random.choice((0, 0, 50, 3_000, 30_000)),
        session_ms=random.choice((500, 6_000)),
        silent=random.choice((0, 0.05, 0.2)),
        refuses=random.choice((0, 0.05, 0.2)),
        fails=random.choice((0, 0.05, 0.2)),
        late=random.choice((0, 0.05, 0.3)),
        twice=random.choice((0, 0.05, 0.3)),
        large=random.choice((0, 0, 0, 0.3)),
        disturbances=random.choice((0, 2, 8)),
    )


@cache
def settings_of(partitions: int) -> Settings:
    """The settings of a world's orchestrators."""
    return Settings(namespace="sim", partitions=partitions)


class World:
    """A world in the making. `people` are those who act besides the orchestrators: each adds its events."""

    def __init__(self, seed: int, changes: Mapping[str, Any] | None = None) -> None:
        """`changes` replaces fields of the seed's plan: a smaller world of the same kind."""
        self.seed = seed
        self.random = Random(seed)
        self.plan = replace(plan_of(self.random), **(changes or {}))
        self.settings = settings_of(self.plan.partitions)
        self.topics = self.settings.topics
        self.clock = SimulatedClock()
        self.began_ms = self.clock()
        self.cluster = SimulatedCluster(
            self._topic_partitions(), self.clock, self.random, shop.LIMITS, self.plan.session_ms
        )
        self.registry = shop.FlakyRegistry()
        self.calm = False
        self.steps = 0
        self.stalled = 0
        self.happened: dict[str, int] = {}
        self.valid_from: dict[tuple[str, int], dict[TopicPartition, int]] = {}
        self.working: list[Callable[[], None]] = []
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = 0
        self._group = self.topics.orchestrator_group
        self.instances = [Instance(self, f"i{number}") for number in range(self.plan.instances)]

    def _topic_partitions(self) -> dict[str, int]:
        topics, count = self.topics, self.plan.partitions
        return {
            **dict.fromkeys((topics.inbox, topics.backlog, topics.state), count),
            topics.definitions: 1,
            topics.results: 1,
            topics.dead_letters: 2,
            topics.service_topic(shop.ORDERS): 2,
            topics.service_topic(shop.ENDED): 2,
            **{topics.commands(service): shop.COMMAND_PARTITIONS for service in shop.SERVICES},
        }

    # Events

    def after(self, milliseconds: int, happen: Callable[[], None]) -> None:
        """Have something happen later."""
        self._numbers += 1
        heapq.heappush(self._events, (self.clock() + milliseconds, self._numbers, happen))

    def note(self, what: str) -> None:
        """Count that something was provoked."""
        self.happened[what] = self.happened.get(what, 0) + 1

    def chance(self, share: float) -> bool:
        """Whether it happens this time; never once the world is healed."""
        return not self.calm and self.random.random() < share

    def wait_ms(self, most: int) -> int:
        """How much of a waiting time passes before something else happens."""
        nearest = self._events[0][0] - self.clock() if self._events else most
        return max(0, min(most, nearest))

    # Running

    def run(self) -> None:
        """Run until everything is at rest.

        Raises:
            RestlessError: it does not come to rest.
        """
        while self.clock() < self.began_ms + self.plan.faulty_ms:
            self.step()
        self.heal()
        self.settle()

    def settle(self) -> None:
        """Run on until everything is at rest."""
        self.step()
        while not self.at_rest():
            self.step()

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.calm = True
        self.cluster.available = self.registry.available = True
        for instance in self.instances:
            if instance.orchestrator is None:
                instance.start()

    def step(self) -> None:
        """What is due happens, then one orchestrator goes round once."""
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise RestlessError(f"seed {self.seed}: not at rest after {STEPS_MAX} steps\n{self.describe()}")
        while self._events and self._events[0][0] <= self.clock():
            heapq.heappop(self._events)[2]()
        for work in self.working:
            work()
        able = [one for one in self.instances if one.orchestrator is not None and not one.stands_still]
        if able:
            self.random.choice(able).step()
        else:
            self.cluster.pass_time(1 + self.wait_ms(250))

    def at_rest(self) -> bool:
        """Whether nothing is under way: all was read, nothing is due, nobody is down."""
        if self._events or any(
            one.orchestrator is None or not one.orchestrator.health().ready for one in self.instances
        ):
            return False
        inboxes = {one for one in self.cluster.logs if one.topic == self.topics.inbox}
        if not inboxes <= set().union(*(one.owned() for one in self.instances)):
            return False
        committed = self.cluster.group(self._group).committed
        consumed = (self.topics.inbox, self.topics.service_topic(shop.ORDERS))
        for partition, log in self.cluster.logs.items():
            if log.stable_end < log.end:
                return False
            unread = log.end > log.start and any(one.committed for one in log.written[committed.get(partition, 0) :])
            if partition.topic in consumed and unread:
                return False
        return all(one.next_due_ms() is None for one in self.instances)

    def stall(self, instance: Instance) -> None:
        """One process is stopped while the others go on: its session may end, its transaction may time out."""
        self.note("stall")
        self.stalled += 1
        instance.stands_still = True
        instance.log.silence(True)
        until_ms = self.clock() + self.random.choice((20, 500, 5_000, 9_000, 15_000))
        while self.clock() < until_ms:
            self.step()
        instance.stands_still = False
        instance.log.silence(False)
        self.stalled -= 1

    def describe(self) -> str:
        """Where everything stands, for people."""
        lines = [f"{self.plan}", f"virtual time {self.clock() - self.began_ms} ms, happened {self.happened}"]
        for one in self.instances:
            health = None if one.orchestrator is None else one.orchestrator.health()
            lines.append(f"{one.name}: {health}, next due {one.next_due_ms()}")
        committed = self.cluster.group(self._group).committed
        for partition, log in self.cluster.logs.items():
            offset = committed.get(partition)
            lines.append(f"{partition}: {log.start}..{log.stable_end}..{log.end}, committed {offset}")
        return "\n".join(lines)


class WatchedLog(SimulatedLog):
    """A log that tells the world what came of its commits."""

    def __init__(self, world: World, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._world = world

    def commit(self, work: Work) -> Outcome:
        outcome = super().commit(work)
        if isinstance(outcome, Aborted):
            self._world.note("aborted commit" if outcome.culprit is None else "culprit")
        elif isinstance(outcome, Unknown):
            self._world.note("unknown commit")
        return outcome


class Instance:
    """One orchestrator process: it may crash at any point and come back under its name."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self.stands_still = False
        self.orchestrator: Orchestrator | None = None
        self.log: SimulatedLog
        self.start()

    def start(self) -> None:
        """The process begins."""
        world, topics = self._world, self._world.topics
        skew_ms = self._skew_ms = world.random.randint(-world.plan.skew_ms, world.plan.skew_ms)
        self.log = WatchedLog(
            world,
            world.cluster,
            group=topics.orchestrator_group,
            transactional_id=f"{topics.orchestrator_group}.{self.name}",
            state_topics={topics.inbox: topics.state},
            batch_records_max=world.random.choice((1, 5, 50)),
            unknown_share=0 if world.calm else world.plan.unknown,
            at=self._at,
            wait_ms=world.wait_ms,
        )
        self.orchestrator = assemble(
            world.settings,
            self.log,
            SimulatedDefinitionLog(world.cluster, topics.definitions, self._at),
            world.registry,
            own=shop.own_records(),
            clock=lambda: world.clock() + skew_ms,
        )

    def step(self) -> None:
        """One cycle, or as much of it as there is before a crash."""
        assert self.orchestrator is not None
        if self._world.calm:
            self.log.unknown_share = 0
        try:
            self.orchestrator.cycle()
        except SimulatedCrash:
            return self._die()
        known_ms = self.orchestrator.health().clock_skew_ms
        if abs(known_ms) > SKEW_MAX_MS:
            self._world.note("skew")
        assert min(0, self._skew_ms) <= known_ms <= max(0, self._skew_ms), "the clock was corrected for the worse"

    def next_due_ms(self) -> int | None:
        """When the next timer that this instance knows of is due."""
        if self.orchestrator is None:
            return None
        dues = [memory.earliest_due_ms() for memory in self.orchestrator._memory.values()]
        return min((due for due in dues if due is not None), default=None)

    def owned(self) -> frozenset[TopicPartition]:
        """What this instance believes to own."""
        return frozenset() if self.orchestrator is None else frozenset(self.orchestrator._memory)

    def leave(self) -> None:
        """The process ends as it should, and another takes its place."""
        if self.orchestrator is not None and not self.stands_still:
            self._world.note("leave")
            self.log.close(1)
            self.orchestrator = None
            self._world.after(500, self._restart)

    def kill(self) -> None:
        """The process ends between two cycles."""
        if self.orchestrator is not None and not self.stands_still:
            self._world.note("crash between cycles")
            self._die()

    def _die(self) -> None:
        self.orchestrator = None
        self.log.silence(True)
        self._world.after(self._world.random.choice((10, 1_000, 8_000, 20_000)), self._restart)

    def _restart(self) -> None:
        if self.orchestrator is None:
            self.start()

    def _at(self, point: str) -> None:
        world = self._world
        world.steps += 1
        hurts = HURTS if point in WHERE_IT_HURTS else 1
        if world.chance(world.plan.crashes * hurts):
            world.note(f"crash {point}")
            raise SimulatedCrash(point)
        if world.stalled < 2 and world.chance(world.plan.stalls * hurts):
            world.stall(self)
