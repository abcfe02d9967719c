"""`cortex predict`: sends one request to an API of a cluster, and shows the answer; with --debug also what its log says of it."""

import json
import mimetypes
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from cortex_api.contract import PORT
from cortex_cli import apis, jobs, logs
from cortex_cli.apis import API
from cortex_cli.connection import Answer, Cluster, ClusterError, asks_a_cluster, path
from cortex_cli.keys import HEADER, HOW, asks, headers, shows_a_key
from cortex_cli.loglines import parsed, readable

_TIMEOUT = 300.0
_LOG_SECONDS = 2.0
"""For how long the log of a request is waited for."""


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
@click.option("--job", metavar="ID", help="Of an AsyncAPI: ask for this job, and send nothing.")
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
    job: str | None,
    api_key: str | None,
) -> None:
    """Ask an API for a prediction, through the cluster's API server.

    PAYLOAD is JSON, @FILE for the content of a file, or - for standard input. Exits with 1 when the answer is no success.
    """
    api = apis.find(cluster, name)
    where = path("v1/services", api.namespace, f"{api.service}:{PORT}", "proxy/")
    sent = {**headers(api, api_key), **_headers(header)}
    key = {HEADER: sent[HEADER]} if HEADER in sent else {}
    if job is not None:
        if api.kind != "AsyncAPI" or payload is not None:
            raise click.UsageError("--job asks an AsyncAPI for a job that it has: it takes no payload")
        if not wait:
            with _why_it_is_silent(api):
                _report(api, jobs.ask(cluster, where, job, key))
            return
    else:
        body, kind = read(payload)
        sent = {"x-request-id": f"cortex-{uuid.uuid4().hex[:12]}", **sent}
        if body is not None:
            sent["content-type"] = content_type or sent.get("content-type", kind)
        parameters = [_pair(one, "=") for one in query] + ([("debug", "true")] if debug else [])
        began = time.monotonic()
        verb = (method or ("GET" if body is None else "POST")).upper()
        with _why_it_is_silent(api):
            answer = cluster.request(verb, where, parameters, body, sent, _TIMEOUT)
        if debug:
            _explain(cluster, api, answer, sent["x-request-id"], time.monotonic() - began)
        if api.kind != "AsyncAPI" or answer.status != 202 or not wait:
            _report(api, answer)
            return
        job = str(json.loads(answer.body)["id"])
        click.echo(f"job {job} is queued", err=True)
    with _why_it_is_silent(api):
        ended = jobs.follow(cluster, where, job, key, _TIMEOUT)
    _report(api, ended.answer)
    sys.exit(0 if ended.completed else 1)


@contextmanager
def _why_it_is_silent(api: API) -> Iterator[None]:
    """Where the API server finds nobody to answer, the API's own condition says why."""
    try:
        yield
    except ClusterError as error:
        if error.status in (404, 503):
            why = f"{api.ready['reason']}: {api.ready['message']}"
            raise ClusterError(f"{api.name} doesn't answer: {why}") from error
        raise


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


def _report(api: API, answer: Answer) -> None:
    """Show an answer; exit with 1 when it is no success."""
    _show(answer)
    if not 200 <= answer.status < 300:
        hint = f": give a valid key by {HOW}" if answer.status == 401 and asks(api) else ""
        click.echo(f"the answer is {answer.status}{hint}", err=True)
        sys.exit(1)


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
