"""Alerts, dashboard and monitors speak of metrics, labels and ports that there are."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cortex_api import Document, parse
from cortex_operator.cache import Cache, Key
from cortex_operator.health import OperatorCollector
from cortex_operator.platform import Platform
from cortex_operator.render import pod
from cortex_operator.workqueue import WorkQueue
from cortex_runtime.board import Board
from cortex_runtime.metrics import Metrics
from cortex_runtime.queues.base import Depth
from cortex_runtime.queues.metrics import ConsumerMetrics, GatewayMetrics
from cortex_runtime.tally import Tally
from cortex_runtime.tracker import CLASSES, SKIPPED, VALUES
from tests.chart.rendering import CHART, ROOT, Object, of, render

ALL = {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "rules", "dashboard")}
FROM_PROMETHEUS = {"namespace", "pod"}
FROM_POD_MONITOR = {"api", "kind", "component"}


def manifest(kind: str, method: str, **handler: Any) -> Object:
    code = f"class Handler:\n    def {method}(self, payload):\n        return 1\n"
    source = {"type": "python", "path": "h.py", "source": {"files": {"h.py": code}}, **handler}
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "a", "namespace": "n", "uid": "u"},
        "spec": {"handler": source},
    }


REALTIME = parse(
    manifest(
        "RealtimeAPI",
        "handle_post",
        serverSideBatching={"maxBatchSize": 2, "batchInterval": "1s"},
        models={"path": "models/m.pkl"},
    )
)
ASYNC = parse(manifest("AsyncAPI", "handle_async"))


def operator() -> str:
    cache = Cache()
    live = {
        **manifest("RealtimeAPI", "handle_post"),
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Starting"}]},
    }
    cache.api = lambda key: live  # type: ignore[method-assign]
    cache.apis = lambda: [Key("RealtimeAPI", "n", "a")]  # type: ignore[method-assign]

    async def nothing(_: Key) -> None: ...

    registry = CollectorRegistry()
    calls: Any = SimpleNamespace(calls={("GET", 200): 1})
    registry.register(OperatorCollector(cache, WorkQueue(nothing), calls, lambda: True))
    return generate_latest(registry).decode()


def replica() -> str:
    board = Board.create(1)
    board.row(0).answered("POST", 200, 0.1)
    tally = Tally(board.region(0))
    tally.add(CLASSES, {"class": "x"}, 1)
    tally.add(SKIPPED, {"reason": "x"}, 1)
    tally.summarise(VALUES, {}, 1.0)
    return Metrics(Document.of(REALTIME), board, lambda: (1, 0), lambda: {"m": 1}).text().decode()


def gateway() -> str:
    metrics = GatewayMetrics(Document.of(ASYNC), lambda: Depth(1, 1, 1.0))
    metrics.begin()
    metrics.answered("POST", 202, 0.1)
    metrics.webhook("delivered")
    return metrics.text().decode()


def consumer() -> str:
    metrics = ConsumerMetrics(lambda: 1)
    metrics.attempted("completed", 1.0)
    metrics.ended("failed", 1.0, "Timeout")
    return metrics.text().decode()


def exposed(texts: list[str]) -> dict[str, set[str]]:
    """Name of each sample to its labels."""
    found: dict[str, set[str]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> list[str]:
    rendered = render({"metrics": ALL})
    (rule,) = of("PrometheusRule", rendered)
    found = [each["expr"] for group in rule["spec"]["groups"] for each in group["rules"]]
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    found += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return found + [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]


@pytest.mark.parametrize("expression", expressions())
def test_alerts_and_panels_ask_for_metrics_and_labels_that_there_are(expression: str) -> None:
    operated, of_apis = exposed([operator()]), exposed([replica(), gateway(), consumer()])
    names = set(re.findall(r"cortex_[a-z_]+", expression))
    assert names
    assert names <= set(operated) | set(of_apis)
    known = FROM_PROMETHEUS.union(*(operated.get(name, of_apis.get(name, set())) for name in names))
    if names <= set(of_apis):
        known |= FROM_POD_MONITOR
    asked = {label for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in labels.split(", ")}
    asked |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    assert asked <= known


@pytest.mark.parametrize("expression", expressions())
def test_expressions_are_whole(expression: str) -> None:
    assert "%" not in expression
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)
    assert expression.count('"') % 2 == 0


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    (rule,) = of("PrometheusRule", render({"metrics": ALL}))
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    names = [alert["alert"] for alert in alerts]
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert re.findall(r"^\| (Cortex\w+) \|", page, re.MULTILINE) == names
    for alert in alerts:
        assert set(alert["annotations"]) == {"summary", "description"}
        assert alert["labels"]["severity"] in ("warning", "critical")
        asked = set(re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])))
        assert asked <= {
            label for part in re.findall(r"by \(([^)]*)\)", alert["expr"]) for label in part.split(", ")
        }


def test_thresholds_are_the_values() -> None:
    rules = {"enabled": True, "errorRatio": 0.2, "oldestJobSeconds": 77, "notReadyFor": "3h"}
    text = yaml.safe_dump(of("PrometheusRule", render({"metrics": {"rules": rules}})))
    assert "> 0.2" in text
    assert "> 77" in text
    assert "for: 3h" in text
    assert 'namespace="cortex-system"' in text


def test_the_pod_monitor_reads_the_admin_port_of_every_pod_of_an_api() -> None:
    (monitor,) = of("PodMonitor", render({"metrics": ALL, "watchNamespaces": ["a"]}))
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["a"]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (chosen,) = monitor["spec"]["selector"]["matchExpressions"]
    platform = Platform.model_validate({"queue": {"url": "nats://x:1"}})
    for api, component in ((REALTIME, "api"), (ASYNC, "worker"), (ASYNC, "gateway")):
        template = pod.template(api, platform, component, {"data": {}}, None)
        labels = template["metadata"]["labels"]
        assert chosen["key"] in labels
        ports = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
        assert endpoint["port"] in ports
        for relabeling in endpoint["relabelings"]:
            (source,) = relabeling["sourceLabels"]
            meta = {f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', label)}" for label in labels}
            assert source in meta
    everywhere = of("PodMonitor", render({"metrics": ALL}))[0]
    assert everywhere["spec"]["namespaceSelector"] == {"any": True}


def test_the_service_monitor_finds_the_service_and_its_port() -> None:
    rendered = render({"metrics": ALL})
    (monitor,) = of("ServiceMonitor", rendered)
    chosen = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = (found for found in of("Service", rendered) if chosen <= found["metadata"]["labels"].items())
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    (deployment,) = of("Deployment", rendered)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert service["spec"]["ports"][0]["targetPort"] in [port["name"] for port in container["ports"]]


def test_grafana_finds_the_dashboard_and_its_panels_do_not_overlap() -> None:
    (config,) = (
        found for found in of("ConfigMap", render({"metrics": ALL})) if "cortex.json" in found["data"]
    )
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(config["data"]["cortex.json"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
