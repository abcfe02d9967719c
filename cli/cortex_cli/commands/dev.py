"""`cortex dev`: develop an API in a cluster, in a copy that follows the files of a local folder."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click

from cortex_api import GROUP, KINDS, AsyncAPI, RealtimeAPI
from cortex_api.contract import DEVELOPMENT_SUFFIX, GRPC_PORT, PORT
from cortex_cli import manifests
from cortex_cli.apis import API
from cortex_cli.commands import logs
from cortex_cli.commands.run import choose, file_stamp, require_free, sample_argument
from cortex_cli.connection import FORBIDDEN, Cluster, ClusterError, cluster_options
from cortex_cli.development.copy_client import CopyClient, own_holder
from cortex_cli.development.copy_manifest import copy_name, notes
from cortex_cli.development.local_project import LocalProject
from cortex_cli.development.port_forward import PortForwarder
from cortex_cli.development.report import Report
from cortex_cli.development.session import Session, watch
from cortex_cli.local.ports import HOST
from cortex_cli.local.runtime import Scratch
from cortex_cli.log_lines import readable
from cortex_cli.platform_checks import Permission, denied

_MAX_NAME = 50
_LOG_RETRY_SECONDS = 1.0
_NOT_SERVING = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    b'{"error":"the development copy does not serve yet"}\n'
)
"""The response to a request before the copy serves."""


@click.command(short_help="Develop an API in a cluster.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--port", default=PORT, show_default=True, help="Local port of the API.")
@click.option(
    "--grpc-port",
    default=GRPC_PORT,
    show_default=True,
    help="Local port of gRPC, if handler.protocols.grpc is set.",
)
@click.option("--name", help="Name of the API, if the file contains several.")
@click.option("--as", "as_name", metavar="NAME-dev", help="Name of the copy.  [default: NAME-dev of the API]")
@click.option("--take-over", is_flag=True, help="Adopt the copy of another `cortex dev`, which then ends.")
@cluster_options
def dev(
    cluster: Cluster,
    file: Path,
    port: int,
    grpc_port: int,
    name: str | None,
    as_name: str | None,
    take_over: bool,
) -> None:
    """Run a development copy of an API in the cluster, with the code in the folder of FILE, and follow its changes.

    The copy has one replica and an endpoint of its own, and is deleted at the end. The port of the API is forwarded to this
    machine, and its logs are shown. While a change is broken, the previous code serves.
    """
    api, manifest = _read(file, name)
    cluster.namespace = manifest["metadata"].get("namespace") or cluster.namespace
    copied = as_name or copy_name(api.metadata.name)
    _require_valid(copied)
    ports = {"--port": port} | ({"--grpc-port": grpc_port} if api.spec.handler.serves_grpc else {})
    require_free(ports)
    _require_permissions(cluster, api)
    url = f"http://{HOST}:{port}"
    sample = sample_argument(file.parent)
    report = Report(copied, url, f"curl {url} -H 'content-type: application/json' -d {sample}")
    for note in notes(manifest):
        report.note(f"Note: {note}")
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    copy = CopyClient(cluster, manifest, copied, own_holder())
    with Scratch() as scratch:
        project = LocalProject(scratch.write(api, file))
        forwarder = PortForwarder(cluster)
        stop = threading.Event()
        session = Session(cluster, copy, project, forwarder, report)
        session.manifest_changed = _ManifestChange(file, api.metadata.name, copy, scratch, report)
        try:
            copy.create(take_over)
            forwarder.listen(HOST, port, lambda: session.serving_pod(PORT), _NOT_SERVING)
            if "--grpc-port" in ports:
                forwarder.listen(HOST, grpc_port, lambda: session.serving_pod(GRPC_PORT))
            for run, arguments in (
                (watch, (project.folder, file, session.changes, stop)),
                (_show_logs, (cluster, copied, api.kind)),
            ):
                threading.Thread(target=run, args=arguments, daemon=True).start()
            session.run()
        finally:
            stop.set()
            _delete(copy, report)
            forwarder.close()


class _ManifestChange:
    """Applies a changed manifest to the copy. An invalid one has no effect."""

    def __init__(self, file: Path, name: str, copy: CopyClient, scratch: Scratch, report: Report) -> None:
        self._file = file
        self._name = name
        self._copy = copy
        self._scratch = scratch
        self._report = report
        self._stamp = file_stamp(file)

    def __call__(self) -> None:
        if self._stamp == (changed := file_stamp(self._file)) or not changed:
            return
        self._stamp = changed
        try:
            api, manifest = _read(self._file, self._name)
            self._scratch.write(api, self._file)
            if self._copy.change(manifest):
                self._report.note(f"{self._file.name}: the pods are replaced")
        except click.ClickException as error:
            self._report.warning(f"the change of {self._file} is ignored: {error.message}")


def _read(file: Path, name: str | None) -> tuple[RealtimeAPI | AsyncAPI, dict[str, Any]]:
    """Return an API of a file, and its manifest as it is in the file. Raises ClickException."""
    api = choose(file, name)
    for document in manifests.read(file):
        if document.part is not None and document.api is not None:
            metadata = document.api.metadata
            if (document.api.kind, metadata.name) == (api.kind, api.metadata.name):
                return api, document.part.content
    raise click.ClickException(f"{file} has changed; try again")


def _require_valid(name: str) -> None:
    if not name.endswith(DEVELOPMENT_SUFFIX) or len(name) > _MAX_NAME:
        raise click.UsageError(
            f"the name of the copy must end in {DEVELOPMENT_SUFFIX} and have at most {_MAX_NAME} characters; got {name};"
            " choose one with --as"
        )


def _require_permissions(cluster: Cluster, api: RealtimeAPI | AsyncAPI) -> None:
    """Raise ClusterError if the user lacks a permission that this command needs."""
    if lacking := denied(cluster, permissions(KINDS[api.kind].plural)):
        raise ClusterError(
            f"`cortex dev` needs these permissions in namespace {cluster.namespace}: {', '.join(lacking)};"
            " docs/development.md has a Role with all of them",
            FORBIDDEN,
        )


def permissions(plural: str) -> list[Permission]:
    """Return the permissions that this command needs. plural: the resource of the API."""
    return [
        *((verb, GROUP, plural, "", "the copy") for verb in ("get", "create", "patch", "delete")),
        ("list", "", "pods", "", "its pods"),
        ("get", "", "pods", "log", "its logs"),
        # A WebSocket is a GET, which newer API servers also check as create.
        *((verb, "", "pods", "portforward", "the code and requests") for verb in ("get", "create")),
    ]


def _show_logs(cluster: Cluster, name: str, kind: str) -> None:
    """Print the logs of the copy: in a readable format on a terminal, otherwise as they are."""
    api = API({"kind": kind, "metadata": {"name": name, "namespace": cluster.namespace}})
    is_terminal = sys.stdout.isatty()
    tail = None
    while True:
        try:
            for pod, line in logs.stream(cluster, api, tail, None):
                prefix = f"{logs.component_name(pod):<8}" if kind == "AsyncAPI" else ""
                click.echo(readable(line, prefix) if is_terminal else line)
        except ClusterError:
            pass
        except BrokenPipeError:
            # stdout has no reader any more: end this command.
            os.kill(os.getpid(), signal.SIGTERM)
            return
        # After a broken connection, only new lines.
        tail = 0
        time.sleep(_LOG_RETRY_SECONDS)


def _delete(copy: CopyClient, report: Report) -> None:
    try:
        if copy.delete():
            report.note(f"{copy.name} is deleted")
    except KeyboardInterrupt:
        report.warning(f"{copy.name} is not deleted; the operator deletes it within ten minutes")
    except ClusterError as error:
        report.warning(f"{error.message}; the operator deletes {copy.name} within ten minutes")


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt
