"""A Gateway of the Gateway API in tests: its kinds without their schemas, and traefik as its controller."""

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.ports import free_port

GROUP = "gateway.networking.k8s.io"
CONTROLLER = "traefik.io/gateway-controller"
_KINDS = (
    ("GatewayClass", "gatewayclasses", "v1", "Cluster"),
    ("Gateway", "gateways", "v1", "Namespaced"),
    ("HTTPRoute", "httproutes", "v1", "Namespaced"),
    ("GRPCRoute", "grpcroutes", "v1", "Namespaced"),
    ("TLSRoute", "tlsroutes", "v1", "Namespaced"),
    ("BackendTLSPolicy", "backendtlspolicies", "v1", "Namespaced"),
    ("ReferenceGrant", "referencegrants", "v1beta1", "Namespaced"),
)


def _definition(kind: str, plural: str, version: str, scope: str) -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
        },
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


DEFINITIONS = [_definition(*kind) for kind in _KINDS]
"""The CustomResourceDefinitions that traefik watches, with all fields allowed."""


def gateway(name: str, port: int, allowed: str = "All") -> list[dict[str, Any]]:
    """Return a GatewayClass of traefik and a Gateway with one listener. allowed: namespaces of its routes, All or Same."""
    listener = {
        "name": "web",
        "port": port,
        "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": allowed}},
    }
    return [
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "traefik"},
            "spec": {"controllerName": CONTROLLER},
        },
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"gatewayClassName": "traefik", "listeners": [listener]},
        },
    ]


class Traefik:
    """`with Traefik(kubeconfig, folder, "--providers.kubernetesgateway") as proxy:` runs traefik; `proxy.port` is its port.

    It applies the changes of the cluster at most every two seconds, as in its default configuration.
    """

    def __init__(self, kubeconfig: Path, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self._folder = folder
        self._arguments = (
            f"--entrypoints.web.address=127.0.0.1:{self.port}",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            *arguments,
        )

    def __enter__(self) -> Self:
        program = Path(sys.executable).with_name("traefik")
        with (self._folder / "traefik.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, *self._arguments], env=self._environment, cwd=self._folder, stdout=log, stderr=log
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(60)
