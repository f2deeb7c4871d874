"""`sagakit definitions`, wired to the definitions topic."""

import time

import typer

from sagakit.app.published import PublishedDefinitions
from sagakit.cli.context import one_shot
from sagakit.cli.definitions import definitions_app


def open_store(context: typer.Context) -> PublishedDefinitions:
    """What is published, with the settings of the running command."""
    settings = one_shot(context, "bootstrap", "registry_url")
    return PublishedDefinitions(settings, lambda: time.time_ns() // 1_000_000)


app = definitions_app(open_store)
