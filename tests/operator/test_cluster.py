"""What is sent to the API server, and what is read of its responses."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.cluster import Cluster, error_text, merge_patch

OLD: dict[str, Any] = {
    "a": 1,
    "scaling": {"desired": 1, "reason": "no metrics", "deep": {"x": 1}},
    "gone": [1],
}


@pytest.mark.parametrize(
    ("wanted", "patch"),
    [
        ({"a": 1}, {"a": 1, "scaling": None, "gone": None}),
        (
            {"a": 2, "scaling": {"desired": 3, "deep": {}}},
            {"a": 2, "scaling": {"desired": 3, "reason": None, "deep": {"x": None}}, "gone": None},
        ),
        ({"scaling": 5, "gone": {"b": 1}}, {"a": None, "scaling": 5, "gone": {"b": 1}}),
    ],
)
def test_a_merge_patch_removes_fields_at_any_depth(wanted: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(OLD, wanted) == patch


class Server:
    """An API server that records each request and returns `response`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.response = web.json_response({"items": [{"metadata": {"name": "a"}}]})

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        return self.response


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    async with TestServer(app) as started:
        kubeconfig = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": str(started.make_url("")).rstrip("/")}}],
            "users": [{"name": "test", "user": {"token": "secret"}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)  # Also if the tests run in a pod.
        yield server


@pytest.fixture
async def cluster(server: Server) -> AsyncIterator[Cluster]:
    connected = await Cluster.connect()
    yield connected
    await connected.close()


async def test_a_call_sends_the_token_and_encodes_the_query(server: Server, cluster: Cluster) -> None:
    (found,) = await cluster.list_matching("v1", "Pod", "team", "app in (a, b),tier=web")
    method, path, headers, _ = server.requests[0]
    assert (method, path) == (
        "GET",
        "/api/v1/namespaces/team/pods?labelSelector=app+in+%28a%2C+b%29%2Ctier%3Dweb",
    )
    assert (headers["Authorization"], headers["Accept"]) == ("Bearer secret", "application/json")
    assert found == {"metadata": {"name": "a"}, "apiVersion": "v1", "kind": "Pod"}
    assert cluster.calls == {("GET", 200): 1}


async def test_an_apply_is_sent_as_json_with_its_field_manager(server: Server, cluster: Cluster) -> None:
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "team"},
        "data": {"é": "1"},
    }
    await cluster.apply(child)
    method, path, headers, body = server.requests[0]
    assert (method, path) == (
        "PATCH",
        "/api/v1/namespaces/team/configmaps/a?fieldManager=cortex-operator&force=true",
    )
    assert (headers["Content-Type"], json.loads(body)) == ("application/apply-patch+yaml", child)


async def test_half_of_a_character_in_a_message_does_not_prevent_a_status(
    server: Server, cluster: Cluster
) -> None:
    live = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": "a", "namespace": "team", "uid": "u"},
    }
    await cluster.write_status(live, {"message": "\ud800"})
    assert json.loads(server.requests[0][3])["status"] == {"message": "\ud800"}


async def test_an_error_has_the_message_of_the_api_server(server: Server, cluster: Cluster) -> None:
    server.response = web.json_response({"message": "pods is forbidden"}, status=403)
    with pytest.raises(ApiException) as raised:
        await cluster.list_matching("v1", "Pod", "team", "a=b")
    assert (raised.value.status, error_text(raised.value)) == (403, "pods is forbidden")
    assert cluster.calls == {("GET", 403): 1}
