"""`cortex doctor`: diagnose an API, from its resource to its pods; or the platform and all APIs."""

import sys

import click

from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Object, cluster_options, path
from cortex_cli.diagnosis import EXPECTED_REASONS, Finding, Observed, diagnose
from cortex_cli.platform_checks import OPERATOR, check_platform, read_platform

_MARKS = {"good": ("ok  ", "green"), "note": ("..  ", "yellow"), "bad": ("BAD ", "red")}


@click.command(short_help="Diagnose an API, or the platform and all APIs.")
@click.argument("name", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Diagnose the APIs of all namespaces.")
@cluster_options
def doctor(cluster: Cluster, name: str | None, all_namespaces: bool) -> None:
    """Diagnose an API and print remedies; without NAME, the platform and each API that is not ready, the worst first.

    Exits with 1 if a problem is found.
    """
    if name:
        findings = diagnose(observe(cluster, apis.find(cluster, name), _operators(cluster)))
        _show(findings)
        sys.exit(1 if _is_bad(findings) else 0)
    state = read_platform(cluster)
    found = apis.list_all(cluster, "" if all_namespaces else None) if state.plurals else []
    findings = check_platform(state, found)
    click.echo(click.style("Platform", bold=True))
    for finding in findings:
        _show_one(finding, "  ")
    bad = _is_bad(findings)
    healthy = [api for api in found if is_healthy(api)]
    for api in sorted((api for api in found if not is_healthy(api)), key=severity):
        click.echo()
        findings = diagnose(observe(cluster, api, state.operators))
        _show(findings)
        bad = bad or _is_bad(findings)
    click.echo()
    scope = "all namespaces" if all_namespaces else f"namespace {cluster.namespace}"
    click.echo(f"{len(healthy)} of {len(found)} APIs in {scope} are ready and not degraded.")
    sys.exit(1 if bad else 0)


def is_healthy(api: API) -> bool:
    """Return whether an API is ready, not degraded, and its latest change reconciled."""
    return api.ready["status"] == "True" and not _is_degraded(api) and not api.is_outdated


def severity(api: API) -> tuple[int, str, str]:
    """Return the sort key of an unhealthy API: failed, then degraded, then those that only need time; by name."""
    waits = api.ready["reason"] in EXPECTED_REASONS
    rank = 1 if api.ready["status"] == "True" else 2 if waits else 0
    return rank, api.namespace, api.name


def _is_degraded(api: API) -> bool:
    conditions = api.status.get("conditions") or ()
    return any(c["type"] == "Degraded" and c["status"] == "True" for c in conditions)


def _is_bad(findings: list[Finding]) -> bool:
    return any(finding.level == "bad" for finding in findings)


def observe(cluster: Cluster, api: API, operators: list[Object] | None) -> Observed:
    """Read the existing objects of an API. Raises ClusterError."""
    selector = {"labelSelector": api.selector}
    try:
        service: Object | None = cluster.get(path("v1/services", api.namespace, api.service))
    except ClusterError as error:
        if error.status != 404:
            raise
        service = None
    return Observed(
        api,
        cluster.list("apps/v1/deployments", api.namespace, **selector),
        apis.pods(cluster, api),
        service,
        cluster.list("v1/events", api.namespace),
        operators,
    )


def _operators(cluster: Cluster) -> list[Object] | None:
    """Return the operator's pods, or None if the user may not list them."""
    try:
        return cluster.list("v1/pods", "", labelSelector=OPERATOR)
    except ClusterError as error:
        if error.status == 403:
            return None
        raise


def _show(findings: list[Finding]) -> None:
    for number, finding in enumerate(findings):
        _show_one(finding, "" if number == 0 else "  ")


def _show_one(finding: Finding, indent: str) -> None:
    mark, color = _MARKS[finding.level]
    first, *more = finding.message.splitlines() or [""]
    click.echo(f"{indent}{click.style(mark, fg=color)}{finding.subject}: {first}")
    for line in more:
        click.echo(f"{indent}      {line}")
    if finding.remedy and finding.level != "good":
        click.echo(f"{indent}    {click.style('->', bold=True)} {finding.remedy}")
