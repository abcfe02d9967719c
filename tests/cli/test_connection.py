"""One-line errors and exit codes for invalid kubeconfigs, expired credentials, and unreachable or forbidden clusters."""

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


def test_kubectl_runs_the_plugin(tmp_path):
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
    assert (done.returncode, done.stderr.startswith(f"Error: kubeconfig {tmp_path}/none")) == (3, True)


@pytest.fixture
def refusing(tmp_path):
    """Return a function that starts an API server with a fixed error status and returns its kubeconfig."""
    servers = []

    def start(status: int, message: str):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                content = {"kind": "Status", "apiVersion": "v1", "code": status, "message": message}
                self.wfile.write(json.dumps(content).encode())

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


def invoke(command, file):
    return CliRunner().invoke(main, [*command, "--kubeconfig", str(file)])


def error_line(result) -> str:
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_kubeconfig(tmp_path, command):
    result = invoke(command, tmp_path / "none")
    assert result.exit_code == 3
    assert error_line(result).startswith(
        f"kubeconfig {tmp_path}/none does not exist; set KUBECONFIG or --kubeconfig"
    )


@pytest.mark.parametrize("content", ["", "a: [", "a: 1", "- 1", "contexts: []\nclusters: []\nusers: []\n"])
def test_invalid_kubeconfig(tmp_path, content):
    (tmp_path / "config").write_text(content)
    result = invoke(["get"], tmp_path / "config")
    assert result.exit_code == 3
    assert error_line(result).startswith(
        (f"kubeconfig {tmp_path}/config cannot be read", f"kubeconfig {tmp_path}/config is not valid")
    )


def test_unknown_context(tmp_path):
    file = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    result = invoke(["get", "--context", "other"], file)
    assert (result.exit_code, "other" in error_line(result)) == (3, True)


def test_unreachable_cluster(tmp_path):
    result = invoke(["get"], kubeconfig(tmp_path / "config", "http://127.0.0.1:1"))
    assert result.exit_code == 3
    assert error_line(result).startswith("the cluster at http://127.0.0.1:1 is unreachable")


@pytest.mark.parametrize("command", COMMANDS)
def test_expired_credentials(refusing, command):
    result = invoke(command, refusing(401, "Unauthorized"))
    assert result.exit_code == 4
    assert "(401): the credentials in the kubeconfig are invalid or have expired; log in again" in error_line(
        result
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_forbidden(refusing, command):
    message = 'realtimeapis.cortex.dev is forbidden: User "eve" cannot list resource'
    result = invoke(command, refusing(403, message))
    assert (result.exit_code, error_line(result)) == (4, f"permission denied (403): {message}")


def test_error_of_a_missing_credential_plugin_names_it(tmp_path, refusing):
    server = yaml.safe_load(refusing(401, "").read_text())["clusters"][0]["cluster"]["server"]
    plugin = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}}
    result = invoke(["get"], kubeconfig(tmp_path / "exec", server, plugin))
    assert (result.exit_code, "no-such-plugin" in error_line(result)) == (4, True)


def test_cluster_without_cortex(refusing):
    result = invoke(["get"], refusing(404, "the server could not find the requested resource"))
    assert result.exit_code == 1
    assert error_line(result).startswith("Cortex is not installed in this cluster")
