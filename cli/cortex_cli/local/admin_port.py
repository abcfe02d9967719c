"""Combined admin port of an AsyncAPI under `cortex run`: merges metrics and readiness of the gateway and the worker.

In a cluster, gateway and worker run in separate pods with separate admin ports.
"""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import httpx

from cortex_api.contract import METRICS_PATH, READINESS_PATH
from cortex_cli.local.ports import HOST

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?")
_TIMEOUT = 5.0


class AdminPort:
    """An HTTP server in a thread, until the `with` statement ends.

    gateway, worker: the admin ports of the two processes.
    """

    def __init__(self, port: int, gateway: int, worker: int) -> None:
        client = httpx.Client(timeout=_TIMEOUT, trust_env=False)
        gateway_url, worker_url = (f"http://{HOST}:{each}" for each in (gateway, worker))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    response = client.get(gateway_url + self.path)
                    body = response.content
                    if self.path in (METRICS_PATH, READINESS_PATH) and response.is_success:
                        worker_response = client.get(worker_url + self.path)
                        if self.path == METRICS_PATH:
                            body = merge_metrics(response.text, worker_response.text).encode()
                        elif not worker_response.is_success:
                            response, body = worker_response, worker_response.content
                    status, content_type = response.status_code, response.headers["content-type"]
                except httpx.HTTPError as error:
                    status, content_type = 503, "text/plain"
                    body = f"the runtime does not respond: {error}\n".encode()
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Do not log requests, like the admin port of the runtime."""

        self._server = ThreadingHTTPServer((HOST, port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def merge_metrics(gateway: str, worker: str) -> str:
    """Merge two texts in Prometheus format. Worker samples with the same name as a gateway sample get a label."""
    gateway_families, worker_families = _families(gateway), _families(worker)
    text = []
    for name, lines in gateway_families.items():
        text += lines
        text += [_add_label(line) for line in worker_families.pop(name, ()) if not line.startswith("#")]
    for lines in worker_families.values():
        text += lines
    return "".join(f"{line}\n" for line in text)


def _families(text: str) -> dict[str, list[str]]:
    """Return the lines of each metric family by its name."""
    families: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            lines = families.setdefault(line.split(" ", 3)[2], [])
        lines.append(line)
    return families


def _add_label(line: str) -> str:
    return _SAMPLE.sub(
        lambda match: match[1] + ('{component="worker",' if match[2] else '{component="worker"}'),
        line,
        count=1,
    )
