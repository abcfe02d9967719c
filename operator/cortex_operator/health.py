"""The operator's own endpoints: /healthz for the kubelet, /metrics for Prometheus."""

from collections import Counter
from collections.abc import Callable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cortex_api import __version__
from cortex_api.contract import HEALTH_PATH, METRICS_PATH
from cortex_operator.cluster import Cluster
from cortex_operator.replicas.poller import ReplicaPoller
from cortex_operator.watch.cache import Cache, Key
from cortex_operator.workqueue import WorkQueue


class OperatorCollector(Collector):
    """Collects metrics from the queue, the cache and the connection at each scrape."""

    def __init__(
        self,
        cache: Cache,
        queue: WorkQueue[Key],
        cluster: Cluster,
        replicas: ReplicaPoller,
        is_leader: Callable[[], bool],
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._cluster = cluster
        self._replicas = replicas
        self._is_leader = is_leader

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the operator."""
        yield CounterMetricFamily(
            "cortex_operator_reconciles", "Completed reconciliations", value=self._queue.done
        )
        yield CounterMetricFamily(
            "cortex_operator_reconcile_errors",
            "Reconciliations that failed and are retried",
            value=self._queue.failed,
        )
        yield from self._queue.seconds.collect()
        yield GaugeMetricFamily(
            "cortex_operator_queue_depth", "APIs that wait for a reconciliation", value=len(self._queue)
        )
        yield self._apis()
        yield self._candidates()
        polls = CounterMetricFamily(
            "cortex_operator_replica_polls", "Polls of the state of replicas", labels=("answered",)
        )
        polls.add_metric(("no",), self._replicas.failed_polls)
        polls.add_metric(("yes",), self._replicas.polls - self._replicas.failed_polls)
        yield polls
        calls = CounterMetricFamily(
            "cortex_operator_api_calls",
            "Calls to the API server; status 0: no response",
            labels=("verb", "status"),
        )
        for (verb, status), count in sorted(self._cluster.calls.items()):
            calls.add_metric((verb, str(status)), count)
        yield calls
        yield GaugeMetricFamily(
            "cortex_operator_leads", "Whether this operator is the leader", value=self._is_leader()
        )
        build = GaugeMetricFamily(
            "cortex_operator_build_info", "Version of the operator", labels=("version",)
        )
        build.add_metric((__version__,), 1)
        yield build

    def _apis(self) -> Metric:
        labels = ("kind", "ready", "available", "degraded", "reason")
        family = GaugeMetricFamily("cortex_operator_apis", "APIs by kind and state", labels=labels)
        counts: dict[tuple[str, ...], int] = {}
        for key in self._cache.apis():
            live = self._cache.api(key) or {}
            found: dict[str, dict[str, str]] = {
                condition["type"]: condition for condition in (live.get("status") or {}).get("conditions", ())
            }
            statuses = [
                found.get(kind, {}).get("status", "Unknown") for kind in ("Ready", "Available", "Degraded")
            ]
            place = (key.kind, *statuses, found.get("Ready", {}).get("reason", ""))
            counts[place] = counts.get(place, 0) + 1
        for place, count in sorted(counts.items()):
            family.add_metric(place, count)
        return family

    def _candidates(self) -> Metric:
        family = GaugeMetricFamily("cortex_operator_candidates", "Candidates by phase", labels=("phase",))
        lives = [self._cache.api(key) or {} for key in self._cache.apis()]
        candidates = [(live.get("status") or {}).get("candidate") for live in lives]
        counts = Counter(candidate["phase"] for candidate in candidates if candidate)
        for phase, count in sorted(counts.items()):
            family.add_metric((phase,), count)
        return family


async def serve(port: int, collector: Collector, problem: Callable[[], str | None]) -> web.AppRunner:
    """Serve on all addresses until `cleanup` of the returned runner is called.

    problem: returns why the operator must be restarted by the kubelet; None while it is healthy.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)

    async def healthz(_: web.Request) -> web.Response:
        found = problem()
        body = {"healthy": found is None, **({"problem": found} if found else {})}
        return web.json_response(body, status=200 if found is None else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get(HEALTH_PATH, healthz), web.get(METRICS_PATH, metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
