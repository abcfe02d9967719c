"""Fixtures for models: the S3 server, a web server with faults, and models."""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.models.local_http import serving
from tests.runtime.onnx_models import onnx_model
from tests.runtime.queues.servers import SeaweedFS


@dataclass
class S3:
    """The S3 server. environment: variables that make boto3 use it."""

    server: SeaweedFS

    @property
    def environment(self) -> dict[str, str]:
        return self.server.environment

    @property
    def client(self) -> Any:
        return self.server.client

    def put(self, bucket: str, files: dict[str, bytes]) -> str:
        """Put files into a bucket, which is created if it does not exist. Return its location."""
        self.server.create_bucket(bucket)
        for key, content in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}"

    def remove(self, bucket: str, prefix: str) -> None:
        for found in self.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ()):
            self.client.delete_object(Bucket=bucket, Key=found["Key"])


@pytest.fixture
def s3(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The S3 server, with the environment of this process pointing to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    return S3(seaweedfs)


@dataclass
class Web:
    """A web server of files with faults.

    faults: of the next requests, in order: a status, "break" (close after half of the requested bytes), "lie" (other content of
    the same length). seen: method, path and Range header of each request. ranges: whether it supports them. gate: requests wait
    for it.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[int | str] = field(default_factory=list)
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    lengths: bool = True
    head: int = 200
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()


class _Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        web = self.web
        path = self.path.partition("?")[0]
        asked = self.headers.get("range")
        web.seen.append((self.command, path, asked))
        web.gate.wait(60)
        fault: int | str | None = None
        if not body and web.head != 200:
            fault = web.head
        elif web.faults:
            fault = web.faults.pop(0)
        content = web.files.get(path)
        if content is None and fault is None:
            fault = 404
        if isinstance(fault, int):
            self.send_response(fault)
            if fault == 503:
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        assert content is not None
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        whole, begin = content, 0
        if web.ranges and asked and self.headers.get("if-range", etag) == etag:
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
        content = whole[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(whole) - 1}/{len(whole)}")
        if web.etags:
            self.send_header("ETag", etag)
        for name, value in web.headers.items():
            self.send_header(name, value)
        if web.lengths:
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if not body:
            return
        if fault == "break":
            content = content[: len(content) // 2]
            self.close_connection = True
        elif fault == "lie":
            content = bytes(len(content))
        self.wfile.write(content)


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web()
    with serving(type("Files", (_Files,), {"web": state})) as state.url:
        yield state


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts in this process."""
    monkeypatch.setattr("cortex_runtime.models.sources.transfer.PAUSES", (0.01, 0.01, 0.01))


@pytest.fixture(scope="session")
def onnx_bytes() -> Callable[[float], bytes]:
    return onnx_model


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    return _write


def _write(folder: Path, files: dict[str, bytes | str]) -> Path:
    """Write files into a folder, each atomically."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    return folder


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait for a condition that another thread or process causes."""

    def wait(condition: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)
        return result

    return wait
