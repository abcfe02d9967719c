"""The command: old files in, manifests on standard output, remarks on standard error."""

import sys
from pathlib import Path
from typing import Any

import click

from cortex_api import InvalidManifest, parse
from cortex_cli.convert.code import Code
from cortex_cli.convert.reading import Entry, OldFile, Unusable, fields, read
from cortex_cli.convert.translate import translate
from cortex_cli.convert.translation import Remark, Translation
from cortex_cli.manifests import dump


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--source",
    default="configmap",
    show_default=True,
    metavar="configmap | image | URI",
    help="Where the pods get the code from: a ConfigMap, the image, or an archive or prefix in a bucket.",
)
def convert(file: Path, source: str) -> None:
    """Turn a cortex.yaml of Cortex 0.1 to 0.35 into manifests.

    Prints the manifests, with a ConfigMap of the project in FILE's folder. Standard error says, line by line, which fields have
    other names now and what could not be carried over. Exits with 1 when a manifest is missing or not valid.
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
    apis = [entry for entry in old.entries if entry.kind != "deployment"]
    name = next((entry.get("name") for entry in apis if entry.get("name")), "project")
    piped = str(file) == "-"
    code = Code(None if piped else file.absolute().parent, source, f"{name}-code", None if piped else file)
    manifests, remarks, failed = converted(old, code)
    for remark in sorted(remarks, key=lambda remark: remark.line):
        mark = click.style("! ", fg="yellow") if remark.lost else "  "
        click.echo(f"{mark}{file}:{remark.line}: {remark.text}", err=True)
    if manifests:
        click.echo(dump(manifests), nl=False)
    sys.exit(1 if failed else 0)


def converted(old: OldFile, code: Code) -> tuple[list[dict[str, Any]], list[Remark], bool]:
    """The manifests of a file, the ConfigMap with its code first, the remarks, and whether one is missing or not valid."""
    deployments = [str(entry.get("name")) for entry in old.entries if entry.kind == "deployment"]
    apis: list[Translation] = []
    remarks: list[Remark] = []
    failed = False
    names: dict[Any, int] = {}
    endpoints: dict[Any, int] = {}
    for entry in old.entries:
        if entry.kind == "deployment":
            remarks += _deployment(entry)
            continue
        result = translate(entry, old.age, deployments[0] if deployments else None, code)
        if isinstance(result, Remark):
            remarks.append(result)
            failed = True
            continue
        remarks += result.remarks
        problems = checked(result)
        problems += _repeated(result, "name", result.manifest["metadata"].get("name"), names)
        endpoint = result.manifest["spec"].get("networking", {}).get("endpoint")
        problems += _repeated(result, "networking.endpoint", endpoint, endpoints)
        remarks += problems
        failed = failed or bool(problems) or result.contradiction
        apis.append(result)
    packed, said, missing = code.config_map(apis)
    manifests = [*([packed.manifest] if packed else []), *(api.manifest for api in apis)]
    return manifests, remarks + said, failed or missing


def checked(result: Translation) -> list[Remark]:
    """What the API server would refuse in a manifest, at the lines that it comes from."""
    try:
        parse(result.manifest)
    except InvalidManifest as invalid:
        return [
            # A field that is missing is named as the old file would name it.
            Remark(result.entry.line(), "not valid: name is required", lost=True)
            if problem.path == "metadata.name" and result.entry.get("name") is None
            else Remark(_origin(result, problem.path), f"not valid: {problem}", lost=True)
            for problem in invalid.problems
        ]
    return []


def _deployment(entry: Entry) -> list[Remark]:
    """What is said of a `kind: deployment`, of which only the name is used."""
    remarks = [Remark(entry.line("kind"), "kind: deployment is gone: each API is a resource of its own")]
    for path, _ in fields(entry):
        if path not in ("kind", "name") and entry.get(path) is not None:
            text = f"{path} of the deployment is not carried over: set it on each API"
            remarks.append(Remark(entry.line(path), text, lost=True))
    return remarks


def _repeated(result: Translation, field: str, value: Any, seen: dict[Any, int]) -> list[Remark]:
    """That another API of the file has the same name or endpoint: applied, only one of them would be served."""
    line = result.lines.get("metadata.name" if field == "name" else f"spec.{field}", result.entry.line())
    if not isinstance(value, str) or seen.setdefault(value, line) == line:
        return []
    return [
        Remark(
            line, f"not valid: {field} {value} is already that of the API at line {seen[value]}", lost=True
        )
    ]


def _origin(result: Translation, path: str) -> int:
    """The line of the old file that a field of the manifest, or the nearest above it, comes from."""
    fitting = [new for new in result.lines if path == new or path.startswith((f"{new}.", f"{new}["))]
    if fitting:
        return result.lines[max(fitting, key=len)]
    below = [line for new, line in result.lines.items() if path and new.startswith(f"{path}.")]
    return min(below, default=result.entry.line())
