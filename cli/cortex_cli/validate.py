"""`cortex validate`: tells what is wrong with manifests, all of it at once, before a cluster does."""

import sys
from pathlib import Path

import click

from cortex_cli import manifests


@click.command(short_help="Check manifests, without a cluster.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
def validate(files: tuple[Path, ...]) -> None:
    """Check manifests of RealtimeAPIs and AsyncAPIs by the API server's rules, without one.

    FILES are files with any number of documents, folders of such, or - for standard input. Prints every problem as
    FILE:LINE: field: message and exits with 1; exits with 0 when there is none.
    """
    failed = False
    for path in files:
        within = manifests.files_of(path)
        documents = [one for file in within for one in manifests.read(file, of_folder=file != path)]
        for document in documents:
            for problem in document.problems:
                click.echo(problem, err=True)
                failed = True
            if document.api is not None:
                click.echo(f"{document.path}: {document.api.kind} {document.api.metadata.name} is valid")
        if all(document.config_map is not None for document in documents):
            former = next((file for file in within if file.name == "cortex.yaml"), None)
            hint = f"; `cortex convert {former}` makes manifests of that" if former else ""
            click.echo(f"{path}: no RealtimeAPI or AsyncAPI in it{hint}", err=True)
            failed = True
    sys.exit(1 if failed else 0)
