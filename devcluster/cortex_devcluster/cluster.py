"""The dev cluster as a context manager: a child process that ends with this one, whatever happens to it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

import yaml

from cortex_api import __version__

START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0


class StartFailed(Exception):
    """The dev cluster's process ended or didn't answer; the message has its last words."""


def default_images() -> tuple[str, ...]:
    return (f"cortex-runtime:{__version__}",)


class DevCluster:
    """`with DevCluster(path) as cluster: ...`, with `cluster.kubeconfig` (a file) and `cluster.url`.

    `state_dir` takes the kubeconfig, the log of the dev cluster itself and the files of running pods; `images` are the image
    names that pods may use (the runtime's by default, and always beside those given); `node=False` starts the API server alone.
    """

    def __init__(
        self, state_dir: Path, port: int = 0, images: Collection[str] = (), node: bool = True
    ) -> None:
        self.state_dir = Path(state_dir).absolute()
        self.kubeconfig = self.state_dir / "kubeconfig"
        self.log = self.state_dir / "devcluster.log"
        self._port = port
        self._images = dict.fromkeys([*default_images(), *images])
        self._node = node
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return str(yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])

    def start(self) -> None:
        """Returns once the API server answers and the node is registered. Raises StartFailed."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, "-m", "cortex_devcluster", "--until-eof"]
        command += ["--state-dir", str(self.state_dir), "--port", str(self._port)]
        command += [word for image in self._images for word in ("--image", image)]
        command += [] if self._node else ["--no-node"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while not self.kubeconfig.exists():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    last = self.log.read_text(errors="replace")[-2000:].strip()
                    raise StartFailed(f"the dev cluster did not start: {last or 'it said nothing'}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends it and every process of its pods."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> DevCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
