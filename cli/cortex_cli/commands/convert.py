"""The command `cortex convert`: prints manifests to standard output, and remarks to standard error."""

import sys
from pathlib import Path
from typing import Any

import click

from cortex_api import InvalidManifest, parse
from cortex_cli.convert.code import Code
from cortex_cli.convert.field_mapping import translate
from cortex_cli.convert.legacy import Entry, LegacyFile, LegacyFileError, fields, read
from cortex_cli.convert.manifest_builder import ManifestBuilder, Remark
from cortex_cli.manifests import dump


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--source",
    default="configmap",
    show_default=True,
    metavar="configmap | image | URI",
    help="Source of the code: a ConfigMap, the image, or the URI of an archive or prefix in a bucket.",
)
def convert(file: Path, source: str) -> None:
    """Convert a cortex.yaml of Cortex 0.1 to 0.35 to manifests.

    Prints the manifests and a ConfigMap with the project in FILE's folder. Remarks on standard error list the renamed and dropped
    fields with their lines. Exits with 1 if a manifest is missing or invalid.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        old = read(text)
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(
            f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    except LegacyFileError as error:
        for line, message in error.problems:
            click.echo(f"{file}:{line}: {message}" if line else f"{file}: {message}", err=True)
        sys.exit(1)
    click.echo(f"{file}: format of Cortex {old.releases}", err=True)
    if old.is_repaired:
        click.echo(f"{file}: unindented fields are read as fields of the list item above", err=True)
    apis = [entry for entry in old.entries if entry.kind != "deployment"]
    name = next((entry.get("name") for entry in apis if entry.get("name")), "project")
    is_stdin = str(file) == "-"
    code = Code(
        None if is_stdin else file.absolute().parent, source, f"{name}-code", None if is_stdin else file
    )
    manifests, remarks, failed = convert_entries(old, code)
    for remark in sorted(remarks, key=lambda remark: remark.line):
        mark = click.style("! ", fg="yellow") if remark.needs_action else "  "
        click.echo(f"{mark}{file}:{remark.line}: {remark.text}", err=True)
    if manifests:
        click.echo(dump(manifests), nl=False)
    sys.exit(1 if failed else 0)


def convert_entries(old: LegacyFile, code: Code) -> tuple[list[dict[str, Any]], list[Remark], bool]:
    """Return the manifests of a file (the ConfigMap first), the remarks, and whether a manifest is missing or invalid."""
    deployments = [str(entry.get("name")) for entry in old.entries if entry.kind == "deployment"]
    apis: list[ManifestBuilder] = []
    remarks: list[Remark] = []
    failed = False
    names: dict[Any, int] = {}
    endpoints: dict[Any, int] = {}
    for entry in old.entries:
        if entry.kind == "deployment":
            remarks += _deployment(entry)
            continue
        result = translate(entry, old.releases, deployments[0] if deployments else None, code)
        if isinstance(result, Remark):
            remarks.append(result)
            failed = True
            continue
        remarks += result.remarks
        problems = validate(result)
        problems += _repeated(result, "name", result.manifest["metadata"].get("name"), names)
        endpoint = result.manifest["spec"].get("networking", {}).get("endpoint")
        problems += _repeated(result, "networking.endpoint", endpoint, endpoints)
        remarks += problems
        failed = failed or bool(problems) or result.is_invalid
        apis.append(result)
    packed, code_remarks, packing_failed = code.config_map(apis)
    manifests = [*([packed.manifest] if packed else []), *(api.manifest for api in apis)]
    return manifests, remarks + code_remarks, failed or packing_failed


def validate(result: ManifestBuilder) -> list[Remark]:
    """Validate a converted manifest. The remarks have the lines of the original fields."""
    try:
        parse(result.manifest)
    except InvalidManifest as invalid:
        return [
            # Use the name of the field in the old format.
            Remark(result.entry.line(), "not valid: name is required", needs_action=True)
            if problem.path == "metadata.name" and result.entry.get("name") is None
            else Remark(_origin(result, problem.path), f"not valid: {problem}", needs_action=True)
            for problem in invalid.problems
        ]
    return []


def _deployment(entry: Entry) -> list[Remark]:
    """Return the remarks about a `kind: deployment`, of which only the name is used."""
    remarks = [Remark(entry.line("kind"), "kind: deployment is removed; each API is a separate resource")]
    for path, _ in fields(entry):
        if path not in ("kind", "name") and entry.get(path) is not None:
            text = f"{path} of the deployment is not converted: set it in each API"
            remarks.append(Remark(entry.line(path), text, needs_action=True))
    return remarks


def _repeated(result: ManifestBuilder, field: str, value: Any, seen: dict[Any, int]) -> list[Remark]:
    """Return a remark if another API of the file has the same name or endpoint."""
    line = result.lines.get("metadata.name" if field == "name" else f"spec.{field}", result.entry.line())
    if not isinstance(value, str) or seen.setdefault(value, line) == line:
        return []
    return [
        Remark(
            line,
            f"not valid: {field} {value} is already used by the API in line {seen[value]}",
            needs_action=True,
        )
    ]


def _origin(result: ManifestBuilder, path: str) -> int:
    """Return the original line of a field in the manifest, or of its closest parent."""
    matching = [new for new in result.lines if path == new or path.startswith((f"{new}.", f"{new}["))]
    if matching:
        return result.lines[max(matching, key=len)]
    below = [line for new, line in result.lines.items() if path and new.startswith(f"{path}.")]
    return min(below, default=result.entry.line())
