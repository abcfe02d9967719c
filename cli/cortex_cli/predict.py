"""`cortex predict`: sends one request to an API of a cluster, and shows the answer; with --debug also what its log says of it."""

import json
import mimetypes
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from cortex_cli import apis, logs
from cortex_cli.apis import API
from cortex_cli.connection import Answer, Cluster, ClusterError, asks_a_cluster, path
from cortex_cli.keys import HEADER, HOW, asks, headers, shows_a_key
from cortex_cli.loglines import parsed, readable

_TIMEOUT = 300.0
_LOG_SECONDS = 2.0
"""For how long the log of a request is waited for."""
_RUNNING = ("in_queue", "in_progress")


@click.command()
@click.argument("name")
@click.argument("payload", required=False, metavar="[JSON | @FILE | -]")
@click.option("-t", "--content-type", help="Of the payload; JSON, or what the file's name says.")
@click.option(
    "-q",
    "--query",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the URL; may stand several times.",
)
@click.option(
    "-H", "--header", multiple=True, metavar="NAME: VALUE", help="A header; may stand several times."
)
@click.option("-X", "--method", default=None, help="POST with a payload, GET without.")
@click.option(
    "--debug", is_flag=True, help="Show status, headers, time, and what the log says of this request."
)
@click.option("--wait/--no-wait", default=True, help="Of an AsyncAPI: wait for the result of the job.")
@shows_a_key
@asks_a_cluster
def predict(
    cluster: Cluster,
    name: str,
    payload: str | None,
    content_type: str | None,
    query: tuple[str, ...],
    header: tuple[str, ...],
    method: str | None,
    debug: bool,
    wait: bool,
    api_key: str | None,
) -> None:
    """Ask an API for a prediction, through the cluster's API server.

    PAYLOAD is JSON, @FILE for the content of a file, or - for standard input. Exits with 1 when the answer is no success.
    """
    api = apis.find(cluster, name)
    body, kind = read(payload)
    key = headers(api, api_key)
    sent = {"x-request-id": f"cortex-{uuid.uuid4().hex[:12]}", **key, **_headers(header)}
    if body is not None:
        sent["content-type"] = content_type or sent.get("content-type", kind)
    parameters = [_pair(one, "=") for one in query] + ([("debug", "true")] if debug else [])
    where = path("v1/services", api.namespace, f"{api.service}:{apis.PORT}", "proxy/")
    began = time.monotonic()
    try:
        verb = (method or ("GET" if body is None else "POST")).upper()
        answer = cluster.request(verb, where, parameters, body, sent, _TIMEOUT)
    except ClusterError as error:
        if error.status in (404, 503):
            raise ClusterError(
                f"{api.name} doesn't answer: {api.ready['reason']}: {api.ready['message']}"
            ) from error
        raise
    if debug:
        _explain(cluster, api, answer, sent["x-request-id"], time.monotonic() - began)
    if api.kind == "AsyncAPI" and answer.status == 202 and wait:
        shown = {HEADER: sent[HEADER]} if HEADER in sent else {}
        result = _result(cluster, where, answer, shown)
        _show(result.answer)
        sys.exit(0 if result.completed else 1)
    _show(answer)
    if not 200 <= answer.status < 300:
        hint = f": give a valid key by {HOW}" if answer.status == 401 and asks(api) else ""
        click.echo(f"the answer is {answer.status}{hint}", err=True)
        sys.exit(1)


def read(payload: str | None) -> tuple[bytes | None, str]:
    """The body of the request and its content type. Raises ClickException."""
    if payload is None:
        return None, ""
    if payload == "-":
        return _with_type(sys.stdin.buffer.read(), None)
    if payload.startswith("@"):
        file = Path(payload[1:])
        try:
            return _with_type(file.read_bytes(), mimetypes.guess_type(file.name)[0])
        except OSError as error:
            raise click.ClickException(f"{file}: can't be read: {error.strerror}") from error
    try:
        json.loads(payload)
    except ValueError as error:
        raise click.ClickException(
            f"the payload is no JSON: {error}; write @FILE for a file, or -t text/plain for text"
            if not payload.isidentifier()
            else f"the payload {payload} is no JSON: write '\"{payload}\"' for a string, or @{payload} for a file"
        ) from error
    return payload.encode(), "application/json"


def _with_type(content: bytes, named: str | None) -> tuple[bytes, str]:
    if named is not None:
        return content, named
    try:
        json.loads(content)
    except ValueError:
        return content, "application/octet-stream"
    return content, "application/json"


def _headers(given: Iterable[str]) -> dict[str, str]:
    """Raises UsageError for one that would not arrive."""
    found = {name.lower(): value for name, value in (_pair(one, ":") for one in given)}
    if "authorization" in found:
        raise click.UsageError(
            f"Authorization is read by the API server and goes no further; a key of the API is given by {HOW}"
        )
    return found


def _pair(text: str, mark: str) -> tuple[str, str]:
    name, found, value = text.partition(mark)
    if not found or not name:
        raise click.UsageError(f"{text!r} has no {mark!r} between a name and its value")
    return name.strip(), value.strip()


def _show(answer: Answer) -> None:
    try:
        text = (
            json.dumps(json.loads(answer.body), indent=2, ensure_ascii=False) if sys.stdout.isatty() else None
        )
    except ValueError:
        text = None
    sys.stdout.flush()
    sys.stdout.buffer.write(answer.body if text is None else text.encode())
    if sys.stdout.isatty() or not answer.body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _explain(cluster: Cluster, api: API, answer: Answer, request: str, seconds: float) -> None:
    click.echo(f"status {answer.status} after {seconds * 1000:.0f} ms, request {request}", err=True)
    for name, value in answer.headers.items():
        click.echo(click.style(f"{name}: {value}", dim=True), err=True)
    if not api.live["spec"]["handler"].get("debug"):
        click.echo("spec.handler.debug is not true, so the log has no stages of the request", err=True)
    end = time.monotonic() + _LOG_SECONDS
    lines: list[str] = []
    while not lines and time.monotonic() < end:
        time.sleep(0.1)
        lines = list(_lines_of(cluster, api, request))
    for line in lines:
        click.echo(line, err=True)


def _lines_of(cluster: Cluster, api: API, request: str) -> Iterator[str]:
    for pod in apis.pods(cluster, api):
        for line in logs.lines(cluster, pod, tail=1000):
            content = parsed(line)
            if content and content.get("requestId") == request:
                content.pop("requestId")
                yield readable(json.dumps(content), f"{logs.short(pod, api)} ")


def _result(cluster: Cluster, where: str, accepted: Answer, key: dict[str, str]) -> "_Ended":
    """What became of a job, once it has ended. Raises ClusterError when it takes too long."""
    job = str(json.loads(accepted.body)["id"])
    click.echo(f"job {job} is queued", err=True)
    end = time.monotonic() + _TIMEOUT
    while time.monotonic() < end:
        answer = cluster.request("GET", f"{where}{job}", {"wait": "20s"}, headers=key)
        status = json.loads(answer.body).get("status") if answer.status == 200 else None
        if status not in _RUNNING:
            return _Ended(answer, status == "completed")
    raise ClusterError(f"job {job} has not ended after {_TIMEOUT:.0f} s; it goes on")


@dataclass(frozen=True)
class _Ended:
    answer: Answer
    completed: bool
