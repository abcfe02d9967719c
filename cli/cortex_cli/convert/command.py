"""The command: old files in, manifests on standard output, remarks on standard error."""

import sys
from pathlib import Path
from typing import Any

import click
import yaml

from cortex_api import InvalidManifest, parse
from cortex_cli.convert.reading import OldFile, Unusable, read
from cortex_cli.convert.translate import Remark, Translation, translate


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--source",
    default="configmap",
    show_default=True,
    metavar="configmap | image | URI",
    help="Where the pods get the code from: ConfigMaps, the image, or an archive or prefix in a bucket.",
)
def convert(file: Path, source: str) -> None:
    """Turn a cortex.yaml of Cortex 0.5 to 0.35 into manifests.

    Prints the manifests, and on standard error, line by line, which fields have other names now and what could not be carried
    over. Exits with 1 when a manifest is missing or not valid.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        old = read(text)
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(
            f"{file}: can't be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    except Unusable as error:
        for line, message in error.problems:
            click.echo(f"{file}:{line}: {message}" if line else f"{file}: {message}", err=True)
        sys.exit(1)
    click.echo(f"{file}: written for Cortex {old.age}", err=True)
    if old.repaired:
        click.echo(
            f"{file}: fields that were not indented below their list item are taken as its own", err=True
        )
    folder = None if str(file) == "-" else file.absolute().parent
    manifests, remarks, failed = converted(old, folder, source)
    for remark in sorted(remarks, key=lambda remark: remark.line):
        mark = click.style("! ", fg="yellow") if remark.lost else "  "
        click.echo(f"{mark}{file}:{remark.line}: {remark.text}", err=True)
    if manifests:
        click.echo(yaml.safe_dump_all(manifests, sort_keys=False, width=110).rstrip())
    sys.exit(1 if failed else 0)


def converted(
    old: OldFile, folder: Path | None, source: str
) -> tuple[list[dict[str, Any]], list[Remark], bool]:
    """The manifests of a file, the remarks, and whether one is missing or not valid."""
    deployments = [str(entry.get("name")) for entry in old.entries if entry.kind == "deployment"]
    manifests, remarks, failed = [], [], False
    for entry in old.entries:
        if entry.kind == "deployment":
            remarks.append(
                Remark(entry.line("kind"), "kind: deployment is gone: each API is a resource of its own")
            )
            continue
        result = translate(entry, old.age, deployments[0] if deployments else None, folder, source)
        if isinstance(result, Remark):
            remarks.append(result)
            failed = True
            continue
        remarks += result.remarks
        problems = checked(result)
        remarks += problems
        failed = failed or bool(problems) or result.contradiction
        manifests.append(result.manifest)
    return manifests, remarks, failed


def checked(result: Translation) -> list[Remark]:
    """What the API server would refuse in a manifest, at the lines that it comes from."""
    try:
        parse(result.manifest)
    except InvalidManifest as invalid:
        return [
            Remark(_origin(result, problem.path), f"not valid: {problem}", lost=True)
            for problem in invalid.problems
        ]
    return []


def _origin(result: Translation, path: str) -> int:
    """The line of the old file that a field of the manifest, or the nearest above it, comes from."""
    fitting = [new for new in result.lines if path == new or path.startswith((f"{new}.", f"{new}["))]
    if fitting:
        return result.lines[max(fitting, key=len)]
    below = [line for new, line in result.lines.items() if path and new.startswith(f"{path}.")]
    return min(below, default=result.entry.line())
