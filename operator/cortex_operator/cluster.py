"""The cluster as the operator uses it: get, server-side apply, delete, status and events, in plain JSON.

It goes through the aio client of `kubernetes` below its typed models, which would be built and thrown away for every object.
"""

import json
from typing import Any

from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

Object = dict[str, Any]

MANAGER = "cortex-operator"
REPLICAS_MANAGER = "cortex-operator-replicas"
"""Holds spec.replicas between the operator, which gives the first number, and the autoscaler, which gives the next."""

_PLURALS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Service": "services",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "RealtimeAPI": "realtimeapis",
    "AsyncAPI": "asyncapis",
    "Event": "events",
    "Pod": "pods",
}


class Cluster:
    """A connection to the API server. Every method raises ApiException for an answer that it does not name."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    @classmethod
    async def connect(cls) -> "Cluster":
        """By KUBECONFIG, or by the service account of the pod."""
        await config.load_config()
        return cls(client.ApiClient())

    async def close(self) -> None:
        """End the connection."""
        await self._api.close()

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """An object, or None when there is none."""
        try:
            return await self._call("GET", _path(api_version, kind, namespace, name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def list_labelled(
        self, api_version: str, kind: str, namespace: str | None, label: str
    ) -> list[Object]:
        """The objects that have a label, in one namespace or (None) in all, with apiVersion and kind filled in."""
        found = await self._call("GET", _path(api_version, kind, namespace), [("labelSelector", label)])
        return [{**item, "apiVersion": api_version, "kind": kind} for item in found["items"]]

    async def apply(self, child: Object, manager: str = MANAGER) -> Object:
        """Server-side apply; fields that others hold become ours. Returns the object as it is then."""
        metadata = child["metadata"]
        path = _path(child["apiVersion"], child["kind"], metadata["namespace"], metadata["name"])
        query = [("fieldManager", manager), ("force", "true")]
        return await self._call("PATCH", path, query, child, "application/apply-patch+yaml")

    async def delete(self, child: Object) -> None:
        """Delete an object and, in the background, what it owns; if it is gone already, all is well."""
        metadata = child["metadata"]
        path = _path(child["apiVersion"], child["kind"], metadata["namespace"], metadata["name"])
        body = {"propagationPolicy": "Background", "preconditions": {"uid": metadata["uid"]}}
        try:
            await self._call("DELETE", path, body=body)
        except ApiException as error:
            if error.status not in (404, 409):
                raise

    async def write_status(self, live: Object, status: Object) -> Object:
        """Replace the status of a resource. Raises ApiException (404) when it is gone."""
        metadata = live["metadata"]
        path = _path(live["apiVersion"], live["kind"], metadata["namespace"], metadata["name"]) + "/status"
        gone = dict.fromkeys((live.get("status") or {}).keys() - status.keys())
        body = {"metadata": {"uid": metadata["uid"]}, "status": {**gone, **status}}
        query = [("fieldManager", MANAGER)]
        return await self._call("PATCH", path, query, body, "application/merge-patch+json")

    async def write_event(self, event: Object) -> None:
        """Tell of a transition."""
        await self._call("POST", _path("v1", "Event", event["metadata"]["namespace"]), body=event)

    async def _call(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        request = await self._api.param_serialize(
            method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = await self._api.call_api(*request, _request_timeout=30)
        content = await response.read()
        if not 200 <= response.status < 300:
            raise ApiException(http_resp=response)
        return json.loads(content) if content else {}


def _path(api_version: str, kind: str, namespace: str | None, name: str | None = None) -> str:
    base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    path = f"{base}/namespaces/{namespace}/{_PLURALS[kind]}" if namespace else f"{base}/{_PLURALS[kind]}"
    return f"{path}/{name}" if name else path
