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
from cortex_cli.convert.traffic_splitter import convert_splitters
from cortex_cli.manifests import dump


@click.command(short_help="Convert a cortex.yaml of the original Cortex to manifests.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--source",
    default="configmap",
    show_default=True,
    metavar="configmap | image | URI",
    help="Source of the code: a ConfigMap, the image, or the URI of an archive or prefix in a bucket.",
)
@click.option(
    "--gateway",
    metavar="NAMESPACE/NAME",
    callback=lambda context, parameter, value: _gateway(value),
    help="Gateway of the cluster, for the HTTPRoute of a TrafficSplitter that a candidate cannot express.",
)
def convert(file: Path, source: str, gateway: tuple[str, str] | None) -> None:
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
    manifests, remarks, failed = convert_entries(old, code, gateway)
    for remark in sorted(remarks, key=lambda remark: remark.line):
        mark = click.style("! ", fg="yellow") if remark.needs_action else "  "
        click.echo(f"{mark}{file}:{remark.line}: {remark.text}", err=True)
    if manifests:
        click.echo(dump(manifests), nl=False)
    sys.exit(1 if failed else 0)


def _gateway(value: str | None) -> tuple[str, str] | None:
    """Parse the option --gateway. Raises click.BadParameter."""
    if value is None:
        return None
    namespace, slash, name = value.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise click.BadParameter(f"must be NAMESPACE/NAME; got {value}")
    return namespace, name


def convert_entries(
    old: LegacyFile, code: Code, gateway: tuple[str, str] | None = None
) -> tuple[list[dict[str, Any]], list[Remark], bool]:
    """Return the manifests of a file (the ConfigMap first), the remarks, and whether a manifest is missing or invalid.

    gateway: namespace and name of the Gateway for HTTPRoutes of TrafficSplitters; None: such a TrafficSplitter is not converted.
    """
    deployments = [str(entry.get("name")) for entry in old.entries if entry.kind == "deployment"]
    found: dict[int, ManifestBuilder] = {}  # by the index of the entry
    remarks: list[Remark] = []
    failed = False
    for index, entry in enumerate(old.entries):
        if entry.kind == "deployment":
            remarks += _deployment(entry)
            continue
        if entry.kind == "TrafficSplitter":
            continue
        result = translate(entry, old.releases, deployments[0] if deployments else None, code)
        if isinstance(result, Remark):
            remarks.append(result)
            failed = True
            continue
        found[index] = result
        remarks += result.remarks
        problems = validate(result)
        remarks += problems
        failed = failed or bool(problems) or result.is_invalid
    split = convert_splitters(old.entries, found, gateway)
    remarks += split.remarks
    for combined in split.combined:
        problems = validate(combined)
        remarks += problems
        failed = failed or bool(problems)
    apis = [found[index] for index in sorted(found)]
    repeated = _repeated(apis)
    packed, code_remarks, packing_failed = code.config_map(apis)
    manifests = [*([packed.manifest] if packed else []), *(api.manifest for api in apis), *split.routes]
    failed = failed or split.failed or bool(repeated) or packing_failed
    return manifests, remarks + repeated + code_remarks, failed


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


def _repeated(apis: list[ManifestBuilder]) -> list[Remark]:
    """Return a remark for each API that has the name or endpoint of one before it."""
    remarks: list[Remark] = []
    for path, field in (("metadata.name", "name"), ("spec.networking.endpoint", "networking.endpoint")):
        seen: dict[str, int] = {}
        for api in apis:
            value: Any = api.manifest
            for part in path.split("."):
                value = (value or {}).get(part)
            line = api.lines.get(path, api.entry.line())
            if isinstance(value, str) and (first := seen.setdefault(value, line)) != line:
                text = f"not valid: {field} {value} is already used by the API in line {first}"
                remarks.append(Remark(line, text, needs_action=True))
    return remarks


def _origin(result: ManifestBuilder, path: str) -> int:
    """Return the original line of a field in the manifest, or of its closest parent."""
    matching = [new for new in result.lines if path == new or path.startswith((f"{new}.", f"{new}["))]
    if matching:
        return result.lines[max(matching, key=len)]
    below = [line for new, line in result.lines.items() if path and new.startswith(f"{path}.")]
    return min(below, default=result.entry.line())
