"""The kinds that the API server serves: the built-in ones and those of CustomResourceDefinitions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cortex_devcluster.apiserver import schema as schemas
from cortex_devcluster.apiserver.errors import FieldError
from cortex_devcluster.apiserver.managed_fields import Shape

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """A served kind in one version. schema: None for built-in kinds, whose fields are not validated."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    scale: Mapping[str, str] | None = None
    schema: Mapping[str, Any] | None = field(default=None, hash=False, compare=False)
    columns: tuple[Mapping[str, Any], ...] = field(default=(), hash=False, compare=False)
    singular: str = ""

    @property
    def key(self) -> str:
        """Return the store's key of this kind, which is the same for all versions."""
        return f"{self.group}/{self.plural}"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def subresources(self) -> tuple[str, ...]:
        return (("status",) if self.status else ()) + (("scale",) if self.scale else ())

    @functools.cached_property
    def shape(self) -> Shape:
        return Shape(self.schema, "$root")


_SCALE = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}


def _core(group: str, version: str, plural: str, kind: str, short: str = "", **more: Any) -> Resource:
    return Resource(group, version, plural, kind, short_names=tuple(short.split()), **more)


BUILT_IN: tuple[Resource, ...] = (
    _core("", "v1", "namespaces", "Namespace", "ns", namespaced=False, status=True),
    _core("", "v1", "nodes", "Node", "no", namespaced=False, status=True),
    _core("", "v1", "pods", "Pod", "po", status=True, categories=("all",)),
    _core("", "v1", "services", "Service", "svc", status=True, categories=("all",)),
    _core("", "v1", "configmaps", "ConfigMap", "cm"),
    _core("", "v1", "secrets", "Secret"),
    _core("", "v1", "serviceaccounts", "ServiceAccount", "sa"),
    _core("", "v1", "events", "Event", "ev"),
    _core("", "v1", "endpoints", "Endpoints", "ep"),
    _core("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", status=True),
    _core("", "v1", "resourcequotas", "ResourceQuota", "quota", status=True),
    _core("", "v1", "limitranges", "LimitRange", "limits"),
    _core("apps", "v1", "deployments", "Deployment", "deploy", status=True, scale=_SCALE, categories=("all",)),
    _core("apps", "v1", "replicasets", "ReplicaSet", "rs", status=True, scale=_SCALE, categories=("all",)),
    _core("apps", "v1", "controllerrevisions", "ControllerRevision"),
    _core("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", status=True, categories=("all",)),
    _core("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", status=True),
    _core("networking.k8s.io", "v1", "ingresses", "Ingress", "ing", status=True),
    _core("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False),
    _core("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", "netpol"),
    _core("coordination.k8s.io", "v1", "leases", "Lease"),
    _core("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    _core("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    _core("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    _core("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    _core("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    _core("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", "crd crds",
          namespaced=False, status=True),
)  # fmt: skip


def resources_of_crd(crd: Mapping[str, Any]) -> Iterator[Resource]:
    """Yield the kinds that a CustomResourceDefinition serves, one for each version."""
    spec = crd["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        sub = version.get("subresources") or {}
        yield Resource(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            namespaced=spec.get("scope") == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            status="status" in sub,
            scale=sub.get("scale"),
            schema=schemas.with_standard_fields(
                (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
            ),
            columns=tuple(version.get("additionalPrinterColumns") or ()),
            singular=names.get("singular") or names["kind"].lower(),
        )


def validate_crd(crd: Mapping[str, Any]) -> list[FieldError]:
    """Return the errors of a CustomResourceDefinition, including CEL rules that do not compile."""
    from cortex_devcluster.apiserver import cel

    spec = crd.get("spec") or {}
    names = spec.get("names") or {}
    problems = [
        FieldError(f"spec.{f}", "Required value") for f in ("group", "scope", "versions") if not spec.get(f)
    ]
    problems += [
        FieldError(f"spec.names.{f}", "Required value") for f in ("plural", "kind") if not names.get(f)
    ]
    if problems:
        return problems
    expected = f"{names['plural']}.{spec['group']}"
    if crd["metadata"].get("name") != expected:
        message = f'Invalid value: "{crd["metadata"].get("name")}": must be spec.names.plural+"."+spec.group'
        problems.append(FieldError("metadata.name", message))
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        problems.append(
            FieldError(
                "spec.versions", "Invalid value: must have exactly one version marked as storage version"
            )
        )
    for index, version in enumerate(spec["versions"]):
        at = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            problems.append(FieldError(at, "Required value: schemas are required"))
        else:
            problems += [FieldError(f"{at}.{p.path}", p.message) for p in cel.validate_rules(schema)]
    return problems


class ServedResources:
    """All served kinds by (group, version, plural)."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, str, str], Resource] = {}
        for resource in BUILT_IN:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        self._served[resource.group, resource.version, resource.plural] = resource

    def drop(self, group: str, plural: str) -> None:
        self._served = {at: r for at, r in self._served.items() if (at[0], at[2]) != (group, plural)}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._served.get((group, version, plural))

    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """Return the kinds by group and version, in the order in which they were added."""
        result: dict[str, dict[str, list[Resource]]] = {}
        for resource in self._served.values():
            result.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
        return result
