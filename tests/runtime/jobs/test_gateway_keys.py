"""handler.apiKeys of an AsyncAPI: the gateway requires a key, and workers do not need the Secret."""

from collections.abc import Callable
from pathlib import Path

import httpx

from tests.runtime.jobs.conftest import Api

JOBS = "class Handler:\n    def handle_async(self, payload):\n        return payload\n"


def test_submitting_and_reading_jobs_requires_an_api_key(api: Callable[..., Api], tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a").write_text("job-key\n")
    made = api(JOBS, apiKeys={"secret": {"name": "keys"}})
    gateway = made.gateway(CORTEX_API_KEYS=str(tmp_path / "keys"))
    made.consumer()
    shown = {"authorization": "Bearer job-key"}
    refused = httpx.post(made.url, json={"a": 1})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer ")
    identity = httpx.post(made.url, json={"a": 1}, headers=shown).json()["id"]
    assert httpx.get(f"{made.url}/{identity}").status_code == 401
    assert httpx.delete(f"{made.url}/{identity}").status_code == 401
    ended = httpx.get(f"{made.url}/{identity}?wait=60s", headers=shown, timeout=90).json()
    assert ended["result"] == {"a": 1}
    assert "job-key" not in gateway.log.read_text()


def test_a_gateway_without_its_api_keys_does_not_start(api: Callable[..., Api], tmp_path: Path) -> None:
    made = api(JOBS, apiKeys={"secret": {"name": "keys"}})
    gateway = made.gateway(wait=False, CORTEX_API_KEYS=str(tmp_path / "nothing"))
    assert gateway.process.wait(30) == 1
    assert gateway.cause_of_death()[0] == "InvalidSpec"
