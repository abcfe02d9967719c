"""The kinds of objects that the operator reads and writes, each listed once."""

from dataclasses import dataclass

from cortex_api import GROUP, KINDS, VERSION
from cortex_operator.platform import Platform


@dataclass(frozen=True)
class ObjectKind:
    """A kind of object that is watched. is_optional: whether an API answers requests without it, so that a refusal of it is
    reported while the rest is applied. may_be_pruned: whether an API has it at some times and not at others."""

    group: str
    version: str
    plural: str
    kind: str
    may_be_pruned: bool = False
    is_optional: bool = False

    @property
    def api_version(self) -> str:
        """The apiVersion of objects of this kind."""
        return f"{self.group}/{self.version}" if self.group else self.version


API_KINDS = tuple(ObjectKind(GROUP, VERSION, model.plural, kind) for kind, model in KINDS.items())
CONFIG_MAP = ObjectKind("", "v1", "configmaps", "ConfigMap", may_be_pruned=True)
_CORE = (
    ObjectKind("", "v1", "pods", "Pod"),
    ObjectKind("", "v1", "services", "Service", may_be_pruned=True),
    ObjectKind("apps", "v1", "deployments", "Deployment", may_be_pruned=True),
    ObjectKind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, True),
    ObjectKind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, True),
)
_NETWORK_POLICY = ObjectKind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, True)
_HTTP_ROUTE = ObjectKind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", True, True)
_GRPC_ROUTE = ObjectKind("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute", True, True)
_INGRESS = ObjectKind("networking.k8s.io", "v1", "ingresses", "Ingress", True, True)
_ALL = (*_CORE, CONFIG_MAP, _NETWORK_POLICY, _HTTP_ROUTE, _GRPC_ROUTE, _INGRESS)

OPTIONAL_KINDS = frozenset(child.kind for child in _ALL if child.is_optional)
ROUTE_KINDS = frozenset({_HTTP_ROUTE.kind, _GRPC_ROUTE.kind, _INGRESS.kind})
PLURALS = {
    **{child.kind: child.plural for child in _ALL},
    **{kind: model.plural for kind, model in KINDS.items()},
    "ControllerRevision": "controllerrevisions",
    "Event": "events",
    "Lease": "leases",
}
"""The plural in the URL of every kind that the operator reads or writes."""


def child_kinds(platform: Platform) -> list[ObjectKind]:
    """Return the child kinds of APIs on this platform, except ConfigMaps: those are watched without a label selector."""
    kinds = list(_CORE)
    if platform.network_policy is not None:
        kinds.append(_NETWORK_POLICY)
    if platform.gateway is not None:
        kinds.append(_HTTP_ROUTE)
        if platform.gateway.grpc_hostname is not None:
            kinds.append(_GRPC_ROUTE)
    if platform.ingress is not None:
        kinds.append(_INGRESS)
    return kinds
