"""`cortex run`: one API on this machine, without a cluster, by the same runtime that a pod runs."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import click
import httpx

from cortex_api import Document, RealtimeAPI
from cortex_cli import manifests

HOST = "127.0.0.1"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--port", default=8080, show_default=True, help="Port of the API.")
@click.option("--admin-port", default=8081, show_default=True, help="Port of health, readiness and metrics.")
@click.option("--name", help="Which API, when the file holds several.")
@click.option("--reload", is_flag=True, help="Load the code again when it changes.")
def run(file: Path, port: int, admin_port: int, name: str | None, reload: bool) -> None:
    """Serve a RealtimeAPI on this machine, with the code in the folder of FILE."""
    api = choose(file, name)
    with tempfile.TemporaryDirectory(prefix="cortex-run-") as folder:
        scratch = Path(folder)
        command = prepare(api, file.absolute().parent, scratch, port, admin_port)
        process = subprocess.Popen([*command, "--reload"] if reload else command)
        pass_signals_on(process)
        if wait_ready(process, admin_port):
            url = f"http://{HOST}:{port}"
            click.echo(f"{api.metadata.name} is ready at {url}")
            click.echo(f"curl {url} -H 'content-type: application/json' -d '{{...}}'")
        status = process.wait()
        if status != 0:
            raise click.ClickException(cause_of_death(scratch / "termination-log", status))


def choose(file: Path, name: str | None) -> RealtimeAPI:
    """The API of a file that is to run. Raises ClickException with all that is wrong."""
    found = manifests.read(file)
    if problems := list(manifests.problems(found)):
        raise click.ClickException("\n".join(problems))
    apis = {document.api.metadata.name: document.api for document in found if document.api is not None}
    known = ", ".join(apis)
    if name is None and len(apis) > 1:
        raise click.ClickException(f"{file} holds several APIs: choose one with --name ({known})")
    api = apis.get(name or next(iter(apis)))
    if api is None:
        raise click.ClickException(f"{file} has no API named {name} (it has {known})")
    if not isinstance(api, RealtimeAPI):
        raise click.ClickException(
            f"{api.metadata.name}: a {api.kind} needs a cluster; a RealtimeAPI runs here"
        )
    return api


def prepare(api: RealtimeAPI, project: Path, scratch: Path, port: int, admin_port: int) -> list[str]:
    """The runtime's command. Writes what the operator would mount into the pod."""
    (scratch / "models").mkdir()
    (scratch / "api.json").write_bytes(Document.of(api).to_json())
    for path, content in (api.spec.handler.source.files or {}).items() if api.spec.handler.source else ():
        target = scratch / "project" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        project = scratch / "project"
    command = [sys.executable, "-m", "cortex_runtime", "serve", "--host", HOST]
    command += ["--config", str(scratch / "api.json"), "--project", str(project)]
    command += ["--models", str(scratch / "models"), "--termination-log", str(scratch / "termination-log")]
    return [*command, "--port", str(port), "--admin-port", str(admin_port)]


def pass_signals_on(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM and Ctrl-C end the runtime, which drains; this process ends after it."""

    def forward(number: int, _: FrameType | None) -> None:
        # Ctrl-C in a terminal reaches the child too; a second SIGTERM does no harm to a drain.
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)


def wait_ready(process: subprocess.Popen[bytes], admin_port: int) -> bool:
    """Whether the API got ready before its process ended."""
    with httpx.Client(base_url=f"http://{HOST}:{admin_port}", timeout=5, trust_env=False) as client:
        while process.poll() is None:
            try:
                if client.get("/readyz").status_code == httpx.codes.OK:
                    return True
            except httpx.TransportError:
                pass  # It doesn't listen yet.
            time.sleep(0.05)
    return False


def cause_of_death(termination_log: Path, status: int) -> str:
    """What the runtime left as the reason of its end, for a person."""
    try:
        cause = json.loads(termination_log.read_bytes())
        return f"{cause['reason']}: {cause['message']}"
    except (OSError, ValueError, KeyError):
        return f"the runtime ended with status {status}; its log above says why"
