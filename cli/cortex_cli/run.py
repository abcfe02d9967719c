"""`cortex run`: one API on this machine, without a cluster, by the same runtime that a pod runs."""

import os
import sys
from pathlib import Path

import click

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_api.contract import ADMIN_PORT, PORT, QUEUE_URL_VARIABLE
from cortex_cli import manifests, surroundings
from cortex_cli.adminport import AdminPort
from cortex_cli.local import Runtime, Scratch
from cortex_cli.ports import HOST, taken

_LOOK_AGAIN = 0.5
"""Seconds between two looks at the manifest."""


@click.command(short_help="Serve an API on this machine.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--port", default=PORT, show_default=True, help="Port of the API.")
@click.option(
    "--admin-port", default=ADMIN_PORT, show_default=True, help="Port of health, readiness and metrics."
)
@click.option("--name", help="Which API, when the file holds several.")
@click.option("--reload", is_flag=True, help="Load code and manifest again when they change.")
def run(file: Path, port: int, admin_port: int, name: str | None, reload: bool) -> None:
    """Serve an API on this machine, with the code in the folder of FILE, or in a ConfigMap in it.

    Variables of handler.env that come from Secrets and ConfigMaps are taken from the environment of this command.

    An AsyncAPI has its gateway at the port, and a worker and a queue beside it: the one that CORTEX_QUEUE_URL names, or one
    that goes with this command. Ctrl-C lets the requests in flight end; a second one doesn't.
    """
    seen = stamp(file)
    api = choose(file, name)
    variables = surroundings.environment(api, os.environ)
    require_free({"--port": port, "--admin-port": admin_port})
    with Scratch() as scratch:
        for note in surroundings.notes(api, os.environ):
            click.echo(f"Note: {note}", err=True)
        project = scratch.write(api, file)
        programs = scratch.programs(api, project, port, admin_port, reload, variables)
        queue = isinstance(api, AsyncAPI) and QUEUE_URL_VARIABLE not in os.environ
        runtime = Runtime(programs, scratch.guard, {QUEUE_URL_VARIABLE: scratch.queue()} if queue else {})
        if isinstance(api, AsyncAPI):
            AdminPort(admin_port, *(program.admin_port for program in programs))
        if runtime.wait_ready():
            url = f"http://{HOST}:{port}"
            click.echo(f"{api.metadata.name} is ready at {url}")
            click.echo(f"curl {url} -H 'content-type: application/json' -d '{{...}}'")
            if isinstance(api, AsyncAPI):
                click.echo(f"curl {url}/<id> then tells of the job that it made")
        if reload:
            while (status := runtime.wait(_LOOK_AGAIN)) is None:
                if seen != (seen := stamp(file)):
                    follow(file, api.metadata.name, scratch, variables)
        else:
            status = runtime.wait()
        if status == 1:
            raise click.ClickException(runtime.cause_of_death(status))
        if status:
            sys.exit(status if status > 0 else 128 - status)


def choose(file: Path, name: str | None) -> RealtimeAPI | AsyncAPI:
    """The API of a file that is to run. Raises ClickException with all that is wrong."""
    found = manifests.read(file)
    if problems := list(manifests.problems(found)):
        raise click.ClickException("\n".join(problems))
    apis = {document.api.metadata.name: document.api for document in found if document.api is not None}
    if not apis:
        raise click.ClickException(f"{file}: {manifests.NO_API}")
    known = ", ".join(apis)
    if name is None and len(apis) > 1:
        raise click.ClickException(f"{file} holds several APIs: choose one with --name ({known})")
    api = apis.get(name or next(iter(apis)))
    if api is None:
        raise click.ClickException(f"{file} has no API named {name} (it has {known})")
    return api


def require_free(ports: dict[str, int]) -> None:
    """Raises ClickException that names every port that is taken, with the option that chooses another."""
    if len(set(ports.values())) < len(ports):
        raise click.ClickException(f"{' and '.join(ports)} must be two ports, not both {min(ports.values())}")
    used = [
        f"port {port} is taken by another program: choose a free one with {option}"
        for option, port in ports.items()
        if taken(port)
    ]
    if used:
        raise click.ClickException("\n".join(used))


def stamp(file: Path) -> int:
    """Changes when a file is written; 0 while it isn't there, as when an editor replaces it."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def follow(file: Path, name: str, scratch: Scratch, variables: dict[str, str]) -> None:
    """Give a changed manifest to the runtime, which loads it again; a bad one changes nothing.

    variables: those of handler.env with which the runtime has started.
    """
    try:
        api = choose(file, name)
        if surroundings.environment(api, os.environ) != variables:
            click.echo(
                "Note: a change of handler.env takes effect when this command is started again", err=True
            )
        scratch.write(api, file)
    except click.ClickException as error:
        click.echo(f"The change is not served: {error.message}", err=True)
