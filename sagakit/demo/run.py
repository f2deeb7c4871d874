"""`sagakit demo`, from its options to whether the books balance."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UnencodableError
from sagakit.core.definition import Definition
from sagakit.core.transitions import Transition
from sagakit.demo import report
from sagakit.demo.cluster import ORCHESTRATORS, Cluster, cluster_stage
from sagakit.demo.deaths import answered, unproven
from sagakit.demo.embedded import embedded_stage
from sagakit.demo.play import Play
from sagakit.demo.stage import ORDER_PLACED, PROJECT, Stage, WrongFileError, definition_bundle, shop_schemas
from sagakit.demo.verdict import Account, account_of, definition_finder, judge
from sagakit.demo.watch import Seen, Standing, Watch
from sagakit.language.canonical import compile_bundle
from sagakit.proving.story import Story, tell
from sagakit.telemetry.logging import configure_logging
from sagakit.testing.embedded import EMBEDDED_LIMITS
from services.books import SERVICES, read_shop
from services.demo_orders import ORDERS_FILE, Order, orders, read_orders

DEFAULT_SAGAS: Final = 300
DEFAULT_SEED: Final = 1
PER_SECOND: Final = 60.0
SECONDS_PER_KILL: Final = 1.5

LEDGERS: Final = "ledgers"
"""In a kept folder: the services' databases."""

ACCOUNT: Final = "account.json"
"""In a kept folder: what the sagas said."""

EMBEDDED_NOTICE: Final = (
    "Orchestrator and services run as threads of this process, on an embedded Kafka and registry.\n"
    f"{EMBEDDED_LIMITS}\n"
    "So this shows how sagas run. That they survive crashes is shown by: sagakit demo --kafka --kill 20"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the demo was asked for.

    `sagas` orders of `seed` are made up; without either, they come from the file `orders`, or from the project's own.
    `per_second` of them are placed in a second (None: as many as suits the kills). `keep` is a folder for ledgers and
    logs, which otherwise go when the demo ends. With `as_json` the verdict goes to standard output as JSON, and
    everything for people to standard error. `cluster` is the real Kafka to play on, None the embedded one; `kills` is
    how many processes are to be killed, which takes a real one.
    """

    sagas: int | None = None
    seed: int | None = None
    orders: Path | None = None
    per_second: float | None = None
    keep: Path | None = None
    as_json: bool = False
    cluster: Cluster | None = None
    kills: int = 0


def run(options: Options) -> bool:
    """Run the demo; whether every book balances.

    Raises:
        DemoError: it could not be played to its end.
    """
    console = Console(stderr=options.as_json)
    with _folder(options.keep) as folder:
        with (folder / "demo.log").open("a", encoding="utf-8") as log:
            configure_logging(style="console", level="info", stream=log)
            try:
                passed = _run(options, console, folder)
            finally:
                configure_logging(style="console", level="error")
        if options.keep is not None:
            console.print(f"Ledgers and logs are kept in {folder}")
    return passed


def audit_kept(folder: Path, *, as_json: bool) -> bool:
    """Audit the ledgers of a kept folder again; whether every book balances.

    Raises:
        DemoError: the folder is not one that the demo has kept.
    """
    verdict = judge(Account.load(folder / ACCOUNT), read_shop(folder / LEDGERS))
    console = Console(stderr=as_json)
    console.print(report.results(verdict.account))
    console.print(report.books(verdict))
    report.closing(console, verdict)
    if as_json:
        print(json.dumps(report.as_json(verdict, ())))
    return verdict.passed


def _run(options: Options, console: Console, folder: Path) -> bool:
    placing = _orders(options)
    title = f"sagakit demo: {len(placing)} orders through a shop of five services"
    report.opening(console, title, EMBEDDED_NOTICE if options.cluster is None else _notice(options))
    ledgers = folder / LEDGERS
    ledgers.mkdir()
    published = definition_bundle()
    definition = compile_bundle(published.canonical, published.schemas)
    with ExitStack() as closings:
        with console.status("opening the shop") as status:
            stage = closings.enter_context(_stage(options, folder, ledgers, status.update))
        with Play(stage, placing, _per_second(options, len(placing))) as play:
            with report.LiveProgress(console) as progress:
                play.run(progress.show)
            deaths = stage.supervisor.deaths()
            account = account_of(play.placed, play.watch, definition_finder(definition))
            account.save(folder / ACCOUNT)
            rows = read_shop(ledgers)
            verdict = judge(account, rows)
            doubts = unproven(deaths, rows.ledgers, set(_answered(play.watch))) if deaths else []
            stories = list(_stories(play.watch, definition))
    console.print(report.results(account))
    if deaths:
        console.print(report.kills(deaths))
    for title, told in stories:
        console.print(report.story(title, told), soft_wrap=True)
    console.print(report.books(verdict))
    if len(deaths) < options.kills:
        report.too_few_kills(console, len(deaths), options.kills)
    report.doubtful_kills(console, doubts)
    report.closing(console, verdict)
    if options.as_json:
        print(json.dumps(report.as_json(verdict, deaths)))
    return verdict.passed and len(deaths) >= options.kills and not doubts


def _answered(watch: Watch) -> Iterator[str]:
    for saga_id in watch.sagas:
        yield from answered(one for one in watch.history(saga_id) if isinstance(one, Transition))


def _stage(options: Options, folder: Path, ledgers: Path, say: Callable[[str], None]) -> AbstractContextManager[Stage]:
    if options.cluster is None:
        return embedded_stage(ledgers)
    seed = DEFAULT_SEED if options.seed is None else options.seed
    return cluster_stage(options.cluster, folder, ledgers, options.kills, seed, say)


def _notice(options: Options) -> str:
    cluster = options.cluster
    assert cluster is not None
    brokers = f"{cluster.brokers} broker{'s' if cluster.brokers > 1 else ''}"
    where = f"the Kafka at {cluster.guest.bootstrap}" if cluster.guest else f"a real Kafka of {brokers}"
    killed = (
        f"\n{options.kills} of them kill themselves (SIGKILL) at the worst places under way, and are started again."
        if options.kills
        else ""
    )
    return (
        f"On {where} with a real schema registry; {ORCHESTRATORS} orchestrators and {len(SERVICES)} services, each a "
        f"process of its own.{killed}"
    )


def _per_second(options: Options, count: int) -> float:
    """Slow enough with kills that orders are still coming when the last process dies."""
    if options.per_second is not None:
        return options.per_second
    return min(PER_SECOND, count / (SECONDS_PER_KILL * options.kills)) if options.kills else PER_SECOND


def _orders(options: Options) -> Sequence[Order]:
    if options.orders is not None:
        return _orders_of(options.orders)
    if options.sagas is None and options.seed is None:
        return list(read_orders())
    count = DEFAULT_SAGAS if options.sagas is None else options.sagas
    return list(orders(count, DEFAULT_SEED if options.seed is None else options.seed))


def _orders_of(file: Path) -> Sequence[Order]:
    """The orders of a file.

    Raises:
        WrongFileError: it cannot be read, or holds something else, or an order twice.
    """
    shown = f"orders look like those of {ORDERS_FILE.relative_to(PROJECT)}, one JSON object a line"
    registry, text = MemoryRegistry(), shop_schemas()[ORDER_PLACED]
    registry.register(ORDER_PLACED, text)
    codec = AvroCodec(registry)
    schema = codec.compile_schema(text)
    found: dict[str, Order] = {}
    try:
        for number, order in enumerate(read_orders(file), 1):
            codec.encode(schema, order)
            if order["order_id"] in found:
                raise WrongFileError(
                    f"{file}, line {number}: {order['order_id']} was ordered before; give it another id"
                )
            found[order["order_id"]] = order
    except OSError as error:
        raise WrongFileError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WrongFileError(f"{file}, line {len(found) + 1}: this is not JSON ({error}); {shown}") from None
    except UnencodableError as error:
        raise WrongFileError(f"{file}, line {len(found) + 1}: this is no order ({error}); {shown}") from None
    if not found:
        raise WrongFileError(f"{file} is empty; {shown}")
    return list(found.values())


def _stories(watch: Watch, definition: Definition) -> Iterator[tuple[str, Story]]:
    """A completed order that went straight through, the compensated one with the most to undo, and a parked one."""
    chosen: dict[Standing, Callable[..., Seen]] = {
        Standing.COMPLETED: min,
        Standing.COMPENSATED: max,
        Standing.PARKED: min,
    }
    finder = definition_finder(definition)
    for standing, choose in chosen.items():
        if found := [seen for seen in watch.sagas.values() if seen.standing is standing]:
            seen = choose(found, key=lambda one: len(one.history))
            told = tell(watch.history(seen.saga_id), finder, lambda _type, _data: None)[0]
            yield f"A {standing.value} order", told


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """The folder of this run: `keep`, which must not hold anything yet, or a temporary one."""
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="sagakit-demo-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        filled = any(keep.iterdir())
    except OSError as error:
        raise WrongFileError(f"{keep} cannot be made: {error.strerror}; name another folder to --keep") from error
    if filled:
        raise WrongFileError(f"{keep} is not empty; name a new folder, since old ledgers would not match new orders")
    yield keep.resolve()
