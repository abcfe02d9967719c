"""`cortex history`: show the revisions of an API."""

import json
from dataclasses import asdict
from itertools import islice, pairwise

import click
import yaml
from rich.text import Text

from cortex_cli import apis, tables
from cortex_cli.connection import Cluster, ClusterError, cluster_options
from cortex_cli.releases import Revision, changes, is_current, revisions

_MAX_CHANGES = 3
"""Changed fields that are shown of a revision."""


@click.command(short_help="Show the last specs of an API that were Ready.")
@click.argument("name")
@click.option("--revision", type=int, metavar="N", help="Print the spec of one revision.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print all data in this format.")
@cluster_options
def history(cluster: Cluster, name: str, revision: int | None, output: str | None) -> None:
    """Show the last ten specs of an API that were Ready, and what each of them changed."""
    api = apis.find(cluster, name)
    found = revisions(cluster, api)
    if revision is not None:
        chosen = next((each for each in found if each.number == revision), None)
        if chosen is None:
            raise ClusterError(f"{api.kind} {api.name} has no revision {revision}")
        click.echo(_text(chosen.spec, output or "yaml"))
        return
    if output:
        content = [{**asdict(each), "current": is_current(api, each)} for each in found]
        click.echo(_text(content, output))
        return
    if not found:
        click.echo(f"{api.kind} {api.name} has no revision yet: the first one is recorded when it is Ready.")
        return
    table = tables.grid("REVISION", "CHANGED", "CURRENT", "CHANGES")
    for each, previous in pairwise([*found, None]):
        assert each is not None
        mark = "yes" if is_current(api, each) else ""
        table.add_row(str(each.number), apis.age(each.changed_at), mark, Text(_changes(each, previous)))
    tables.show(table)
    if not any(is_current(api, each) for each in found):
        click.echo("The present spec has not been Ready yet; it is not a revision.")


def _changes(revision: Revision, previous: Revision | None) -> str:
    """Return what a revision changed, on one line."""
    if previous is None:
        return "the oldest revision that is kept" if revision.number > 1 else "the first revision"
    found = list(changes(previous.spec, revision.spec))
    more = f" and {len(found) - _MAX_CHANGES} more" if len(found) > _MAX_CHANGES else ""
    return ", ".join(islice(found, _MAX_CHANGES)) + more


def _text(data: object, output: str) -> str:
    if output == "json":
        return json.dumps(data, indent=2)
    return str(yaml.safe_dump(data, sort_keys=False)).rstrip()
