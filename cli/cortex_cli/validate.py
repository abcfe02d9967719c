"""`cortex validate`: tells what is wrong with manifests, all of it at once, before a cluster does."""

import sys
from pathlib import Path

import click

from cortex_cli import manifests


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def validate(files: tuple[Path, ...]) -> None:
    """Check manifests of RealtimeAPIs and AsyncAPIs.

    Prints every problem as FILE: field: message and exits with 1; exits with 0 when there is none.
    """
    failed = False
    for file in files:
        found = manifests.read(file)
        for problem in manifests.problems(found):
            click.echo(problem, err=True)
            failed = True
        for document in found:
            if document.api is not None:
                click.echo(f"{file}: {document.api.kind} {document.api.metadata.name} is valid")
    sys.exit(1 if failed else 0)
