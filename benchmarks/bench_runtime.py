"""`make bench`: compare the throughput of the runtime with handwritten servers that do the same work.

The server and the load generator run on different cores. The servers are measured in turn in several rounds. Only the ratios are
meaningful, because other processes on the machine affect the absolute numbers. Results are written to benchmarks/results/.
The program fails if a ratio misses its goal by more than the spread of its rounds.
"""

import argparse
import csv
import gzip
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

from cortex_api import Document, parse

HERE = Path(__file__).resolve().parent
START_TIMEOUT = 30.0
CONNECTIONS = 16
ITEMS = ",".join(f'"item-{number:04d}"' for number in range(17))
TRIVIAL = f'{{"items":[{ITEMS}]}}'
MEGABYTE = '{"items":[' + ",".join(f"{number / 7:.12f}" for number in range(62_000)) + "]}"
ROW = "[" + ",".join(f"{number / 7:.2f}" for number in range(512)) + "]"
TENSOR = os.urandom(2**20 // 8).hex().encode() * 4
"""1 MB of bytes, all of which are finite numbers of type float32."""
JSON = {"content-type": "application/json"}
FLOWER = '{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}'


class Failed(SystemExit):
    """A measurement failed. Exits the program unless it is caught."""


@dataclass(frozen=True)
class Contestant:
    """A server to measure.

    project: folder with api.yaml, for the runtime of Cortex.
    app: name of an application in handwritten_servers.py, for uvicorn.
    processes: number of uvicorn processes (api.yaml sets those of Cortex).
    script: a program that does the work without a server. It runs for N seconds and prints the number of calls per second.
    """

    name: str
    project: Path | None = None
    app: str = ""
    processes: int = 1
    script: Path | None = None

    def command(self, port: int, admin_port: int, scratch: Path) -> list[str]:
        """Return the command that starts the server. Writes its files to the folder `scratch`."""
        if self.project is None:
            command = [
                sys.executable,
                "-m",
                "uvicorn",
                f"handwritten_servers:{self.app}",
                "--app-dir",
                str(HERE),
            ]
            command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
            return [*command, "--port", str(port), "--workers", str(self.processes)]
        api = parse(yaml.safe_load((self.project / "api.yaml").read_text()))
        (scratch / "api.json").write_bytes(Document.of(api).to_json())
        command = [sys.executable, "-m", "cortex_runtime", "serve", "--config", str(scratch / "api.json")]
        command += ["--project", str(self.project), "--models", str(scratch), "--host", "127.0.0.1"]
        command += ["--termination-log", str(scratch / "end"), "--drain-delay", "0"]
        return [*command, "--port", str(port), "--admin-port", str(admin_port)]


@dataclass(frozen=True)
class Work:
    """A workload and its servers. The first server is Cortex, which is compared with each of the others.

    goals: minimum ratio to each of the others. cores: number of cores for the servers; the load generator uses the last core.
    connections: number of connections of the load generator.
    """

    name: str
    body: str | bytes
    contestants: tuple[Contestant, ...]
    goals: tuple[float, ...]
    cores: int = 1
    connections: int = CONNECTIONS
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


WORKS = (
    Work(
        "trivial",
        TRIVIAL,
        (
            Contestant("cortex", project=HERE / "trivial"),
            Contestant("starlette+orjson", app="trivial"),
            Contestant("bare asgi", app="bare"),
        ),
        goals=(1.4, 0.8),
    ),
    Work(
        "iris (ONNX)",
        FLOWER,
        (
            Contestant("cortex", project=HERE.parent / "examples" / "iris-onnx"),
            Contestant("starlette+session", app="iris"),
        ),
        goals=(1.5,),
    ),
    Work(
        "1 MB of JSON",
        MEGABYTE,
        (Contestant("cortex", project=HERE / "trivial"), Contestant("starlette+orjson", app="trivial")),
        goals=(1.0,),
    ),
    Work(
        "1 MB of JSON, gzip",
        gzip.compress(MEGABYTE.encode(), 6, mtime=0),
        (Contestant("cortex", project=HERE / "trivial"), Contestant("starlette+zlib", app="compressed")),
        goals=(1.0,),
        headers=JSON | {"content-encoding": "gzip"},
    ),
    Work(
        "1 MB of float32",
        TENSOR,
        (Contestant("cortex", project=HERE / "binary"), Contestant("starlette+numpy", app="binary")),
        goals=(1.0,),
        headers={"content-type": "application/octet-stream"},
    ),
    Work(
        "batching",
        ROW,
        (
            Contestant("cortex", project=HERE / "batching"),
            Contestant("starlette+batcher", app="batching"),
            Contestant("full batches", script=HERE / "batching" / "full.py"),
        ),
        goals=(0.9, 0.7),
    ),
    Work(
        "two processes",
        TRIVIAL,
        (
            Contestant("cortex", project=HERE / "two-processes"),
            Contestant("starlette+orjson", app="trivial", processes=2),
        ),
        goals=(1.4,),
        cores=2,
    ),
    Work(
        "20 ms, two processes",
        TRIVIAL,
        (
            Contestant("cortex", project=HERE / "shared-load"),
            Contestant("two without a server", script=HERE / "shared-load" / "limit.py"),
        ),
        goals=(0.95,),
        cores=2,
        connections=4,
    ),
)


@contextmanager
def serving(
    contestant: Contestant, cores: list[int], body: str | bytes, headers: Mapping[str, str] = JSON
) -> Iterator[int]:
    """Start a server on the given cores, wait until it responds, and yield its port. Raises Failed."""
    port, admin_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="cortex-bench-") as folder:
        scratch = Path(folder)
        with (scratch / "log").open("wb") as log:
            command = pinned(cores, contestant.command(port, admin_port, scratch))
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + START_TIMEOUT
            while not answers(port, body, headers):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"{contestant.name} did not start:\n{(scratch / 'log').read_text()}")
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(port: int, body: str | bytes, headers: Mapping[str, str]) -> bool:
    """Return whether the server responds with 200 to the measured request."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", _encoded(body), dict(headers))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def measure(
    port: int,
    body: str | bytes,
    seconds: float,
    core: int,
    wrk: str | None,
    *,
    path: str = "/",
    connections: int = CONNECTIONS,
    headers: Mapping[str, str] = JSON,
) -> float:
    """Measure requests per second, with wrk if it is installed. Raises Failed if a response is not 200."""
    if wrk is None:
        command = [
            sys.executable,
            str(HERE / "closed_loop.py"),
            str(port),
            path,
            str(connections),
            str(seconds),
        ]
        command += [f"{name}: {value}" for name, value in headers.items()]
        return float(output_of(pinned([core], command), _encoded(body)))
    with tempfile.TemporaryDirectory() as folder:
        content, script = Path(folder, "body"), Path(folder, "request.lua")
        content.write_bytes(_encoded(body))
        lines = ["wrk.method = 'POST'", f"wrk.body = io.open('{content}', 'rb'):read('*a')"]
        lines += [f"wrk.headers['{name}'] = '{value}'" for name, value in headers.items()]
        script.write_text("\n".join(lines))
        command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        output = output_of(pinned([core], [*command, f"http://127.0.0.1:{port}{path}"]))
    if "Non-2xx" in output:
        raise Failed(f"responses that are not 200:\n{output}")
    rate = re.search(r"Requests/sec:\s*([\d.]+)", output)
    if rate is None:
        raise Failed(f"wrk printed no rate:\n{output}")
    if not float(rate[1]):
        raise Failed(f"no response in {seconds:g} s")
    return float(rate[1])


def output_of(command: list[str], stdin: bytes = b"") -> str:
    """Run a command and return its output. Raises Failed."""
    done = subprocess.run(command, capture_output=True, input=stdin)
    if done.returncode != 0:
        raise Failed(f"{command[0]} failed:\n{done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


def _encoded(body: str | bytes) -> bytes:
    return body.encode() if isinstance(body, str) else body


def pinned(cores: list[int], command: list[str]) -> list[str]:
    """Return the command that runs on these cores, if taskset is installed."""
    taskset = shutil.which("taskset")
    return [taskset, "--cpu-list", ",".join(map(str, cores)), *command] if taskset else command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compare(
    work: Work, cores: list[int], rounds: int, seconds: float, wrk: str | None
) -> dict[str, list[float]]:
    """Return the requests per second of each server in each round. All servers run all the time; one is measured at a time."""
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in work.contestants}
    with ExitStack() as stack:
        ports = {
            contestant.name: stack.enter_context(
                serving(contestant, cores[: work.cores], work.body, work.headers)
            )
            for contestant in work.contestants
            if contestant.script is None
        }

        def load(name: str, seconds: float) -> float:
            return measure(
                ports[name],
                work.body,
                seconds,
                cores[-1],
                wrk,
                connections=work.connections,
                headers=work.headers,
            )

        for name in ports:
            load(name, 1)  # Warm up.
        for _ in range(rounds):
            for contestant in work.contestants:
                if contestant.script is None:
                    rate = load(contestant.name, seconds)
                else:
                    command = [sys.executable, str(contestant.script), str(seconds)]
                    rate = float(output_of(pinned(cores[: work.cores], command)))
                rates[contestant.name].append(rate)
    return rates


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as another server Cortex is: the median of the rounds, and half of their range."""

    work: str
    other: str
    median: float
    spread: float
    goal: float

    @property
    def is_missed(self) -> bool:
        """Whether the ratio is below its goal by more than its spread."""
        return self.median + self.spread < self.goal

    def __str__(self) -> str:
        return f"{self.median:.2f} x ± {self.spread:.2f}"


def ratios(work: Work, rates: Mapping[str, list[float]]) -> list[Ratio]:
    """Return the ratios of a workload. Each ratio compares two servers in one round."""
    found = []
    for contestant, goal in zip(work.contestants[1:], work.goals, strict=True):
        each = [a / b for a, b in zip(rates["cortex"], rates[contestant.name], strict=True)]
        found.append(
            Ratio(work.name, contestant.name, statistics.median(each), (max(each) - min(each)) / 2, goal)
        )
    return found


def show(work: Work, rates: Mapping[str, list[float]]) -> list[Ratio]:
    """Print requests per second and the ratios, and return the ratios."""
    print(f"\n{work.name:<21}{'requests/s':>11}{'lowest':>9}{'highest':>9}{'cortex is':>18}{'goal':>7}")
    found = {ratio.other: ratio for ratio in ratios(work, rates)}
    for name, values in rates.items():
        line = f"{name:<21}{statistics.median(values):>11,.0f}{min(values):>9,.0f}{max(values):>9,.0f}"
        if name in found:
            ratio = found[name]
            line += f"{ratio!s:>18}{ratio.goal:>7}{'  missed' if ratio.is_missed else ''}"
        print(line, flush=True)
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="seconds of load for each server and round"
    )
    parser.add_argument(
        "--work", dest="works", action="append", help="workload; may be repeated (default: all)"
    )
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        print(
            "Only one core: servers and load generator share it, so the ratios are unreliable.",
            file=sys.stderr,
        )
    wrk = shutil.which("wrk")
    print(
        f"{options.rounds} rounds of {options.seconds:g} s, {CONNECTIONS} connections, load by {wrk or 'closed_loop.py'}"
    )
    if wrk is None:
        print(
            "wrk is not installed: closed_loop.py is as slow as the fastest servers, which brings the ratios closer to 1."
        )
    unknown = set(options.works or ()) - {work.name for work in WORKS}
    if unknown:
        parser.error(f"unknown workloads: {', '.join(unknown)}; expected {', '.join(w.name for w in WORKS)}")
    busy = os.getloadavg()[0]
    if busy >= 1:
        print(f"The load average of this machine is {busy:.1f}: expect large spreads.", file=sys.stderr)
    rows: list[tuple[object, ...]] = [("", "", "load_average", round(busy, 2))]
    found: list[Ratio] = []
    for work in WORKS:
        if options.works and work.name not in options.works:
            continue
        rates = compare(work, cores, options.rounds, options.seconds, wrk)
        found += show(work, rates)
        rows += [
            (work.name, name, number, round(rate, 1))
            for name, values in rates.items()
            for number, rate in enumerate(values, 1)
        ]
    file = HERE / "results" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.csv"
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(("work", "contestant", "round", "requests_per_second"))
        writer.writerows(rows)
    print(f"\n{platform.python_implementation()} {platform.python_version()}; all rounds are in {file}")
    missed = [ratio for ratio in found if ratio.is_missed]
    for ratio in missed:
        print(f"missed: {ratio.work}: {ratio} of {ratio.other}, the goal is {ratio.goal}", file=sys.stderr)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
