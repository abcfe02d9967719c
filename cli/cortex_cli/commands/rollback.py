"""`cortex rollback`: return an API to an earlier revision."""

import click

from cortex_api.revision import restored
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, cluster_options
from cortex_cli.releases import Revision, change, change_options, is_current, revisions


@click.command(short_help="Return an API to an earlier revision.")
@click.argument("name")
@click.option(
    "--to", type=int, metavar="N", help="Revision, as `cortex history` shows it.  [default: the previous one]"
)
@change_options
@cluster_options
def rollback(cluster: Cluster, name: str, to: int | None, print_only: bool, force: bool) -> None:
    """Return an API to an earlier revision, by a rolling update.

    replicas, paused and candidate stay as they are. If the API is managed in Git, commit the output of --print instead.
    """
    api = apis.find(cluster, name)
    revision = choose(api, revisions(cluster, api), to)
    spec = restored(api.live["spec"], revision.spec)
    option = "" if to is None else f" --to {to}"
    generation = change(cluster, api, spec, f"cortex rollback {name}{option}", print_only, force)
    if generation is None:
        return
    click.echo(f"{api.kind} {api.name} has the spec of revision {revision.number} (generation {generation}).")
    if api.live["spec"].get("candidate") is not None:
        click.echo(f"Its candidate is now merged over this spec; to remove it: cortex abort {name}")


def choose(api: API, history: list[Revision], number: int | None) -> Revision:
    """Return the revision with a number, or the newest one that the API does not have now. Raises ClusterError."""
    if number is None:
        for revision in history:
            if not is_current(api, revision):
                return revision
        raise ClusterError(f"{api.kind} {api.name} has no earlier revision")
    for revision in history:
        if revision.number == number:
            if is_current(api, revision):
                raise ClusterError(f"{api.kind} {api.name} has the spec of revision {number} already")
            return revision
    existing = ", ".join(str(revision.number) for revision in history) or "none"
    raise ClusterError(f"{api.kind} {api.name} has no revision {number} (existing: {existing})")
