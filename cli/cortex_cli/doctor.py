"""`cortex doctor`: looks at an API from its resource down to its pods, and says what is wrong and what to do."""

import sys

import click

from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Object, asks_a_cluster, path
from cortex_cli.diagnosis import Finding, Seen, diagnose

_MARKS = {"good": ("ok  ", "green"), "note": ("..  ", "yellow"), "bad": ("BAD ", "red")}
_OPERATOR = "app.kubernetes.io/name=cortex-operator"


@click.command(short_help="Say what is wrong with an API, and what to do.")
@click.argument("name", required=False)
@asks_a_cluster
def doctor(cluster: Cluster, name: str | None) -> None:
    """Say what is wrong with an API, or with all of a namespace, and what to do.

    Exits with 1 when something is.
    """
    found = [apis.find(cluster, name)] if name else apis.every(cluster)
    if not found:
        click.echo(f"The cluster answers, and there are no APIs in namespace {cluster.namespace}.")
    operators = _operators(cluster)
    bad = False
    for api in found:
        findings = diagnose(look(cluster, api, operators))
        bad = bad or any(finding.level == "bad" for finding in findings)
        _show(findings)
    sys.exit(1 if bad else 0)


def look(cluster: Cluster, api: API, operators: list[Object] | None) -> Seen:
    """Everything that there is of an API."""
    selector = {"labelSelector": api.selector}
    try:
        service: Object | None = cluster.get(path("v1/services", api.namespace, api.service))
    except ClusterError as error:
        if error.status != 404:
            raise
        service = None
    return Seen(
        api,
        cluster.list("apps/v1/deployments", api.namespace, **selector),
        apis.pods(cluster, api),
        service,
        cluster.list("v1/events", api.namespace),
        operators,
    )


def _operators(cluster: Cluster) -> list[Object] | None:
    """The operator's pods; None when the user may not look for them."""
    try:
        return cluster.list("v1/pods", "", labelSelector=_OPERATOR)
    except ClusterError as error:
        if error.status == 403:
            return None
        raise


def _show(findings: list[Finding]) -> None:
    for number, finding in enumerate(findings):
        mark, colour = _MARKS[finding.level]
        indent = "" if number == 0 else "  "
        first, *more = finding.what.splitlines() or [""]
        click.echo(f"{indent}{click.style(mark, fg=colour)}{finding.where}: {first}")
        for line in more:
            click.echo(f"{indent}      {line}")
        if finding.remedy and finding.level != "good":
            click.echo(f"{indent}    {click.style('->', bold=True)} {finding.remedy}")
