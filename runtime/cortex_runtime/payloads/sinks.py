"""Where events are delivered. A sink runs in the thread of the queue, and may wait."""

import os
import socket
import time
from datetime import UTC, datetime
from typing import Protocol

from cortex_runtime.logs.own_requests import unlogged_requests

_TIMEOUT = 10.0
_PAUSES = (0.5, 2.0)
"""Seconds before each retry."""


class Sink(Protocol):
    """Accepts events.

    batch: bytes of events that are delivered together. delay: seconds for which the first event of a batch waits for others.
    """

    batch: int
    delay: float

    def deliver(self, events: list[bytes]) -> int:
        """Deliver events. Return how many were not delivered, for `reason`."""

    reason: str
    """Why the last events were not delivered."""


class HttpSink:
    """An HTTP endpoint that receives each event in a POST request, in the structured mode of CloudEvents."""

    batch, delay = 64 * 1024, 0.2

    def __init__(self, url: str) -> None:
        import httpx

        self.reason = ""
        self._url = url
        self._client = httpx.Client(
            timeout=_TIMEOUT, headers={"content-type": "application/cloudevents+json"}
        )
        self._errors = httpx.HTTPError

    def deliver(self, events: list[bytes]) -> int:
        """Deliver events, one at a time. After a failure, the others of the batch are tried once."""
        failed = 0
        for event in events:
            if not self._post(event, retries=not failed):
                failed += 1
        return failed

    def _post(self, event: bytes, retries: bool) -> bool:
        for pause in (*_PAUSES, None) if retries else (None,):
            try:
                with unlogged_requests():
                    status = self._client.post(self._url, content=event).status_code
                if status < 300:
                    return True
                self.reason = f"status {status}"
                if status < 500 and status != 429:
                    return False
            except self._errors as error:
                self.reason = f"{type(error).__name__}: {error}"
            if pause is not None:
                time.sleep(pause)
        return False


class S3Sink:
    """A prefix of a bucket, which gets objects with an event in each line. prefix: with the name of the API."""

    batch, delay = 4 * 2**20, 10.0

    def __init__(self, location: str, api: str) -> None:
        import boto3
        from botocore import exceptions
        from botocore.config import Config

        self.reason = ""
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        self._bucket = bucket
        self._prefix = "/".join(part for part in (prefix.strip("/"), api) if part)
        self._process = f"{socket.gethostname()}-{os.getpid()}"
        self._objects = 0
        config = Config(
            connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries={"max_attempts": len(_PAUSES)}
        )
        self._client = boto3.client("s3", config=config)
        self._errors = (exceptions.BotoCoreError, exceptions.ClientError)

    def deliver(self, events: list[bytes]) -> int:
        """Write an object with the events."""
        self._objects += 1
        now = datetime.now(UTC)
        key = f"{self._prefix}/{now:%Y/%m/%d/%H}/{now:%M%S}-{self._process}-{self._objects}.jsonl"
        body = b"\n".join(events) + b"\n"
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=body, ContentType="application/x-ndjson"
            )
        except self._errors as error:
            self.reason = f"{type(error).__name__}: {error}"
            return len(events)
        return 0


def open_sink(url: str, api: str) -> Sink:
    """Return the sink of a URL. api: the name of the API."""
    return S3Sink(url, api) if url.startswith("s3://") else HttpSink(url)
