"""`sagakit demo`."""

from pathlib import Path
from typing import Annotated

import typer

from sagakit.cli import exits
from sagakit.cli.context import options_of, settings_of

Sagas = Annotated[
    int | None, typer.Option(min=1, help="Make up so many orders (default: the 300 of the project's file).")
]
Seed = Annotated[int | None, typer.Option(help="Another seed makes up other orders, and kills elsewhere.")]
Orders = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="Orders from this file, one JSON object a line, in place of the project's."),
]
Rate = Annotated[
    float | None, typer.Option(min=0.1, help="Orders placed in a second (default: 60, fewer with --kill).")
]
Keep = Annotated[
    Path | None, typer.Option(file_okay=False, help="Keep the services' ledgers and all logs in this new folder.")
]
Kafka = Annotated[
    bool, typer.Option("--kafka", help="On a real Kafka and registry, everyone in a process of their own.")
]
Kill = Annotated[int, typer.Option(min=0, help="With --kafka: kill so many processes at the worst places under way.")]
Brokers = Annotated[int, typer.Option(min=1, max=5, help="With --kafka: how many brokers to start.")]
Bootstrap = Annotated[
    str | None, typer.Option(help="A Kafka that runs already, host:port,host:port, instead of one started here.")
]
RegistryUrl = Annotated[str | None, typer.Option(help="The registry beside --bootstrap (Confluent API).")]
Audit = Annotated[
    Path | None, typer.Option(file_okay=False, help="Play nothing: audit again what --keep has kept there.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]


def demo(
    context: typer.Context,
    sagas: Sagas = None,
    seed: Seed = None,
    orders: Orders = None,
    rate: Rate = None,
    keep: Keep = None,
    kafka: Kafka = False,
    kill: Kill = 0,
    brokers: Brokers = 1,
    bootstrap: Bootstrap = None,
    registry_url: RegistryUrl = None,
    audit: Audit = None,
    as_json: AsJson = False,
) -> int:
    """Run hundreds of orders through a shop of five services, and audit its books.

    Some orders fail (out of stock, card declined, address not served) and are undone; some carriers are slow, late or
    flaky. At the end the services' own ledgers are compared with what the sagas say, saga by saga.

    Exit code 0: every book balances. 1: one does not, or fewer processes were killed than asked for. 2: an option, a
    file or a folder will not do. 3: the Kafka or registry that was named does not answer. 4: the demo could not be
    played. 130: Ctrl-C.
    """
    # The shop lies beside the package, in the project's folder: an installed package comes without it.
    try:
        from sagakit.demo.cluster import Cluster  # noqa: PLC0415
        from sagakit.demo.run import Options, audit_kept, run  # noqa: PLC0415
        from sagakit.demo.stage import DemoError, WrongFileError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "services":
            raise
        raise exits.CommandError(
            "the demo's shop lies in the project and not in the package: clone the project and run `make demo`",
            exits.REFUSED,
        ) from None
    given = options_of(context).overrides
    bootstrap, registry_url = bootstrap or given.get("bootstrap"), registry_url or given.get("registry_url")
    if (kill or bootstrap or registry_url or brokers > 1) and not kafka:
        raise typer.BadParameter("--kill, --brokers, --bootstrap and --registry-url go with --kafka")
    if orders is not None and sagas is not None:
        raise typer.BadParameter("--orders names orders, --sagas makes them up: choose one")
    if bool(bootstrap) != bool(registry_url):
        raise typer.BadParameter("--bootstrap and --registry-url go together")
    there = {"bootstrap": bootstrap, "registry_url": registry_url}
    guest = settings_of(options_of(context), *there, **there) if bootstrap else None
    options = Options(
        sagas=sagas,
        seed=seed,
        orders=orders,
        per_second=rate,
        keep=keep,
        as_json=as_json,
        cluster=Cluster(guest=guest, brokers=brokers) if kafka else None,
        kills=kill,
    )
    try:
        passed = run(options) if audit is None else audit_kept(audit, as_json=as_json)
    except WrongFileError as error:
        raise exits.CommandError(str(error), exits.WRONG) from error
    except DemoError as error:
        raise exits.CommandError(str(error), exits.REFUSED) from error
    return exits.DONE if passed else exits.NO
