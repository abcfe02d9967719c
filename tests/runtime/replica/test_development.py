"""Development mode: files of the project are received, and the workers are restarted with them."""

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.runtime.queues.servers import free_port

ANSWER = "class Handler:\n    def handle_get(self):\n        return {}\n"


def handler(text: str) -> bytes:
    return ANSWER.format(repr(text)).encode()


@dataclass
class Sender:
    """What `cortex dev` sends to a replica."""

    replica: Any
    port: int

    def post(self, path: str, content: bytes) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}{path}", content=content, timeout=60, trust_env=False)

    def missing(self, *contents: bytes) -> list[str]:
        checksums = [hashlib.sha256(content).hexdigest() for content in contents]
        return self.post("/missing", json.dumps(checksums).encode()).json()

    def send(self, *contents: bytes) -> httpx.Response:
        parts = [hashlib.sha256(each).digest() + len(each).to_bytes(8, "big") + each for each in contents]
        return self.post("/files", b"".join(parts))

    def use(self, files: dict[str, bytes], executable: bool = False) -> dict[str, Any]:
        """Load files that were sent. Return the result."""
        version = {path: [hashlib.sha256(each).hexdigest(), executable] for path, each in files.items()}
        return json.loads(self.post("/project", json.dumps(version).encode()).text.splitlines()[-1])

    def load(self, files: dict[str, bytes], **more: Any) -> dict[str, Any]:
        assert self.send(*files.values()).json() == {"received": len(files)}
        return self.use(files, **more)

    def answer(self) -> Any:
        return httpx.get(self.replica.url, trust_env=False).text

    def wait_answer(self, text: str) -> None:
        """Wait for an answer of the version that was loaded last: a busy worker of the previous one may still accept requests."""
        self.replica.until(lambda: self.answer() == text)


@pytest.fixture
def develop(serve):
    def start(**more: Any) -> Sender:
        port = free_port()
        replica = serve(None, "--development", str(port), wait=False, **more)
        replica.until(replica.ready)
        return Sender(replica, port)

    return start


def test_a_replica_waits_for_the_project_and_serves_each_version(develop):
    sender = develop()
    assert "waiting for the files" in sender.replica.ready().json()["message"]
    assert sender.load({"handler.py": handler("first"), "text/a.txt": b"x"})["ready"]
    sender.replica.wait_ready()
    assert (sender.answer(), sender.replica.ready().status_code) == ("first", 200)
    assert sender.load({"handler.py": handler("second")})["ready"]
    sender.wait_answer("second")
    assert not (sender.replica.project / "text").exists()


def test_the_previous_code_serves_while_the_new_one_is_broken(develop):
    sender = develop()
    sender.load({"handler.py": handler("good"), "labels.txt": b"good"})
    result = sender.load({"handler.py": b"import nothing_like_it\n", "labels.txt": b"bad"})
    assert (result["ready"], result["reason"], result["servesPrevious"]) == (
        False,
        "HandlerImportError",
        True,
    )
    assert "ModuleNotFoundError" in result["message"]
    assert (sender.answer(), sender.replica.ready().status_code) == ("good", 200)
    # A worker that restarts now must find the code that it ran.
    assert (sender.replica.project / "labels.txt").read_bytes() == b"good"
    assert sender.load({"handler.py": handler("fixed"), "labels.txt": b"better"})["ready"]
    sender.wait_answer("fixed")


def test_the_first_version_may_be_broken(develop):
    sender = develop()
    result = sender.load({"handler.py": b"1 / 0\n"})
    assert (result["ready"], result["servesPrevious"]) == (False, False)
    assert sender.replica.ready().json()["reason"] == "HandlerImportError"
    assert sender.load({"handler.py": handler("fixed")})["ready"]
    sender.replica.wait_ready()
    sender.wait_answer("fixed")


def test_a_file_is_sent_once_and_damaged_or_missing_content_is_refused(develop):
    sender = develop()
    large, code = os.urandom(3 << 20), handler("ok")
    assert len(sender.missing(large, code)) == 2
    sender.load({"handler.py": code, "model.bin": large})
    assert sender.missing(large, code) == []
    assert sender.use({"handler.py": code, "models/renamed.bin": large})["ready"]
    assert (sender.replica.project / "models/renamed.bin").read_bytes() == large
    assert not (sender.replica.project / "model.bin").exists()
    damaged = hashlib.sha256(b"a").digest() + (1).to_bytes(8, "big") + b"b"
    assert sender.post("/files", damaged).status_code == 400
    assert sender.post("/files", damaged[:-1]).status_code == 400
    unsent = hashlib.sha256(b"never sent").hexdigest()
    refused = sender.post("/project", json.dumps({"x": [unsent, False]}).encode())
    assert (refused.status_code, refused.json()) == (409, {"missing": [unsent]})
    # A file that no version contains any more is not kept.
    sender.load({"handler.py": code})
    assert len(sender.missing(large)) == 1


def test_paths_outside_of_the_project_are_refused(develop):
    sender = develop()
    sender.send(b"x")
    for path in ("../x.py", "/etc/x", "a//b", ".cortex-development/files/x", ""):
        version = {path: [hashlib.sha256(b"x").hexdigest(), False]}
        answer = sender.post("/project", json.dumps(version).encode())
        assert answer.status_code == 400, path
        assert "is not a path in the project" in answer.json()["error"]


def test_files_and_folders_replace_each_other_and_keep_their_mode(develop):
    sender = develop()
    sender.load({"handler.py": handler("ok"), "a": b"file", "b/c/d": b"deep"}, executable=True)
    assert stat.S_IMODE((sender.replica.project / "a").stat().st_mode) == 0o755
    sender.load({"handler.py": handler("ok"), "a/x": b"folder", "b": b"flat"})
    assert (sender.replica.project / "a/x").read_bytes() == b"folder"
    assert (sender.replica.project / "b").read_bytes() == b"flat"


def test_a_newer_version_replaces_one_that_is_still_being_loaded(develop):
    sender = develop()
    sender.load({"handler.py": handler("first")})
    hanging = b"import pathlib, time\npathlib.Path('started').touch()\nwhile True:\n    time.sleep(0.1)\n"
    with ThreadPoolExecutor(1) as threads:
        abandoned = threads.submit(sender.load, {"handler.py": hanging})
        sender.replica.until(lambda: (sender.replica.project / "started").exists())
        assert sender.load({"handler.py": handler("second")})["ready"]
        assert abandoned.result()["reason"] == "Superseded"
    sender.wait_answer("second")


def test_changed_dependencies_and_variables_are_installed(develop):
    sender = develop()
    code = b"import os\nclass Handler:\n    def handle_get(self):\n        return os.environ.get('COLOR', 'none')\n"
    assert sender.load({"handler.py": code})["ready"]
    sender.wait_answer("none")
    assert sender.load({"handler.py": code, ".env": b"COLOR=green\n"})["ready"]
    sender.wait_answer("green")
    failed = sender.load({"handler.py": code, ".env": b"COLOR=red\n", "dependencies.sh": b"exit 3\n"})
    assert (failed["reason"], sender.answer()) == ("DependencyInstallFailed", "green")
    # The variable of the .env that was removed is gone.
    assert sender.load({"handler.py": code})["ready"]
    sender.wait_answer("none")


def test_a_restarted_container_serves_the_version_that_it_had(develop, serve):
    sender = develop()
    sender.load({"handler.py": handler("kept")})
    sender.replica.process.kill()
    sender.replica.process.wait()
    again = serve(None, "--development", str(sender.port), project=sender.replica.project)
    assert httpx.get(again.url, trust_env=False).text == "kept"


def test_a_500_shows_its_traceback_in_development_only(develop, serve):
    code = "class Handler:\n    def handle_get(self):\n        return {}[1]\n"
    sender = develop()
    sender.load({"handler.py": code.encode()})
    body = json.loads(sender.answer())
    assert body["traceback"] == [
        "Traceback (most recent call last):",
        '  File "handler.py", line 3, in handle_get',
        "    return {}[1]",
        "           ~~^^^",
        "KeyError: 1",
    ]
    plain = httpx.get(serve(code).url, trust_env=False)
    assert plain.json().keys() == {"error", "requestId"}
