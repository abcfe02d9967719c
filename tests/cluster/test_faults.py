"""An API server that fails: the operator retries, misses no change, and keeps running."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import KUBECTL, Kubectl, Operator, api, code, eventually
from .faulty import FaultyProxy


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[FaultyProxy]:
    command = [str(KUBECTL), "--kubeconfig", str(kubeconfig), "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as plain:
        assert plain.stdout is not None
        found = re.search(r"127\.0\.0\.1:[0-9]+", plain.stdout.readline())
        assert found is not None
        with FaultyProxy(f"http://{found[0]}") as proxy:
            yield proxy
        plain.terminate()


@pytest.fixture
def troubled(proxy: FaultyProxy, operator: Operator, platform: Path, tmp_path: Path) -> Iterator[Operator]:
    """Replace the shared operator by one behind the proxy."""
    operator.stop()
    troubled = Operator(proxy.kubeconfig(tmp_path), platform, tmp_path / "log")
    troubled.start()
    eventually(troubled.leads, bool)
    yield troubled
    proxy.fault = None
    troubled.stop()
    operator.start()
    eventually(operator.leads, bool)


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "gone"])
def test_changes_during_failures_of_the_api_server_are_applied_later(
    kubectl: Kubectl, proxy: FaultyProxy, troubled: Operator, fault: int | str
) -> None:
    kubectl.apply(
        code("x = 1\n"), api("before"), api("goes"), api(handler={"source": {"configMap": {"name": "code"}}})
    )
    kubectl.wait_reason("before", "Ready")
    kubectl.wait_reason("echo", "HandlerNotFound")
    proxy.fault = fault
    proxy.cut_streams()
    kubectl("delete", "service", "api-before")
    kubectl("delete", "realtimeapi", "goes")
    kubectl("delete", "configmap", "code")
    kubectl.apply(api("after"))
    eventually(lambda: proxy.refused, lambda refused: refused > 3)
    proxy.fault = None
    kubectl.wait_reason("after", "Ready")
    eventually(
        lambda: [s["metadata"]["name"] for s in kubectl.list("services")], lambda names: "api-before" in names
    )
    kubectl.wait_reason("echo", "SourceUnavailable")
    names = [api["metadata"]["name"] for api in kubectl.list("realtimeapis")]
    assert sorted(names) == ["after", "before", "echo"]
    eventually(
        lambda: [d["metadata"]["name"] for d in kubectl.list("deployments")], lambda n: "api-goes" not in n
    )
