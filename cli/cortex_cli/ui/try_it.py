"""Send a request to an API from the page, and show its response. Neither is kept."""

import base64
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cortex_api.contract import PORT
from cortex_cli.api_keys import HEADER
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Response, path
from cortex_cli.ui.local_cluster import LocalCluster

METHODS = ("POST", "GET", "PUT", "PATCH", "DELETE")
SAMPLES = ("sample.json", "payload.json", "request.json")
"""Files of a project with a payload, as `cortex init` creates them."""
_TIMEOUT = 60.0
_MAX_TEXT = 200_000
_MAX_IMAGE = 2_000_000


@dataclass(frozen=True)
class Request:
    """What the reader entered. path: with its query. key: an API key, sent if it is not empty."""

    method: str = "POST"
    path: str = "/"
    body: str = ""
    content_type: str = "application/json"
    key: str = ""

    @classmethod
    def of(cls, form: dict[str, str]) -> "Request":
        """Read a submitted form."""
        method = form.get("method", "POST")
        return cls(
            method if method in METHODS else "POST",
            "/" + form.get("path", "/").strip().lstrip("/"),
            form.get("body", ""),
            form.get("content_type") or "application/json",
            form.get("key", "").strip(),
        )


@dataclass(frozen=True)
class Answer:
    """A response, or why there is none. text: of the body, JSON indented. image: a data URL. more: bytes that are not shown."""

    status: int = 0
    milliseconds: int = 0
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    text: str = ""
    is_json: bool = False
    image: str = ""
    more: int = 0
    error: str = ""
    job: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the status is 2XX."""
        return 200 <= self.status < 300


def send(cluster: Cluster, api: API, request: Request) -> Answer:
    """Send a request through the API server."""
    if request.method in ("POST", "PUT", "PATCH") and "json" in request.content_type:
        try:
            json.loads(request.body or "null")
        except ValueError as error:
            return Answer(error=f"the payload is not valid JSON: {error}")
    parts = urlsplit(request.path)
    url = path("v1/services", api.namespace, f"{api.service}:{PORT}", f"proxy{parts.path}")
    headers = {"x-request-id": f"cortex-{uuid.uuid4().hex[:12]}"}
    body = None
    if request.method in ("POST", "PUT", "PATCH"):
        headers["content-type"] = request.content_type
        body = request.body.encode()
    if request.key:
        headers[HEADER] = request.key
    began = time.monotonic()
    try:
        response = cluster.request(request.method, url, parse_qsl(parts.query), body, headers, _TIMEOUT)
    except ClusterError as error:
        return Answer(error=f"{api.name} is unreachable: {error.message}")
    return answer_of(response, time.monotonic() - began)


def answer_of(response: Response, seconds: float) -> Answer:
    """Return a response as the page shows it."""
    content_type = response.headers.get("content-type", "").split(";")[0].strip()
    text, image, is_json, job = "", "", False, ""
    if (
        content_type.startswith("image/")
        and content_type != "image/svg+xml"
        and len(response.body) <= _MAX_IMAGE
    ):
        image = f"data:{content_type};base64,{base64.b64encode(response.body).decode()}"
    else:
        try:
            content = json.loads(response.body)
            text, is_json = json.dumps(content, indent=2, ensure_ascii=False), True
            job = str(content.get("id", "")) if response.status == 202 and isinstance(content, dict) else ""
        except ValueError:
            text = response.body.decode(errors="replace")
    return Answer(
        response.status,
        round(seconds * 1000),
        content_type,
        tuple(sorted(response.headers.items())),
        text[:_MAX_TEXT],
        is_json,
        image,
        max(0, len(text) - _MAX_TEXT),
        "",
        job,
    )


def sample(cluster: Cluster, api: API) -> str:
    """Return the payload in the project of an API: its folder, the manifest or the ConfigMap with the code; "{}" without one."""
    if isinstance(cluster, LocalCluster):
        local = (cluster.project / name for name in SAMPLES)
        return _indented(next((file.read_text() for file in local if file.is_file()), "{}"))
    source: dict[str, Any] = api.live["spec"]["handler"].get("source") or {}
    files: dict[str, str] = source.get("files") or {}
    name = (source.get("configMap") or {}).get("name")
    if name and not files:
        try:
            files = cluster.get(path("v1/configmaps", api.namespace, name)).get("data") or {}
        except ClusterError:
            files = {}
    found = next((files[each] for each in SAMPLES if each in files), None)
    return "{}" if found is None else _indented(found)


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
