"""A running program of the runtime: its admin port, its log, and why it exited."""

import json
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


class Plain:
    """httpx with one connection per request. It loads no certificates, which would take longer than most requests."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def get(self, url: str, **more: Any) -> httpx.Response:
        return httpx.get(url, verify=self._context, trust_env=False, **more)

    def post(self, url: str, **more: Any) -> httpx.Response:
        return httpx.post(url, verify=self._context, trust_env=False, **more)


PLAIN = Plain()


@dataclass
class Program:
    """The common part of all programs."""

    process: subprocess.Popen[bytes]
    port: int
    admin_port: int
    log: Path
    termination_log: Path

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"

    def readiness(self) -> httpx.Response | None:
        """Return the response of /readyz, if there is one."""
        try:
            return PLAIN.get(f"{self.admin}/readyz")
        except httpx.TransportError:
            return None

    def metric(self, line: str) -> float:
        """Return the value of a line in /metrics; 0 if it is missing."""
        for text in PLAIN.get(f"{self.admin}/metrics").text.splitlines():
            if text.startswith(line + " "):
                return float(text.rsplit(" ", 1)[1])
        return 0.0

    def wait_metric(self, line: str, minimum: float = 1) -> float:
        """Wait until a metric has a value and return it. A worker counts a request or job only after it has sent the result."""
        end = time.monotonic() + 60
        while (value := self.metric(line)) < minimum:
            assert time.monotonic() < end, f"{line} is {value}"
            time.sleep(0.02)
        return value

    def cause_of_death(self) -> tuple[str, str]:
        """Return (reason, message) after the process has exited."""
        assert self.process.wait(60) == 1, self.log.read_text()
        content = self.termination_log.read_bytes()
        assert len(content) <= 4096
        cause = json.loads(content)
        return cause["reason"], cause["message"]

    def lines(self) -> list[dict[str, Any]]:
        """Return the log, every line of which must be JSON. A line that is being written is left out."""
        is_running = self.process.poll() is None
        text = self.log.read_text()
        complete = text.rpartition("\n")[0] if is_running else text
        return [json.loads(line) for line in complete.splitlines()]
