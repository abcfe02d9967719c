"""What the tests of models need: an S3 server for the session, a web server that can misbehave, and models in all shapes."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from tests.runtime.models.local_http import serving
from tests.runtime.onnx_models import onnx_model
from tests.runtime.queues.servers import free_port

KEY, SECRET = "tester", "tester-secret"
READER, READER_SECRET = "reader", "reader-secret"


@dataclass
class S3:
    """A running SeaweedFS. reader: credentials that may read objects of the bucket `shared`, and not list it."""

    endpoint: str
    environment: dict[str, str]
    buckets: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2
            ),
        )

    def put(self, bucket: str, files: dict[str, bytes]) -> str:
        """Put files into a bucket, which is made when it isn't there. Returns its location."""
        if bucket not in self.buckets:
            self.client.create_bucket(Bucket=bucket)
            self.buckets.add(bucket)
        for key, content in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}"

    def remove(self, bucket: str, prefix: str) -> None:
        for found in self.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ()):
            self.client.delete_object(Bucket=bucket, Key=found["Key"])


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    folder = tmp_path_factory.mktemp("seaweedfs")
    config = folder / "s3.json"
    config.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "tester",
                        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    },
                    {
                        "name": "reader",
                        "credentials": [{"accessKey": READER, "secretKey": READER_SECRET}],
                        "actions": ["Read:shared"],
                    },
                ]
            }
        )
    )
    ports = {name: free_port() for name in ("s3", "filer", "master", "volume")}
    command = [str(Path(sys.executable).parent / "weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-dir={folder}", "-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=500", "-master.telemetry=false"]
    for name, port in ports.items():
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={free_port()}"]
    log = folder / "log"
    environment = {**os.environ, "HOME": str(folder), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    server = S3(
        endpoint,
        {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )
    try:
        end = time.monotonic() + 60
        while not _takes_objects(server):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _takes_objects(server: S3) -> bool:
    try:
        server.put("shared", {"probe": b"1"})
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return False
    return True


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The S3 server, with the environment of this process pointing to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@dataclass
class Web:
    """A web server of files that does what the test says.

    faults: of the next requests, in order: a status, "break" (close after half of what is asked for), "lie" (another content of
    the same length). seen: method, path and Range header of each request. ranges: whether it knows them.
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
    """Between attempts, in this process."""
    monkeypatch.setattr("cortex_runtime.models.sources.transfer.PAUSES", (0.01, 0.01, 0.01))


@pytest.fixture(scope="session")
def onnx_bytes() -> Callable[[float], bytes]:
    return onnx_model


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    return _write


def _write(folder: Path, files: dict[str, bytes | str]) -> Path:
    """Files into a folder, each at once as a whole."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    return folder


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait for what another thread or process brings about."""

    def wait(condition: Callable[[], Any], seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)
        return result

    return wait
