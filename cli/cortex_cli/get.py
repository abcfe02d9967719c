"""`cortex get`: the APIs of a cluster in a table, or one of them with all that it says of itself."""

import json
import sys
import time
from typing import Any

import click
import yaml
from rich.console import Console, Group, RenderableType
from rich.live import Live

from cortex_api.contract import API_LABEL
from cortex_cli import apis, views
from cortex_cli.apis import API, Replicas
from cortex_cli.connection import Cluster, asks_a_cluster
from cortex_cli.keys import headers, shows_a_key

_PAUSE = 2.0
"""Seconds between two looks."""


@click.command()
@click.argument("name", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="The APIs of every namespace.")
@click.option("-w", "--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Everything, for programs.")
@shows_a_key
@asks_a_cluster
def get(
    cluster: Cluster,
    name: str | None,
    all_namespaces: bool,
    watch: bool,
    output: str | None,
    api_key: str | None,
) -> None:
    """Show all APIs, or one in detail.

    Requests, latency and predictions are counted by the replicas that run now, since each of them started.
    """
    if output:
        click.echo(text(content(cluster, name, all_namespaces, api_key), output))
        return
    if not watch:
        views.show(view(cluster, name, all_namespaces, api_key))
        return
    if not sys.stdout.isatty():
        while True:
            views.show(view(cluster, name, all_namespaces, api_key))
            sys.stdout.flush()
            time.sleep(_PAUSE)
    with Live(
        view(cluster, name, all_namespaces, api_key), console=Console(), auto_refresh=False, screen=True
    ) as live:
        while True:
            time.sleep(_PAUSE)
            live.update(view(cluster, name, all_namespaces, api_key), refresh=True)


def view(cluster: Cluster, name: str | None, all_namespaces: bool, api_key: str | None) -> RenderableType:
    """What a person sees. Raises ClusterError."""
    if name is not None:
        return Group(*views.detail(*one(cluster, name, api_key)))
    found = observed(cluster, all_namespaces)
    if not found:
        where = "any namespace" if all_namespaces else f"namespace {cluster.namespace}"
        return f"No APIs in {where}."
    return views.table(found, all_namespaces)


def one(cluster: Cluster, name: str, api_key: str | None) -> tuple[API, list[dict[str, Any]], Replicas]:
    """An API with its pods and what they say."""
    api = apis.find(cluster, name)
    pods = apis.pods(cluster, api)
    # An API without models has nothing to tell of them.
    info = "models" in api.live["spec"]["handler"]
    return api, pods, apis.ask(cluster, pods, info, headers(api, api_key))


def observed(cluster: Cluster, all_namespaces: bool) -> list[tuple[API, Replicas]]:
    """Every API with what its pods say."""
    namespace = "" if all_namespaces else cluster.namespace
    found = apis.every(cluster, namespace)
    pods = cluster.list("v1/pods", namespace, labelSelector=API_LABEL) if found else []
    return [
        (api, apis.ask(cluster, [pod for pod in pods if apis.belongs(pod, api)], info=False)) for api in found
    ]


def content(cluster: Cluster, name: str | None, all_namespaces: bool, api_key: str | None) -> Any:
    """The same for programs: the resource, and beside it what its replicas say."""
    if name is None:
        return [views.plain(api, replicas) for api, replicas in observed(cluster, all_namespaces)]
    api, _, replicas = one(cluster, name, api_key)
    return views.plain(api, replicas)


def text(found: Any, output: str) -> str:
    """As JSON or YAML."""
    if output == "json":
        return json.dumps(found, indent=2)
    return str(yaml.safe_dump(found, sort_keys=False)).rstrip()
