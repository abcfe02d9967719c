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
from pathlib import Path

BIN = Path(sys.executable).parent
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "eu-west-1",
}


_given: set[int] = set()


def free_port() -> int:
    """One that nothing listens on, and that was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def until(condition, seconds: float = 30.0, what: str = "the condition"):
    """What a condition gives, once it is true."""
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
    """A process that can be killed and started again on the same port and data."""

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
        """kill -9, its children too."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Nats(Server):
    """storage: bytes that JetStream may keep."""

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


class S3(Server):
    """SeaweedFS with one identity."""

    bucket = "jobs"

    def __init__(self, folder: Path) -> None:
        data = folder / "s3"
        data.mkdir()
        keys = {
            "accessKey": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "secretKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        }
        identity = {"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        self.port = free_port()
        command = [str(BIN / "weed"), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-s3", f"-s3.port={self.port}", f"-s3.config={config}", "-volume.max=8"]
        command += ["-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        for name in ("master", "volume", "filer"):
            command += [f"-{name}.port={free_port()}", f"-{name}.port.grpc={free_port()}"]
        command += [f"-s3.port.grpc={free_port()}"]
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(command, folder / "s3.log", self._holds_the_bucket)

    def _holds_the_bucket(self) -> bool:
        import boto3
        import botocore.config
        import botocore.exceptions

        config = botocore.config.Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=5)
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=config,
        )
        try:
            client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key="probe", Body=b"")
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Code"] in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou")
        except botocore.exceptions.BotoCoreError:
            return False
        return True
