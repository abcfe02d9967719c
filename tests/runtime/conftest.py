"""`serve` starts the real runtime on free ports, from a handler's source and fields of the spec. Servers of queues and models."""

import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import botocore.session
import httpx
import pytest

from cortex_api import Document, parse
from tests.runtime.programs import PLAIN, Program
from tests.runtime.queues.servers import ADMIN, Moto, Nats, SeaweedFS, free_port

# Each session of boto3 otherwise parses the descriptions of the services, which takes 60 ms of CPU for each client.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

INLINE = """
def inline():
    # Whether the caller runs on the event loop's thread, called from the loop: that can be seen on the stack alone.
    import sys
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name not in ("answer_inline", "run_inline"):
        frame = frame.f_back
    return frame is not None
"""
"""Source of a function for handlers."""


@dataclass
class Replica(Program):
    """A running runtime."""

    project: Path

    def post(self, json: Any = None, **more: Any) -> httpx.Response:
        if json is not None or not more:
            more["json"] = json
        return PLAIN.post(self.url, **more, timeout=60)

    def ready(self) -> httpx.Response | None:
        return self.readiness()

    def wait_ready(self) -> None:
        self.until(lambda: (answer := self.ready()) is not None and answer.status_code == 200, 120)

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        """Wait for a condition that processes of this replica cause."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if result := condition():
                return result
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} s; log:\n{self.log.read_text()}")


def _starter(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    replicas: list[Replica] = []

    def start(
        source: str | None,
        /,
        *arguments: str,
        wait: bool = True,
        spec: dict[str, Any] | None = None,
        project: Path | None = None,
        output: IO[bytes] | None = None,
        **handler: Any,
    ):
        folder = tmp_path / str(len(replicas))
        files, project = project, folder / "project"
        if files is not None:
            shutil.copytree(files, project)
        project.mkdir(parents=True, exist_ok=True)
        if source is not None:
            (project / "handler.py").write_text(source)
        for path in tmp_path.glob("*.onnx"):
            (project / path.name).write_bytes(path.read_bytes())
        manifest = {
            "apiVersion": "cortex.dev/v1alpha1",
            "kind": "RealtimeAPI",
            "metadata": {"name": "tested", "namespace": "default"},
            "spec": {"handler": {"type": "python", "path": "handler.py", **handler}, **(spec or {})},
        }
        (folder / "api.json").write_bytes(Document.of(parse(manifest)).to_json())
        port, admin_port = free_port(), free_port()
        log = folder / "log"
        command = [sys.executable, "-m", "cortex_runtime", "serve", "--host", "127.0.0.1"]
        command += ["--config", str(folder / "api.json"), "--project", str(project)]
        command += ["--models", str(folder / "models")]
        command += ["--port", str(port), "--admin-port", str(admin_port)]
        command += ["--termination-log", str(folder / "termination"), "--drain-delay", "0", *arguments]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=output or file, stderr=subprocess.STDOUT, env=dict(os.environ)
            )
        replica = Replica(process, port, admin_port, log, folder / "termination", project)
        replicas.append(replica)
        if wait:
            replica.wait_ready()
        return replica

    yield start
    for replica in replicas:
        if replica.process.poll() is None:
            replica.process.kill()
        replica.process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    yield from _starter(tmp_path)


@pytest.fixture(scope="module")
def serve_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Replica]]:
    """Return a function that starts replicas for all tests of a module."""
    yield from _starter(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A NATS server for all tests; each API has its own queue."""
    server = Nats(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 server for all tests."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def sqs_url(tmp_path_factory: pytest.TempPathFactory, seaweedfs: SeaweedFS) -> Iterator[str]:
    """The URL of queues on SQS and S3, whose credentials are in the environment."""
    seaweedfs.create_bucket("jobs")
    moto = Moto(tmp_path_factory.mktemp("moto"))
    environment = {
        "AWS_ACCESS_KEY_ID": ADMIN[0],
        "AWS_SECRET_ACCESS_KEY": ADMIN[1],
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            moto.start()
            yield f"sqs://jobs/tests?region=eu-west-1&sqs={moto.url}&s3={seaweedfs.url}"
        finally:
            moto.kill()
