"""Every command in README and docs runs, or says in a comment above it why it can't run here.

A document is a session: files that it shows are written ("`NAME`:" above a block), blocks marked sh are run in turn, and what
`cortex run` serves is there until the next one. The cluster is a dev cluster with the operator.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from cortex_cli.devcluster import DevCluster

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LIMIT = 120


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    file: str | None
    reason: str | None
    """Why it isn't run."""


def blocks(document: Path) -> list[Block]:
    found: list[Block] = []
    kind, text, above = None, "", ""
    for line in document.read_text().splitlines():
        if kind is None and line.startswith("```"):
            kind, text = line[3:], ""
        elif kind is not None and line == "```":
            file = re.fullmatch(r"`([\w./-]+)`:", above)
            reason = re.fullmatch(r"<!-- not run: (.+) -->", above)
            found.append(Block(kind, text, file and file[1], reason and reason[1]))
            kind = None
        elif kind is not None:
            text += f"{line}\n"
        elif line.strip():
            above = line.strip()
            continue
        if kind is None and line == "```":
            above = ""
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Session:
    """A reader at a terminal, in a folder with what the documents speak of and a namespace of the cluster."""

    folder: Path
    cluster: Path
    namespace: str
    served: subprocess.Popen[str] | None = None
    ports: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("examples", "charts", "crds"):
            (self.folder / name).symlink_to(ROOT / name)
        kubeconfig = yaml.safe_load(self.cluster.read_text())
        kubeconfig["contexts"][0]["context"]["namespace"] = self.namespace
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "HOME": str(self.folder),
            "NO_PROXY": "*",
        }

    def run(self, script: str) -> None:
        for command in re.sub(r"\\\n", " ", script).splitlines():
            if command.startswith(("cortex run", ".venv/bin/cortex run")):
                self.serve(command)
            elif command.strip():
                self.one(command)

    def serve(self, command: str) -> None:
        """`cortex run`, in another terminal; the ports of the documents are others here."""
        self.stop()
        self.ports = {
            "127.0.0.1:8080": f"127.0.0.1:{free_port()}",
            "127.0.0.1:8081": f"127.0.0.1:{free_port()}",
        }
        port, admin = (address.split(":")[1] for address in self.ports.values())
        words = f"{self.local(command)} --port {port} --admin-port {admin}"
        log = self.folder / "served.log"
        with log.open("w") as output:
            self.served = subprocess.Popen(
                ["bash", "-c", f"exec {words}"],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        end = time.monotonic() + LIMIT
        while "is ready at" not in log.read_text():
            assert self.served.poll() is None, f"{command}: {log.read_text()}"
            assert time.monotonic() < end, f"{command}: {log.read_text()}"
            time.sleep(0.05)

    def one(self, command: str) -> None:
        for written, real in self.ports.items():
            command = command.replace(written, real)
        command = re.sub(r"^curl ", "curl --silent --show-error --fail-with-body ", self.local(command))
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    @staticmethod
    def local(command: str) -> str:
        return command.removeprefix(".venv/bin/")

    def stop(self) -> None:
        if self.served is not None:
            self.served.send_signal(signal.SIGINT)
            self.served.wait(LIMIT)
            self.served = None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("docs-cluster")
    with DevCluster(folder) as running, (folder / "operator.log").open("wb") as log:
        environment = {**os.environ, "KUBECONFIG": str(running.kubeconfig)}
        subprocess.run(
            [BIN / "kubectl", "apply", "-f", ROOT / "crds"], env=environment, check=True, timeout=LIMIT
        )
        operator = subprocess.Popen(
            [sys.executable, "-m", "cortex_operator", "--health-port", str(free_port())],
            env=environment,
            stdout=log,
            stderr=log,
        )
        yield running.kubeconfig
        operator.terminate()
        operator.wait(LIMIT)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_its_commands_run(document, cluster, tmp_path):
    session = Session(tmp_path, cluster, document.stem.lower())
    session.one(f"kubectl create namespace {session.namespace}")
    try:
        for block in blocks(document):
            if block.file is not None:
                target = tmp_path / block.file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text)
            elif block.kind == "sh" and block.reason is None:
                session.run(block.text)
    finally:
        session.stop()
        session.one(f"kubectl delete namespace {session.namespace} --wait=false")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_its_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_its_yaml_is_yaml(document):
    for block in blocks(document):
        if block.kind == "yaml":
            list(yaml.safe_load_all(block.text))
