"""Alerts, dashboard and monitors use existing metrics, labels and ports."""

import json
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cortex_api import Document, parse
from cortex_api.situations import SITUATIONS, Situation
from cortex_operator.health import OperatorCollector
from cortex_operator.platform import Platform
from cortex_operator.render import pod
from cortex_operator.replicas.poller import ReplicaPoller
from cortex_operator.watch.cache import Cache, Key
from cortex_operator.workqueue import WorkQueue
from cortex_runtime.candidate.counters import totals
from cortex_runtime.candidate.exposition import families
from cortex_runtime.jobs.metrics import ConsumerMetrics, GatewayMetrics
from cortex_runtime.metrics.prometheus import Metrics
from cortex_runtime.metrics.series import NamedSeries
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.metrics.tracker import CLASSES, SKIPPED, VALUES
from cortex_runtime.queues.base import Depth
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
        "status": {
            "conditions": [{"type": "Ready", "status": "False", "reason": "Starting"}],
            "candidate": {"phase": "RolledBack"},
        },
    }
    cache.api = lambda key: live  # type: ignore[method-assign]
    cache.apis = lambda: [Key("RealtimeAPI", "n", "a")]  # type: ignore[method-assign]

    async def nothing(_: Key) -> None: ...

    registry = CollectorRegistry()
    calls: Any = SimpleNamespace(calls={("GET", 200): 1})
    replicas = ReplicaPoller(cache, lambda key: None)
    registry.register(OperatorCollector(cache, WorkQueue(nothing), calls, replicas, lambda: True))
    return generate_latest(registry).decode()


def replica() -> str:
    shared_metrics = SharedMetrics.create(1)
    shared_metrics.worker(0).record_request("POST", 200, 0.1)
    series = NamedSeries(shared_metrics.series_region(0))
    series.add(CLASSES, {"class": "x"}, 1)
    series.add(SKIPPED, {"reason": "x"}, 1)
    series.summarize(VALUES, {}, 1.0)
    counted = families(totals(shared_metrics, "v1"))
    workers, failures = (1, 0), {"m": 1}
    metrics = Metrics(
        Document.of(REALTIME), shared_metrics, lambda: workers, lambda: failures, lambda: counted
    )
    return metrics.text().decode()


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


@dataclass(frozen=True)
class Series:
    """A metric that Prometheus scrapes. is_counter: whether it only increases."""

    labels: frozenset[str]
    is_counter: bool


def exposed() -> dict[str, Series]:
    """Return all series by name, with the labels that Prometheus adds."""
    found: dict[str, Series] = {}
    for text, added in (
        (operator(), FROM_PROMETHEUS),
        *((text, FROM_PROMETHEUS | FROM_POD_MONITOR) for text in (replica(), gateway(), consumer())),
    ):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                before = found[sample.name].labels if sample.name in found else frozenset()
                labels = before | added | frozenset(sample.labels)
                found[sample.name] = Series(labels, family.type in ("counter", "histogram", "summary"))
    return found


def expressions() -> list[str]:
    rendered = render({"metrics": ALL})
    (rule,) = of("PrometheusRule", rendered)
    found = [each["expr"] for group in rule["spec"]["groups"] for each in group["rules"]]
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    found += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return found + [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]


@pytest.mark.parametrize("expression", expressions())
def test_alerts_and_panels_use_existing_metrics_and_labels(expression: str) -> None:
    """Expressions are parsed like in Prometheus. Grafana replaces its variables and evaluates label_values."""
    known = exposed()
    selector = re.fullmatch(r"label_values\((.*), (\w+)\)", expression)
    query = promql_parser.parse((selector[1] if selector else expression).replace("$__rate_interval", "5m"))
    below = selectors(query)
    assert below
    for one in below:
        assert {matcher.name for matcher in one.matchers.matchers} <= known[str(one.name)].labels
    if selector:
        assert selector[2] in known[str(below[0].name)].labels

    def check(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels = frozenset.intersection(*(known[str(one.name)].labels for one in selectors(node)))
            assert set(node.modifier.labels) <= labels
        if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase", "deriv"):
            are_counters = {known[str(one.name)].is_counter for one in selectors(node)}
            assert are_counters == {node.func.name != "deriv"}, node

    promql_parser.walk(query, check)


def selectors(query: promql_parser.Expr) -> list[promql_parser.VectorSelector]:
    """Return all selectors of an expression."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(query, visit)
    return found


def test_every_alert_has_a_summary_and_a_description() -> None:
    (rule,) = of("PrometheusRule", render({"metrics": ALL}))
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    names = [alert["alert"] for alert in alerts]
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert re.findall(r"^\| (Cortex\w+) \|", page, re.MULTILINE) == names
    for alert in alerts:
        assert set(alert["annotations"]) == {"summary", "description"}
        assert alert["labels"]["severity"] in ("warning", "critical")
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])))
        assert used <= {
            label for part in re.findall(r"by \(([^)]*)\)", alert["expr"]) for label in part.split(", ")
        }


def selected(expression: str, labels: dict[str, str]) -> bool:
    """Return whether the selector of an alert matches a series with these labels."""
    (selector,) = re.findall(r"\{([^}]*)\}", expression)
    for name, operation, value in re.findall(r'(\w+)(!=|!~|=~|=)"([^"]*)"', selector):
        found = labels.get(name, "")
        matches = bool(re.fullmatch(value, found)) if "~" in operation else found == value
        if matches == operation.startswith("!"):
            return False
    return True


@pytest.mark.parametrize("case", SITUATIONS, ids=lambda case: case.name)
def test_alerts_agree_with_the_conditions(case: Situation) -> None:
    """An unavailable API is critical, unless it is paused or scaled to zero. A degraded API is a warning."""
    (rule,) = of("PrometheusRule", render({"metrics": ALL}))
    alerts = {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}
    labels = {
        "namespace": "cortex-system",
        "available": str(case.available),
        "degraded": str(case.degraded),
        "ready": str(case.ready),
        "reason": case.reason,
    }
    expected = {"CortexAPINotAvailable": not case.available, "CortexAPIDegraded": case.degraded}
    if case.reason in ("Paused", "ScaledToZero"):
        expected["CortexAPINotAvailable"] = False
    assert {name: selected(alerts[name]["expr"], labels) for name in expected} == expected


def test_thresholds_are_set_by_values() -> None:
    rules = {"enabled": True, "errorRatio": 0.2, "oldestJobSeconds": 77, "notReadyFor": "3h"}
    text = yaml.safe_dump(of("PrometheusRule", render({"metrics": {"rules": rules}})))
    assert "> 0.2" in text
    assert "> 77" in text
    assert "for: 3h" in text
    assert 'namespace="cortex-system"' in text


def test_pod_monitor_scrapes_the_admin_port_of_all_pods_of_apis() -> None:
    (monitor,) = of("PodMonitor", render({"metrics": ALL, "watchNamespaces": ["a"]}))
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["a"]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (chosen,) = monitor["spec"]["selector"]["matchExpressions"]
    platform = Platform.model_validate({"queue": {"url": "nats://x:1"}})
    for api, component in ((REALTIME, "api"), (ASYNC, "worker"), (ASYNC, "gateway")):
        template = pod.template(api, platform, component, {"metadata": {"name": "config"}, "data": {}}, None)
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


def test_service_monitor_selects_the_service_and_its_port() -> None:
    rendered = render({"metrics": ALL})
    (monitor,) = of("ServiceMonitor", rendered)
    chosen = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = (found for found in of("Service", rendered) if chosen <= found["metadata"]["labels"].items())
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    (deployment,) = of("Deployment", rendered)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert service["spec"]["ports"][0]["targetPort"] in [port["name"] for port in container["ports"]]


def test_dashboard_has_the_sidecar_label_and_no_overlapping_panels() -> None:
    (config,) = (
        found for found in of("ConfigMap", render({"metrics": ALL})) if "cortex.json" in found["data"]
    )
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(config["data"]["cortex.json"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
