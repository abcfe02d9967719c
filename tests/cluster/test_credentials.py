"""API keys and other credentials are required where the API requires them, and are never copied."""

import base64

import httpx

from .conftest import Kubectl, Operator, api, eventually

KEY, TOKEN = "k3y-0f-a-client", "t0ken-of-a-bucket"


def secret(name: str, **values: str) -> dict[str, object]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def status(kubectl: Kubectl, key: str = "") -> int:
    headers = {"x-api-key": key} if key else {}
    return httpx.post(f"{kubectl.address('echo')}/", json=1, headers=headers, timeout=60).status_code


def update_files(kubectl: Kubectl, change: str) -> None:
    """Make the kubelet update the files of the pods now; otherwise it takes a minute."""
    kubectl("annotate", "--overwrite", "pods", "--all", f"example.com/keys={change}")


def test_an_api_with_keys_is_never_open_and_its_keys_are_never_shown(
    kubectl: Kubectl, operator: Operator
) -> None:
    kubectl.apply(
        secret("bucket", TOKEN=TOKEN),
        api(
            handler={
                "apiKeys": {"secret": {"name": "clients"}},
                "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "bucket", "key": "TOKEN"}}}],
                "envFrom": [{"secretRef": {"name": "bucket"}}],
            }
        ),
    )
    refused = kubectl.wait_reason("echo", "InvalidSpec")
    assert "Secret clients" in refused["message"]
    kubectl.apply(secret("clients", mobile=KEY))
    kubectl.wait_reason("echo", "Ready")
    assert status(kubectl) == 401
    assert status(kubectl, "another") == 401
    assert status(kubectl, KEY) == 200
    for kinds in ("realtimeapis", "deployments,replicasets,pods,configmaps,services", "events"):
        shown = kubectl("get", kinds, "-o", "json", "--show-managed-fields")
        assert KEY not in shown
        assert TOKEN not in shown
    logs = kubectl("logs", "deployment/api-echo") + operator.log.read_text()
    assert KEY not in logs
    assert TOKEN not in logs


def test_a_new_key_is_valid_without_a_restart(kubectl: Kubectl) -> None:
    kubectl.apply(secret("clients", old=KEY), api(handler={"apiKeys": {"secret": {"name": "clients"}}}))
    kubectl.wait_reason("echo", "Ready")
    (pod,) = kubectl.list("pods")
    kubectl.apply(secret("clients", old=KEY, new="another"))
    update_files(kubectl, "added")
    eventually(lambda: status(kubectl, "another"), lambda code: code == 200, seconds=120)
    assert status(kubectl, KEY) == 200
    kubectl.patch("secret", "clients", {"data": {"old": None}})
    update_files(kubectl, "removed")
    eventually(lambda: status(kubectl, KEY), lambda code: code == 401, seconds=120)
    (same,) = kubectl.list("pods")
    assert same["metadata"]["name"] == pod["metadata"]["name"]
    assert same["status"]["containerStatuses"][0]["restartCount"] == 0
