"""`cortex get`: show the APIs of a cluster in a table, or one API in detail."""

import json
import sys
import time
from typing import Any

import click
import yaml
from rich.console import Console, Group, RenderableType
from rich.live import Live

from cortex_api.contract import API_LABEL
from cortex_cli import apis, tables
from cortex_cli.api_keys import api_key_options, headers
from cortex_cli.apis import API, Replicas
from cortex_cli.connection import Cluster, cluster_options

_INTERVAL = 2.0
"""Seconds between two updates of --watch."""


@click.command()
@click.argument("name", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Show the APIs of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Update every two seconds, until Ctrl-C.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print all data in this format.")
@api_key_options
@cluster_options
def get(
    cluster: Cluster,
    name: str | None,
    all_namespaces: bool,
    watch: bool,
    output: str | None,
    api_key: str | None,
) -> None:
    """Show all APIs, or one API in detail.

    Requests, latency and predictions are the totals of the current replicas since their start.
    """
    if output:
        click.echo(text(content(cluster, name, all_namespaces, api_key), output))
        return
    if not watch:
        tables.show(view(cluster, name, all_namespaces, api_key))
        return
    if not sys.stdout.isatty():
        while True:
            tables.show(view(cluster, name, all_namespaces, api_key))
            sys.stdout.flush()
            time.sleep(_INTERVAL)
    with Live(
        view(cluster, name, all_namespaces, api_key), console=Console(), auto_refresh=False, screen=True
    ) as live:
        while True:
            time.sleep(_INTERVAL)
            live.update(view(cluster, name, all_namespaces, api_key), refresh=True)


def view(cluster: Cluster, name: str | None, all_namespaces: bool, api_key: str | None) -> RenderableType:
    """Return the view for the terminal. Raises ClusterError."""
    if name is not None:
        return Group(*tables.detail(*read_one(cluster, name, api_key)))
    found = read_all(cluster, all_namespaces)
    if not found:
        scope = "any namespace" if all_namespaces else f"namespace {cluster.namespace}"
        return f"No APIs in {scope}."
    return tables.table(found, all_namespaces)


def read_one(cluster: Cluster, name: str, api_key: str | None) -> tuple[API, list[dict[str, Any]], Replicas]:
    """Return an API, its pods, and the metrics and models that they report."""
    api = apis.find(cluster, name)
    pods = apis.pods(cluster, api)
    # Only an API with models reports models.
    info = "models" in api.live["spec"]["handler"]
    return api, pods, apis.query_replicas(cluster, pods, info, headers(api, api_key))


def read_all(cluster: Cluster, all_namespaces: bool) -> list[tuple[API, Replicas]]:
    """Return all APIs with the metrics that their pods report."""
    namespace = "" if all_namespaces else cluster.namespace
    found = apis.list_all(cluster, namespace)
    pods = cluster.list("v1/pods", namespace, labelSelector=API_LABEL) if found else []
    return [
        (api, apis.query_replicas(cluster, [pod for pod in pods if apis.belongs_to(pod, api)], info=False))
        for api in found
    ]


def content(cluster: Cluster, name: str | None, all_namespaces: bool, api_key: str | None) -> Any:
    """Return the data for --output: each resource and the metrics of its replicas."""
    if name is None:
        return [tables.plain(api, replicas) for api, replicas in read_all(cluster, all_namespaces)]
    api, _, replicas = read_one(cluster, name, api_key)
    return tables.plain(api, replicas)


def text(data: Any, output: str) -> str:
    """Format data as JSON or YAML."""
    if output == "json":
        return json.dumps(data, indent=2)
    return str(yaml.safe_dump(data, sort_keys=False)).rstrip()
