"""Requests from outside of the cluster through an Ingress with the default annotations, which are those of ingress-nginx.

traefik is the controller, since it implements these annotations. The platform of the other tests has a Gateway, so this cluster
and its operator are separate.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cortex_devcluster import DevCluster

from .conftest import Kubectl, Operator, api, eventually, install
from .gateway_api import Traefik
from .test_gateway import MIRROR
from .test_no_request_is_lost import pods

HOST = {"host": "apis.example.com"}
CLASS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "nginx"},
    "spec": {"controller": "k8s.io/ingress-nginx"},
}


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with DevCluster(tmp_path_factory.mktemp("ingress")) as cluster:
        install(cluster.kubeconfig)
        yield cluster.kubeconfig


@pytest.fixture(scope="module")
def operator(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("ingress-operator")
    settings = {"ingress": {"className": "nginx", "hostname": HOST["host"]}, "leaseNamespace": "default"}
    (folder / "platform.yaml").write_text(json.dumps(settings))
    operator = Operator(kubeconfig, folder / "platform.yaml", folder / "log")
    operator.start()
    eventually(operator.leads, bool)
    yield operator
    operator.stop()


@pytest.fixture(scope="module")
def proxy(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traefik]:
    Kubectl(kubeconfig, "default").apply(CLASS)
    folder = tmp_path_factory.mktemp("traefik")
    with Traefik(kubeconfig, folder, "--providers.kubernetesingressnginx") as proxy:
        yield proxy


def get(proxy: Traefik, path: str) -> httpx.Response:
    return httpx.get(proxy.url + path, headers=HOST, timeout=60)


def test_an_ingress_strips_the_endpoint_keeps_the_query_and_follows_the_endpoint(
    kubectl: Kubectl, proxy: Traefik
) -> None:
    before, after = f"/{kubectl.namespace}/iris", f"/{kubectl.namespace}/after"
    kubectl.apply(api(code=MIRROR, networking={"endpoint": before}))
    kubectl.wait_reason("echo", "Ready")
    eventually(lambda: get(proxy, before).status_code, lambda status: status == 200)
    encoded, query = "a=1%202&b=x%2Fy&c=%C3%A4", {"a": "1 2", "b": "x/y", "c": "ä"}
    for path, at in (("", "/"), ("/", "/"), ("/texts/b%20c", "/texts/b c")):
        assert get(proxy, f"{before}{path}?{encoded}").json() == {"at": at, "query": query}
    assert get(proxy, f"{before}/app/address").json() == f"{before}/app/address"
    assert get(proxy, f"{before}es").status_code == 404, "a prefix is a whole number of path segments"
    old = pods(kubectl)
    kubectl.patch("realtimeapi", "echo", {"spec": {"networking": {"endpoint": after}}})
    eventually(lambda: get(proxy, after).status_code, lambda status: status == 200)
    assert get(proxy, before).status_code == 404
    assert pods(kubectl) == old
    url = f"http://apis.example.com{after}"
    eventually(lambda: kubectl.get("realtimeapi", "echo")["status"]["url"], lambda found: found == url)
