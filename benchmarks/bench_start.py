"""`make bench-start`: measure the start of a replica, the memory of each further worker, the restart of a killed worker and the
reload of changed code.

`make bench-peers` compares start and memory with other servers. All values are written to benchmarks/results/. The exit status is
1 when a goal is missed.
"""

import argparse
import csv
import http.client
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import processes
import yaml
from bench_runtime import FLOWER, HERE, Contestant, Failed, free_port

IRIS = HERE.parent / "examples" / "iris-onnx"
RELOADED = HERE / "trivial"
TIMEOUT_S = 30.0
IDLE_S = 1.0
BETWEEN_S = 1.2
"""Seconds between two kills. A worker that exits within a second of its start is restarted with backoff."""
FURTHER = 2
"""Further workers, whose memory is measured."""
COUNTING = "class Handler:\n    def handle_post(self, payload):\n        return {number}\n"


@dataclass(frozen=True)
class Measured:
    """A quantity. goal: the maximum of its median, or of the 95th percentile of times in ms."""

    name: str
    unit: str
    values: list[float]
    goal: float | None = None

    @property
    def decisive(self) -> float:
        """The value that must not exceed the goal."""
        if self.unit == "ms":
            return sorted(self.values)[int(0.95 * (len(self.values) - 1))]
        return statistics.median(self.values)

    @property
    def is_missed(self) -> bool:
        return self.goal is not None and self.decisive > self.goal


@dataclass(frozen=True)
class Server:
    """A running replica. start_s: time from the start of the process to the first response, in seconds."""

    process: subprocess.Popen[bytes]
    port: int
    project: Path
    start_s: float

    def post(self) -> bytes | None:
        """Return the body of a response with status 200, or None."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("POST", "/", FLOWER.encode(), {"content-type": "application/json"})
            response = connection.getresponse()
            return response.read() if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def memory(self) -> float:
        """Return the memory (PSS) of all processes in MiB."""
        return processes.memory(processes.family(self.process.pid))[1]

    def workers(self) -> list[int]:
        """Return the ids of the worker processes: all without children of their own, except for the template."""
        members = processes.family(self.process.pid)
        without = {member.pid for member in members} - {member.parent for member in members}
        return [pid for pid in without if Path(f"/proc/{pid}/comm").read_text() != "cortex-template\n"]


@contextmanager
def serving(project: Path, *options: str, workers: int = 1, code: str | None = None) -> Iterator[Server]:
    """Serve a copy of a project until the block ends, with another handler.py if `code` is given. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="start-", ignore_cleanup_errors=True) as folder:
        copy, scratch = Path(folder) / "project", Path(folder) / "scratch"
        scratch.mkdir()
        shutil.copytree(project, copy)
        manifest = yaml.safe_load((copy / "api.yaml").read_text())
        manifest["spec"]["handler"]["processesPerReplica"] = workers
        (copy / "api.yaml").write_text(yaml.safe_dump(manifest))
        if code is not None:
            (copy / "handler.py").write_text(code)
        port = free_port()
        command = Contestant("cortex", project=copy).command(port, free_port(), scratch)
        with (scratch / "log").open("wb") as log:
            began = time.perf_counter()
            process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        try:
            first = Server(process, port, copy, 0.0)
            wait_until(lambda: first.post() is not None)
            yield Server(process, port, copy, time.perf_counter() - began)
        finally:
            processes.end(process)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition. Raises Failed."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"no response within {TIMEOUT_S:g} s")
        time.sleep(0.002)


def measure_start(rounds: int) -> list[Measured]:
    """Measure time, CPU time and memory of a start, and the memory of each further worker."""
    seconds, spent, one, further = [], [], [], []
    for _ in range(rounds):
        with serving(IRIS) as server:
            spent.append(sum(member.cpu for member in processes.family(server.process.pid)))
            seconds.append(server.start_s)
            time.sleep(IDLE_S)
            one.append(server.memory())
        with serving(IRIS, workers=1 + FURTHER) as server:
            wait_until(lambda server=server: len(server.workers()) == 1 + FURTHER)  # type: ignore[misc]
            time.sleep(IDLE_S)
            further.append((server.memory() - one[-1]) / FURTHER)
    return [
        Measured("start to first response", "s", seconds),
        Measured("CPU time to first response", "s", spent),
        Measured("memory (PSS), one worker", "MiB", one),
        Measured("memory (PSS), each further worker", "MiB", further, 25 * 1e6 / 2**20),
    ]


def measure_kills(kills: int) -> Measured:
    """Measure the time from the kill of the only worker to the next response."""
    found = []
    with serving(IRIS) as server:
        for _ in range(kills):
            time.sleep(BETWEEN_S)
            (worker,) = server.workers()
            began = time.perf_counter()
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: server.post() is not None)
            found.append((time.perf_counter() - began) * 1e3)
    return Measured("kill of a worker to next response", "ms", found, 150)


def measure_reloads(changes: int) -> Measured:
    """Measure the time from a change of a file to the first response of the changed code."""
    found = []
    with serving(RELOADED, "--reload", code=COUNTING.format(number=-1)) as server:
        for number in range(changes):
            time.sleep(BETWEEN_S)
            began = time.perf_counter()
            (server.project / "handler.py").write_text(COUNTING.format(number=number))
            wait_until(lambda number=number: server.post() == b"%d" % number)  # type: ignore[misc]
            found.append((time.perf_counter() - began) * 1e3)
    return Measured("change of a file to first response", "ms", found, 300)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of starts")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--changes", type=int, default=20, help="number of changed files")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found = [*measure_start(options.rounds), measure_kills(options.kills), measure_reloads(options.changes)]
    print(f"{'':<40}{'median':>9}{'lowest':>9}{'highest':>9}{'p95':>9}{'goal':>12}")
    for each in found:
        values = [statistics.median(each.values), min(each.values), max(each.values)]
        line = "".join(f"{value:>9.2f}" if each.unit == "s" else f"{value:>9.1f}" for value in values)
        p95 = f"{each.decisive:>9.1f}" if each.unit == "ms" else f"{'':>9}"
        goal = "" if each.goal is None else f"{each.goal:.0f}" + (" missed" if each.is_missed else "")
        print(f"{f'{each.name}, {each.unit}':<40}{line}{p95}{goal:>12}")
    file = HERE / "results" / f"start-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.csv"
    with file.open("w", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(("measured", "unit", "value"))
        writer.writerow(("load average", "", f"{load:.1f}"))
        writer.writerows((each.name, each.unit, f"{value:.4g}") for each in found for value in each.values)
    print(f"\nLoad average of the machine before the run: {load:.1f}. All values are in {file}")
    return int(any(each.is_missed for each in found))


if __name__ == "__main__":
    sys.exit(main())
