"""A client of the API server: get, list, server-side apply, scale, delete, status and events, in plain JSON.

`kubernetes` reads the configuration and refreshes the token. Its client is not used for the calls: it builds a URL, headers and a
copy of the body from typed parameters, which costs as much as the rest of a call.
"""

import json
import os
from collections import Counter
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from yarl import URL

from cortex_operator.kinds import PLURALS

Object = dict[str, Any]

MANAGER = "cortex-operator"
REPLICAS_MANAGER = "cortex-operator-replicas"
"""The field manager of spec.replicas of autoscaled Deployments: the operator sets the first number, the autoscaler the next."""
API_ERRORS = (ApiException, aiohttp.ClientError, OSError, TimeoutError)
"""The exceptions of a failed call."""
TIMEOUT = 30
"""Seconds after which a call fails."""


class Cluster:
    """A connection to the API server. Methods raise ApiException for error responses that they do not handle.

    calls: the number of calls by verb and HTTP status (0: no response).
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        settings = api.configuration
        self._host = settings.host
        # No proxies from the environment, as in kopf: to look them up costs two thread switches per call.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=api.rest_client.ssl_context),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            headers={"Accept": "application/json", "User-Agent": "cortex-operator"},
            proxy=settings.proxy,
        )
        self._tls_server_name = settings.tls_server_name
        self.calls: Counter[tuple[str, int]] = Counter()

    @classmethod
    async def connect(cls) -> "Cluster":
        """Connect with the service account of the pod, or with KUBECONFIG: in the order of kopf, so that both use one cluster."""
        try:
            config.load_incluster_config()
        except config.ConfigException:
            await config.load_kube_config(os.environ.get("KUBECONFIG"))
        return cls(client.ApiClient())

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()
        await self._api.close()

    async def version(self) -> Object:
        """Return the version of the API server."""
        return await self._call("GET", "/version")

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or None when it or its kind does not exist."""
        try:
            return await self._call("GET", _path(api_version, kind, namespace, name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def list_matching(self, api_version: str, kind: str, namespace: str, selector: str) -> list[Object]:
        """Return the objects that a label selector matches."""
        path = _path(api_version, kind, namespace)
        found = await self._call("GET", path, [("labelSelector", selector)])
        return [{**item, "apiVersion": api_version, "kind": kind} for item in found["items"]]

    async def is_terminating(self, namespace: str) -> bool:
        """Return whether a namespace is being deleted; False where the operator may not read it."""
        try:
            found = await self._call("GET", f"/api/v1/namespaces/{namespace}")
        except ApiException as error:
            if error.status in (403, 404):
                return False
            raise
        return bool(found["metadata"].get("deletionTimestamp"))

    async def apply(self, child: Object, manager: str = MANAGER) -> Object:
        """Apply an object by server-side apply, with force. Returns the live object."""
        query = [("fieldManager", manager), ("force", "true")]
        return await self._call("PATCH", _path_of(child), query, child, "application/apply-patch+yaml")

    async def apply_new(self, child: Object) -> Object | None:
        """Create an object by server-side apply. Returns None, and changes nothing, when an object of its name exists.

        No live object has the resourceVersion 1, so the API server rejects the apply unless it creates the object.
        """
        try:
            return await self.apply({**child, "metadata": {**child["metadata"], "resourceVersion": "1"}})
        except ApiException as error:
            if error.status == 409:
                return None
            raise

    async def patch(self, thing: Object, operations: list[Object]) -> Object:
        """Change an object by a JSON patch (RFC 6902). Returns the live object. Raises ApiException (409 or 422) when a test
        fails."""
        query = [("fieldManager", MANAGER)]
        return await self._call("PATCH", _path_of(thing), query, operations, "application/json-patch+json")

    async def annotate(self, thing: Object, name: str, value: str | None) -> Object:
        """Set an annotation of an object (None: remove it). Returns the live object. Raises ApiException (404) when it is
        deleted."""
        metadata = {"uid": thing["metadata"]["uid"], "annotations": {name: value}}
        query = [("fieldManager", MANAGER)]
        content_type = "application/merge-patch+json"
        return await self._call("PATCH", _path_of(thing), query, {"metadata": metadata}, content_type)

    async def scale(self, deployment: Object, replicas: int) -> None:
        """Set the number of replicas of a Deployment through its scale subresource."""
        path = _path_of({**deployment, "apiVersion": "apps/v1", "kind": "Deployment"}) + "/scale"
        body = {"spec": {"replicas": replicas}}
        query = [("fieldManager", REPLICAS_MANAGER)]
        await self._call("PATCH", path, query, body, "application/merge-patch+json")

    async def delete(self, child: Object, only_unchanged: bool = False) -> None:
        """Delete an object and, in the background, what it owns; do nothing if it is deleted already.

        only_unchanged: do nothing either if it has changed since it was read.
        """
        preconditions = {"uid": child["metadata"]["uid"]}
        if only_unchanged:
            preconditions["resourceVersion"] = child["metadata"]["resourceVersion"]
        body = {"propagationPolicy": "Background", "preconditions": preconditions}
        try:
            await self._call("DELETE", _path_of(child), body=body)
        except ApiException as error:
            if error.status not in (404, 409):
                raise

    async def write_status(self, live: Object, status: Object) -> Object:
        """Replace the status of a resource. Raises ApiException (404) when it is deleted."""
        body = {
            "metadata": {"uid": live["metadata"]["uid"]},
            "status": merge_patch(live.get("status") or {}, status),
        }
        query = [("fieldManager", MANAGER)]
        path = _path_of(live) + "/status"
        return await self._call("PATCH", path, query, body, "application/merge-patch+json")

    async def write_finalizers(self, live: Object, finalizers: list[str]) -> Object:
        """Replace the finalizers of a resource. Raises ApiException (409) when it has changed since it was read."""
        metadata = live["metadata"]
        kept = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {"metadata": {**kept, "finalizers": finalizers}}
        query = [("fieldManager", MANAGER)]
        return await self._call("PATCH", _path_of(live), query, body, "application/merge-patch+json")

    async def create(self, thing: Object) -> Object:
        """Create an object. Raises ApiException (409) when one of its name exists."""
        path = _path(thing["apiVersion"], thing["kind"], thing["metadata"]["namespace"])
        return await self._call("POST", path, [("fieldManager", MANAGER)], thing)

    async def replace(self, thing: Object) -> Object:
        """Replace an object. Raises ApiException (409) when it has changed since it was read."""
        return await self._call("PUT", _path_of(thing), [("fieldManager", MANAGER)], thing)

    async def _call(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]] | None = None,
        body: Object | list[Object] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {"Content-Type": content_type}
        # Reads a token again when it may have been replaced.
        await self._api.update_params_for_auth(headers, None, ["BearerToken"], path, method, None)
        url = URL(f"{self._host}{path}?{urlencode(query)}" if query else self._host + path, encoded=True)
        data = None if body is None else _encode(body)
        status, content = 0, b""
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, server_hostname=self._tls_server_name
            ) as response:
                status = response.status
                content = await response.read()
        finally:
            self.calls[method, status] += 1
        if not 200 <= status < 300:
            raise ApiException(status, response.reason, body=content.decode(errors="replace"))
        return orjson.loads(content) if content else {}


def _encode(body: Object | list[Object]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # A message of user code contains half of a character (a lone surrogate).
        return json.dumps(body).encode()


def error_text(error: Exception) -> str:
    """Return the message of the API server, or the type and text of another error."""
    if not isinstance(error, ApiException):
        return f"{type(error).__name__}: {error}"
    try:
        return str(orjson.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.status} {error.reason}"


def is_namespace_terminating(error: ApiException) -> bool:
    """Return whether a call failed because its namespace is being deleted."""
    return error.status == 403 and "being terminated" in str(error.body)


def _path_of(thing: Object) -> str:
    metadata = thing["metadata"]
    return _path(thing["apiVersion"], thing["kind"], metadata["namespace"], metadata["name"])


def merge_patch(live: Object, wanted: Object) -> Object:
    """Return the JSON merge patch (RFC 7386) that turns `live` into `wanted`; removed fields become null at any depth."""
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
