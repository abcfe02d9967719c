"""Requests from outside of the cluster, through traefik as the controller of the Gateway."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import httpx
import numpy as np
import pytest

from cortex_runtime.inference.protos import inference_pb2

from .conftest import ECHO, Kubectl, api, eventually
from .gateway_api import Traefik, gateway
from .load import Load
from .test_no_request_is_lost import all_gone, pods

HOST = {"host": "apis.example.com"}
MIRROR = """
from cortex_runtime import route

class Handler:
    def handle_get(self, query_params):
        return {"at": "/", "query": dict(query_params)}

    @route("/texts/{name}", method="GET")
    def text(self, name, query_params):
        return {"at": f"/texts/{name}", "query": dict(query_params)}

    @route("/app", method="MOUNT")
    def app(self):
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        async def address(request):
            return JSONResponse(request.url_for("address").path)

        return Starlette(routes=[Route("/address", address)])
"""
INFER = """
class Handler:
    def handle_infer(self, inputs, parameters):
        return {"y": inputs["x"] + FACTOR}
"""


@pytest.fixture(scope="module")
def proxy(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traefik]:
    kubectl = Kubectl(kubeconfig, "default")
    with Traefik(kubeconfig, tmp_path_factory.mktemp("traefik"), "--providers.kubernetesgateway") as proxy:
        kubectl.apply(*gateway("outside", proxy.port))
        yield proxy
    kubectl("delete", "gateway/outside", "gatewayclass/traefik")


def get(proxy: Traefik, path: str) -> httpx.Response:
    return httpx.get(proxy.url + path, headers=HOST, timeout=60)


def wait_for_route(proxy: Traefik, path: str) -> httpx.Response:
    return eventually(lambda: get(proxy, path), lambda response: response.status_code == 200)


def test_a_route_strips_the_endpoint_and_keeps_the_query(kubectl: Kubectl, proxy: Traefik) -> None:
    endpoint = f"/{kubectl.namespace}/iris"
    kubectl.apply(api(code=MIRROR, networking={"endpoint": endpoint}))
    kubectl.wait_reason("echo", "Ready")
    query = {"a": "1 2", "b": "x/y", "c": "ä"}
    encoded = "a=1%202&b=x%2Fy&c=%C3%A4"
    assert wait_for_route(proxy, f"{endpoint}?{encoded}").json() == {"at": "/", "query": query}
    assert get(proxy, f"{endpoint}/?{encoded}").json() == {"at": "/", "query": query}
    deeper = get(proxy, f"{endpoint}/texts/b%20c?{encoded}").json()
    assert deeper == {"at": "/texts/b c", "query": query}
    assert get(proxy, f"{endpoint}/app/address").json() == f"{endpoint}/app/address"
    assert get(proxy, f"{endpoint}es").status_code == 404, "a prefix is a whole number of path segments"
    assert get(proxy, f"/{kubectl.namespace}").status_code == 404
    url = kubectl.get("realtimeapi", "echo")["status"]["url"]
    assert url == f"http://apis.example.com{endpoint}"


def test_a_route_follows_an_endpoint_that_moves(kubectl: Kubectl, proxy: Traefik) -> None:
    before, after = f"/{kubectl.namespace}/before", f"/{kubectl.namespace}/after"
    kubectl.apply(api(code=MIRROR, networking={"endpoint": before}))
    kubectl.wait_reason("echo", "Ready")
    wait_for_route(proxy, before)
    old = pods(kubectl)
    kubectl.patch("realtimeapi", "echo", {"spec": {"networking": {"endpoint": after}}})
    wait_for_route(proxy, after)
    assert get(proxy, before).status_code == 404
    assert pods(kubectl) == old
    eventually(lambda: kubectl.get("realtimeapi", "echo")["status"]["url"], lambda url: url.endswith(after))


class Calls:
    """Sends requests over gRPC from several connections while the `with` block runs. counts: by status."""

    def __init__(self, proxy: Traefik, host: str, clients: int = 4) -> None:
        self._arguments = (proxy, host, "echo", 5.0)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with connected(*self._arguments[:2]) as channel:
            while not self._stop.wait(0.005):
                try:
                    infer(channel, *self._arguments[2:])
                    self.counts["OK"] += 1
                except grpc.RpcError as error:
                    self.counts[f"{error.code().name}: {error.details()}"] += 1


def test_no_request_through_the_gateway_is_lost_while_pods_are_replaced(
    kubectl: Kubectl, proxy: Traefik
) -> None:
    endpoint, host = f"/{kubectl.namespace}", f"echo.{kubectl.namespace}.example.com"
    code = ECHO + INFER.replace("class Handler:", "").replace("FACTOR", "1")
    handler = {"protocols": {"grpc": True}}
    kubectl.apply(api(code=code, handler=handler, networking={"endpoint": endpoint}))
    kubectl.wait_reason("echo", "Ready")
    eventually(
        lambda: httpx.post(proxy.url + endpoint, json=1, headers=HOST).status_code,
        lambda status: status == 200,
    )
    eventually(lambda: attempt(proxy, host, "echo", 5.0), lambda found: found == [6.0])
    old = pods(kubectl)
    with Load(proxy.url + endpoint, headers=HOST) as load, Calls(proxy, host) as calls:
        kubectl.apply(api(code=code + "    # new\n", handler=handler, networking={"endpoint": endpoint}))
        all_gone(kubectl, old)
        before = load.sent, calls.counts["OK"]
        eventually(
            lambda: (load.sent - before[0], calls.counts["OK"] - before[1]), lambda since: min(since) > 100
        )
    assert load.lost == {}, load.errors[:5]
    assert set(calls.counts) == {"OK"}, calls.counts


def test_the_status_has_the_reason_why_the_gateway_refuses_a_route(
    kubeconfig: Path, kubectl: Kubectl, proxy: Traefik
) -> None:
    default = Kubectl(kubeconfig, "default")
    default.apply(*gateway("outside", proxy.port, allowed="Same"))
    try:
        kubectl.apply(api(handler={"protocols": {"grpc": True}}, code=INFER.replace("FACTOR", "1")))
        message = "the Gateway does not accept HTTPRoute api-echo: NotAllowedByListeners"
        eventually(
            lambda: kubectl.ready("echo"),
            lambda ready: ready.get("status") == "True" and message in ready["message"],
        )
        url = kubectl.get("realtimeapi", "echo")["status"]["url"]
        assert url == f"http://api-echo.{kubectl.namespace}.svc:8080"
    finally:
        default.apply(*gateway("outside", proxy.port))
    kubectl.wait_message("echo", "1 of 1 replicas are ready")
    assert kubectl.get("realtimeapi", "echo")["status"]["url"] == "http://apis.example.com/echo"
    for kind in ("httproute", "grpcroute"):
        eventually(
            lambda kind=kind: kubectl.get(kind, "api-echo")["status"]["parents"],
            lambda parents: (
                [{c["type"]: c["status"] for c in parent["conditions"]} for parent in parents]
                == [{"Accepted": "True", "ResolvedRefs": "True"}]
            ),
        )


def connected(proxy: Traefik, host: str) -> grpc.Channel:
    """Return a channel to a host name of the Gateway, with a connection of its own."""
    options = [("grpc.default_authority", host), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel(f"127.0.0.1:{proxy.port}", options)


def infer(channel: grpc.Channel, model: str, value: float) -> list[float]:
    """Send a ModelInfer request. Raises grpc.RpcError."""
    request = inference_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    request.raw_input_contents.append(np.float32(value).tobytes())
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        inference_pb2.ModelInferRequest.SerializeToString,
        inference_pb2.ModelInferResponse.FromString,
    )
    response: Any = call(request, timeout=60)
    return np.frombuffer(response.raw_output_contents[0], np.float32).tolist()


def attempt(proxy: Traefik, host: str, model: str, value: float) -> Any:
    """Return the result of a ModelInfer request on a new connection, or the status of its failure."""
    with connected(proxy, host) as channel:
        try:
            return infer(channel, model, value)
        except grpc.RpcError as error:
            return error.code()


def test_grpc_reaches_each_api_at_its_host_name(kubectl: Kubectl, proxy: Traefik) -> None:
    handler = {"protocols": {"grpc": True}}
    kubectl.apply(
        *(api(name, INFER.replace("FACTOR", str(n)), handler) for n, name in enumerate(("iris", "digits")))
    )
    for number, name in enumerate(("iris", "digits")):
        kubectl.wait_reason(name, "Ready")
        host = f"{name}.{kubectl.namespace}.example.com"
        eventually(
            lambda host=host, name=name: attempt(proxy, host, name, 5.0),
            lambda found, number=number: found == [5.0 + number],
        )
    other = attempt(proxy, f"other.{kubectl.namespace}.example.com", "iris", 5.0)
    assert isinstance(other, grpc.StatusCode)
    kubectl.patch("realtimeapi", "iris", {"spec": {"handler": {"protocols": {"grpc": False}}}})
    eventually(
        lambda: [route["metadata"]["name"] for route in kubectl.list("grpcroutes")],
        lambda found: found == ["api-digits"],
    )
