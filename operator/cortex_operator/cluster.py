"""The cluster as the operator uses it: get, list, server-side apply, scale, delete, status and events, in plain JSON.

It goes through the aio client of `kubernetes` below its typed models, which would be built and thrown away for every object.
"""

import json
import os
from collections import Counter
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from cortex_operator.kinds import PLURALS

Object = dict[str, Any]

MANAGER = "cortex-operator"
REPLICAS_MANAGER = "cortex-operator-replicas"
"""Holds spec.replicas between the operator, which gives the first number, and the autoscaler, which gives the next."""
API_ERRORS = (ApiException, aiohttp.ClientError, OSError, TimeoutError)
"""What a call raises when it did not work."""
TIMEOUT = 30
"""Seconds that a call may take."""


class Cluster:
    """A connection to the API server. Every method raises ApiException for an answer that it does not name.

    calls: how many calls there were, by verb and HTTP status (0: no answer).
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self.calls: Counter[tuple[str, int]] = Counter()

    @classmethod
    async def connect(cls) -> "Cluster":
        """By the service account of the pod, or by KUBECONFIG: in kopf's order, so that both see one cluster."""
        try:
            config.load_incluster_config()
        except config.ConfigException:
            await config.load_kube_config(os.environ.get("KUBECONFIG"))
        api = client.ApiClient()
        # Proxies by environment are not kopf's either, and looking for them takes two threads' turns in each call.
        api.configuration.client_session_kwargs = {"trust_env": False}
        return cls(api)

    async def close(self) -> None:
        """End the connection."""
        await self._api.close()

    async def version(self) -> Object:
        """The API server's version."""
        return await self._call("GET", "/version")

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """An object, or None when there is none, or not even its kind."""
        try:
            return await self._call("GET", _path(api_version, kind, namespace, name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def is_terminating(self, namespace: str) -> bool:
        """Whether a namespace is being deleted; False where that may not be asked."""
        try:
            found = await self._call("GET", f"/api/v1/namespaces/{namespace}")
        except ApiException as error:
            if error.status in (403, 404):
                return False
            raise
        return bool(found["metadata"].get("deletionTimestamp"))

    async def list_labelled(
        self, api_version: str, kind: str, namespace: str | None, label: str | None
    ) -> list[Object]:
        """The objects that have a label, in one namespace or (None) in all, with apiVersion and kind filled in."""
        query = [("limit", "500"), *([("labelSelector", label)] if label else [])]
        items: list[Object] = []
        follow: list[tuple[str, str]] = []
        while True:
            found = await self._call("GET", _path(api_version, kind, namespace), [*query, *follow])
            items += [{**item, "apiVersion": api_version, "kind": kind} for item in found["items"]]
            token = found.get("metadata", {}).get("continue")
            if not token:
                return items
            follow = [("continue", token)]

    async def apply(self, child: Object, manager: str = MANAGER) -> Object:
        """Server-side apply; fields that others hold become ours. Returns the object as it is then."""
        query = [("fieldManager", manager), ("force", "true")]
        return await self._call("PATCH", _path_of(child), query, child, "application/apply-patch+yaml")

    async def patch(self, thing: Object, operations: list[Object]) -> Object:
        """Change an object by a JSON patch (RFC 6902). Returns it as it is then; ApiException (409) when it has changed since."""
        query = [("fieldManager", MANAGER)]
        return await self._call("PATCH", _path_of(thing), query, operations, "application/json-patch+json")

    async def scale(self, deployment: Object, replicas: int) -> None:
        """Give a Deployment another number of replicas, through its scale subresource."""
        path = _path_of({**deployment, "apiVersion": "apps/v1", "kind": "Deployment"}) + "/scale"
        body = {"spec": {"replicas": replicas}}
        query = [("fieldManager", REPLICAS_MANAGER)]
        await self._call("PATCH", path, query, body, "application/merge-patch+json")

    async def delete(self, child: Object) -> None:
        """Delete an object and, in the background, what it owns; if it is gone already, all is well."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": child["metadata"]["uid"]}}
        try:
            await self._call("DELETE", _path_of(child), body=body)
        except ApiException as error:
            if error.status not in (404, 409):
                raise

    async def write_status(self, live: Object, status: Object) -> Object:
        """Replace the status of a resource. Raises ApiException (404) when it is gone."""
        body = {
            "metadata": {"uid": live["metadata"]["uid"]},
            "status": merge_patch(live.get("status") or {}, status),
        }
        query = [("fieldManager", MANAGER)]
        path = _path_of(live) + "/status"
        return await self._call("PATCH", path, query, body, "application/merge-patch+json")

    async def write_finalizers(self, live: Object, finalizers: list[str]) -> Object:
        """Replace the finalizers of a resource, if nobody else has changed it meanwhile (409)."""
        metadata = live["metadata"]
        kept = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {"metadata": {**kept, "finalizers": finalizers}}
        query = [("fieldManager", MANAGER)]
        return await self._call("PATCH", _path_of(live), query, body, "application/merge-patch+json")

    async def create(self, thing: Object) -> Object:
        """Create an object; ApiException (409) when there is one of its name."""
        path = _path(thing["apiVersion"], thing["kind"], thing["metadata"]["namespace"])
        return await self._call("POST", path, [("fieldManager", MANAGER)], thing)

    async def replace(self, thing: Object) -> Object:
        """Replace an object; ApiException (409) when it has changed since it was read."""
        return await self._call("PUT", _path_of(thing), [("fieldManager", MANAGER)], thing)

    async def _call(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]] | None = None,
        body: Object | list[Object] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        request = await self._api.param_serialize(
            method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        status = 0
        try:
            response = await self._api.call_api(*request, _request_timeout=TIMEOUT)
            status = response.status
            content = await response.read()
        finally:
            self.calls[method, status] += 1
        if not 200 <= status < 300:
            raise ApiException(http_resp=response)
        return json.loads(content) if content else {}


def error_text(error: Exception) -> str:
    """What the API server answered, in its own words; other errors in theirs."""
    if not isinstance(error, ApiException):
        return f"{type(error).__name__}: {error}"
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.status} {error.reason}"


def is_namespace_terminating(error: ApiException) -> bool:
    """Whether something could not be made because its namespace is being deleted."""
    return error.status == 403 and "being terminated" in str(error.body)


def _path_of(thing: Object) -> str:
    metadata = thing["metadata"]
    return _path(thing["apiVersion"], thing["kind"], metadata["namespace"], metadata["name"])


def merge_patch(live: Object, wanted: Object) -> Object:
    """The JSON merge patch (RFC 7386) that leaves exactly what is wanted: what is in it no more, at any depth, becomes null."""
    patch: Object = dict.fromkeys(live.keys() - wanted.keys())
    for name, value in wanted.items():
        before = live.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            value = merge_patch(before, value)
        patch[name] = value
    return patch


def _path(api_version: str, kind: str, namespace: str | None, name: str | None = None) -> str:
    base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    path = f"{base}/namespaces/{namespace}/{PLURALS[kind]}" if namespace else f"{base}/{PLURALS[kind]}"
    return f"{path}/{name}" if name else path
