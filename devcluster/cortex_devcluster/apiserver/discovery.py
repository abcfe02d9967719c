"""Discovery: the served groups, versions and kinds, plain and aggregated, and the OpenAPI v3 documents.

Pure functions from the served kinds to JSON. The OpenAPI documents have the schemas of CRDs, and declare server-side field
validation for every kind, which kubectl requires.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cortex_devcluster.apiserver.resources import VERBS, Resource, ServedResources

Json = dict[str, Any]


def core_versions() -> Json:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group_list(kinds: ServedResources) -> Json:
    groups = [group(kinds, name) for name in kinds.groups() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(kinds: ServedResources, name: str) -> Json:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in kinds.groups()[name]]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def resource_list(kinds: ServedResources, name: str, version: str) -> Json:
    entries: list[Json] = []
    for resource in kinds.groups()[name][version]:
        entries.append(
            {
                "name": resource.plural,
                "singularName": resource.singular or resource.kind.lower(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": list(VERBS),
                "shortNames": list(resource.short_names),
                "categories": list(resource.categories),
            }
        )
        for sub in _subresources(resource):
            below = {
                "name": f"{resource.plural}/{sub['subresource']}",
                "singularName": "",
                "namespaced": resource.namespaced,
            }
            entries.append(
                {**below, "kind": sub["responseKind"]["kind"], "verbs": sub["verbs"], **_scale_version(sub)}
            )
    gv = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": entries}


def _scale_version(sub: Json) -> Json:
    kind = sub["responseKind"]
    return {"group": kind["group"], "version": kind["version"]} if kind["kind"] == "Scale" else {}


def _subresources(resource: Resource) -> list[Json]:
    own = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    result: list[Json] = []
    if resource.status:
        result.append({"subresource": "status", "responseKind": own, "verbs": ["get", "patch", "update"]})
    if resource.scale:
        result.append({"subresource": "scale", "responseKind": scale, "verbs": ["get", "patch", "update"]})
    if resource.key in ("/pods", "/services"):
        options = {"group": "", "version": "v1", "kind": f"{resource.kind}ProxyOptions"}
        verbs = ["create", "delete", "get", "patch", "update"]
        result.append({"subresource": "proxy", "responseKind": options, "verbs": verbs})
    if resource.key == "/pods":
        binding = {"group": "", "version": "v1", "kind": "Binding"}
        result.append({"subresource": "log", "responseKind": own, "verbs": ["get"]})
        result.append({"subresource": "binding", "responseKind": binding, "verbs": ["create"]})
    return result


def aggregated(kinds: ServedResources, core: bool, version: str) -> Json:
    """Return all groups and kinds in one document (apidiscovery.k8s.io)."""
    items = []
    for name, versions in kinds.groups().items():
        if bool(name) == core:
            continue
        listed = [
            {"version": v, "freshness": "Current", "resources": _entries(v, name, found)}
            for v, found in versions.items()
        ]
        items.append({"metadata": {"name": name or None, "creationTimestamp": None}, "versions": listed})
    api_version = f"apidiscovery.k8s.io/{version}"
    return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}


def _entries(version: str, group_name: str, found: Iterable[Resource]) -> list[Json]:
    return [
        {
            "resource": resource.plural,
            "responseKind": {"group": group_name, "version": version, "kind": resource.kind},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular or resource.kind.lower(),
            "verbs": list(VERBS),
            "shortNames": list(resource.short_names),
            "categories": list(resource.categories),
            "subresources": _subresources(resource),
        }
        for resource in found
    ]


def openapi_index(kinds: ServedResources) -> Json:
    paths = {}
    for name, versions in kinds.groups().items():
        for version in versions:
            path = f"apis/{name}/{version}" if name else f"api/{version}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}"}
    return {"paths": paths}


def openapi(kinds: ServedResources, name: str, version: str) -> Json:
    """Return the OpenAPI document of a group version: a patch operation with `fieldValidation` and a schema for each kind."""
    paths: Json = {}
    schemas: Json = {}
    for resource in kinds.groups()[name][version]:
        gvk = {"group": name, "version": version, "kind": resource.kind}
        scope = "namespaces/{namespace}/" if resource.namespaced else ""
        base = f"/apis/{name}/{version}" if name else f"/api/{version}"
        parameter = {
            "name": "fieldValidation",
            "in": "query",
            "schema": {"type": "string", "uniqueItems": True},
        }
        operation = {
            "parameters": [parameter],
            "requestBody": {"content": {"application/merge-patch+json": {"schema": {"type": "object"}}}},
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": gvk,
        }
        paths[f"{base}/{scope}{resource.plural}/{{name}}"] = {"patch": operation}
        schema = dict(resource.schema) if resource.schema else {"type": "object"}
        schemas[f"{name or 'core'}.{version}.{resource.kind}"] = {
            **schema,
            "x-kubernetes-group-version-kind": [gvk],
        }
    info = {"title": "Kubernetes", "version": "v1.37.0"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
