"""Commands whose reader exits, as in `cortex get | head`, and commands that Ctrl-C ends, exit without a traceback."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.ports import free_port

HANDLER = "class Handler:\n    def handle_post(self, payload): return 1\n"
API = """\
apiVersion: cortex.dev/v1alpha1
kind: RealtimeAPI
metadata: {name: piped}
spec:
  handler: {type: python, path: handler.py}
"""
CONFIG = """\
apiVersion: v1
kind: Config
current-context: silent
clusters: [{name: silent, cluster: {server: "http://127.0.0.1:PORT"}}]
contexts: [{name: silent, context: {cluster: silent, user: me}}]
users: [{name: me, user: {token: secret}}]
"""
TIMEOUT = 60


def start(*arguments, stdout, folder):
    command = [sys.executable, "-m", "cortex_cli", *arguments]
    return subprocess.Popen(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True
    )


@pytest.fixture
def project(tmp_path):
    (tmp_path / "api.yaml").write_text(API)
    (tmp_path / "handler.py").write_text(HANDLER)
    return tmp_path


@pytest.mark.parametrize("arguments", [("init", "python", "--yes"), ("validate", "api.yaml")])
def test_a_command_without_a_reader_exits_with_141(project, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*arguments, stdout=writing, folder=project)
    os.close(writing)
    _, error = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, error) == (141, "")


@pytest.mark.parametrize("is_early", [True, False], ids=["first line", "all lines"])
def test_run_stops_when_its_reader_exits(project, is_early):
    port = free_port()
    options = ("--port", str(port), "--admin-port", str(free_port()))
    process = start("run", "api.yaml", *options, stdout=subprocess.PIPE, folder=project)
    try:
        for line in process.stdout:
            if is_early or "ready: serving" in line:
                break
        process.stdout.close()
        assert process.wait(TIMEOUT) == 141
        # The addresses of the API may be there.
        assert "Traceback" not in process.stderr.read()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    finally:
        process.kill()
        process.stderr.close()


@pytest.fixture
def silent(tmp_path):
    """A kubeconfig of a server that accepts connections and does not answer, and an event that is set at the first one."""
    connected = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []

        def accept():
            try:
                while True:
                    accepted.append(listener.accept()[0])
                    connected.set()
            except OSError:
                pass  # The test has ended.

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        file = tmp_path / "config"
        file.write_text(CONFIG.replace("PORT", str(listener.getsockname()[1])))
        yield file, connected
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT)
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize(
    "arguments", [("get",), ("doctor",), ("logs", "iris"), ("predict", "iris", "{}"), ("bench", "iris")]
)
def test_ctrl_c_exits_with_130_and_without_a_traceback(silent, tmp_path, arguments):
    kubeconfig, connected = silent
    process = start(*arguments, "--kubeconfig", str(kubeconfig), stdout=subprocess.PIPE, folder=tmp_path)
    try:
        assert connected.wait(TIMEOUT)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=TIMEOUT)
        # A slow machine may reach the line that says that the command waits.
        assert (process.returncode, re.sub("Waiting for the cluster at .*\n", "", error)) == (130, "\n")
    finally:
        process.kill()


def test_a_command_says_that_it_waits_for_the_cluster(silent, tmp_path):
    kubeconfig, _ = silent
    process = start("get", "--kubeconfig", str(kubeconfig), stdout=subprocess.PIPE, folder=tmp_path)
    try:
        assert process.stderr.readline().startswith("Waiting for the cluster at http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist; set KUBECONFIG or --kubeconfig"),
        ("clusters: [", "cannot be read"),
        ("just text", "is not valid: it must have clusters, contexts and users"),
        (CONFIG.replace("current-context: silent", "current-context: other"), "is not valid"),
    ],
)
def test_the_page_does_not_start_without_a_valid_kubeconfig(tmp_path, content, words):
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    process = start("ui", "--no-open", "--kubeconfig", str(file), stdout=subprocess.PIPE, folder=tmp_path)
    try:
        output, error = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert (process.returncode, output) == (3, "")
    assert error.startswith(f"Error: kubeconfig {file} ")
    assert words in error
    assert error.count("\n") == 1


def test_the_terminal_shows_that_the_cluster_of_the_page_is_unreachable(tmp_path):
    file = tmp_path / "config"
    file.write_text(CONFIG.replace("PORT", str(free_port())))
    process = start("ui", "--no-open", "--kubeconfig", str(file), stdout=subprocess.PIPE, folder=tmp_path)
    try:
        assert "token" in process.stderr.readline()
        line = process.stderr.readline()
        assert line.startswith("Error: the cluster at http://127.0.0.1:")
        assert "is unreachable; check that it runs" in line
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=TIMEOUT)
        assert "Traceback" not in error
    finally:
        process.kill()
