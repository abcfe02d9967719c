"""A client of an API server for controllers and the node: requests, watches, cached objects and the control loop."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import orjson

from cortex_devcluster.objects import Object
from cortex_devcluster.selectors import Matcher

log = logging.getLogger(__name__)
MERGE = "application/merge-patch+json"


class StatusError(Exception):
    """A response with status 400 or above; `code` is its status, the text the message of the API server."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def path(resource: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """Return the URL path of a resource ("v1/pods", "apps/v1/deployments")."""
    prefix, plural = resource.rsplit("/", 1)
    base = f"/apis/{prefix}" if "/" in prefix else f"/api/{prefix}"
    space = f"/namespaces/{namespace}" if namespace else ""
    return "/".join(filter(None, [f"{base}{space}/{plural}", name, sub]))


class Client:
    """Sends JSON requests. Its user agent is also the field manager of its writes."""

    def __init__(self, url: str, agent: str) -> None:
        self._url = url
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"User-Agent": f"{agent}/1"}
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers)

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self, method: str, url_path: str, body: Any = None, kind: str = "application/json", **query: str
    ) -> Any:
        """Return the parsed response. Raises StatusError, and aiohttp.ClientError if the server does not respond."""
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": kind} if data else {}
        async with self._session.request(
            method, self._url + url_path, data=data, headers=headers, params=query
        ) as answer:
            raw = await answer.read()
            try:
                content = orjson.loads(raw)
            except orjson.JSONDecodeError:
                content = {"message": raw.decode(errors="replace")}
            if answer.status >= 400:
                raise StatusError(answer.status, content.get("message", f"HTTP {answer.status}"))
            return content

    async def get(self, resource: str, namespace: str, name: str) -> Object | None:
        """Return the object, or None if it does not exist."""
        try:
            found: Object = await self.request("GET", path(resource, namespace, name))
            return found
        except StatusError as error:
            if error.code == 404:
                return None
            raise

    async def create(self, resource: str, namespace: str, obj: Object) -> Object:
        created: Object = await self.request("POST", path(resource, namespace), obj)
        return created

    async def patch(self, resource: str, namespace: str, name: str, change: Object, sub: str = "") -> Object:
        apply_patch: Object = await self.request("PATCH", path(resource, namespace, name, sub), change, MERGE)
        return apply_patch

    async def delete(self, resource: str, obj: Object, **options: Any) -> None:
        """Delete the object with this uid. It is not an error if it does not exist."""
        meta = obj["metadata"]
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": meta["uid"]}, **options}
        try:
            await self.request("DELETE", path(resource, meta.get("namespace", ""), meta["name"]), body)
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    async def watch(self, resource: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        """Yield the type and object of each event after a resource version. Raises StatusError."""
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        async with self._session.get(self._url + path(resource), params=query) as answer:
            if answer.status >= 400:
                raise StatusError(answer.status, await answer.text())
            buffer = b""
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = orjson.loads(line)
                    yield event["type"], event["object"]


Listener = Callable[[Object | None, Object | None], None]


class Informer:
    """A cache of all objects of a kind, kept current by a watch.

    Listeners are called with the object before and after each change; None is an object that does not exist.
    """

    def __init__(self, client: Client, resource: str) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self._client = client
        self._objects: dict[str, dict[str, Object]] = {}
        self._deleted_uids: OrderedDict[str, None] = OrderedDict()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def get(self, namespace: str, name: str) -> Object | None:
        return self._objects.get(namespace, {}).get(name)

    def list(self, namespace: str | None = None, match: Matcher | None = None) -> list[Object]:
        """Return the objects of one namespace, or of all, that match."""
        spaces = list(self._objects) if namespace is None else [namespace]
        found = [obj for space in spaces for obj in self._objects.get(space, {}).values()]
        return [obj for obj in found if match(obj)] if match else found

    def update(self, obj: Object) -> None:
        """Put the result of a write into the cache, so that reads see it before the watch reports it."""
        meta = obj["metadata"]
        known = self.get(meta.get("namespace", ""), meta["name"])
        newer = not known or int(known["metadata"]["resourceVersion"]) < int(meta["resourceVersion"])
        if newer and meta["uid"] not in self._deleted_uids:
            self._set(obj)

    def _set(self, obj: Object) -> None:
        meta = obj["metadata"]
        space = self._objects.setdefault(meta.get("namespace", ""), {})
        before = space.get(meta["name"])
        space[meta["name"]] = obj
        self._notify(before, obj)

    def _drop(self, obj: Object) -> None:
        meta = obj["metadata"]
        self._deleted_uids[meta["uid"]] = None
        while len(self._deleted_uids) > 1000:
            self._deleted_uids.popitem(last=False)
        before = self._objects.get(meta.get("namespace", ""), {}).pop(meta["name"], None)
        if before is not None:
            self._notify(obj, None)

    def _notify(self, before: Object | None, after: Object | None) -> None:
        for listener in self._listeners:
            listener(before, after)

    async def run(self) -> None:
        """List and watch until cancelled or the kind is no longer served. Start again whenever the watch breaks."""
        while True:
            try:
                version = await self._relist()
                self.synced.set()
                async for kind, obj in self._client.watch(self.resource, version):
                    if kind == "ERROR":
                        break
                    if kind == "DELETED":
                        self._drop(obj)
                    elif kind != "BOOKMARK":
                        self.update(obj)
            except StatusError as error:
                if error.code == 404:
                    return
                log.warning("%s: %s", self.resource, error)
            except (aiohttp.ClientError, ConnectionError) as error:
                log.info("%s: the API server does not respond: %s", self.resource, error)
            await asyncio.sleep(0.2)

    async def _relist(self) -> str:
        listed = await self._client.request("GET", path(self.resource))
        api_version, kind = listed["apiVersion"], listed["kind"].removesuffix("List")
        present = set()
        for obj in listed["items"]:
            obj.setdefault("apiVersion", api_version)
            obj.setdefault("kind", kind)
            present.add(obj["metadata"]["uid"])
            self.update(obj)
        for obj in self.list():
            if obj["metadata"]["uid"] not in present:
                self._drop(obj)
        return str(listed["metadata"]["resourceVersion"])


Key = tuple[str, str]


class ControllerLoop:
    """A queue of keys (namespace, name) and the loop that handles them one at a time.

    A key is queued once, however often it is added. It is added again after RETRY seconds if handling it fails.
    """

    RETRY = 0.5

    def __init__(self, name: str, handle: Callable[[Key], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._handle = handle
        self._keys: dict[Key, None] = {}
        self._wake = asyncio.Event()

    def add(self, namespace: str, name: str) -> None:
        self._keys[namespace, name] = None
        self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Add a key after a delay in seconds."""
        asyncio.get_running_loop().call_later(seconds, self.add, *key)

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._keys:
                key = next(iter(self._keys))
                del self._keys[key]
                try:
                    await self._handle(key)
                except (StatusError, aiohttp.ClientError) as error:
                    if not (isinstance(error, StatusError) and error.code in (404, 409)):
                        log.warning("%s %s: %s", self._name, "/".join(key), error)
                    self.add_after(key, self.RETRY)
