"""Print which components take the CPU time of a process, from a profile of py-spy.

    pip install py-spy
    py-spy record --gil --format raw --output profile.txt --pid PID     # until Ctrl+C
    python benchmarks/cpu_shares.py profile.txt

PID is that of the operator, a gateway, a consumer, a supervisor or a worker. Each sample counts for the innermost function of a
known component. With --gil, samples are taken only while Python code or an extension module runs: waiting and system calls do
not count.
"""

import argparse
from collections import Counter
from pathlib import Path

COMPONENTS = {
    "render: objects and hashes": ("cortex_operator/render",),
    "cache of live objects": ("cortex_operator/watch/",),
    "comparison with live objects": ("cortex_operator/apply/",),
    "status and Events": ("cortex_operator/status/",),
    "metrics endpoint": ("cortex_operator/health.py", "prometheus_client/", "aiohttp/web"),
    "client of the API server": ("cortex_operator/cluster.py", "kubernetes/"),
    "reconcile, queue": ("cortex_operator/",),
    "watches (kopf)": ("kopf/",),
    "jobs: gateway": ("cortex_runtime/jobs/gateway",),
    "jobs: queue and records": ("cortex_runtime/queues/",),
    "jobs: dispatch": ("cortex_runtime/jobs/",),
    "control socket of a worker": ("cortex_runtime/messages.py", "cortex_runtime/processes/"),
    "metrics, logs": ("cortex_runtime/metrics/", "cortex_runtime/logs/"),
    "handler": ("cortex_runtime/handler/", "handler.py"),
    "HTTP of the runtime": ("cortex_runtime/http/", "cortex_runtime/serving/"),
    "runtime, other": ("cortex_runtime/",),
    "NATS client": ("nats/",),
    "HTTP server (uvicorn, Starlette)": ("uvicorn/", "starlette/"),
    "HTTP client (aiohttp)": ("aiohttp/", "yarl/", "multidict/"),
    "models (pydantic)": ("pydantic/", "cortex_api/"),
    "JSON": ("json/",),
    "TLS": ("asyncio/sslproto.py", "ssl.py"),
    "event loop, sockets": ("asyncio/", "selectors.py", "socket.py", "uvloop/"),
    "logging": ("logging/",),
}
"""The components, by parts of the path of a file."""


def component(stack: str) -> str:
    """Return the component of a sample: function names with files, outermost first, separated by semicolons."""
    if "importlib" in stack or "complete_model_class" in stack:
        return "imports, models are built"
    for frame in reversed(stack.split(";")):
        file = frame.rpartition("(")[2]
        for name, parts in COMPONENTS.items():
            if any(file.startswith(part) or f"/{part}" in file for part in parts):
                return name
    return "other"


def shares(lines: list[str]) -> dict[str, float]:
    """Return the share of each component, from the lines of py-spy's raw format, largest first."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, samples = line.rpartition(" ")
        counts[component(stack)] += int(samples)
    return {name: count / counts.total() for name, count in counts.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profile", type=Path)
    for name, share in shares(parser.parse_args().profile.read_text().splitlines()).items():
        print(f"| {name} | {share:.0%} |")


if __name__ == "__main__":
    main()
