"""`make bench-async`: compare AsyncAPIs with direct use of NATS. Only the ratios are meaningful.

- jobs/s from POST to stored result with a trivial handler, compared with publishing, fetching, storing and acknowledging the same
  bytes on the same NATS server with the same concurrency;
- time from POST to the start of the handler on an idle system, and polls/s of a gateway.

Results are written to benchmarks/results/.
"""

import argparse
import asyncio
import csv
import os
import platform
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
from pathlib import Path

import nats
import orjson
import uvloop
from run import HERE, free_port

from cortex_api import Document, parse

HANDLER = """
import time

class Handler:
    def handle_async(self, payload):
        return {"items": len(payload["items"]), "started": time.time()}
"""
BODY = orjson.dumps({"items": [f"item-{number:04d}" for number in range(17)]})
RESULT = orjson.dumps({"items": 17, "started": 1700000000.123})
CONCURRENCY = 32
START_TIMEOUT = 60.0


@dataclass(frozen=True)
class Figure:
    """A measured value. unit: jobs/s, ms, ..."""

    name: str
    value: float
    unit: str


@contextmanager
def running(folder: Path) -> Iterator[tuple[str, str]]:
    """Start NATS, a gateway and a consumer, and yield the URLs of NATS and the gateway."""
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
        yield queue_url, f"http://127.0.0.1:{ports[1]}"
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

    async def submit(self) -> str:
        """Submit a job and return its id."""
        return str((await self.request("POST", "/", BODY))["id"])

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


async def to_start(url: str, times: int) -> float:
    """Return the median time from a POST to the first line of the handler on an idle system, in milliseconds."""
    client = await Client(url).open()
    waits = []
    for _ in range(times):
        start = time.time()
        job = await client.wait(await client.submit())
        result = job["result"]
        assert isinstance(result, dict)
        waits.append(1000 * (result["started"] - start))
    return statistics.median(waits)


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


async def measure(queue_url: str, url: str, jobs: int, rounds: int) -> list[Figure]:
    """Return all measured values. Values in jobs/s are medians of alternating rounds."""
    await ours(url, CONCURRENCY * 4)
    direct, through_api = [], []
    for _ in range(rounds):
        direct.append(await raw(queue_url, jobs))
        through_api.append(await ours(url, jobs))
    ratio = statistics.median(a / b for a, b in zip(through_api, direct, strict=True))
    return [
        Figure("jobs end to end", statistics.median(through_api), "jobs/s"),
        Figure("direct use of NATS", statistics.median(direct), "jobs/s"),
        Figure("ratio to direct use", ratio, "x"),
        Figure("POST to handler, idle", await to_start(url, 30), "ms"),
        Figure("polls of a gateway", await polls(url, 3), "requests/s"),
    ]


def main() -> None:
    """Measure, print the values, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--poll", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.poll:
        print(uvloop.run(poll(options.poll, options.seconds)))
        return
    with tempfile.TemporaryDirectory(prefix="cortex-bench-") as folder, running(Path(folder)) as (queue, url):
        figures = uvloop.run(measure(queue, url, options.jobs, options.rounds))
    for figure in figures:
        print(f"{figure.name:<32}{figure.value:>12,.2f} {figure.unit}")
    now = datetime.now(UTC)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    with (results / f"async-{now:%Y%m%dT%H%M%SZ}.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("time", "machine", "figure", "value", "unit"))
        for figure in figures:
            rows.writerow(
                (now.isoformat(), platform.machine(), figure.name, round(figure.value, 3), figure.unit)
            )


if __name__ == "__main__":
    main()
