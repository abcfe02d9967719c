"""`make bench`: requests/s of the runtime as ratios to the same work written by hand, all taken in one run.

Server on one core, load on another; contestants in turn, several rounds, medians. Only the ratios mean anything: the
machine is rarely alone. Rows go to benchmarks/results/.
"""

import argparse
import csv
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from cortex_api import Document, parse

HERE = Path(__file__).resolve().parent
START_TIMEOUT = 30.0
CONNECTIONS = 16
ITEMS = ",".join(f'"item-{number:04d}"' for number in range(17))
TRIVIAL = f'{{"items":[{ITEMS}]}}'
FLOWER = '{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}'


@dataclass(frozen=True)
class Contestant:
    """A server. project: a folder with api.yaml for our runtime; app: a name in contestants.py for uvicorn."""

    name: str
    project: Path | None = None
    app: str = ""

    def command(self, port: int, admin_port: int, scratch: Path) -> list[str]:
        """How it is started; what it reads is written to scratch."""
        if self.project is None:
            command = [sys.executable, "-m", "uvicorn", f"contestants:{self.app}", "--app-dir", str(HERE)]
            command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
            return [*command, "--port", str(port)]
        api = parse(yaml.safe_load((self.project / "api.yaml").read_text()))
        (scratch / "api.json").write_bytes(Document.of(api).to_json())
        command = [sys.executable, "-m", "cortex_runtime", "serve", "--config", str(scratch / "api.json")]
        command += ["--project", str(self.project), "--models", str(scratch), "--host", "127.0.0.1"]
        command += ["--termination-log", str(scratch / "end"), "--drain-delay", "0"]
        return [*command, "--port", str(port), "--admin-port", str(admin_port)]


@dataclass(frozen=True)
class Work:
    """What is asked for, and who answers; the ratios are to each of the others."""

    name: str
    body: str
    contestants: tuple[Contestant, ...]


WORKS = (
    Work(
        "trivial",
        TRIVIAL,
        (
            Contestant("cortex", project=HERE / "trivial"),
            Contestant("starlette+orjson", app="trivial"),
            Contestant("bare asgi", app="bare"),
        ),
    ),
    Work(
        "iris",
        FLOWER,
        (
            Contestant("cortex", project=HERE.parent / "examples" / "iris-onnx"),
            Contestant("starlette+session", app="iris"),
        ),
    ),
)


@contextmanager
def serving(contestant: Contestant, core: int, body: str) -> Iterator[int]:
    """A contestant that answers, pinned to a core; gives its port."""
    port, admin_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="cortex-bench-") as folder:
        scratch = Path(folder)
        with (scratch / "log").open("wb") as log:
            command = pinned(core, contestant.command(port, admin_port, scratch))
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + START_TIMEOUT
            while not answers(port, body):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{contestant.name} did not start:\n{(scratch / 'log').read_text()}")
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(port: int, body: str) -> bool:
    """Whether the server gives 200 to the request that will be measured."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/", body.encode(), {"content-type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def measure(port: int, body: str, seconds: float, core: int, wrk: str | None) -> float:
    """Requests a second, by wrk when it is there."""
    if wrk is None:
        command = [sys.executable, str(HERE / "load.py"), str(port), str(seconds), body]
        return float(output_of(pinned(core, command)))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method = 'POST'\nwrk.body = [[{body}]]\n")
        script.write("wrk.headers['content-type'] = 'application/json'\n")
        script.flush()
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", script.name]
        output = output_of(pinned(core, [*command, f"http://127.0.0.1:{port}/"]))
    if "Non-2xx" in output:
        raise SystemExit(f"answers that are not 200:\n{output}")
    rate = re.search(r"Requests/sec:\s*([\d.]+)", output)
    if rate is None:
        raise SystemExit(f"wrk gave no rate:\n{output}")
    return float(rate[1])


def output_of(command: list[str]) -> str:
    """What a command prints. Ends the run when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def pinned(core: int, command: list[str]) -> list[str]:
    """The command on one core, where taskset is there."""
    taskset = shutil.which("taskset")
    return [taskset, "--cpu-list", str(core), *command] if taskset else command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load, for each contestant and round")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = cores[0], cores[-1]
    if server_core == load_core:
        print("Only one core here: server and load share it, and the ratios say little.", file=sys.stderr)
    wrk = shutil.which("wrk")
    print(
        f"{options.rounds} rounds of {options.seconds:g} s, {CONNECTIONS} connections, load by {wrk or 'load.py'}"
    )
    rows = []
    for work in WORKS:
        rates: dict[str, list[float]] = {contestant.name: [] for contestant in work.contestants}
        for number in range(options.rounds):
            for contestant in work.contestants:
                with serving(contestant, server_core, work.body) as port:
                    measure(port, work.body, 0.5, load_core, wrk)  # Warm.
                    rate = measure(port, work.body, options.seconds, load_core, wrk)
                rates[contestant.name].append(rate)
                rows.append((work.name, contestant.name, number + 1, round(rate, 1)))
        ours = rates["cortex"]
        print(f"\n{work.name:<20}{'requests/s':>12}{'lowest':>10}{'highest':>10}{'cortex is':>12}")
        for name, values in rates.items():
            ratio = statistics.median(a / b for a, b in zip(ours, values, strict=True))
            shown = "" if name == "cortex" else f"{ratio:.2f} x"
            median = statistics.median(values)
            print(
                f"{name:<20}{median:>12,.0f}{min(values):>10,.0f}{max(values):>10,.0f}{shown:>12}", flush=True
            )
    stamp = datetime.now(UTC)
    file = HERE / "results" / f"{stamp:%Y%m%dT%H%M%SZ}.csv"
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(("work", "contestant", "round", "requests_per_second"))
        writer.writerows(rows)
    print(f"\n{platform.python_implementation()} {platform.python_version()}; every round is in {file}")


if __name__ == "__main__":
    main()
