"""The statistics of responses, as `cortex get` and the metrics of the replicas show them during requests."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cortex_cli.__main__ import main

from .conftest import Kubectl, api, eventually, post

CODE = """
from cortex_runtime import UserError

class Handler:
    def handle_post(self, payload):
        if payload == "refused":
            raise UserError("refused", status=422)
        return payload
"""


@pytest.mark.parametrize(
    ("tracker", "rounds"),
    [
        (
            {"key": "label", "modelType": "classification"},
            [
                (
                    [{"label": "setosa"}] * 3 + [{"label": 7}, "refused"],
                    {"setosa": "3 (75%)", "7": "1 (25%)"},
                ),
                ([{"label": 7}] * 4, {"setosa": "3 (38%)", "7": "5 (62%)"}),
            ],
        ),
        (
            {"modelType": "regression"},
            [
                ([2, 4, "refused"], {"MIN MAX AVERAGE COUNT": "2 4 3 2"}),
                ([-3, 5.5, 4], {"MIN MAX AVERAGE COUNT": "-3 5.5 2.5 5"}),
            ],
        ),
    ],
    ids=["classification", "regression"],
)
def test_get_and_the_metrics_follow_the_successful_responses(
    kubectl: Kubectl, kubeconfig: Path, tracker: dict, rounds: list
) -> None:
    kubectl.apply(api(code=CODE, tracker=tracker))
    kubectl.wait_reason("echo", "Ready")
    eventually(lambda: post(kubectl, "echo", "ignored").status_code, lambda status: status == 200)

    def get() -> str:
        words = ["get", "--kubeconfig", str(kubeconfig), "echo", "-n", kubectl.namespace]
        return " ".join(CliRunner().invoke(main, words).stdout.replace("█", "").split())

    def metrics() -> str:
        (pod,) = kubectl.list("pods")
        name = pod["metadata"]["name"]
        return kubectl(
            "get", "--raw", f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}:8081/proxy/metrics"
        )

    for payloads, expected in rounds:
        for payload in payloads:
            assert post(kubectl, "echo", payload).status_code == (422 if payload == "refused" else 200)
        shown, text = get(), metrics()
        for name, figures in expected.items():
            assert f"{name} {figures}" in shown
            if tracker["modelType"] == "classification":
                assert f'cortex_tracker_predictions_total{{class="{name}"}} {figures.split()[0]}.0' in text
            else:
                assert f"cortex_tracker_value_count {figures.split()[-1]}.0" in text
        assert "refused" not in shown


@pytest.mark.parametrize("name", ["mpg-estimator", "echo"])
def test_the_endpoint_of_an_api_that_names_none_is_the_base_and_its_name(kubectl: Kubectl, name: str) -> None:
    kubectl.apply(api(name))
    kubectl.wait_reason(name, "Ready")
    assert kubectl.get("realtimeapi", name)["status"]["url"] == f"http://apis.example.com/{name}"
    route = kubectl.get("httproute", f"api-{name}")["spec"]
    assert route["hostnames"] == ["apis.example.com"]
    (rule,) = route["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": f"/{name}"}}]
    (rewrite,) = [each["urlRewrite"] for each in rule["filters"] if each["type"] == "URLRewrite"]
    assert rewrite["path"] == {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
    assert [backend["name"] for backend in rule["backendRefs"]] == [f"api-{name}"]
    assert post(kubectl, name, 1).json() == {"got": 1}
