"""`sagakit demo`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    sagas: Annotated[
        int | None, typer.Option(min=1, help="Make up so many orders (default: those of the file).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed makes up other orders.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="How many orders are placed in a second.")] = 60.0,
    keep: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep the services' ledgers and the logs in this new folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Run hundreds of orders through a shop of five services, and audit its books.

    Some orders fail (out of stock, card declined, address not served) and are undone; some carriers are slow, late or
    flaky. At the end the services' own ledgers are compared with what the sagas say.

    Exit code: 0 when every book balances, 1 when one does not or the demo could not be played, 130 after Ctrl-C.
    """
    # The shop lies beside the package, in the project's folder: an installed package has none.
    try:
        from sagakit.demo.run import Options, run  # noqa: PLC0415
        from sagakit.demo.stage import DemoError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "services":
            raise
        typer.echo(
            "the demo's shop lies in the project, not in the package: clone the project and run `make demo`", err=True
        )
        raise typer.Exit(1) from None
    try:
        passed = run(Options(sagas=sagas, seed=seed, per_second=rate, keep=keep, as_json=as_json))
    except DemoError as error:
        typer.echo(f"demo: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        sys.exit(130)
    raise typer.Exit(0 if passed else 1)
