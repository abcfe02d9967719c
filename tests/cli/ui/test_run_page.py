"""The page of `cortex run`: the same as that of `cortex ui`, for one API."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port

from .test_api_page import words
from .test_overview import eventually
from .test_tools import post, text

HANDLER = '''
from typing import TypedDict


class Payload(TypedDict):
    text: str


class Handler:
    def handle_post(self, payload: Payload):
        """Classify a text by its length."""
        print("got", len(payload))
        return {"label": "long" if len(payload["text"]) > 3 else "short"}
'''
MANIFEST = """
apiVersion: cortex.dev/v1alpha1
kind: RealtimeAPI
metadata: {name: lengths}
spec:
  handler: {type: python, path: handler.py}
  tracker: {key: label, modelType: classification}
"""
PAGE = "/realtimeapi/local/lengths"


WORKER = """
import os


class Handler:
    def handle_async(self, payload):
        if not os.path.exists(payload["file"]):
            raise ValueError("the file is missing")
        return "found"
"""
JOBS_MANIFEST = """
apiVersion: cortex.dev/v1alpha1
kind: AsyncAPI
metadata: {name: files}
spec:
  handler: {type: python, path: handler.py}
  queue: {maxAttempts: 1}
"""
JOBS_PAGE = "/asyncapi/local/files"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    folder: Path = tmp_path_factory.mktemp("project")
    (folder / "handler.py").write_text(HANDLER)
    (folder / "api.yaml").write_text(MANIFEST)
    (folder / "sample.json").write_text(json.dumps({"text": "hello"}))
    with running(folder, PAGE) as found:
        yield found


@contextmanager
def running(folder: Path, page: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """Run the API of a folder with its page."""
    ports = ["--port", str(free_port()), "--admin-port", str(free_port())]
    command = [sys.executable, "-m", "cortex_cli", "run", str(folder / "api.yaml"), "--ui", *ports]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if line.startswith("page: "))
            url = line.split()[1]
            assert re.fullmatch(rf"http://127\.0\.0\.1:\d+{page}\?token=[\w-]+", url)
            with httpx.Client(base_url=url.split(page)[0], trust_env=False, timeout=30) as client:
                assert client.get(url).status_code == 303
                yield client, process
        finally:
            process.terminate()


def test_the_page_shows_the_api_and_its_requests(run):
    client, _ = run
    assert eventually(lambda: "lengths Ready RealtimeAPI" in words(client, PAGE))
    assert "serves at http://127.0.0.1:" in words(client, PAGE)
    # Nothing of a cluster: no checks, no changes.
    assert "/do/" not in client.get(PAGE).text
    assert "checks" not in words(client, PAGE)
    assert "lengths local" in words(client, "/")
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403


def test_a_request_with_the_sample_is_answered_logged_and_tracked(run):
    client, _ = run
    field = '<input name="field:text" value="hello"'
    form = eventually(lambda: field in (t := client.get(f"{PAGE}/try").text) and t)
    assert form
    assert "Classify a text by its length" in form
    answer = text(post(client, f"{PAGE}/try", method="POST", operation="POST /", **{"field:text": "hello"}))
    assert "Response 200" in answer
    assert '"text": "hello"' in words(client, f"{PAGE}/try?operation=POST+/&as=json")
    assert eventually(lambda: "got 1" in words(client, f"{PAGE}/logs"))
    assert eventually(lambda: "long 100% 1" in words(client, PAGE))


def test_the_logs_are_still_printed(run):
    _, process = run
    assert process.stdout is not None
    assert next(line for line in process.stdout if "got 1" in line)


def test_a_failed_job_is_listed_and_retried(tmp_path: Path):
    (tmp_path / "handler.py").write_text(WORKER)
    (tmp_path / "api.yaml").write_text(JOBS_MANIFEST)
    with running(tmp_path, JOBS_PAGE) as (client, _):
        jobs = f"{JOBS_PAGE}/async-jobs"
        assert eventually(lambda: "files Ready AsyncAPI" in words(client, JOBS_PAGE))
        payload = json.dumps({"file": str(tmp_path / "file")})
        post(client, f"{JOBS_PAGE}/try", method="POST", path="/", body=payload)
        found = eventually(lambda: re.search(r"/async-jobs/retry\?id=(\w+)", client.get(jobs).text))
        assert found
        assert eventually(lambda: "Handler error: the handler raised ValueError" in words(client, jobs))
        assert eventually(lambda: "the file is missing" in words(client, f"{JOBS_PAGE}/logs?q={found[1]}"))
        (tmp_path / "file").touch()
        assert f"/{found[1]}/retry" in words(client, f"{jobs}/retry?id={found[1]}")
        post(client, f"{jobs}/retry", id=found[1])
        assert eventually(lambda: f"Job {found[1]} completed" in words(client, f"{jobs}?id={found[1]}"))
        assert eventually(lambda: "No failed job" in words(client, jobs))
