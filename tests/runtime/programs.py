"""A running program of the runtime as tests see it: its admin port, its log, and the cause of its death."""

import json
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


class Plain:
    """httpx with a connection for each request. It reads no certificates, which takes longer than most of what is asked."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def get(self, url: str, **more: Any) -> httpx.Response:
        return httpx.get(url, verify=self._context, trust_env=False, **more)

    def post(self, url: str, **more: Any) -> httpx.Response:
        return httpx.post(url, verify=self._context, trust_env=False, **more)


PLAIN = Plain()


@dataclass
class Program:
    """What all programs have."""

    process: subprocess.Popen[bytes]
    port: int
    admin_port: int
    log: Path
    termination_log: Path

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"

    def readiness(self) -> httpx.Response | None:
        """What /readyz answers, if it does."""
        try:
            return PLAIN.get(f"{self.admin}/readyz", timeout=5)
        except httpx.TransportError:
            return None

    def metric(self, line: str) -> float:
        """The value of a line of /metrics, 0 when it is not there."""
        for text in PLAIN.get(f"{self.admin}/metrics").text.splitlines():
            if text.startswith(line + " "):
                return float(text.rsplit(" ", 1)[1])
        return 0.0

    def cause_of_death(self) -> tuple[str, str]:
        """(reason, message) once the process has given up."""
        assert self.process.wait(30) == 1, self.log.read_text()
        content = self.termination_log.read_bytes()
        assert len(content) <= 4096
        cause = json.loads(content)
        return cause["reason"], cause["message"]

    def lines(self) -> list[dict[str, Any]]:
        """The log; every line of it must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]
