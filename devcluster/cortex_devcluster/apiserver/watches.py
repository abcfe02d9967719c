"""Watches: the changes of a kind after a resource version, filtered, as objects, metadata or table rows, with bookmarks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cortex_devcluster.apiserver import tables
from cortex_devcluster.apiserver.errors import APIError
from cortex_devcluster.apiserver.resources import Resource
from cortex_devcluster.apiserver.store import Change, HistoryExpired, Store, changes_until
from cortex_devcluster.objects import Object
from cortex_devcluster.selectors import Matcher

BOOKMARK_INTERVAL = 15.0
"""Seconds without a change after which a watch that allows bookmarks receives one."""

DEFAULT_TIMEOUT = 1800.0


def wants_table(accept: str) -> bool:
    return "as=Table" in accept.split(",")[0]


def partial(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


@dataclass(frozen=True)
class Watch:
    """One watch request."""

    resource: Resource
    namespace: str
    match: Matcher
    version: int  # 0: send the existing objects first
    initial: bool  # send a bookmark after the existing objects
    bookmarks: bool
    timeout: float
    table: bool
    include: str

    @classmethod
    def from_request(
        cls, resource: Resource, namespace: str, match: Matcher, query: Mapping[str, str], accept: str
    ) -> Watch:
        text = query.get("resourceVersion") or "0"
        if not text.isdigit():
            raise APIError(400, f'Invalid value: "{text}": resourceVersion must be a number')
        initial = query.get("sendInitialEvents") == "true"
        return cls(
            resource,
            namespace,
            match,
            0 if initial else int(text),
            initial,
            query.get("allowWatchBookmarks") in ("true", "1"),
            float(query.get("timeoutSeconds") or DEFAULT_TIMEOUT),
            wants_table(accept),
            query.get("includeObject", "Metadata"),
        )

    async def events(self, store: Store) -> AsyncIterator[bytes]:
        """Yield the events until the timeout, or until the kind is no longer served."""
        key = self.resource.key
        queue, end = store.subscribe(key)
        try:
            sent = store.version
            if self.version:
                try:
                    missed = list(store.changes_since(key, self.version))
                except HistoryExpired as error:
                    status = APIError(410, str(error)).status()
                    yield _encode("ERROR", status)
                    return
                for past in missed:
                    for line in self._lines(past):
                        yield line
            else:
                for obj in store.list(key, self.namespace):
                    if self.match(obj):
                        yield self._encode("ADDED", obj)
                if self.initial:
                    yield self._bookmark(sent, {"k8s.io/initial-events-end": "true"})
            deadline = asyncio.get_running_loop().time() + self.timeout
            async for change in changes_until(queue, BOOKMARK_INTERVAL, deadline):
                if change is None:
                    if self.bookmarks:
                        yield self._bookmark(store.version)
                elif change.version > sent:
                    for line in self._lines(change):
                        yield line
        finally:
            end()

    def _lines(self, change: Change) -> Iterator[bytes]:
        """Yield the event of a change. An object that no longer matches is reported as deleted."""
        after = change.after
        if self.namespace and after["metadata"].get("namespace") != self.namespace:
            return
        was = change.before is not None and self.match(change.before)
        now = change.type != "DELETED" and self.match(after)
        if now:
            yield self._encode("MODIFIED" if was else "ADDED", after)
        elif was:
            yield self._encode("DELETED", after)

    def _encode(self, kind: str, obj: Object) -> bytes:
        if self.table:
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return _encode(kind, tables.table(self.resource, [obj], meta, self.include))
        return _encode(kind, obj)

    def _bookmark(self, version: int, annotations: Object | None = None) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        if self.table:
            definitions = tables.table(self.resource, [], {"resourceVersion": str(version)})
            row = {"cells": [], "object": {**partial({"metadata": meta})}}
            return _encode("BOOKMARK", {**definitions, "rows": [row]})
        return _encode(
            "BOOKMARK",
            {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": meta},
        )


def _encode(kind: str, obj: Object) -> bytes:
    return orjson.dumps({"type": kind, "object": obj}) + b"\n"
