"""`cortex validate`: validate manifests without a cluster."""

import sys
from pathlib import Path

import click

from cortex_cli import manifests, source_config_maps


@click.command(short_help="Validate manifests without a cluster.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
def validate(files: tuple[Path, ...]) -> None:
    """Validate manifests of RealtimeAPIs and AsyncAPIs with the rules of the API server.

    FILES are files with one or more documents, folders, or - for standard input. Prints each problem as
    FILE:LINE: field: message and exits with 1. Exits with 0 if there are no problems, or only warnings.
    """
    failed = False
    documents: list[manifests.ManifestDocument] = []
    for path in files:
        contained = manifests.files_of(path)
        found = [
            document for file in contained for document in manifests.read(file, is_from_folder=file != path)
        ]
        documents += found
        for document in found:
            for problem in document.problems:
                click.echo(problem, err=True)
                failed = True
            if document.api is not None:
                click.echo(f"{document.path}: {document.api.kind} {document.api.metadata.name} is valid")
        if not found:
            legacy = next((file for file in contained if file.name == "cortex.yaml"), None)
            hint = f"; convert {legacy} with `cortex convert {legacy}`" if legacy else ""
            click.echo(f"{path}: {manifests.NO_API}{hint}", err=True)
            failed = True
    if documents and all(document.config_map is not None for document in documents):
        click.echo(f"{', '.join(map(str, files))}: {manifests.NO_API}", err=True)
        failed = True
    for is_error, message in source_config_maps.problems(documents):
        click.echo(message, err=True)
        failed = failed or is_error
    sys.exit(1 if failed else 0)
