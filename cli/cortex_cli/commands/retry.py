"""`cortex retry`: start the candidate of an API anew after a rollback."""

from datetime import UTC, datetime

import click

from cortex_cli import apis
from cortex_cli.connection import Cluster, ClusterError, cluster_options
from cortex_cli.releases import candidate_of, retry_candidate


@click.command(short_help="Start the candidate of an API anew.")
@click.argument("name")
@cluster_options
def retry(cluster: Cluster, name: str) -> None:
    """Start the candidate of an API anew after it was rolled back or has failed.

    Its pods are replaced, so they load code and model again. Only an annotation of the resource changes, so this also works if
    the API is managed in Git.
    """
    api = apis.find(cluster, name)
    candidate_of(api)
    phase = (api.status.get("candidate") or {}).get("phase", "Starting")
    if phase not in ("RolledBack", "Failed"):
        raise ClusterError(
            f"the candidate of {api.name} is {phase}; only one that is RolledBack or Failed is retried"
        )
    retry_candidate(cluster, api, datetime.now(UTC).isoformat(timespec="milliseconds"))
    click.echo(f"{api.kind} {api.name}: the candidate starts anew.")
