"""`make bench-async`: compare AsyncAPIs with direct use of NATS. Only the ratios are meaningful.

- jobs/s from POST to stored result with a trivial handler, compared with publishing, fetching, storing and acknowledging the same
  bytes on the same NATS server with the same concurrency, in alternating rounds;
- CPU time per job of all processes, with the client and the server, which depends less on other load of the machine;
- time from POST to the start of the handler on an idle system;
- polls/s of a gateway, and its memory with a thousand open long polls.

Results are written to benchmarks/results/. Exits with status 1 if a goal is missed by more than the spread of the rounds.
"""

import argparse
import asyncio
import csv
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import nats
import orjson
import uvloop
from bench_runtime import HERE, free_port
from processes import family, memory

from cortex_api import Document, parse

HANDLER = """
import time

class Handler:
    def handle_async(self, payload):
        if "seconds" in payload:
            time.sleep(payload["seconds"])
        return {"items": len(payload["items"]), "started": time.time()}
"""
BODY = orjson.dumps({"items": [f"item-{number:04d}" for number in range(17)]})
RESULT = orjson.dumps({"items": 17, "started": 1700000000.123})
CONCURRENCY = 32
START_TIMEOUT = 60.0
POLLS = 1000


@dataclass(frozen=True)
class Figure:
    """A measured value. unit: jobs/s, ms, ... least, most: the goal, if there is one. spread: of the value."""

    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    spread: float = 0.0

    @property
    def goal(self) -> str:
        """The goal in words."""
        if self.least is not None:
            return f"at least {self.least:g}"
        return "" if self.most is None else f"at most {self.most:g}"

    @property
    def is_missed(self) -> bool:
        """Whether the value misses its goal by more than the spread."""
        if self.least is not None and self.value + self.spread < self.least:
            return True
        return self.most is not None and self.value - self.spread > self.most


@dataclass(frozen=True)
class System:
    """The processes to measure: URLs of NATS and the gateway, and pids."""

    queue: str
    url: str
    nats: int
    gateway: int
    consumer: int

    def cpu(self) -> float:
        """Return the CPU time of all processes in seconds, with this one."""
        members = [m for pid in (self.nats, self.gateway, self.consumer) for m in family(pid)]
        own = resource.getrusage(resource.RUSAGE_SELF)
        return sum(member.cpu for member in members) + own.ru_utime + own.ru_stime


@contextmanager
def running(folder: Path) -> Iterator[System]:
    """Start NATS, a gateway and a consumer."""
    ports = [free_port() for _ in range(4)]
    queue_url = f"nats://127.0.0.1:{ports[0]}"
    (folder / "handler.py").write_text(HANDLER)
    handler = {
        "type": "python",
        "path": "handler.py",
        "maxConcurrency": CONCURRENCY,
        "maxReplicaConcurrency": 30000,
    }
    manifest = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "AsyncAPI",
        "metadata": {"name": "bench", "namespace": "default"},
        "spec": {"handler": handler},
    }
    (folder / "api.json").write_bytes(Document.of(parse(manifest)).to_json())
    python = [sys.executable, "-m", "cortex_runtime"]
    common = [
        "--config",
        str(folder / "api.json"),
        "--host",
        "127.0.0.1",
        "--termination-log",
        str(folder / "end"),
    ]
    where = ["--project", str(folder), "--models", str(folder / "models")]
    server = [str(Path(sys.executable).parent / "nats-server"), "-a", "127.0.0.1", "-p", str(ports[0])]
    commands = [
        [*server, "-js", "-sd", str(folder / "nats")],
        [*python, "gateway", *common, "--port", str(ports[1]), "--admin-port", str(ports[2])],
        [*python, "consume", *common, *where, "--admin-port", str(ports[3])],
    ]
    processes = []
    try:
        for number, command in enumerate(commands):
            with (folder / f"log-{number}").open("wb") as log:
                environment = {**os.environ, "CORTEX_QUEUE_URL": queue_url}
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        for port in ports[2:]:
            wait_ready(port, folder)
        yield System(queue_url, f"http://127.0.0.1:{ports[1]}", *(process.pid for process in processes))
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_ready(port: int, folder: Path) -> None:
    """Wait until a program is ready."""
    deadline = time.monotonic() + START_TIMEOUT
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("log-*")))
                raise SystemExit(f"not ready within {START_TIMEOUT:g} s:\n{logs}") from None
            time.sleep(0.05)


async def raw(url: str, jobs: int) -> float:
    """Return jobs/s with direct use of NATS: publish, fetch, store the result under the name of the job, and acknowledge.

    Results are not read back. If a worker crashes between storing and acknowledging, the job runs twice.
    """
    connection = await nats.connect(url)
    stream = connection.jetstream()
    await stream.add_stream(name="raw", subjects=["raw.*"], retention="workqueue")
    results = await stream.create_key_value(bucket="raw-results")
    subscription = await stream.pull_subscribe("raw.*", durable="workers")
    start = time.perf_counter()

    async def publish() -> None:
        for first in range(0, jobs, CONCURRENCY):
            await asyncio.gather(
                *(stream.publish(f"raw.{n}", BODY) for n in range(first, first + CONCURRENCY))
            )

    async def one(message: nats.aio.msg.Msg) -> None:
        orjson.loads(message.data)
        await results.put(message.subject.rpartition(".")[2], RESULT)
        await message.ack()

    async def work() -> None:
        done = 0
        while done < jobs:
            messages = await subscription.fetch(CONCURRENCY, timeout=30)
            await asyncio.gather(*(one(message) for message in messages))
            done += len(messages)

    await asyncio.gather(publish(), work())
    rate = jobs / (time.perf_counter() - start)
    await stream.delete_stream("raw")
    await stream.delete_key_value("raw-results")
    await connection.close()
    return rate


class Client:
    """A minimal HTTP client with one keep-alive connection. A client library would take longer than the server."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.host, self.port = host, int(port)

    async def open(self) -> "Client":
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    async def request(self, verb: str, path: str, body: bytes = b"") -> dict[str, object]:
        """Send a request and return the JSON of the response. Exits the program if the status is not 200 or 202."""
        head = f"{verb} {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
        self.writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        response = await self.reader.readuntil(b"\r\n\r\n")
        length = int(response.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        content: dict[str, object] = orjson.loads(await self.reader.readexactly(length))
        if not response.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
            raise SystemExit(f"a response was not 200: {response.decode()}{content}")
        return content

    async def submit(self, body: bytes = BODY) -> str:
        """Submit a job and return its id."""
        return str((await self.request("POST", "/", body))["id"])

    async def wait(self, identity: str) -> dict[str, object]:
        """Wait until a job is completed and return it. Exits the program if it failed."""
        while True:
            job = await self.request("GET", f"/{identity}?wait=30s")
            if job["status"] == "completed":
                return job
            if job["status"] == "failed":
                raise SystemExit(f"a job failed: {job}")


async def ours(url: str, jobs: int) -> float:
    """Return jobs/s of an AsyncAPI, from the first POST to the end of the last job."""
    clients = [await Client(url).open() for _ in range(CONCURRENCY)]
    start = time.perf_counter()

    async def submit(client: Client) -> list[str]:
        return [await client.submit() for _ in range(jobs // CONCURRENCY)]

    ids = await asyncio.gather(*(submit(client) for client in clients))
    # The last job to end is one of the last submitted ones, within the concurrency.
    await asyncio.gather(*(_wait_all(client, own[-4:]) for client, own in zip(clients, ids, strict=True)))
    rate = sum(map(len, ids)) / (time.perf_counter() - start)
    for client in clients:
        client.writer.close()
    return rate


async def _wait_all(client: Client, ids: list[str]) -> None:
    for identity in ids:
        await client.wait(identity)


async def to_start(url: str, times: int) -> list[float]:
    """Return the times from a POST to the first line of the handler on an idle system, in milliseconds, sorted."""
    client = await Client(url).open()
    waits = []
    for _ in range(times):
        start = time.time()
        job = await client.wait(await client.submit())
        result = job["result"]
        assert isinstance(result, dict)
        waits.append(1000 * (result["started"] - start))
        # The consumer waits for a message again.
        await asyncio.sleep(0.02)
    return sorted(waits)


async def long_polls(system: System) -> float:
    """Return the memory of the gateway (RSS, in MiB) while a thousand clients wait for running jobs."""
    clients = [await Client(system.url).open() for _ in range(POLLS)]
    body = orjson.dumps({"items": [], "seconds": 8})
    ids = [await clients[0].submit(body) for _ in range(CONCURRENCY // 2)]
    waits = [
        asyncio.create_task(client.wait(ids[number % len(ids)])) for number, client in enumerate(clients)
    ]
    await asyncio.sleep(4)
    if any(wait.done() for wait in waits):
        raise SystemExit("a long poll ended before its job")
    [gateway] = [member for member in family(system.gateway) if member.pid == system.gateway]
    size = memory([gateway])[0]
    await asyncio.gather(*waits)
    for client in clients:
        client.writer.close()
    return size


async def polls(url: str, seconds: float) -> float:
    """Return GETs/s of an ended job over keep-alive connections."""
    client = await Client(url).open()
    identity = await client.submit()
    await client.wait(identity)
    command = [sys.executable, str(Path(__file__)), "--poll", f"{url}/{identity}", "--seconds", str(seconds)]
    output = await asyncio.to_thread(subprocess.check_output, command)
    return float(output)


async def poll(url: str, seconds: float) -> float:
    """Generate the load for `polls`; runs in a separate process."""
    base, _, identity = url.rpartition("/")
    end = time.perf_counter() + seconds

    async def one() -> int:
        client, count = await Client(base).open(), 0
        while time.perf_counter() < end:
            await client.request("GET", f"/{identity}")
            count += 1
        return count

    return sum(await asyncio.gather(*(one() for _ in range(8)))) / seconds


async def measure(system: System, jobs: int, rounds: int) -> list[Figure]:
    """Return all measured values. Those of jobs are medians of alternating rounds."""
    await ours(system.url, CONCURRENCY * 8)
    direct, through_api, costs = [], [], []
    for _ in range(rounds):
        at = [system.cpu()]
        direct.append(await raw(system.queue, jobs))
        at.append(system.cpu())
        through_api.append(await ours(system.url, jobs))
        at.append(system.cpu())
        costs.append([1e6 * (end - start) / jobs for start, end in pairwise(at)])
    ratios = sorted(a / b for a, b in zip(through_api, direct, strict=True))
    waits = await to_start(system.url, 300)
    return [
        Figure("jobs end to end", statistics.median(through_api), "jobs/s"),
        Figure("direct use of NATS", statistics.median(direct), "jobs/s"),
        Figure(
            "ratio to direct use",
            statistics.median(ratios),
            "x",
            least=0.5,
            spread=(ratios[-1] - ratios[0]) / 2,
        ),
        Figure("CPU per job", statistics.median(cost for _, cost in costs), "us"),
        Figure("CPU per job, direct use", statistics.median(cost for cost, _ in costs), "us"),
        Figure("POST to handler, idle, p50", waits[len(waits) // 2], "ms", most=2.5),
        Figure("POST to handler, idle, p99", waits[len(waits) * 99 // 100], "ms", most=10),
        Figure("polls of a gateway", await polls(system.url, 3), "requests/s"),
        Figure(f"gateway with {POLLS} long polls", await long_polls(system), "MiB", most=95.4),
    ]


def main() -> None:
    """Measure, print the values, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--poll", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.poll:
        print(uvloop.run(poll(options.poll, options.seconds)))
        return
    with tempfile.TemporaryDirectory(prefix="cortex-bench-") as folder, running(Path(folder)) as system:
        figures = uvloop.run(measure(system, options.jobs, options.rounds))
    for figure in figures:
        missed = "  MISSED" if figure.is_missed else ""
        print(f"{figure.name:<32}{figure.value:>12,.2f} {figure.unit:<11}{figure.goal}{missed}")
    now = datetime.now(UTC)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    with (results / f"async-{now:%Y%m%dT%H%M%SZ}.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("time", "machine", "load", "figure", "value", "unit", "goal"))
        for figure in figures:
            rows.writerow(
                (
                    now.isoformat(),
                    platform.machine(),
                    round(os.getloadavg()[0], 1),
                    figure.name,
                    round(figure.value, 3),
                    figure.unit,
                    figure.goal,
                )
            )
    sys.exit(any(figure.is_missed for figure in figures))


if __name__ == "__main__":
    main()
