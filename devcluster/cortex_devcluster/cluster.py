"""The dev cluster as a context manager. It is a child process, and stops when this process ends for any reason."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

import yaml

from cortex_api import __version__

START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0


class StartFailed(Exception):
    """The dev cluster exited or did not start in time; the message includes the end of its log."""


def default_images() -> tuple[str, ...]:
    """Return the image names that every dev cluster has: the runtime of this version."""
    return (f"cortex-runtime:{__version__}",)


class DevCluster:
    """`with DevCluster(path) as cluster: ...` starts a dev cluster; `cluster.kubeconfig` is the path of its kubeconfig.

    state_dir: folder for the kubeconfig, the log and the files of pods. port: of the API server; 0 selects a free port.
    images: image names that pods may use, in addition to the runtime's.
    """

    def __init__(self, state_dir: Path, port: int = 0, images: Collection[str] = ()) -> None:
        self.state_dir = Path(state_dir).absolute()
        self.kubeconfig = self.state_dir / "kubeconfig"
        self.log = self.state_dir / "devcluster.log"
        self._port = port
        self._images = dict.fromkeys([*default_images(), *images])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the URL of the API server."""
        return str(yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])

    def start(self) -> None:
        """Start it and wait until the API server responds and the node is registered. Raises StartFailed."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, "-m", "cortex_devcluster", "--until-eof"]
        command += ["--state-dir", str(self.state_dir), "--port", str(self._port)]
        command += [word for image in self._images for word in ("--image", image)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while not self.kubeconfig.exists():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    last = self.log.read_text(errors="replace")[-2000:].strip()
                    raise StartFailed(f"the dev cluster did not start: {last or 'its log is empty'}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it and every process of its pods."""
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
