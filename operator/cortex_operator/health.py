"""The operator's own endpoints: /healthz for the kubelet, /metrics for Prometheus."""

from collections.abc import Callable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cortex_api import __version__
from cortex_operator.cache import Cache, Key
from cortex_operator.workqueue import WorkQueue


class OperatorCollector(Collector):
    """Reads the queue and the cache when it is asked."""

    def __init__(self, cache: Cache, queue: WorkQueue[Key]) -> None:
        self._cache = cache
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        """All families of the operator."""
        yield CounterMetricFamily(
            "cortex_operator_reconciles", "Reconciliations done", value=self._queue.done
        )
        yield CounterMetricFamily(
            "cortex_operator_reconcile_errors",
            "Reconciliations that failed and come again",
            value=self._queue.failed,
        )
        yield GaugeMetricFamily("cortex_operator_queue_depth", "APIs waiting", value=len(self._queue))
        yield GaugeMetricFamily("cortex_operator_apis", "APIs watched", value=len(self._cache))
        build = GaugeMetricFamily("cortex_operator_build_info", "What runs here", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build


async def serve(port: int, cache: Cache, queue: WorkQueue[Key], healthy: Callable[[], bool]) -> web.AppRunner:
    """Serve on all addresses until the runner that is returned is cleaned up."""
    registry = CollectorRegistry()
    registry.register(OperatorCollector(cache, queue))
    ProcessCollector(registry=registry)

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"healthy": healthy()}, status=200 if healthy() else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
