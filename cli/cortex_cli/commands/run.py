"""`cortex run`: serve an API locally, without a cluster, with the same runtime as in a pod."""

import contextlib
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import ADMIN_PORT, GRPC_PORT, PORT, QUEUE_URL_VARIABLE
from cortex_cli import manifests
from cortex_cli.local import environment
from cortex_cli.local.admin_port import AdminPort
from cortex_cli.local.log_lines import LogLines
from cortex_cli.local.ports import HOST, taken
from cortex_cli.local.runtime import Program, Runtime, Scratch

_POLL_INTERVAL = 0.5
"""Seconds between two checks of the manifest."""


@click.command(short_help="Serve an API locally.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--port", default=PORT, show_default=True, help="Port of the API.")
@click.option(
    "--admin-port", default=ADMIN_PORT, show_default=True, help="Port for health checks and metrics."
)
@click.option(
    "--grpc-port",
    default=GRPC_PORT,
    show_default=True,
    help="Port of gRPC, if handler.protocols.grpc is set.",
)
@click.option("--name", help="Name of the API, if the file contains several.")
@click.option("--reload", is_flag=True, help="Reload code and manifest when they change.")
@click.option(
    "--ui/--no-ui",
    "has_page",
    default=None,
    help="Serve a page with requests, latency, logs and a form, on a free port.  [default: on a terminal]",
)
def run(
    file: Path,
    port: int,
    admin_port: int,
    grpc_port: int,
    name: str | None,
    reload: bool,
    has_page: bool | None,
) -> None:
    """Serve an API locally, with the code in the folder of FILE or in a ConfigMap in that folder.

    Variables in handler.env with valueFrom are read from the environment of this command.

    For an AsyncAPI, the port serves the gateway, and a worker runs too. The queue is CORTEX_QUEUE_URL or a temporary local queue.
    The first Ctrl-C waits for in-flight requests; the second exits immediately.
    """
    is_terminal = sys.stdout.isatty()
    api = choose(file, name)
    environment.resolve(api, os.environ)  # Raises before anything is printed.
    has_grpc = api.spec.handler.serves_grpc
    require_free(
        {"--port": port, "--admin-port": admin_port, **({"--grpc-port": grpc_port} if has_grpc else {})}
    )
    with Scratch() as scratch:
        for note in environment.notes(api, os.environ):
            click.echo(f"Note: {note}", err=True)
        has_page = is_terminal if has_page is None else has_page
        local = LocalRun(file, api.metadata.name, (port, admin_port, grpc_port), reload, has_page, scratch)
        status = local.serve_after_fixes() if reload else local.serve()
    if status:
        sys.exit(status if status > 0 else 128 - status)


class StartFailed(click.ClickException):
    """The API did not start. The message contains the reason and the remedy."""


@dataclass(frozen=True)
class LocalRun:
    """An API and how it is served.

    file: its manifest. name: of the API. ports: of the API, of the admin port and of gRPC. has_page: serve the page.
    """

    file: Path
    name: str
    ports: tuple[int, int, int]
    reload: bool
    has_page: bool
    scratch: Scratch

    def serve_after_fixes(self) -> int:
        """Serve as `serve` does. If the API does not start, wait for a change of its files and start it again."""
        # Imported only now, because it would delay the start of the API.
        from cortex_runtime.replica.reload import snapshot

        folder = self.file.absolute().parent
        while True:
            before = snapshot({folder})
            try:
                return self.serve()
            except StartFailed as error:
                # The first Ctrl-C ends this command, since nothing drains.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                click.echo(f"Error: {error.message}\nWaiting for a change of the files in {folder}", err=True)
            while snapshot({folder}) == before:
                time.sleep(_POLL_INTERVAL)

    def serve(self) -> int:
        """Serve the API until its programs exit, and return their exit status. Raises StartFailed, ClickException."""
        last_change = file_stamp(self.file)
        scratch = self.scratch
        try:
            api = choose(self.file, self.name)
            variables = environment.resolve(api, os.environ)
            project = scratch.write(api, self.file)
        except click.ClickException as error:
            raise StartFailed(error.message) from error
        programs = scratch.programs(api, project, self.ports, self.file if self.reload else None, variables)
        needs_queue = isinstance(api, AsyncAPI) and QUEUE_URL_VARIABLE not in os.environ
        environment_of_queue = {QUEUE_URL_VARIABLE: scratch.queue} if needs_queue else {}
        lines: dict[str, LogLines] = {program.name: LogLines() for program in programs}
        on_line = (lambda name, line: lines[name].add(line)) if self.has_page else None
        runtime = Runtime(programs, scratch.guard, environment_of_queue, on_line)
        try:
            with contextlib.ExitStack() as stack:
                if isinstance(api, AsyncAPI):
                    stack.enter_context(
                        AdminPort(self.ports[1], *(program.admin_port for program in programs))
                    )
                if is_ready := runtime.wait_ready():
                    self._announce(api, programs, project, lines)
                while (status := runtime.wait(_POLL_INTERVAL if self.reload else None)) is None:
                    if last_change != (last_change := file_stamp(self.file)):
                        apply_change(self.file, api.metadata.name, scratch, variables)
        except BrokenPipeError:
            runtime.stop()
            raise
        if status == 1:
            message = runtime.failure_message(status)
            raise click.ClickException(message) if is_ready else StartFailed(message)
        return status

    def _announce(
        self,
        api: RealtimeAPI | AsyncAPI,
        programs: list[Program],
        project: Path,
        lines: dict[str, LogLines],
    ) -> None:
        """Print the addresses of an API that is ready. If stdout is a pipe, it contains only the log, so they go to stderr."""
        url = f"http://{HOST}:{self.ports[0]}"
        shown = [f"{api.metadata.name} is ready at {url}"]
        if api.spec.handler.docs:
            shown.append(f"documentation: {url}/docs")
        if api.spec.handler.serves_grpc:
            shown.append(f"gRPC: {HOST}:{self.ports[2]}")
        shown.append(f"curl {url} -H 'content-type: application/json' -d {sample_argument(self.file.parent)}")
        if isinstance(api, AsyncAPI):
            shown.append(f"curl {url}/<id>  # status and result of the job")
        click.echo("\n".join(shown), err=not sys.stdout.isatty())
        if self.has_page:
            # Imported only now, because Starlette and Jinja would delay the start of the API.
            from cortex_cli.ui.local_page import start

            page = start(api, programs, self.ports[0], project, lines)
            click.echo(f"page: {page}", err=not sys.stdout.isatty())


def choose(file: Path, name: str | None) -> RealtimeAPI | AsyncAPI:
    """Return the API of a file by name, or its only API. Raises ClickException with all problems."""
    found = manifests.read(file)
    if problems := list(manifests.problems(found)):
        raise click.ClickException("\n".join(problems))
    apis = {document.api.metadata.name: document.api for document in found if document.api is not None}
    if not apis:
        raise click.ClickException(f"{file}: {manifests.NO_API}")
    known = ", ".join(apis)
    if name is None and len(apis) > 1:
        raise click.ClickException(f"{file} contains several APIs; select one with --name ({known})")
    api = apis.get(name or next(iter(apis)))
    if api is None:
        raise click.ClickException(f"{file} contains no API {name}; it contains {known}")
    return api


def require_free(ports: dict[str, int]) -> None:
    """Raise ClickException if a port is in use.

    ports: port by the name of its option.
    """
    if len(set(ports.values())) < len(ports):
        raise click.ClickException(
            f"{' and '.join(ports)} must be different; got {min(ports.values())} for both"
        )
    used = [
        f"port {port} is in use; select a free port with {option}"
        for option, port in ports.items()
        if taken(port)
    ]
    if used:
        raise click.ClickException("\n".join(used))


def file_stamp(file: Path) -> tuple[int, int, int] | None:
    """Return what differs after each change of a file; None while it does not exist, e.g. while an editor replaces it.

    The modification time alone may be the same before and after a write, because clocks of file systems advance in steps.
    """
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def apply_change(file: Path, name: str, scratch: Scratch, variables: dict[str, str]) -> None:
    """Pass a changed manifest to the runtime, which reloads it. An invalid manifest has no effect.

    variables: the variables of handler.env when the runtime was started.
    """
    try:
        api = choose(file, name)
        if environment.resolve(api, os.environ) != variables:
            click.echo("Note: restart this command to apply the change of handler.env", err=True)
        scratch.write(api, file)
    except click.ClickException as error:
        click.echo(f"Error: the change is ignored: {error.message}", err=True)


def sample_argument(folder: Path) -> str:
    """Return the argument of `curl -d`: the sample in a folder, relative to the working directory, or a placeholder."""
    sample = folder / "sample.json"
    return f"@{shlex.quote(os.path.relpath(sample))}" if sample.is_file() else "'{...}'"
