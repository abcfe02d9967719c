"""What the page knows of a cluster: lists, watches and metrics, also if the API server or a replica fails."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cortex_cli.connection import ClusterError, Response
from cortex_cli.ui import store as store_module
from cortex_cli.ui.lookups import Lookups
from cortex_cli.ui.sampler import MAX_RATE, THREADS, Sampler
from cortex_cli.ui.store import Store

from .test_overview import eventually

APIS, ASYNC = "/apis/cortex.dev/v1alpha1/realtimeapis", "/apis/cortex.dev/v1alpha1/asyncapis"
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def api(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}, "spec": {"handler": {}}}


def pod(api: str, number: int = 0) -> dict[str, Any]:
    labels = {"cortex.dev/api": api, "cortex.dev/kind": "RealtimeAPI"}
    meta = {"name": f"{api}-{number}", "namespace": "shop", "uid": f"{api}-{number}", "labels": labels}
    return {
        "metadata": {**meta, "resourceVersion": "1"},
        "spec": {"containers": [{"name": "api"}]},
        "status": READY,
    }


class FakeStream(list[bytes]):
    __hash__ = object.__hash__

    def close(self) -> None:
        pass


class FakeCluster:
    """lists: objects by path. events: given to the next watch of a path. errors: raised by lists of a path."""

    is_local = False
    namespace = "shop"

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.errors: dict[str, ClusterError] = {}
        self.listed: Counter[str] = Counter()
        self.metrics: Callable[[str], bytes] = lambda name: b""
        self.opened: list[Store | Sampler] = []
        self.readers: set[threading.Thread] = set()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        self.readers.add(threading.current_thread())
        self.listed[path] += 1
        if path in self.errors:
            raise self.errors[path]
        return {
            "metadata": {"resourceVersion": "7"},
            "items": [dict(live) for live in self.lists.get(path, [])],
        }

    def open_stream(self, path: str, query: dict[str, str], timeout: float) -> "FakeStream":
        events = self.events.pop(path, None)
        if events is None:
            threading.Event().wait(0.2)
            if path in self.errors:
                raise self.errors[path]
        return FakeStream([json.dumps(event).encode() + b"\n" for event in events or []])

    def request(self, method: str, path: str, headers: Any = None, timeout: float = 0) -> Response:
        self.readers.add(threading.current_thread())
        return Response(200, {}, self.metrics(path.split("/pods/")[1].split(":")[0]))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A cluster. At the end, all that was started on it is closed, and no thread may read it any more."""
    monkeypatch.setattr(store_module, "_PAUSE", 0.05)
    found = FakeCluster()
    yield found
    for each in found.opened:
        each.close()
    assert eventually(lambda: not any(thread.is_alive() for thread in list(found.readers)))


def started(cluster: FakeCluster, namespace: str = "") -> Store:
    store = Store(cluster, namespace, lambda: None)  # type: ignore[arg-type]
    cluster.opened.append(store)
    store.start()
    return store


def names(store: Store) -> list[str]:
    return [each.name for each in store.apis()]


def test_events_of_the_watch_change_the_list(cluster):
    cluster.lists[APIS] = [api("a"), api("b")]
    cluster.events[APIS] = [
        {"type": "ADDED", "object": api("c")},
        {"type": "DELETED", "object": api("a")},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
    ]
    store = started(cluster)
    assert eventually(lambda: store.is_loaded and names(store) == ["b", "c"])
    assert cluster.listed[APIS] == 1


def test_what_kubectl_records_is_left_out(cluster):
    recorded = api("a")
    recorded["metadata"]["managedFields"] = [{}]
    recorded["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}
    cluster.lists[APIS] = [recorded]
    store = started(cluster)
    (found,) = eventually(store.apis)
    assert found.live["metadata"]["annotations"] == {"a": "b"}
    assert "managedFields" not in found.live["metadata"]


def test_an_expired_watch_lists_again(cluster):
    cluster.lists[APIS] = [api("a")]
    cluster.events[APIS] = [{"type": "ERROR", "object": {"code": 410}}]
    store = started(cluster)
    assert eventually(lambda: cluster.listed[APIS] == 2)
    assert names(store) == ["a"]


def test_without_permission_for_all_namespaces_one_is_shown(cluster):
    cluster.errors = {
        path: ClusterError("permission denied (403)", 4, 403) for path in (APIS, ASYNC, "/api/v1/pods")
    }
    cluster.lists["/apis/cortex.dev/v1alpha1/namespaces/shop/realtimeapis"] = [api("a")]
    store = started(cluster)
    assert eventually(lambda: store.is_loaded)
    assert (names(store), store.namespace, store.is_restricted, store.problem()) == (
        ["a"],
        "shop",
        True,
        None,
    )


def test_an_unreachable_api_server_is_a_problem_until_it_returns(cluster):
    cluster.lists[APIS] = [api("a")]
    store = started(cluster)
    assert eventually(lambda: store.is_loaded)
    cluster.errors = {path: ClusterError("the cluster is unreachable", 3) for path in (APIS, ASYNC)}
    problem = eventually(store.problem)
    assert (problem.message, names(store)) == ("the cluster is unreachable", ["a"])
    assert eventually(lambda: cluster.listed[APIS] >= 3)
    # The time is that of the first failure.
    assert store.problem().since == problem.since
    cluster.errors = {}
    assert eventually(lambda: store.problem() is None)


def test_pods_that_may_not_be_listed_do_not_hide_the_apis(cluster):
    cluster.lists[APIS] = [api("a")]
    cluster.errors["/api/v1/pods"] = ClusterError("permission denied (403)", 4, 403)
    cluster.errors["/api/v1/namespaces/shop/pods"] = cluster.errors["/api/v1/pods"]
    store = started(cluster)
    assert eventually(lambda: store.pods_problem() is not None and names(store) == ["a"])
    assert store.problem() is None


def sampled(cluster: FakeCluster) -> tuple[Store, Sampler]:
    store = started(cluster)
    sampler = Sampler(cluster, store, lambda: None)  # type: ignore[arg-type]
    cluster.opened.append(sampler)
    assert eventually(
        lambda: store.is_loaded and all(store.pods(("RealtimeAPI", "shop", name)) for name in names(store))
    )
    sampler.start()
    return store, sampler


def test_a_replica_that_hangs_holds_up_no_other_api(cluster):
    released = threading.Event()
    cluster.lists[APIS] = [api("slow"), api("quick")]
    cluster.lists["/api/v1/pods"] = [pod("slow"), pod("quick")]

    def metrics(name: str) -> bytes:
        if name.startswith("slow"):
            released.wait(120)
        return b'cortex_requests_total{status="200"} 5\n'

    cluster.metrics = metrics
    _, sampler = sampled(cluster)
    try:
        assert eventually(lambda: len(sampler.history(("RealtimeAPI", "shop", "quick")).points()) >= 2)
        assert sampler.history(("RealtimeAPI", "shop", "slow")).points() == []
    finally:
        released.set()


def test_many_replicas_are_read_with_bounded_concurrency(cluster):
    cluster.lists[APIS] = [api(f"a{number}") for number in range(10)]
    cluster.lists["/api/v1/pods"] = [pod(f"a{number}", each) for number in range(10) for each in range(6)]
    running, most, lock = 0, 0, threading.Lock()

    def metrics(name: str) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return b""

    cluster.metrics = metrics
    store, sampler = sampled(cluster)
    assert eventually(
        lambda: all(sampler.history(("RealtimeAPI", "shop", name)).last for name in names(store))
    )
    assert 1 < most <= THREADS
    assert sampler.interval(("RealtimeAPI", "shop", "a1"), 4000) == 4000 / MAX_RATE


def test_a_replica_without_metrics_is_reported_and_leaves_a_gap(cluster):
    cluster.lists[APIS] = [api("a")]
    cluster.lists["/api/v1/pods"] = [pod("a")]

    def metrics(name: str) -> bytes:
        raise ClusterError("no route to the pod")

    cluster.metrics = metrics
    _, sampler = sampled(cluster)
    key = ("RealtimeAPI", "shop", "a")
    assert eventually(lambda: sampler.errors(key)) == {"a-0": "no route to the pod"}
    last = eventually(lambda: sampler.history(key).last)
    assert last.counted is None


def test_a_lookup_keeps_its_last_value_when_a_read_fails():
    results: list[Any] = ["first", ClusterError("gone", status=503), ValueError("odd")]

    def read() -> Any:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    lookups = Lookups(lambda: None)
    assert lookups.get("key", read, 0.0, 60.0).value == "first"
    found = (
        eventually(lambda: (r := lookups.get("key", read, 60.0)) and r.error and r)
        if lookups.get("key", read, 0.0)
        else None
    )
    assert (found.value, found.error, found.status) == ("first", "gone", 503)


def test_a_slow_lookup_does_not_hold_up_the_page():
    released = threading.Event()
    lookups = Lookups(lambda: None)
    # It returns although the read has not ended.
    assert lookups.get("key", lambda: released.wait(120), 5.0, 0.05).is_known is False
    # While a read runs, no other is started.
    assert lookups.get("key", lambda: pytest.fail("read twice"), 0.0).is_known is False
    released.set()
    assert eventually(lambda: lookups.get("key", lambda: None, 60.0).is_known)
