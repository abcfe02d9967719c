"""A stable replica and a candidate replica of one API, and the file with the split between them."""

import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.runtime.conftest import Replica
from tests.runtime.programs import PLAIN

PATIENT = """
from cortex_runtime.candidate import deadlines

deadlines._LEAST_FIRST_BYTE = deadlines._LEAST_SILENCE = 25
"""
"""Source of a stable version that waits for its candidate also if that stands still for a second, as on a busy machine."""
HANDLER = """
import os, time

class Handler:
    def __init__(self, config):
        self.name = config["name"]
        self.fault = config.get("fault")
        self.flips = config.get("flips", 0)

    def label(self, payload):
        number = payload["n"] if isinstance(payload, dict) and "n" in payload else 50
        return "changed" if number * 37 % 100 < self.flips else "usual"

    def handle_post(self, payload, headers):
        if self.fault is not None and os.path.exists(self.fault):
            with open(self.fault) as file:
                if file.read() == "500":
                    raise RuntimeError("a fault")
            while os.path.exists(self.fault):
                time.sleep(0.01)
        return {
            "by": self.name,
            "id": headers.get("x-request-id"),
            "mirror": headers.get("x-cortex-mirror"),
            "payload": payload,
            "label": self.label(payload),
        }

    async def handle_put(self, payload):
        return {"by": self.name, "size": len(payload)}

    def handle_get(self, query_params):
        for i in range(int(query_params.get("parts", 3))):
            if query_params.get("exit") == self.name and i == 2:
                os._exit(1)
            yield {"by": self.name, "part": i}
            while "gate" in query_params and not os.path.exists(query_params["gate"]):
                time.sleep(0.01)

    async def handle_patch(self, payload):
        async for part in self._parts():
            yield part

    async def _parts(self):
        for i in range(3):
            yield f"{self.name} {i}"
"""
"""Answers with the name of its version in config. A file `fault` makes it fail. The candidate changes 3% of labels."""
OWN = ["/by", "/id", "/mirror"]
"""What differs between the versions' responses to POST, apart from the label."""


class Pair:
    """Both replicas."""

    def __init__(self, stable: Replica, candidate: Replica, path: Path, fault: Path, workers: int) -> None:
        self.stable, self.candidate = stable, candidate
        self.path, self.fault = path, fault
        self.version = "v0"
        self._workers = workers
        self._versions = 0
        self.client = httpx.Client(base_url=stable.url, timeout=60, trust_env=False)

    def split(self, *, same_version: bool = False, **fields: Any) -> None:
        """Replace the split, and wait until all workers use it. Counts start from zero unless same_version."""
        self._versions += not same_version
        self.version = f"v{self._versions}"
        content = {
            "version": self.version,
            "host": "127.0.0.1",
            "port": self.candidate.port,
            "weight": 0,
            "mirror": 0,
            **fields,
        }
        self._replace(json.dumps(content))

    def remove_split(self) -> None:
        """Let the operator end the split: weight and mirror are 0."""
        self.split(weight=0, mirror=0)

    def _replace(self, content: str) -> None:
        seen = self._applied()
        new = self.path.with_suffix(".new")
        new.write_text(content)
        new.replace(self.path)
        self.stable.until(lambda: self._applied() >= seen + self._workers)

    def _applied(self) -> int:
        """Return how often a worker has reported the split that it uses."""
        return len(re.findall(r'"the candidate (\S+ )?gets ', self.stable.log.read_text()))

    def report(self) -> dict[str, Any]:
        """Return GET /candidate of the stable replica."""
        answer = PLAIN.get(f"{self.stable.admin}/candidate")
        assert answer.status_code == 200, answer.text
        report: dict[str, Any] = answer.json()
        return report

    def settled(self, requests: int) -> dict[str, Any]:
        """Return the report once every copy of this many requests was compared or dropped, or has failed."""
        report: dict[str, Any] = self.stable.until(
            lambda: copies(found := self.report()) == requests and found, 60
        )
        return report

    def load(self, requests: int, clients: int = 4, **more: Any) -> "Answers":
        """Send POST requests, and return the responses by version and status. more: of Answers."""
        return Answers(self.stable.url, requests, clients, **more)


class Answers:
    """Responses to many requests. by: counts by (x-cortex-version, status, version that the body names).

    requests: their number. during: a function that is called meanwhile; this number of requests is sent after it has returned.
    """

    def __init__(
        self,
        url: str,
        requests: int,
        clients: int,
        headers: Callable[[int], dict[str, str]] = lambda number: {},
        during: Callable[[], None] | None = None,
    ) -> None:
        self.by: Counter[tuple[str | None, int, str]] = Counter()
        self.errors: list[str] = []
        lock = threading.Lock()
        numbers = itertools.count()
        left = requests
        has_returned = during is None

        def next_number() -> int | None:
            nonlocal left
            with lock:
                left -= has_returned
                return next(numbers) if left >= 0 else None

        def run() -> None:
            with httpx.Client(trust_env=False, timeout=60) as client:
                while (number := next_number()) is not None:
                    try:
                        answer = client.post(url, json={"n": number}, headers=headers(number))
                        key = (
                            answer.headers.get("x-cortex-version"),
                            answer.status_code,
                            answer.json().get("by", ""),
                        )
                    except httpx.HTTPError as error:
                        self.errors.append(repr(error))
                        continue
                    with lock:
                        self.by[key] += 1

        threads = [threading.Thread(target=run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            if during is not None:
                during()
        finally:
            has_returned = True
            for thread in threads:
                thread.join()

    @property
    def lost(self) -> int:
        """The number of requests without a successful response."""
        return len(self.errors) + sum(count for (_, status, _), count in self.by.items() if status != 200)

    def answered_by(self, version: str) -> int:
        """Return the number of successful responses of a version. Header and body must agree on it."""
        return self.by[(version, 200, version)]


@pytest.fixture(scope="module")
def start_pair(
    serve_for_module: Callable[..., Replica], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Pair]:
    """Return a function that starts both replicas. Its arguments are those of spec.handler.

    is_patient: whether the stable version waits longer for the candidate than usually (PATIENT).
    """

    def start(
        source: str | None = HANDLER,
        candidate: dict[str, Any] | None = None,
        spec: dict[str, Any] | None = None,
        grpc_ports: tuple[int, int] | None = None,
        is_patient: bool = True,
        **handler: Any,
    ) -> Pair:
        folder = tmp_path_factory.mktemp("split")
        path, fault = folder / "split.json", folder / "fault"
        handler.setdefault("config", {})
        ports = [("--grpc-port", str(port)) for port in grpc_ports or ()] or [(), ()]
        stable = serve_for_module(
            PATIENT + source if is_patient and source is not None else source,
            *ports[0],
            "--split",
            str(path),
            wait=False,
            spec=spec,
            **{**handler, "config": {**handler["config"], "name": "stable"}},
        )
        config = {**handler["config"], "name": "candidate", "fault": str(fault), "flips": 3}
        other = serve_for_module(
            source, *ports[1], spec=spec, **{**handler, **(candidate or {}), "config": config}
        )
        stable.wait_ready()
        return Pair(stable, other, path, fault, handler.get("processesPerReplica", 1))

    return start


@pytest.fixture(scope="module")
def shared_pair(start_pair: Callable[..., Pair]) -> Pair:
    return start_pair()


@pytest.fixture
def pair(shared_pair: Pair) -> Iterator[Pair]:
    """The pair of the module, without faults."""
    yield shared_pair
    shared_pair.fault.unlink(missing_ok=True)


def copies(report: dict[str, Any]) -> int:
    """Return how many copies were compared or dropped, or have failed."""
    return int(report["compared"] + report["dropped"] + report["failed"])


def in_flight(replica: Replica) -> int:
    """Return the number of requests that a replica answers now."""
    return int(PLAIN.get(f"{replica.admin}/load").json()["inFlight"])
