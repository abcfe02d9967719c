"""Read the metrics of all ready replicas again and again, through the API server.

The load on the API server is bounded: at most MAX_RATE requests per second in total and THREADS at a time, one round of an API at
a time, and pauses that grow while a replica does not respond. A slow replica delays the next point of its own API only.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cortex_api.contract import ADMIN_PORT
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Object
from cortex_cli.replica_metrics import Totals, read_totals
from cortex_cli.ui.history import IDLE, History, Point
from cortex_cli.ui.store import Key, Store, key_of

THREADS = 16
MAX_RATE = 40.0
FOCUSED, WATCHED, UNWATCHED = 2.0, 5.0, 15.0
"""Seconds between two points of an API: on its own page, while a page is open, and otherwise."""
_FOCUS_SECONDS = 30.0
_TIMEOUT = 3.0
_TICK = 0.25
_LONGEST_PAUSE = 60.0
_LONGEST_GAP = 3.0
"""A point covers at most this number of intervals; what was counted in a longer gap has no known rate."""


@dataclass
class _Replica:
    """totals: of the last response, at `time` (monotonic). failures: since then. retry: when to ask again (monotonic)."""

    totals: Totals | None = None
    time: float = 0.0
    failures: int = 0
    retry: float = 0.0
    error: str = ""


@dataclass
class _Track:
    history: History = field(default_factory=History)
    replicas: dict[str, _Replica] = field(default_factory=dict)
    began: float = -math.inf
    pending: int = 0
    time: float = 0.0
    points: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sampler:
    """Keeps the history of all APIs of a store. on_change: called from the threads of the sampler after each point."""

    def __init__(self, cluster: Cluster, store: Store, on_change: Callable[[], None]) -> None:
        self._cluster = cluster
        self._store = store
        self._on_change = on_change
        self._tracks: dict[Key, _Track] = {}
        self._threads = ThreadPoolExecutor(THREADS, "sampler")
        self._watched = time.monotonic()
        self._focused: dict[Key, float] = {}
        self._closed = threading.Event()

    def start(self) -> None:
        """Start the thread that schedules the rounds."""
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Start no more rounds, and end the threads."""
        self._closed.set()

    def watch(self, key: Key | None = None) -> None:
        """Record that a page is open. key: the API that it shows, which is then read more often."""
        self._watched = time.monotonic()
        if key is not None:
            self._focused[key] = self._watched

    def history(self, key: Key) -> History:
        """Return the history of an API, which is empty at first."""
        return self._track(key).history

    def totals(self, key: Key) -> Totals | None:
        """Return the counts of all replicas since their start, from the last responses; None without a response."""
        found = [replica.totals for replica in list(self._track(key).replicas.values()) if replica.totals]
        if not found:
            return None
        result = Totals()
        for totals in found:
            result.add(totals)
        return result

    def replica(self, key: Key, uid: str) -> tuple[Totals | None, str]:
        """Return the counts of a pod, and why it could not be read the last time, or ""."""
        replica = self._track(key).replicas.get(uid)
        return (replica.totals, replica.error) if replica else (None, "")

    def errors(self, key: Key) -> dict[str, str]:
        """Return for each ready pod whose metrics could not be read the last time why not."""
        replicas = self._track(key).replicas
        ready = [pod for pod in self._store.pods(key) if apis.is_ready(pod)]
        found = {pod["metadata"]["name"]: replicas.get(pod["metadata"]["uid"]) for pod in ready}
        return {name: replica.error for name, replica in found.items() if replica and replica.error}

    def _track(self, key: Key) -> _Track:
        return self._tracks.setdefault(key, _Track())

    def _run(self) -> None:
        while not self._closed.is_set():
            started = time.monotonic()
            found = self._store.apis()
            # A copy, because other threads add tracks.
            for key in set(self._tracks) - {key_of(api) for api in found}:
                self._tracks.pop(key, None)
            replicas = sum(len(self._track(key_of(api)).replicas) for api in found)
            for api in found:
                track = self._track(key_of(api))
                interval = self.interval(key_of(api), replicas)
                if started >= track.began + interval and not track.pending:
                    track.began = started
                    self._begin(api, track, interval)
            self._closed.wait(_TICK)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def interval(self, key: Key, replicas: int) -> float:
        """Return the seconds between two points of an API. replicas: of all APIs."""
        now = time.monotonic()
        # The first rate of an API is known after two points.
        is_new = self._track(key).points < 2
        if now - self._focused.get(key, -math.inf) < _FOCUS_SECONDS:
            return FOCUSED
        is_watched = now - self._watched < _FOCUS_SECONDS
        return max(FOCUSED if is_new else WATCHED if is_watched else UNWATCHED, replicas / MAX_RATE)

    def _begin(self, api: API, track: _Track, interval: float) -> None:
        pods = apis.stable_replicas(self._store.pods(key_of(api)))
        uids = {pod["metadata"]["uid"] for pod in pods}
        now = time.monotonic()
        with track.lock:
            track.replicas = {uid: track.replicas.get(uid) or _Replica() for uid in uids}
            asked = [pod for pod in pods if track.replicas[pod["metadata"]["uid"]].retry <= now]
            track.pending = len(asked)
        deltas: list[Totals] = []
        if not asked:
            self._finish(api, track, deltas)
        for pod in asked:
            self._threads.submit(self._read, api, track, pod, interval, deltas)

    def _read(self, api: API, track: _Track, pod: Object, interval: float, deltas: list[Totals]) -> None:
        replica = track.replicas.get(pod["metadata"]["uid"]) or _Replica()
        totals, error = None, ""
        try:
            text = apis.proxy_get(self._cluster, pod, ADMIN_PORT, "metrics", timeout=_TIMEOUT)
            totals = read_totals(text.decode(errors="replace"))
        except ClusterError as failure:
            error = failure.message
        except Exception as failure:
            # Whatever a replica sends must not end the round of its API.
            error = f"its metrics cannot be read: {failure}"
        now = time.monotonic()
        with track.lock:
            if totals is None:
                replica.failures += 1
                replica.error = error
                replica.retry = now + min(_LONGEST_PAUSE, interval * 2**replica.failures)
            else:
                gap = now - replica.time
                if replica.totals is not None and gap <= max(_LONGEST_GAP * interval, 2 * UNWATCHED):
                    deltas.append(totals.since(replica.totals))
                replica.totals, replica.time, replica.failures, replica.error = totals, now, 0, ""
            track.pending -= 1
            is_last = track.pending == 0
        if is_last:
            self._finish(api, track, deltas)

    def _finish(self, api: API, track: _Track, deltas: list[Totals]) -> None:
        """Add a point from the differences of the replicas that responded."""
        now = time.monotonic()
        api = self._store.find(key_of(api)) or api
        responded = [replica for replica in track.replicas.values() if replica.totals and not replica.error]
        seconds = now - track.time if track.time and deltas else 0.0
        counted: Totals | None = None
        if responded:
            counted = Totals()
            for delta in deltas:
                counted.add(delta)
            counted.in_flight = sum(replica.totals.in_flight for replica in responded if replica.totals)
            counted.queue_length = sum(replica.totals.queue_length for replica in responded if replica.totals)
            counted = IDLE if counted == IDLE else counted
        track.time = now
        track.points += 1
        track.history.add(point_of(api, seconds, counted))
        self._on_change()


def point_of(api: API, seconds: float, counted: Totals | None) -> Point:
    """Return the point of an API at this time."""
    status = api.status
    desired = apis.desired_replicas(api)
    queue = status.get("queue")
    return Point(
        time.time(),
        seconds,
        counted,
        int(status.get("readyReplicas") or 0),
        None if desired is None else int(desired),
        str((status.get("autoscaling") or {}).get("reason") or ""),
        int(queue.get("queued", 0)) if queue else None,
    )
