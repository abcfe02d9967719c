"""`cortex doctor`: diagnose an API, from its resource to its pods."""

import sys

import click

from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Object, cluster_options, path
from cortex_cli.diagnosis import Finding, Observed, diagnose

_MARKS = {"good": ("ok  ", "green"), "note": ("..  ", "yellow"), "bad": ("BAD ", "red")}
_OPERATOR = "app.kubernetes.io/name=cortex-operator"


@click.command(short_help="Diagnose an API.")
@click.argument("name", required=False)
@cluster_options
def doctor(cluster: Cluster, name: str | None) -> None:
    """Diagnose an API, or all APIs of a namespace, and print remedies.

    Exits with 1 if a problem is found.
    """
    found = [apis.find(cluster, name)] if name else apis.list_all(cluster)
    if not found:
        click.echo(f"The cluster is reachable. Namespace {cluster.namespace} has no APIs.")
    operators = _operators(cluster)
    bad = False
    for api in found:
        findings = diagnose(observe(cluster, api, operators))
        bad = bad or any(finding.level == "bad" for finding in findings)
        _show(findings)
    sys.exit(1 if bad else 0)


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
        return cluster.list("v1/pods", "", labelSelector=_OPERATOR)
    except ClusterError as error:
        if error.status == 403:
            return None
        raise


def _show(findings: list[Finding]) -> None:
    for number, finding in enumerate(findings):
        mark, color = _MARKS[finding.level]
        indent = "" if number == 0 else "  "
        first, *more = finding.message.splitlines() or [""]
        click.echo(f"{indent}{click.style(mark, fg=color)}{finding.subject}: {first}")
        for line in more:
            click.echo(f"{indent}      {line}")
        if finding.remedy and finding.level != "good":
            click.echo(f"{indent}    {click.style('->', bold=True)} {finding.remedy}")
