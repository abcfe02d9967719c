"""The APIs and pods of a cluster, kept current by watches. At rest, nothing is requested but the watches."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cortex_api import KINDS
from cortex_api.contract import API_LABEL, KIND_LABEL
from cortex_cli.apis import API, resource
from cortex_cli.connection import Cluster, ClusterError, Object, Stream, path

Key = tuple[str, str, str]
"""Kind, namespace and name of an API."""
_PODS = "v1/pods"
_WATCH_SECONDS = 240
_READ_SECONDS = 300.0
"""The longest time without data of a watch; longer than the watch itself."""
_PAUSE, _LONGEST_PAUSE = 1.0, 15.0


@dataclass(frozen=True)
class Problem:
    """Why a resource cannot be read. since: Unix time of the first failure."""

    message: str
    since: float


class Store:
    """What the watches report.

    namespace: "" for all namespaces. If the user may not list them all, the namespace of the context is used instead, and
    `is_restricted` is true. on_change: called from the threads of the watches after each change.
    """

    def __init__(self, cluster: Cluster, namespace: str, on_change: Callable[[], None]) -> None:
        self._cluster = cluster
        self._on_change = on_change
        self._lock = threading.Condition()
        self._closed = threading.Event()
        self._streams: set[Stream] = set()
        self._apis: dict[Key, API] = {}
        self._pods: dict[Key, dict[str, Object]] = {}
        self._loaded: set[str] = set()
        self._problems: dict[str, Problem] = {}
        self.namespace = namespace
        self.is_restricted = False

    def start(self) -> None:
        """Start the watches."""
        for kind in KINDS:
            _start(self._follow, resource(kind), kind)
        _start(self._follow, _PODS, "")

    def close(self) -> None:
        """End the watches."""
        self._closed.set()
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.close()

    def wait_for_list(self, seconds: float) -> None:
        """Wait until the APIs have been listed or cannot be read, at most some seconds."""
        with self._lock:
            self._lock.wait_for(lambda: self.is_loaded or self.problem() is not None, seconds)

    def apis(self) -> list[API]:
        """Return all APIs, sorted by name."""
        with self._lock:
            found = list(self._apis.values())
        return sorted(found, key=lambda api: (api.name, api.namespace, api.kind))

    def find(self, key: Key) -> API | None:
        """Return an API, or None if it does not exist."""
        return self._apis.get(key)

    def pods(self, key: Key) -> list[Object]:
        """Return the pods of an API, sorted by name."""
        with self._lock:
            found = list(self._pods.get(key, {}).values())
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    @property
    def is_loaded(self) -> bool:
        """Whether the APIs of both kinds have been listed."""
        return all(resource(kind) in self._loaded for kind in KINDS)

    def problem(self) -> Problem | None:
        """Return why the APIs cannot be read at the moment, or None."""
        found = [each for kind in KINDS if (each := self._problems.get(resource(kind))) is not None]
        return min(found, key=lambda problem: problem.since, default=None)

    def pods_problem(self) -> Problem | None:
        """Return why the pods cannot be read at the moment, or None."""
        return self._problems.get(_PODS)

    def _follow(self, resource: str, kind: str) -> None:
        """List and watch a resource until `close`."""
        pause = _PAUSE
        while not self._closed.is_set():
            try:
                version = self._list(resource, kind)
                pause = _PAUSE
                while version and not self._closed.is_set():
                    version = self._watch(resource, kind, version)
            except ClusterError as error:
                if error.status == 403 and not self.namespace:
                    self.namespace, self.is_restricted = self._cluster.namespace, True
                    continue
                self._fail(resource, error.message)
            except (ValueError, KeyError, TypeError) as error:
                self._fail(resource, f"the API server sent an unexpected response: {error}")
            self._closed.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _fail(self, resource: str, message: str) -> None:
        with self._lock:
            before = self._problems.get(resource)
            self._problems[resource] = Problem(message, before.since if before else time.time())
            self._lock.notify_all()
        self._on_change()

    def _list(self, resource: str, kind: str) -> str:
        """Replace everything that is known of a resource, and return its version."""
        listed = self._cluster.get(path(resource, self.namespace), **_selector(kind))
        with self._lock:
            if kind:
                self._apis = {key: api for key, api in self._apis.items() if key[0] != kind}
            else:
                self._pods = {}
            for live in listed.get("items") or ():
                self._put(live, kind)
            self._loaded.add(resource)
            self._problems.pop(resource, None)
            self._lock.notify_all()
        self._on_change()
        return str(listed["metadata"]["resourceVersion"])

    def _watch(self, resource: str, kind: str, version: str) -> str:
        """Apply the events after a version. Return the last version, or "" if the resource must be listed again."""
        query = {
            **_selector(kind),
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
        }
        query["timeoutSeconds"] = str(_WATCH_SECONDS)
        with self._open_stream(path(resource, self.namespace), query) as stream:
            for event in events(stream):
                if event["type"] == "ERROR":
                    return ""
                version = str(event["object"]["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK":
                    continue
                with self._lock:
                    if event["type"] == "DELETED":
                        self._remove(event["object"], kind)
                    else:
                        self._put(event["object"], kind)
                self._on_change()
        return version

    @contextmanager
    def _open_stream(self, url_path: str, query: dict[str, str]) -> Iterator[Stream]:
        """Open a stream that `close` ends."""
        stream = self._cluster.open_stream(url_path, query, _READ_SECONDS)
        with self._lock:
            self._streams.add(stream)
        try:
            if self._closed.is_set():
                stream.close()
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)

    def _put(self, live: Object, kind: str) -> None:
        live["metadata"].pop("managedFields", None)
        # The manifest once more, in one line.
        live["metadata"].get("annotations", {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
        if kind:
            api = API({**live, "kind": kind})
            self._apis[key_of(api)] = api
        else:
            self._pods.setdefault(_owner(live), {})[live["metadata"]["name"]] = live

    def _remove(self, live: Object, kind: str) -> None:
        if kind:
            self._apis.pop((kind, live["metadata"]["namespace"], live["metadata"]["name"]), None)
        else:
            self._pods.get(_owner(live), {}).pop(live["metadata"]["name"], None)


def key_of(api: API) -> Key:
    """Return the key of an API."""
    return api.kind, api.namespace, api.name


def events(stream: Stream) -> Iterator[dict[str, Any]]:
    """Yield the events of a watch."""
    rest = b""
    for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())


def _selector(kind: str) -> dict[str, str]:
    return {} if kind else {"labelSelector": API_LABEL}


def _owner(pod: Object) -> Key:
    labels = pod["metadata"].get("labels") or {}
    return labels.get(KIND_LABEL, ""), pod["metadata"]["namespace"], labels.get(API_LABEL, "")


def _start(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()
