"""`cortex predict`: send a request to an API of a cluster and show the response; --debug also shows the log of the request."""

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
from cortex_cli import apis, jobs
from cortex_cli.api_keys import HEADER, OPTIONS, api_key_options, headers, requires_key
from cortex_cli.apis import API
from cortex_cli.commands import logs
from cortex_cli.connection import Cluster, ClusterError, Response, cluster_options, path
from cortex_cli.log_lines import parse, readable

_TIMEOUT = 300.0
_LOG_SECONDS = 2.0
"""Maximum time to wait for the log of a request."""


@click.command(short_help="Send a request to an API.")
@click.argument("name")
@click.argument("payload", required=False, metavar="[JSON | @FILE | -]")
@click.option(
    "-t",
    "--content-type",
    help="Content type of the payload.  [default: JSON, or guessed from the file name]",
)
@click.option(
    "-q",
    "--query",
    multiple=True,
    metavar="KEY=VALUE",
    help="Query parameter. May be repeated.",
)
@click.option("-H", "--header", multiple=True, metavar="NAME: VALUE", help="Request header. May be repeated.")
@click.option(
    "-X", "--method", default=None, help="HTTP method.  [default: POST with a payload, otherwise GET]"
)
@click.option(
    "--debug", is_flag=True, help="Show status, headers and duration of the request, and its log lines."
)
@click.option("--wait/--no-wait", default=True, help="AsyncAPI: wait for the result of the job.")
@click.option("--job", metavar="ID", help="AsyncAPI: get the result of an existing job.")
@click.option("--retry", is_flag=True, help="AsyncAPI: run the failed job of --job again.")
@api_key_options
@cluster_options
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
    retry: bool,
    api_key: str | None,
) -> None:
    """Send a request to an API through the cluster's API server.

    The payload is JSON, the content of a file (@FILE), or standard input (-). Exits with 1 if the response is an error.
    """
    api = apis.find(cluster, name)
    service = path("v1/services", api.namespace, f"{api.service}:{PORT}", "proxy/")
    all_headers = {**headers(api, api_key), **_parse_headers(header)}
    key_header = {HEADER: all_headers[HEADER]} if HEADER in all_headers else {}
    if retry and job is None:
        raise click.UsageError("--retry requires --job")
    if job is not None:
        if api.kind != "AsyncAPI" or payload is not None:
            raise click.UsageError("--job requires an AsyncAPI and no payload")
        if retry:
            with _explain_unreachable(api):
                problem = jobs.retry(cluster, service, job, key_header)
            if problem:
                raise click.ClickException(problem)
            click.echo(f"job {job} is queued again", err=True)
        if not wait:
            with _explain_unreachable(api):
                _report(api, jobs.get(cluster, service, job, key_header))
            return
    else:
        body, detected_type = read(payload)
        all_headers = {"x-request-id": f"cortex-{uuid.uuid4().hex[:12]}", **all_headers}
        if body is not None:
            all_headers["content-type"] = content_type or all_headers.get("content-type", detected_type)
        parameters = [_split_pair(item, "=") for item in query] + ([("debug", "true")] if debug else [])
        start = time.monotonic()
        verb = (method or ("GET" if body is None else "POST")).upper()
        with _explain_unreachable(api):
            response = cluster.request(verb, service, parameters, body, all_headers, _TIMEOUT)
        if debug:
            _print_debug(cluster, api, response, all_headers["x-request-id"], time.monotonic() - start)
        if api.kind != "AsyncAPI" or response.status != 202 or not wait:
            _report(api, response)
            return
        job = str(json.loads(response.body)["id"])
        click.echo(f"job {job} is queued", err=True)
    with _explain_unreachable(api):
        result = jobs.wait(cluster, service, job, key_header, _TIMEOUT)
    _report(api, result.response)
    sys.exit(0 if result.is_completed else 1)


@contextmanager
def _explain_unreachable(api: API) -> Iterator[None]:
    """If the API server cannot reach the Service, raise an error with the condition of the API."""
    try:
        yield
    except ClusterError as error:
        if error.status in (404, 503):
            cause = f"{api.ready['reason']}: {api.ready['message']}"
            raise ClusterError(f"{api.name} is unreachable: {cause}") from error
        raise


def read(payload: str | None) -> tuple[bytes | None, str]:
    """Return the request body and its content type. Raises ClickException."""
    if payload is None:
        return None, ""
    if payload == "-":
        return _with_type(sys.stdin.buffer.read(), None)
    if payload.startswith("@"):
        file = Path(payload[1:])
        try:
            return _with_type(file.read_bytes(), mimetypes.guess_type(file.name)[0])
        except OSError as error:
            raise click.ClickException(f"{file}: cannot be read: {error.strerror}") from error
    try:
        json.loads(payload)
    except ValueError as error:
        raise click.ClickException(
            f"the payload is not valid JSON: {error}; use @FILE for a file"
            if not payload.isidentifier()
            else f"the payload {payload} is not valid JSON; use '\"{payload}\"' for a string, or @{payload} for a file"
        ) from error
    return payload.encode(), "application/json"


def _with_type(content: bytes, content_type: str | None) -> tuple[bytes, str]:
    if content_type is not None:
        return content, content_type
    try:
        json.loads(content)
    except ValueError:
        return content, "application/octet-stream"
    return content, "application/json"


def _parse_headers(options: Iterable[str]) -> dict[str, str]:
    """Parse NAME: VALUE options. Raises UsageError for a header that the API server does not forward."""
    parsed = {name.lower(): value for name, value in (_split_pair(option, ":") for option in options)}
    if "authorization" in parsed:
        raise click.UsageError(
            f"the API server does not forward the Authorization header; pass the API key with {OPTIONS}"
        )
    return parsed


def _split_pair(text: str, separator: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name:
        raise click.UsageError(f"expected NAME{separator}VALUE; got {text!r}")
    return name.strip(), value.strip()


def _report(api: API, response: Response) -> None:
    """Print a response. Exit with 1 if it is an error."""
    _print_body(response)
    if not 200 <= response.status < 300:
        hint = (
            f"; pass a valid API key with {OPTIONS}" if response.status == 401 and requires_key(api) else ""
        )
        click.echo(f"response status {response.status}{hint}", err=True)
        sys.exit(1)


def _print_body(response: Response) -> None:
    try:
        text = (
            json.dumps(json.loads(response.body), indent=2, ensure_ascii=False)
            if sys.stdout.isatty()
            else None
        )
    except ValueError:
        text = None
    sys.stdout.flush()
    sys.stdout.buffer.write(response.body if text is None else text.encode())
    if sys.stdout.isatty() or not response.body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _print_debug(cluster: Cluster, api: API, response: Response, request: str, seconds: float) -> None:
    click.echo(f"status {response.status} after {seconds * 1000:.0f} ms, request {request}", err=True)
    for name, value in response.headers.items():
        click.echo(click.style(f"{name}: {value}", dim=True), err=True)
    if not api.live["spec"]["handler"].get("debug"):
        click.echo(
            "spec.handler.debug is false, so the log does not contain the stages of the request", err=True
        )
    end = time.monotonic() + _LOG_SECONDS
    lines: list[str] = []
    while not lines and time.monotonic() < end:
        time.sleep(0.1)
        lines = list(_log_lines(cluster, api, request))
    for line in lines:
        click.echo(line, err=True)


def _log_lines(cluster: Cluster, api: API, request: str) -> Iterator[str]:
    for pod in apis.pods(cluster, api):
        for line in logs.lines(cluster, pod, tail=1000):
            content = parse(line)
            if content and content.get("requestId") == request:
                content.pop("requestId")
                yield readable(json.dumps(content), f"{logs.short_name(pod, api)} ")
