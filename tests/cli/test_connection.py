"""A kubeconfig that is missing, broken, expired, or of a cluster that is gone or forbids: one sentence, and an exit code."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
import yaml
from click.testing import CliRunner

from cortex_cli.__main__ import main

from .conftest import KUBECTL

COMMANDS = (["get"], ["predict", "iris", "{}"], ["logs", "iris"], ["doctor"])


def kubeconfig(path, server: str, user: dict | None = None):
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_kubectl_finds_it_as_its_plugin(tmp_path):
    plugin = tmp_path / "kubectl-cortex"
    plugin.write_text(f"#!{sys.executable}\nfrom cortex_cli.__main__ import plugin\nplugin()\n")
    plugin.chmod(0o755)
    done = subprocess.run(
        [str(KUBECTL), "cortex", "get", "--kubeconfig", str(tmp_path / "none")],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.startswith("Error: there is no kubeconfig at")) == (3, True)


@pytest.fixture
def refusing(tmp_path):
    """A kubeconfig of an API server that answers everything with a status."""
    servers = []

    def start(status: int, message: str):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                said = {"kind": "Status", "apiVersion": "v1", "code": status, "message": message}
                self.wfile.write(json.dumps(said).encode())

            def log_message(self, *words):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return kubeconfig(tmp_path / "config", f"http://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(command, file):
    return CliRunner().invoke(main, [*command, "--kubeconfig", str(file)])


def one_sentence(result) -> str:
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_missing(tmp_path, command):
    result = ask(command, tmp_path / "none")
    assert result.exit_code == 3
    assert one_sentence(result).startswith(
        f"there is no kubeconfig at {tmp_path}/none: set KUBECONFIG or --kubeconfig"
    )


@pytest.mark.parametrize("content", ["", "a: [", "a: 1", "- 1", "contexts: []\nclusters: []\nusers: []\n"])
def test_broken(tmp_path, content):
    (tmp_path / "config").write_text(content)
    result = ask(["get"], tmp_path / "config")
    assert result.exit_code == 3
    assert one_sentence(result).startswith(f"the kubeconfig {tmp_path}/config can't be")


def test_a_context_that_is_not_in_it(tmp_path):
    file = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    result = ask(["get", "--context", "other"], file)
    assert (result.exit_code, "other" in one_sentence(result)) == (3, True)


def test_a_cluster_that_is_gone(tmp_path):
    result = ask(["get"], kubeconfig(tmp_path / "config", "http://127.0.0.1:1"))
    assert result.exit_code == 3
    assert one_sentence(result).startswith("the cluster at http://127.0.0.1:1 can't be reached")


@pytest.mark.parametrize("command", COMMANDS)
def test_expired(refusing, command):
    result = ask(command, refusing(401, "Unauthorized"))
    assert result.exit_code == 4
    assert "(401): the credentials in the kubeconfig have expired or are wrong; log in again" in one_sentence(
        result
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_forbidden(refusing, command):
    said = 'realtimeapis.cortex.dev is forbidden: User "eve" cannot list resource'
    result = ask(command, refusing(403, said))
    assert (result.exit_code, one_sentence(result)) == (4, f"you may not do this (403): {said}")


def test_a_plugin_that_fails_is_named(tmp_path, refusing):
    server = yaml.safe_load(refusing(401, "").read_text())["clusters"][0]["cluster"]["server"]
    plugin = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}}
    result = ask(["get"], kubeconfig(tmp_path / "exec", server, plugin))
    assert (result.exit_code, "no-such-plugin" in one_sentence(result)) == (4, True)


def test_a_cluster_without_cortex(refusing):
    result = ask(["get"], refusing(404, "the server could not find the requested resource"))
    assert result.exit_code == 1
    assert one_sentence(result).startswith("this cluster knows no RealtimeAPIs and AsyncAPIs")
