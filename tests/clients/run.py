"""Runs the clients of other projects against replicas of the runtime, and prints how many of their checks passed.

`make test-clients` runs it. Each project's client is installed from PyPI into build/clients/NAME, because their versions of
protobuf conflict with ours.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

from cortex_api import Document, parse
from tests.clients.served import HANDLER, write_models
from tests.runtime.queues.servers import free_port

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
CLIENTS = {
    "triton": ["tritonclient[all]==2.73.0", "grpcio-reflection"],
    "kserve_client": ["kserve==0.21.0"],
}
"""The program of a client, and what it needs."""
REPLICAS = {
    "onnx": ("triton", "kserve_client"),
    "tensorflow": ("triton", "kserve_client"),
    "python": ("triton",),
}
"""The type of the handler of each replica, and the clients that call it. TensorFlow runs in the process of the replica."""


class Replica:
    """A running replica of an API. port, grpc_port: on the loopback interface."""

    def __init__(self, folder: Path, handler: dict[str, object]) -> None:
        folder.mkdir()
        self.port, self.grpc_port, self._admin_port = free_port(), free_port(), free_port()
        manifest = {
            "apiVersion": "cortex.dev/v1alpha1",
            "kind": "RealtimeAPI",
            "metadata": {"name": "iris", "namespace": "default"},
            "spec": {
                "handler": {"protocols": {"grpc": True, "repository": True}, "logLevel": "warning", **handler}
            },
        }
        (folder / "api.json").write_bytes(Document.of(parse(manifest)).to_json())
        if "path" in handler:
            (folder / "handler.py").write_text(HANDLER)
        command = [sys.executable, "-m", "cortex_runtime", "serve", "--host", "127.0.0.1"]
        command += ["--config", str(folder / "api.json"), "--project", str(folder)]
        command += ["--models", str(folder / "models"), "--termination-log", str(folder / "termination")]
        command += ["--port", str(self.port), "--admin-port", str(self._admin_port)]
        self._process = subprocess.Popen([*command, "--grpc-port", str(self.grpc_port)])

    def __enter__(self) -> "Replica":
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._admin_port}/readyz", timeout=5):
                    return self
            except urllib.error.URLError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
        self._process.kill()
        raise SystemExit("the replica did not start; see its log above")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of HTTP and of gRPC."""
        return [f"127.0.0.1:{self.port}", f"127.0.0.1:{self.grpc_port}"]


def installed(name: str, requirements: list[str]) -> Path:
    """Return the Python of a client's environment, which is made at the first run."""
    folder = ROOT / "build" / "clients" / name
    python, stamp = folder / "bin" / "python", folder / "requirements.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != requirements:
        print(f"Installing {', '.join(requirements)} into {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements], check=True
        )
        stamp.write_text(json.dumps(requirements))
    return python


def prepared(kind: str, folder: Path) -> dict[str, object]:
    """Write the models of a replica, and return its handler. The handler in Python has none; `Replica` writes its code."""
    if kind == "python":
        return {"type": kind, "path": "handler.py"}
    models = folder / f"{kind}-models"
    if kind == "onnx":
        write_models(models)
    else:
        subprocess.run([sys.executable, FOLDER / "served_tensorflow.py", models], check=True)
    return {"type": kind, "models": {"dir": str(models)}}


def main() -> int:
    """Run all clients. Return 0 if all of their checks passed."""
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for kind, clients in REPLICAS.items():
            with Replica(folder / kind, prepared(kind, folder)) as replica:
                for name in clients:
                    command = [
                        installed(name, CLIENTS[name]),
                        FOLDER / f"{name}.py",
                        kind,
                        *replica.addresses,
                    ]
                    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
                    failed |= bool(subprocess.run(command, env=environment).returncode)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
