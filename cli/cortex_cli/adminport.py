"""The admin port of an AsyncAPI under `cortex run`: that of its gateway, with the metrics and the readiness of its worker.

In a cluster each has a pod, and a port, of its own.
"""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from cortex_api.contract import METRICS_PATH, READINESS_PATH
from cortex_cli.ports import HOST

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?")
_TIMEOUT = 5.0


class AdminPort:
    """A server in a thread. gateway, worker: their admin ports."""

    def __init__(self, port: int, gateway: int, worker: int) -> None:
        client = httpx.Client(timeout=_TIMEOUT, trust_env=False)
        first, second = (f"http://{HOST}:{each}" for each in (gateway, worker))

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    answer = client.get(first + self.path)
                    body = answer.content
                    if self.path in (METRICS_PATH, READINESS_PATH) and answer.is_success:
                        other = client.get(second + self.path)
                        if self.path == METRICS_PATH:
                            body = merged(answer.text, other.text).encode()
                        elif not other.is_success:
                            answer, body = other, other.content
                    status, kind = answer.status_code, answer.headers["content-type"]
                except httpx.HTTPError as error:
                    status, kind, body = 503, "text/plain", f"the runtime does not answer: {error}\n".encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Log nothing: the runtime's own admin port doesn't either."""

        self._server = ThreadingHTTPServer((HOST, port), Requests)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def merged(first: str, second: str) -> str:
    """Two Prometheus texts as one. Samples of the second get a label where the first has the same name."""
    families, others = _families(first), _families(second)
    text = []
    for name, lines in families.items():
        text += lines
        text += [_labelled(line) for line in others.pop(name, ()) if not line.startswith("#")]
    for lines in others.values():
        text += lines
    return "".join(f"{line}\n" for line in text)


def _families(text: str) -> dict[str, list[str]]:
    """Lines by the family that they belong to."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            lines = found.setdefault(line.split(" ", 3)[2], [])
        lines.append(line)
    return found


def _labelled(line: str) -> str:
    return _SAMPLE.sub(
        lambda match: match[1] + ('{component="worker",' if match[2] else '{component="worker"}'),
        line,
        count=1,
    )
