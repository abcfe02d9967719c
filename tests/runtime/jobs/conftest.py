"""`api`: an AsyncAPI as real processes: NATS, gateways and consumers, each of which can be killed."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_api import Document, parse
from tests.runtime.programs import PLAIN, Program
from tests.runtime.queues.servers import Nats, free_port, until

FAULTY = Path(__file__).parent / "faulty.py"


@dataclass
class Part(Program):
    """A gateway or consumer."""

    name: str

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        answer = self.readiness()
        return answer is not None and answer.is_success

    def problem(self) -> dict[str, Any]:
        answer = self.readiness()
        return {} if answer is None else answer.json()

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process has exited."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM, and wait until the process has exited."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@dataclass
class Api:
    """One AsyncAPI."""

    folder: Path
    queue_url: str
    nats: Nats
    name: str
    programs: list[Part] = field(default_factory=list)

    def write(self, source: str | None, spec: dict[str, Any], handler: dict[str, Any]) -> None:
        (self.folder / "project").mkdir(parents=True, exist_ok=True)
        if source is not None:
            (self.folder / "project" / "handler.py").write_text(source)
        manifest = {
            "apiVersion": "cortex.dev/v1alpha1",
            "kind": "AsyncAPI",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {"handler": {"type": "python", "path": "handler.py", **handler}, **spec},
        }
        (self.folder / "api.json").write_bytes(Document.of(parse(manifest)).to_json())

    def gateway(self, *arguments: str, wait: bool = True, fault: str = "", **env: str) -> Part:
        return self._start("gateway", free_port(), ["--drain-delay", "0", *arguments], wait, fault, env)

    def consumer(self, *arguments: str, wait: bool = True, fault: str = "", **env: str) -> Part:
        folders = ["--project", str(self.folder / "project"), "--models", str(self.folder / "models")]
        return self._start("consume", None, [*folders, *arguments], wait, fault, env)

    def _start(
        self,
        command: str,
        port: int | None,
        arguments: list[str],
        wait: bool,
        fault: str,
        env: dict[str, str],
    ) -> Part:
        """Start a program. fault: the step at which it kills itself, see faulty.py."""
        admin_port = free_port()
        name = f"{command}-{len(self.programs)}"
        log, termination = self.folder / f"{name}.log", self.folder / f"{name}.end"
        program = [str(FAULTY), *fault.split(), "--"] if fault else ["-m", "cortex_runtime"]
        line = [sys.executable, *program, command, "--config", str(self.folder / "api.json")]
        line += ["--host", "127.0.0.1", "--admin-port", str(admin_port)]
        line += ["--termination-log", str(termination), *arguments]
        if port is not None:
            line += ["--port", str(port)]
        environment = {**os.environ, "CORTEX_QUEUE_URL": self.queue_url, **env}
        with log.open("wb") as output:
            process = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, env=environment)
        program = Part(process, port or 0, admin_port, log, termination, name)
        self.programs.append(program)
        if wait:
            until(program.ready, 120, f"{name} is ready")
        return program

    @property
    def url(self) -> str:
        """Return the URL of the first running gateway."""
        return next(p.url for p in self.programs if p.port and p.process.poll() is None)

    def post(self, json: Any = None, **more: Any) -> httpx.Response:
        if "content" not in more:
            more["json"] = json
        return PLAIN.post(self.url, timeout=60, **more)

    def submit(self, json: Any = None, **more: Any) -> str:
        answer = self.post(json, **more)
        assert answer.status_code == 202, answer.text
        assert list(answer.json()) == ["id"]
        return answer.json()["id"]

    def get(self, identity: str, wait: str = "") -> dict[str, Any]:
        answer = PLAIN.get(f"{self.url}/{identity}", params={"wait": wait} if wait else {}, timeout=90)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self, identity: str, seconds: float = 60) -> dict[str, Any]:
        """Return the job once it has ended."""
        job = self.get(identity, f"{seconds:g}s")
        assert job["status"] in ("completed", "failed"), (job, self.logs())
        return job

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.log.read_text()[-3000:]}" for p in self.programs)

    def clear(self) -> None:
        for program in self.programs:
            if program.process.poll() is None:
                program.process.kill()
            program.process.wait()


def _makes(folder: Path, nats: Nats) -> Iterator[Callable[..., Api]]:
    made: list[Api] = []

    def make(source: str | None, *, spec: dict[str, Any] | None = None, **handler: Any) -> Api:
        new = Api(folder / str(len(made)), nats.url, nats, f"api-{uuid.uuid4().hex[:8]}")
        new.write(source, spec or {}, handler)
        made.append(new)
        return new

    yield make
    for one in made:
        one.clear()


@pytest.fixture
def api(tmp_path: Path, nats_server: Nats) -> Iterator[Callable[..., Api]]:
    """Return a function that creates an API from a handler's source and fields of the spec."""
    yield from _makes(tmp_path, nats_server)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, nats_server: Nats) -> Iterator[Callable[..., Api]]:
    """Return a function that creates APIs for all tests of a module."""
    yield from _makes(tmp_path_factory.mktemp("shared"), nats_server)
