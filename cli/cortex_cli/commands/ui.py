"""`cortex ui`: show the APIs of a cluster on a local web page."""

import logging
import threading
import webbrowser
from collections.abc import Callable

import click

from cortex_cli.connection import Cluster, ClusterError, cluster_selection_options


@click.command(short_help="Show the APIs of a cluster on a local web page.")
@click.option("--port", default=0, help="Port of the page.  [default: a free port]")
@click.option("--open/--no-open", "is_opened", default=True, help="Open the page in the browser.")
@click.option(
    "--prometheus",
    metavar="URL",
    help="Prometheus server for the charts, which otherwise show what the page has seen.",
)
@cluster_selection_options
def ui(open_cluster: Callable[[], Cluster], port: int, is_opened: bool, prometheus: str | None) -> None:
    """Show the APIs of a cluster on a web page of this machine, until Ctrl-C.

    Nothing is installed in the cluster: the page reads and changes only what your kubeconfig permits. It shows all namespaces,
    or the one of --namespace.
    """
    # Starlette, uvicorn and Jinja are imported only by the commands that need them.
    from cortex_cli.ui import server

    # More connections than the pool keeps are no problem worth a warning.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    namespace = click.get_current_context().params.get("namespace") or ""
    cluster = open_cluster()
    try:
        page = server.prepare(lambda: cluster, namespace, port, prometheus)
    except OSError as error:
        raise click.ClickException(f"port {port} is in use; select another with --port") from error
    click.echo(f"The page is at {page.url}")
    click.echo("The token in this URL is its password. Ctrl-C stops the page.", err=True)
    threading.Thread(target=_report_problem, args=(cluster,), daemon=True).start()
    if is_opened:
        webbrowser.open(page.url)
    page.run()


def _report_problem(cluster: Cluster) -> None:
    """Print why the cluster does not answer. The page shows it too, and tries again."""
    try:
        cluster.get("/version")
    except ClusterError as error:
        click.echo(
            f"Error: {error.message}. The page shows the APIs as soon as the cluster answers.", err=True
        )
