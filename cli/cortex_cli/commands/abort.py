"""`cortex abort`: remove the candidate of an API."""

import click

from cortex_cli import apis
from cortex_cli.connection import Cluster, cluster_options
from cortex_cli.releases import candidate_of, change, change_options, without_candidate


@click.command()
@click.argument("name")
@change_options
@cluster_options
def abort(cluster: Cluster, name: str, print_only: bool, force: bool) -> None:
    """Remove the candidate of an API. The stable version answers all requests.

    If the API is managed in Git, commit the output of --print instead.
    """
    api = apis.find(cluster, name)
    candidate_of(api)
    spec = without_candidate(api.live["spec"])
    generation = change(cluster, api, spec, f"cortex abort {name}", print_only, force)
    if generation is not None:
        click.echo(f"{api.kind} {api.name} has no candidate any more (generation {generation}).")
