"""`cortex validate`: tells what is wrong with manifests, all of it at once, before a cluster does."""

import sys
from pathlib import Path

import click

from cortex_cli import manifests, sources


@click.command(short_help="Check manifests, without a cluster.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
def validate(files: tuple[Path, ...]) -> None:
    """Check manifests of RealtimeAPIs and AsyncAPIs by the API server's rules, without one.

    FILES are files with any number of documents, folders of such, or - for standard input. Prints every problem as
    FILE:LINE: field: message and exits with 1; exits with 0 when there is none, or only warnings.
    """
    failed = False
    documents: list[manifests.Found] = []
    for path in files:
        within = manifests.files_of(path)
        found = [one for file in within for one in manifests.read(file, of_folder=file != path)]
        documents += found
        for document in found:
            for problem in document.problems:
                click.echo(problem, err=True)
                failed = True
            if document.api is not None:
                click.echo(f"{document.path}: {document.api.kind} {document.api.metadata.name} is valid")
        if not found:
            former = next((file for file in within if file.name == "cortex.yaml"), None)
            hint = f"; `cortex convert {former}` makes manifests of that" if former else ""
            click.echo(f"{path}: {manifests.NO_API}{hint}", err=True)
            failed = True
    if documents and all(document.config_map is not None for document in documents):
        click.echo(f"{', '.join(map(str, files))}: {manifests.NO_API}", err=True)
        failed = True
    for certain, message in sources.problems(documents):
        click.echo(message, err=True)
        failed = failed or certain
    sys.exit(1 if failed else 0)
