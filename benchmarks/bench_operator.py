"""`make bench-operator`: compare how fast the operator reconciles many APIs with how fast the same objects are written directly.

It also measures the operator's CPU time and memory, its API calls at rest, the time to the status of one more API, and a restart.
It uses the cluster of KUBECONFIG, or a dev cluster, which has a slow API server. The APIs have no replicas, so no pods are
created. Both variants alternate in several turns, so that other load on the machine affects both. On a cluster of KUBECONFIG the
program fails if a goal is missed; the ratio may miss its goal by the spread of the turns.
"""

import argparse
import asyncio
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cortex_api import parse
from cortex_operator.capabilities import Capabilities
from cortex_operator.cluster import Cluster
from cortex_operator.platform import Platform
from cortex_operator.render import render
from cortex_operator.status import status
from cortex_operator.status.status import Observed

Object = dict[str, Any]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CONCURRENCY = 10
"""Number of concurrent writers, in both variants."""
TURNS = 8
RATIO = 0.85
"""The goal of the ratio: the speed of direct writes is 1."""
MEMORY_MB = {1000: 150, 3000: 300}
"""The goals of the operator's memory, by the number of APIs up to which each applies."""
NEXT_STATUS, RESTART = 2.0, 60.0
"""The goals of the time to the status of one more API, and of a restart until all APIs are reconciled, in seconds."""
CODE = "class Handler:\n    def handle_post(self, payload):\n        return payload\n"


def api(namespace: str, number: int) -> Object:
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": f"api-{number:05d}", "namespace": namespace},
        "spec": {
            "handler": {"type": "python", "path": "handler.py", "source": {"files": {"handler.py": CODE}}},
            "replicas": 0,
        },
    }


async def each(work: Callable[[int], Awaitable[None]], numbers: Iterable[int]) -> None:
    """Call `work` for all numbers, with limited concurrency."""
    remaining = iter(numbers)

    async def run() -> None:
        for number in remaining:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(run())


async def raw(cluster: Cluster, namespace: str, numbers: range) -> float:
    """Write the APIs, their child objects and statuses directly. Return the duration in seconds."""
    capabilities = Capabilities.of(await cluster.version())

    async def write(number: int) -> None:
        live = await cluster.create(api(namespace, number))
        parsed = parse(live)
        for child in render(parsed, Platform(), None, capabilities):
            await cluster.apply(child)
        computed = status.compute(parsed, live, Observed(url="x"))
        for condition in computed["conditions"]:
            condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        await cluster.write_status(live, computed)

    start = time.perf_counter()
    await each(write, numbers)
    return time.perf_counter() - start


async def operated(cluster: Cluster, namespace: str, numbers: range, statuses: "Statuses") -> float:
    """Create APIs with a running operator. Return the time until the last status, in seconds."""

    async def write(number: int) -> None:
        await cluster.create(api(namespace, number))

    start = time.perf_counter()
    await each(write, numbers)
    await statuses.wait_for(numbers.stop)
    return time.perf_counter() - start


class Statuses:
    """The names of the APIs that have a status, from a watch. Polling the operator or listing the APIs would add load."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._changed = asyncio.Event()

    async def wait_for(self, count: int) -> None:
        """Wait until this number of APIs have a status."""
        while len(self._names) < count:
            self._changed.clear()
            await self._changed.wait()

    async def follow(self, lines: asyncio.StreamReader) -> None:
        """Read the events of a watch until it ends."""
        async for line in lines:
            live = json.loads(line)["object"]
            if live.get("status", {}).get("conditions"):
                self._names.add(live["metadata"]["name"])
                self._changed.set()


@asynccontextmanager
async def watch_statuses(kubeconfig: Path, namespace: str) -> AsyncIterator[Statuses]:
    """Watch the statuses in a namespace."""
    path = f"/apis/cortex.dev/v1alpha1/namespaces/{namespace}/realtimeapis?watch=true&timeoutSeconds=86400"
    command = (*kubectl_command(kubeconfig), "get", "--raw", path)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, limit=2**20)
    assert process.stdout is not None
    statuses = Statuses()
    reading = asyncio.create_task(statuses.follow(process.stdout))
    try:
        yield statuses
    finally:
        reading.cancel()
        process.terminate()
        await process.wait()


def settle(kubeconfig: Path, namespace: str) -> None:
    """Wait until the cluster's controllers have processed a namespace, and check that all APIs in it have a status."""

    def count(kind: str, field: str) -> int:
        return len(
            kubectl(kubeconfig, "get", kind, "-n", namespace, f"-o=jsonpath={{.items[*].{field}}}").split()
        )

    deployments = count("deployments", "metadata.uid")
    while count("deployments", "status.observedGeneration") < deployments:
        time.sleep(1)
    assert count("realtimeapis", "status.observedGeneration") == deployments, "an API has no status"


@contextmanager
def operator(kubeconfig: Path, folder: Path, namespace: str) -> Iterator[str]:
    """Start an operator for one namespace and yield the URL of its metrics."""
    config = folder / "platform.yaml"
    config.write_text(json.dumps({"watchNamespaces": [namespace]}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cortex_operator", "--health-port", str(port), "--config", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/healthz", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit((folder / "log").read_text()) from None
                time.sleep(0.2)
        yield f"{address}/metrics"
    finally:
        process.terminate()
        process.wait(30)


def metrics(address: str) -> dict[str, float]:
    with urllib.request.urlopen(address, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def calls(found: dict[str, float], but: str = "-") -> float:
    """Return the number of API calls. but: a verb whose calls do not count."""
    named = ((n, value) for n, value in found.items() if n.startswith("cortex_operator_api_calls_total"))
    return sum(value for name, value in named if f'verb="{but}"' not in name)


async def alternate(
    cluster: Cluster, kubeconfig: Path, spaces: list[str], apis: int, statuses: Statuses
) -> list[tuple[float, float]]:
    """Return the seconds of both variants, raw and with the operator, of each turn."""
    turns = []
    for turn in range(TURNS):
        numbers = range(turn * apis // TURNS, (turn + 1) * apis // TURNS)
        took = {}
        for kind in (("raw", "operator"), ("operator", "raw"))[turn % 2]:
            if kind == "raw":
                took[kind] = await raw(cluster, spaces[0], numbers)
            else:
                took[kind] = await operated(cluster, spaces[1], numbers, statuses)
            print(f"{kind}: {len(numbers)} APIs in {took[kind]:.1f} s", file=sys.stderr, flush=True)
            for space in spaces:
                settle(kubeconfig, space)
        turns.append((took["raw"], took["operator"]))
    return turns


async def one_more(cluster: Cluster, namespace: str, number: int) -> float:
    """Return the seconds from the creation of one more API to its status."""
    start = time.perf_counter()
    made = await cluster.create(api(namespace, number))
    place = (made["apiVersion"], made["kind"], namespace, made["metadata"]["name"])
    while not ((await cluster.get(*place)) or {}).get("status", {}).get("conditions"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return time.perf_counter() - start


async def restart(kubeconfig: Path, folder: Path, namespace: str, apis: int) -> Object:
    """Start an operator on existing APIs. Return the seconds until all are reconciled, and the writes."""
    start = time.perf_counter()
    with operator(kubeconfig, folder, namespace) as address:
        while True:
            found = metrics(address)
            if found["cortex_operator_reconciles_total"] >= apis and not found["cortex_operator_queue_depth"]:
                seconds = time.perf_counter() - start
                break
            await asyncio.sleep(0.2)
        await asyncio.sleep(5)
        writes = calls(metrics(address), but="GET")
    return {"restart_seconds": round(seconds, 2), "restart_writes": writes}


async def measure(kubeconfig: Path, apis: int, idle: float, folder: Path) -> Object:
    os.environ["KUBECONFIG"] = str(kubeconfig)
    cluster = await Cluster.connect()
    spaces = [f"bench-{kind}-{os.getpid()}" for kind in ("raw", "operator")]
    try:
        for space in spaces:
            kubectl(kubeconfig, "create", "namespace", space)
        with operator(kubeconfig, folder, spaces[1]) as address:
            started = metrics(address)
            async with watch_statuses(kubeconfig, spaces[1]) as statuses:
                turns = await alternate(cluster, kubeconfig, spaces, apis, statuses)
            await asyncio.sleep(5)
            before = metrics(address)
            await asyncio.sleep(idle)
            after = metrics(address)
            next_status = await one_more(cluster, spaces[1], apis)
        restarted = await restart(kubeconfig, folder, spaces[1], apis + 1)
    finally:
        for space in spaces:
            # A slow deletion must not lose the results.
            kubectl(kubeconfig, "delete", "namespace", space, "--timeout=5m", check=False)
        await cluster.close()
    by_hand, took = (sum(seconds) for seconds in zip(*turns, strict=True))
    ratios = [a / b for a, b in turns]
    cpu = before["process_cpu_seconds_total"] - started["process_cpu_seconds_total"]
    return {
        "apis": apis,
        "raw_seconds": round(by_hand, 2),
        "operator_seconds": round(took, 2),
        "ratio": round(by_hand / took, 2),
        "idle_calls": calls(after) - calls(before),
        "idle_seconds": idle,
        "memory_mb": round(after["process_resident_memory_bytes"] / 1e6),
        "reconciles": after["cortex_operator_reconciles_total"],
        "spread": round((max(ratios) - min(ratios)) / 2, 2),
        "cpu_ms": round(1000 * cpu / apis, 1),
        "calls": round((calls(before) - calls(started)) / apis, 2),
        "next_status_seconds": round(next_status, 2),
        **restarted,
        "load": round(os.getloadavg()[0], 1),
    }


def missed(found: Object) -> list[str]:
    """Return the goals that were missed."""
    limits = [limit for apis, limit in MEMORY_MB.items() if found["apis"] <= apis]
    goals = [
        ("ratio", found["ratio"] + found["spread"] < RATIO, RATIO),
        ("memory_mb", bool(limits) and found["memory_mb"] > limits[0], limits[:1]),
        ("idle_calls", found["idle_calls"] > 0, 0),
        ("next_status_seconds", found["next_status_seconds"] > NEXT_STATUS, NEXT_STATUS),
        ("restart_seconds", found["restart_seconds"] > RESTART, RESTART),
        ("restart_writes", found["restart_writes"] > 0, 0),
    ]
    return [
        f"missed: {name} is {found[name]}, the goal is {goal}" for name, is_missed, goal in goals if is_missed
    ]


def kubectl(kubeconfig: Path, *arguments: str, check: bool = True) -> str:
    command = (*kubectl_command(kubeconfig), *arguments)
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, text=True).stdout


def kubectl_command(kubeconfig: Path) -> tuple[str, ...]:
    return str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", str(kubeconfig)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--apis", type=int, help="number of APIs (default: 1000, on a dev cluster 100)")
    parser.add_argument("--idle", type=float, default=30, help="seconds to measure the idle operator")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cortex-bench-")))
        if given := os.environ.get("KUBECONFIG"):
            kubeconfig, cluster = Path(given), "KUBECONFIG"
        else:
            from cortex_devcluster import DevCluster

            kubeconfig, cluster = stack.enter_context(DevCluster(folder)).kubeconfig, "dev cluster"
        kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        apis = arguments.apis or (1000 if given else 100)
        found = asyncio.run(measure(kubeconfig, apis, arguments.idle, folder))
    row = {"time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "cluster": cluster, **found}
    target = HERE / "results" / "operator.csv"
    target.parent.mkdir(exist_ok=True)
    new = not target.exists()
    with target.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(json.dumps(row, indent=1))
    problems = missed(found) if given else []
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
