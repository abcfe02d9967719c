"""Watches: a stream of a kind's changes from a resource version on, filtered, with bookmarks, as objects or table rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cortex_devcluster.apiserver import tables
from cortex_devcluster.apiserver.errors import APIError
from cortex_devcluster.apiserver.resources import Resource
from cortex_devcluster.apiserver.store import Change, Expired, Store, drain
from cortex_devcluster.objects import Object
from cortex_devcluster.selectors import Matcher

BOOKMARK_INTERVAL = 15.0
"""Seconds without a change after which a watch that allows bookmarks gets one."""

DEFAULT_TIMEOUT = 1800.0


def as_table(accept: str) -> bool:
    return "as=Table" in accept.split(",")[0]


def partial(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


@dataclass(frozen=True)
class Watch:
    """One watch request."""

    resource: Resource
    namespace: str
    match: Matcher
    version: int  # 0: from now, all present objects first
    initial: bool  # the client lists by this watch and wants to know where the list ends
    bookmarks: bool
    timeout: float
    form: str  # "", "table" or "partial"
    include: str

    @classmethod
    def of(
        cls, resource: Resource, namespace: str, match: Matcher, query: Mapping[str, str], accept: str
    ) -> Watch:
        text = query.get("resourceVersion") or "0"
        if not text.isdigit():
            raise APIError(400, f'Invalid value: "{text}": resourceVersion must be a number')
        form = (
            "table"
            if as_table(accept)
            else "partial"
            if "as=PartialObjectMetadata" in accept.split(",")[0]
            else ""
        )
        initial = query.get("sendInitialEvents") == "true"
        return cls(
            resource,
            namespace,
            match,
            0 if initial else int(text),
            initial,
            query.get("allowWatchBookmarks") in ("true", "1"),
            float(query.get("timeoutSeconds") or DEFAULT_TIMEOUT),
            form,
            query.get("includeObject", "Metadata"),
        )

    async def events(self, store: Store) -> AsyncIterator[bytes]:
        """The stream's lines until its time is over, the kind is gone or the client leaves."""
        key = self.resource.key
        queue, end = store.subscribe(key)
        try:
            sent = store.version
            if self.version:
                try:
                    missed = list(store.since(key, self.version))
                except Expired as error:
                    status = APIError(410, str(error)).status()
                    yield _line("ERROR", status)
                    return
                for past in missed:
                    for line in self._lines(past):
                        yield line
            else:
                for obj in store.list(key, self.namespace):
                    if self.match(obj):
                        yield self._line("ADDED", obj)
                if self.initial:
                    yield self._bookmark(sent, {"k8s.io/initial-events-end": "true"})
            deadline = asyncio.get_running_loop().time() + self.timeout
            async for change in drain(queue, BOOKMARK_INTERVAL, deadline):
                if change is None:
                    if self.bookmarks:
                        yield self._bookmark(store.version)
                elif change.version > sent:
                    for line in self._lines(change):
                        yield line
        finally:
            end()

    def _lines(self, change: Change) -> Iterator[bytes]:
        """What a change is to this watch: an object that stops matching is deleted to it."""
        after = change.after
        if self.namespace and after["metadata"].get("namespace") != self.namespace:
            return
        was = change.before is not None and self.match(change.before)
        now = change.type != "DELETED" and self.match(after)
        if now:
            yield self._line("MODIFIED" if was else "ADDED", after)
        elif was:
            yield self._line("DELETED", after)

    def _line(self, kind: str, obj: Object) -> bytes:
        if self.form == "table":
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return _line(kind, tables.table(self.resource, [obj], meta, self.include))
        if self.form == "partial":
            return _line(kind, partial(obj))
        return _line(kind, obj)

    def _bookmark(self, version: int, annotations: Object | None = None) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        if self.form == "table":
            definitions = tables.table(self.resource, [], {"resourceVersion": str(version)})
            row = {"cells": [], "object": {**partial({"metadata": meta})}}
            return _line("BOOKMARK", {**definitions, "rows": [row]})
        return _line(
            "BOOKMARK",
            {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": meta},
        )


def _line(kind: str, obj: Object) -> bytes:
    return orjson.dumps({"type": kind, "object": obj}) + b"\n"
