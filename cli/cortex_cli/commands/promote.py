"""`cortex promote`: make the candidate of an API its stable version."""

import click

from cortex_api.candidate import promoted
from cortex_cli import apis
from cortex_cli.connection import Cluster, ClusterError, cluster_options
from cortex_cli.releases import candidate_of, change, change_options


@click.command(short_help="Make the candidate of an API its stable version.")
@click.argument("name")
@change_options
@cluster_options
def promote(cluster: Cluster, name: str, print_only: bool, force: bool) -> None:
    """Make the candidate of an API its stable version, by a rolling update.

    If the API is managed in Git, commit the output of --print instead.
    """
    api = apis.find(cluster, name)
    candidate_of(api)
    state = api.status.get("candidate") or {}
    phase = state.get("phase", "Starting")
    if phase != "Serving" and not (force or print_only):
        reason = f": {state['message']}" if state.get("message") else ""
        raise ClusterError(
            f"the candidate of {api.name} is {phase}, not Serving{reason}; add --force to promote it anyway"
        )
    generation = change(cluster, api, promoted(api.live)["spec"], f"cortex promote {name}", print_only, force)
    if generation is None:
        return
    click.echo(f"{api.kind} {api.name}: the candidate is now the stable version (generation {generation}).")
    click.echo(f"The pods are replaced one after the other: kubectl rollout status deployment/{api.service}")
    click.echo(f"To return to the previous version: cortex rollback {name}")
