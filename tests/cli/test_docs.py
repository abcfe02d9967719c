"""Run all commands in README and docs, except those with a comment "<!-- not run: REASON -->".

Each document is a session: its files ("`NAME`:" above a block) are written, and its sh blocks are run in order. `cortex run`
serves until the next `cortex run`. The cluster is a dev cluster with the operator. `python -m tests.cli.documents` lists the
commands.
"""

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import helm_python
import kubernetes_validate
import pytest
import yaml

from cortex_api import GROUP, VERSION, parse
from cortex_cli.__main__ import main
from cortex_devcluster import DevCluster
from tests.chart.rendering import CHART, render
from tests.cli.documents import DOCUMENTS, ROOT, Block, blocks, inline
from tests.ports import free_port

BIN = Path(sys.executable).parent
API = f"{GROUP}/{VERSION}"
LIMIT = 120
KINDS = {"sh", "yaml", "python", "json", "lua", ""}
"""Allowed languages of blocks; "" is a diagram."""
TOOLS = ("cortex", "kubectl", "helm", "make", "curl", "docker", "kind", "pip", ".venv/bin/")


@dataclass
class Session:
    """A terminal session in a folder with the files of the documents, and in a namespace of the cluster."""

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

    def run(self, command: str) -> None:
        if command.startswith(("cortex run", ".venv/bin/cortex run")):
            self.serve(command)
        else:
            self.one(command)

    def serve(self, command: str) -> None:
        """Start `cortex run` in the background, on free ports instead of those in the documents."""
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
def test_commands_succeed(document, cluster, tmp_path):
    session = Session(tmp_path, cluster, document.stem.lower())
    session.one(f"kubectl create namespace {session.namespace}")
    try:
        for block in blocks(document):
            if block.file is not None:
                target = tmp_path / block.file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text)
            elif block.kind == "sh" and block.reason is None:
                for command in block.commands:
                    session.run(command)
    finally:
        session.stop()
        session.one(f"kubectl delete namespace {session.namespace} --wait=false")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_link_targets_exist(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_in_sh_blocks(document):
    for block in blocks(document):
        assert block.kind in KINDS
        assert block.kind == "sh" or not block.text.startswith(TOOLS), block.text
        assert block.reason is None or block.commands
        # A test that is named in the reason exists.
        for path in re.findall(r"tests/\S+\.py", block.reason or ""):
            assert (ROOT / path).exists()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_mentioned_commands_and_options_exist(document):
    makefile = (ROOT / "Makefile").read_text()
    context = click.Context(main)
    known = {
        name: {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        for name in main.list_commands(context)
        if (command := main.get_command(context, name))
    }
    written = [*inline(document), *(command for block in blocks(document) for command in block.commands)]
    for words in (command.replace(".venv/bin/", "").split() for command in written):
        if words[0] == "make" and len(words) > 1:
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        elif words[0] == "cortex" and len(words) > 1 and words[1] not in OLD:
            options = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
            assert options <= known[words[1]], words


OLD = ("deploy", "refresh", "delete", "cluster", "env")
"""Commands of the original Cortex, which the page on migration mentions."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_helm_values_are_valid(document):
    for block in blocks(document):
        for command in block.commands:
            if command.startswith(("helm install", "helm upgrade")):
                words = shlex.split(command)
                given = [value for word, value in itertools.pairwise(words) if word == "--set"]
                assert render(helm_python.parse_set_string(",".join(given)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_yaml_blocks_are_valid(document):
    for block in blocks(document):
        if block.kind == "yaml":
            for found in yaml.safe_load_all(block.text):
                check(block, found)


def check(block: Block, found: dict[str, Any]) -> None:
    """Validate a manifest, chart values, a part of a spec or handler, a cortex.yaml, or a manifest of another program."""
    if isinstance(found, list) or "syncPolicy" in found.get("spec", {}):
        assert (block.file or "").endswith("cortex.yaml") or found["spec"]["syncPolicy"]["syncOptions"]
    elif found.get("apiVersion") == API:
        parse(found)
    elif "apiVersion" in found:
        kubernetes_validate.validate(found, "1.36", strict=True)
    elif set(found) <= set(yaml.safe_load((CHART / "values.yaml").read_text())):
        assert render(found)
    else:
        spec = {"handler": {"type": "python", "path": "handler.py"}, **found}
        if "models" in found:
            spec = {"handler": {"type": "onnx", **found}}
        parse({"apiVersion": API, "kind": "RealtimeAPI", "metadata": {"name": "x"}, "spec": spec})
