"""Two operators: one leads, the other takes over when it is gone."""

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


def test_the_second_stands_by_and_takes_over_from_a_killed_first(
    kubectl: Kubectl, operator: Operator, second: Operator
) -> None:
    assert operator.leads()
    assert not second.leads()
    kubectl.apply(api())
    kubectl.wait_reason("echo", "Ready")
    assert second.metric("cortex_operator_reconciles_total") == 0
    operator.kill()
    eventually(second.leads, bool, seconds=20)
    kubectl.apply(api("later"))
    kubectl.wait_reason("later", "Ready")
    operator.start()
    assert not operator.leads()
    second.stop()
    eventually(operator.leads, bool, seconds=20)
