"""Real servers for the tests of queues: NATS, SQS (moto) and S3 (SeaweedFS), each on free ports of this machine alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.ports import free_port

BIN = Path(sys.executable).parent
ADMIN, READER = ("tester", "tester-secret"), ("reader", "reader-secret")
"""Keys of S3. The reader may read the objects of the bucket `shared`, but not list them."""


def until(condition, seconds: float = 60.0, what: str = "the condition"):
    """Return the result of a condition once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Server:
    """A process that can be killed and restarted with the same port and data."""

    def __init__(self, command: list[str], log: Path, ready, env: dict[str, str] | None = None) -> None:
        self._command = command
        self._log = log
        self._ready = ready
        self._env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._env, start_new_session=True
            )
        until(self._answering, 60, f"{self._command[0]} answers")

    def _answering(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self._log.read_text()
        return self._ready()

    def kill(self) -> None:
        """Kill the process and its children."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Nats(Server):
    """A NATS server. storage: maximum of JetStream in bytes."""

    def __init__(self, folder: Path, storage: int | None = None) -> None:
        self.port = free_port()
        config = folder / "nats.conf"
        jetstream = f'store_dir: "{folder}/nats"' + (f", max_file_store: {storage}" if storage else "")
        config.write_text(f"host: 127.0.0.1\nport: {self.port}\njetstream: {{{jetstream}}}\n")
        command = [str(BIN / "nats-server"), "-c", str(config)]
        super().__init__(command, folder / "nats.log", lambda: listens(self.port))
        self.url = f"nats://127.0.0.1:{self.port}"


class Moto(Server):
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]
        super().__init__(command, folder / "moto.log", lambda: listens(self.port))
        self.url = f"http://127.0.0.1:{self.port}"


class SeaweedFS(Server):
    """An S3 server. environment: variables that make boto3 use it, with the credentials of `ADMIN`."""

    def __init__(self, folder: Path) -> None:
        identities = [
            _identity("admin", ADMIN, ["Admin", "Read", "Write", "List", "Tagging"]),
            _identity("reader", READER, ["Read:shared"]),
        ]
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        self.port = port = free_port()
        command = [str(BIN / "weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-s3", f"-s3.port={port}", f"-s3.config={config}", f"-s3.port.grpc={free_port()}"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=500"]
        command += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
        for name in ("master", "volume", "filer"):
            command += [f"-{name}.port={free_port()}", f"-{name}.port.grpc={free_port()}"]
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ADMIN[0],
            "AWS_SECRET_ACCESS_KEY": ADMIN[1],
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        env = {"HOME": str(folder), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        super().__init__(command, folder / "s3.log", self._stores_objects, env)

    @cached_property
    def client(self) -> Any:
        """Return a client of boto3."""
        import boto3
        from botocore.config import Config

        style = {"addressing_style": "path"}
        retries = {"total_max_attempts": 5, "mode": "standard"}
        config = Config(s3=style, retries=retries, connect_timeout=10, read_timeout=60)
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ADMIN[0],
            aws_secret_access_key=ADMIN[1],
            config=config,
        )

    def create_bucket(self, name: str) -> None:
        """Create a bucket unless it exists."""
        from botocore.exceptions import ClientError

        try:
            self.client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                raise

    def _stores_objects(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        if not listens(self.port):
            return False
        try:
            self.create_bucket("shared")
            self.client.put_object(Bucket="shared", Key="probe", Body=b"1")
        except (BotoCoreError, ClientError):
            return False
        return True


def _identity(name: str, keys: tuple[str, str], actions: list[str]) -> dict[str, Any]:
    credentials = {"accessKey": keys[0], "secretKey": keys[1]}
    return {"name": name, "credentials": [credentials], "actions": actions}
