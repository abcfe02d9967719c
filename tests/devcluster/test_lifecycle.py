"""The dev cluster starts, and stops with everything that it started."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cortex_devcluster import DevCluster, StartFailed
from tests.devcluster.conftest import alive

CHILD = """
import sys, time
from pathlib import Path
from cortex_devcluster import DevCluster
with DevCluster(Path(sys.argv[1])) as cluster:
    print(cluster.kubeconfig, flush=True)
    time.sleep(600)
"""


def test_pods_stop_when_the_parent_process_is_killed(tmp_path: Path, home: Path, make: Any) -> None:

    parent = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    kubectl = make.Kubectl(Path(parent.stdout.readline().strip()), "default", home)
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=make.pod("p", "import os,time;print(os.getpid(),flush=True);time.sleep(600)"),
    )
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    pid = int(kubectl.until(lambda: kubectl("logs", "p")))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline, "the pod's process outlived the dev cluster"
        time.sleep(0.05)


def test_port_in_use_is_reported(cluster: DevCluster, tmp_path: Path) -> None:
    port = int(cluster.url.rsplit(":", 1)[1])
    with pytest.raises(StartFailed, match="in use"):
        DevCluster(tmp_path, port=port).start()
