"""`cortex run` serves an API locally until it is stopped, and reports why an API does not start."""

import json
import os
import pty
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from cortex_cli.__main__ import main
from cortex_cli.commands.run import sample_argument
from tests.ports import free_port

HANDLER = "class Handler:\n    def handle_post(self, payload): return {'answer': %s}\n"
API = """\
apiVersion: cortex.dev/v1alpha1
kind: RealtimeAPI
metadata: {name: NAME}
spec:
  handler: {type: python, path: handler.py}
"""
TIMEOUT = 60


class Run:
    """A `cortex run` process whose output lines can be awaited."""

    def __init__(self, *arguments: str, terminal: bool = False, **environment: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "cortex_cli", "run", "--port", str(self.port)]
        command += ["--admin-port", str(free_port()), *arguments]
        reader, writer = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            command,
            stdout=writer,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )
        os.close(writer)
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(reader,), daemon=True).start()

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, errors="replace") as output:
            try:
                for line in output:
                    self._lines.put(line)
            except OSError:
                pass  # A terminal raises OSError at the end of the output.
        self._lines.put(None)

    def until(self, words: str) -> None:
        """Wait for a line that contains these words."""
        while (line := self._lines.get(timeout=TIMEOUT)) is not None:
            self.seen.append(line)
            if words in line:
                return
        raise AssertionError(f"no line contains {words!r}:\n{''.join(self.seen)}")

    def end(self) -> tuple[int, str]:
        """Wait until the command and its runtime have exited. Return the exit status and the whole output."""
        while (line := self._lines.get(timeout=TIMEOUT)) is not None:
            self.seen.append(line)
        return self.process.wait(TIMEOUT), "".join(self.seen)

    def post(self) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}", json={}, timeout=TIMEOUT)


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "the condition is still false"
        time.sleep(0.05)


@pytest.fixture
def run():
    started: list[Run] = []

    def start(*arguments: str, **options) -> Run:
        started.append(Run(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        try:
            os.killpg(one.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        one.process.wait()


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "handler.py").write_text(HANDLER % 1)
    (tmp_path / "api.yaml").write_text(API.replace("NAME", "first"))
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_serves_until_it_is_stopped(run, project, number):
    running = run(str(project / "api.yaml"))
    running.until(f"first is ready at http://127.0.0.1:{running.port}")
    running.until(f"documentation: http://127.0.0.1:{running.port}/docs")
    assert running.post().json() == {"answer": 1}
    running.process.send_signal(number)
    status, output = running.end()
    assert status == 0, output
    with pytest.raises(httpx.ConnectError):
        running.post()


def test_reload_serves_the_changed_code(run, project):
    running = run(str(project / "api.yaml"), "--reload")
    running.until("first is ready")
    assert running.post().json() == {"answer": 1}
    (project / "handler.py").write_text(HANDLER % 22)
    until(lambda: running.post().json() == {"answer": 22})


def test_a_500_contains_the_traceback(run, project):
    (project / "handler.py").write_text(HANDLER % "{}[payload]")
    served = run(str(project / "api.yaml"))
    served.until("is ready")
    response = served.post()
    assert response.status_code == 500
    assert response.json()["traceback"][1] == '  File "handler.py", line 2, in handle_post'


def test_no_request_fails_during_a_reload(run, project):
    running = run(str(project / "api.yaml"), "--reload")
    running.until("first is ready")
    stop, responses, errors = threading.Event(), [], []

    def send() -> None:
        while not stop.is_set():
            try:
                responses.append(running.post().json())
            except (httpx.HTTPError, ValueError) as error:
                errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: responses or errors)
        (project / "handler.py").write_text("import time; time.sleep(0.5)\n" + HANDLER % 22)
        running.until("the changed project is in use")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert {"answer": 1} in responses
    assert all(response in ({"answer": 1}, {"answer": 22}) for response in responses)


def test_reload_applies_valid_manifests_and_ignores_invalid_ones(run, project):
    handler = "class Handler:\n    def __init__(self, config): self.config = config\n"
    (project / "handler.py").write_text(handler + "    def handle_post(self): return self.config\n")
    (project / "api.yaml").write_text(API.replace("NAME", "first").replace("py}", "py, config: {a: 1}}"))
    running = run(str(project / "api.yaml"), "--reload")
    running.until("first is ready")
    (project / "api.yaml").write_text(API.replace("NAME", "first").replace("py}", "py, confg: {a: 2}}"))
    running.until("Error: the change is ignored")
    assert running.post().json() == {"a": 1}
    (project / "api.yaml").write_text(API.replace("NAME", "first").replace("py}", "py, config: {a: 3}}"))
    until(lambda: running.post().json() == {"a": 3})


def test_with_reload_an_api_that_does_not_start_is_started_again_after_a_fix(run, project):
    (project / "handler.py").write_text("import nothing_of_that_name\n")
    running = run(str(project / "api.yaml"), "--reload")
    running.until("Waiting for a change of the files in")
    (project / "api.yaml").write_text(API.replace("NAME", "first").replace("path:", "pth:"))
    running.until("spec.handler.pth")
    (project / "handler.py").write_text(HANDLER % 5)
    (project / "api.yaml").write_text(API.replace("NAME", "first"))
    running.until("first is ready at")
    assert running.post().json() == {"answer": 5}


def test_ctrl_c_ends_a_run_that_waits_for_a_fix(run, project):
    (project / "handler.py").write_text("x = 1\n")
    running = run(str(project / "api.yaml"), "--reload")
    running.until("Waiting for a change of the files in")
    running.process.send_signal(signal.SIGINT)
    status, output = running.end()
    assert (status, "Traceback" in output) == (130, False)


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_port_in_use_is_reported_before_the_start(run, project, option):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, output = run(str(project / "api.yaml"), option, str(port)).end()
    assert (status, output) == (
        1,
        f"Error: port {port} is in use; select a free port with {option}\n",
    )


def test_logs_are_json_in_a_pipe_and_readable_on_a_terminal(run, project):
    (project / "handler.py").write_text(HANDLER % 1 + "    def __init__(self): print('loaded weights')\n")
    piped = run(str(project / "api.yaml"))
    piped.until("loaded weights")
    assert json.loads(piped.seen[-1])["message"] == "loaded weights"
    shown = run(str(project / "api.yaml"), terminal=True)
    shown.until("loaded weights")
    assert "INFO" in shown.seen[-1]
    assert "\x1b[" in shown.seen[-1]
    assert "{" not in shown.seen[-1]


def test_no_color_disables_the_colors_of_log_lines(run, project):
    (project / "handler.py").write_text(HANDLER % 1 + "    def __init__(self): print('loaded weights')\n")
    running = run(str(project / "api.yaml"), terminal=True, NO_COLOR="1")
    running.until("is ready at")
    shown = "".join(running.seen)
    assert "loaded weights" in shown
    assert "\x1b[" not in shown


def test_in_a_pipe_stdout_contains_only_log_lines(project):
    ports = "--port", str(free_port()), "--admin-port", str(free_port())
    command = [sys.executable, "-m", "cortex_cli", "run", str(project / "api.yaml"), *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "curl" not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        output, _ = process.communicate(timeout=TIMEOUT)
    messages = [json.loads(line)["message"] for line in output.splitlines()]
    assert any(message.startswith("ready: serving") for message in messages)


def pids_with(marker: str) -> list[str]:
    """Return the pids of the processes with a marker in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and marker.encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue  # The process has exited, or belongs to another user.
    return found


def test_a_killed_run_leaves_no_processes_and_files(run, project, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    running = run(str(project / "api.yaml"), TMPDIR=str(scratch))
    running.until("first is ready")
    assert list(scratch.iterdir()) != []
    running.process.kill()
    running.end()
    end = time.monotonic() + TIMEOUT
    while pids_with(f"TMPDIR={scratch}") or list(scratch.iterdir()):
        assert time.monotonic() < end, (pids_with(f"TMPDIR={scratch}"), list(scratch.iterdir()))
        time.sleep(0.05)


def test_a_second_ctrl_c_exits_immediately(run, project):
    (project / "handler.py").write_text(
        "import time\nclass Handler:\n    def handle_post(self):\n        print('busy')\n        time.sleep(600)\n"
    )
    running = run(str(project / "api.yaml"))
    running.until("first is ready")

    def send() -> None:
        with pytest.raises(httpx.TransportError):
            running.post()

    thread = threading.Thread(target=send)
    thread.start()
    running.until("busy")
    running.process.send_signal(signal.SIGINT)
    running.until("draining: 1 requests in flight")
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 130
    thread.join()


def test_one_of_several_apis_is_selected_by_name(run, project):
    both = API.replace("NAME", "first") + "---\n" + API.replace("NAME", "second")
    (project / "api.yaml").write_text(both)
    assert run(str(project / "api.yaml")).end() == (
        1,
        f"Error: {project}/api.yaml contains several APIs; select one with --name (first, second)\n",
    )
    status, output = run(str(project / "api.yaml"), "--name", "third").end()
    assert (status, "contains no API third; it contains first, second" in output) == (1, True)
    run(str(project / "api.yaml"), "--name", "second").until("second is ready")


def test_code_in_the_manifest_is_served(run, project):
    inline = API.replace("NAME", "inline").replace(
        "path: handler.py", "path: h.py, source: {files: {h.py: CODE}}"
    )
    code = (HANDLER % 3).replace("\n", "\\n")
    (project / "api.yaml").write_text(inline.replace("CODE", f'"{code}"'))
    running = run(str(project / "api.yaml"))
    running.until("is ready at")
    assert running.post().json() == {"answer": 3}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_of_that_name\n", "HandlerImportError: "),
        ("x = 1\n", "HandlerNotFound: "),
        (HANDLER % 1 + "    def __init__(self): raise ValueError('no weights')\n", "no weights"),
    ],
)
def test_a_failed_start_reports_reason_and_message(run, project, source, words):
    (project / "handler.py").write_text(source)
    status, output = run(str(project / "api.yaml")).end()
    assert status == 1
    assert words in output[output.index("Error: ") :]


def test_a_terminal_shows_the_cause_of_a_failed_start_once(run, project):
    (project / "handler.py").write_text("import nothing_of_that_name\n")
    status, output = run(str(project / "api.yaml"), terminal=True).end()
    assert status == 1
    assert (
        output.count("ModuleNotFoundError: No module named 'nothing_of_that_name' (handler.py, line 1)") == 1
    )
    assert "add the package that contains `nothing_of_that_name` to requirements.txt" in output.lower()


def test_an_invalid_manifest_is_rejected(run, project):
    (project / "api.yaml").write_text(API.replace("NAME", "typo").replace("path:", "pth:"))
    status, output = run(str(project / "api.yaml")).end()
    assert (status, "spec.handler.pth: " in output) == (1, True)


def test_an_async_api_runs_with_a_local_queue(run, project):
    (project / "handler.py").write_text(
        "class Handler:\n    def handle_async(self, payload): return {'twice': 2 * payload['n']}\n"
    )
    (project / "api.yaml").write_text(API.replace("NAME", "later").replace("RealtimeAPI", "AsyncAPI"))
    running = run(str(project / "api.yaml"))
    running.until("later is ready")
    url = f"http://127.0.0.1:{running.port}"
    answer = httpx.post(url, json={"n": 4}, timeout=TIMEOUT)
    assert answer.status_code == 202
    end = time.monotonic() + TIMEOUT
    while (job := httpx.get(f"{url}/{answer.json()['id']}", timeout=TIMEOUT).json())["status"] != "completed":
        assert time.monotonic() < end, job
        time.sleep(0.05)
    assert job["result"] == {"twice": 8}
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0


def packed(folder, answer):
    files = {
        "handlers/main.py": HANDLER % "WORD",
        "handlers/__init__.py": "",
        "words.py": f"WORD = {answer}\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "handlers/main.py").write_text("from words import WORD\n" + HANDLER % "WORD")
    return CliRunner().invoke(main, ["pack", str(folder), "--name", "code"]).stdout


PACKED = API.replace("NAME", "packed").replace(
    "handler.py}", "handlers/main.py, source: {configMap: {name: code}}}"
)


@pytest.mark.parametrize("is_separate", [True, False])
def test_code_in_a_config_map_is_served_if_the_folder_has_none(tmp_path, run, is_separate):
    code = packed(tmp_path / "project", 4)
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    file = manifests / "api.yaml"
    file.write_text(PACKED if is_separate else f"{code}---\n{PACKED}")
    if is_separate:
        (manifests / "code.yaml").write_text(code)
    one = run(str(file))
    one.until("is ready at")
    assert one.post().json() == {"answer": 4}


def test_reload_applies_a_changed_config_map(tmp_path, run):
    file = tmp_path / "api.yaml"
    file.write_text(f"{packed(tmp_path / 'project', 1)}---\n{PACKED}")
    one = run(str(file), "--reload")
    one.until("is ready at")
    assert one.post().json() == {"answer": 1}
    file.write_text(f"{packed(tmp_path / 'project', 2)}---\n{PACKED}")
    one.until("the changed project is in use")
    assert one.post().json() == {"answer": 2}


def test_code_in_the_folder_has_precedence_over_the_config_map(tmp_path, run):
    code = packed(tmp_path, 1)
    (tmp_path / "words.py").write_text("WORD = 2\n")
    (tmp_path / "project.zip").write_text("not the project")
    file = tmp_path / "api.yaml"
    file.write_text(f"{code}---\n{PACKED}")
    one = run(str(file))
    one.until("is ready at")
    assert one.post().json() == {"answer": 2}


def test_missing_code_is_reported(tmp_path, run):
    file = tmp_path / "api.yaml"
    file.write_text(PACKED)
    status, output = run(str(file)).end()
    assert status == 1
    text = f"handlers/main.py is not in {tmp_path}, and no manifest in that folder contains ConfigMap code"
    assert text in output
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "man.py").touch()
    assert f"{text}; did you mean handlers/man.py?" in run(str(file)).end()[1]


def test_environment_variables_of_the_manifest_are_set(run, project):
    (project / "handler.py").write_text(
        "import os\nGREETING = os.environ['GREETING']\nclass Handler:\n"
        "    def handle_post(self, payload):\n        return {n: os.environ.get(n) for n in payload}\n"
    )
    env = "env: [{name: WHO, value: iris}, {name: GREETING, value: hello $(WHO)}, " + (
        "{name: KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}, "
        "{name: MAYBE, valueFrom: {configMapKeyRef: {name: c, key: k, optional: true}}}, "
        "{name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}]"
    )
    text = API.replace("NAME", "first").replace("py}", f"py, shmSize: 1Gi, {env}}}")
    (project / "api.yaml").write_text(text + "  networking: {endpoint: /x}\n")
    status, output = run(str(project / "api.yaml")).end()
    assert (status, output) == (
        1,
        "Error: spec.handler.env[2]: KEY comes from key k of Secret s in a cluster; set it in the environment of this "
        "command: KEY=... cortex run ...\n",
    )
    running = run(str(project / "api.yaml"), "--reload", KEY="secret", WHO="of the shell")
    running.until("first is ready")
    assert (
        "Note: these fields have no effect under `cortex run`: networking, handler.shmSize\n" in running.seen
    )
    names = ["GREETING", "WHO", "KEY", "MAYBE", "SPACE"]
    answer = httpx.post(f"http://127.0.0.1:{running.port}", json=names, timeout=TIMEOUT).json()
    assert answer == {
        "GREETING": "hello iris", "WHO": "iris", "KEY": "secret", "MAYBE": None, "SPACE": "default",
    }  # fmt: skip
    (project / "api.yaml").write_text(text.replace("iris", "rose"))
    running.until("restart this command to apply the change of handler.env")


def test_the_admin_port_of_an_async_api_has_the_metrics_of_its_worker(run, project):
    (project / "handler.py").write_text(
        "class Handler:\n    def __init__(self, metrics_client): self.metrics = metrics_client\n"
        "    def handle_async(self, payload):\n"
        "        self.metrics.increment('flowers', tags={'kind': payload})\n        return payload\n"
    )
    tracked = API.replace("RealtimeAPI", "AsyncAPI") + "  tracker: {modelType: classification}\n"
    (project / "api.yaml").write_text(tracked.replace("NAME", "later"))
    admin_port = free_port()
    running = run(str(project / "api.yaml"), "--admin-port", str(admin_port))
    running.until("later is ready")
    url, admin = f"http://127.0.0.1:{running.port}", f"http://127.0.0.1:{admin_port}"
    identity = httpx.post(url, json="iris", timeout=TIMEOUT).json()["id"]
    assert httpx.get(f"{url}/{identity}?wait=60s", timeout=2 * TIMEOUT).json()["result"] == "iris"
    expected = {
        'flowers_total{kind="iris"}': "1.0",
        'cortex_tracker_predictions_total{class="iris"}': "1.0",
        "cortex_async_queued": "0.0",
        'cortex_async_jobs_total{status="completed"}': "1.0",
        "cortex_async_accepted_total": "1.0",
    }
    text, samples, values = "", [], {}

    def is_counted() -> bool:
        # The result of a job can be read before its message is removed from the queue and counted.
        nonlocal text, samples, values
        text = httpx.get(f"{admin}/metrics", timeout=TIMEOUT).text
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        values = dict(samples)
        return all(values.get(name) == value for name, value in expected.items())

    until(is_counted)
    assert len(values) == len(samples)
    # Gateway and worker have this metric, so the worker's sample gets a label.
    builds = [name for name in values if name.startswith("cortex_build_info")]
    assert ['component="worker"' in name for name in builds] == [False, True]
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert httpx.get(f"{admin}/readyz", timeout=TIMEOUT).json()["ready"] is True
    assert httpx.get(f"{admin}/queue", timeout=TIMEOUT).json()["queued"] == 0
    assert httpx.get(f"{admin}/nothing", timeout=TIMEOUT).status_code == 404


def test_the_curl_line_sends_the_sample_of_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my api"
    folder.mkdir()
    assert sample_argument(folder) == "'{...}'"
    (folder / "sample.json").write_text("{}")
    assert sample_argument(folder) == "@'my api/sample.json'"
