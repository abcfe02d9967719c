"""Two operators: one is the leader, the other takes over when it stops."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Kubectl, Operator, api, eventually


@pytest.fixture
def second(kubeconfig: Path, platform: Path, tmp_path: Path, operator: Operator) -> Iterator[Operator]:
    second = Operator(kubeconfig, platform, tmp_path / "log")
    second.start()
    yield second
    second.stop()


def test_the_second_operator_leads_after_the_first_was_killed(
    kubectl: Kubectl, operator: Operator, second: Operator
) -> None:
    assert operator.leads()
    assert not second.leads()
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    assert second.metric("cortex_operator_reconciles_total") == 0
    operator.kill()
    eventually(second.leads, bool)
    kubectl.apply(api("later"))
    kubectl.wait_reason("later", "Ready")
    operator.start()
    assert not operator.leads()
    second.stop()
    eventually(operator.leads, bool)


@pytest.fixture
def apart(
    kubeconfig: Path, platform: Path, tmp_path: Path, operator: Operator, kubectl: Kubectl
) -> Iterator[Operator]:
    """An operator with a Lease of its own, in the test's namespace."""
    settings = json.loads(platform.read_text())
    config = tmp_path / "platform.yaml"
    config.write_text(json.dumps({**settings, "leaseNamespace": kubectl.namespace, "logLevel": "debug"}))
    apart = Operator(kubeconfig, config, tmp_path / "log")
    apart.start()
    yield apart
    apart.stop()


def test_an_operator_with_another_lease_ignores_apis_of_the_first(
    kubectl: Kubectl, operator: Operator, apart: Operator
) -> None:
    eventually(apart.leads, bool)
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    kubectl.apply(api(replicas=2))
    kubectl.wait_message("echo", "2 of 2 replicas are ready")
    before = kubectl.get("deployment", "api-echo")["metadata"]
    writes = [
        o.metric('cortex_operator_api_calls_total{status="200",verb="PATCH"') for o in (operator, apart)
    ]
    assert sum(writes) > 0
    kubectl("annotate", "realtimeapi", "echo", "note=x")
    marks = {child["metadata"]["annotations"]["cortex.dev/operator"] for child in kubectl.list("deployments")}
    assert len(marks) == 1
    loser = operator if marks == {kubectl.namespace} else apart
    eventually(loser.log.read_text, lambda text: "this operator ignores it" in text)
    assert kubectl.get("deployment", "api-echo")["metadata"]["generation"] == before["generation"]
    assert [
        o.metric('cortex_operator_api_calls_total{status="200",verb="PATCH"') for o in (operator, apart)
    ] == writes
