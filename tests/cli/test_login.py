"""Kubeconfigs of real clusters: TLS, client certificates and credential plugins."""

import base64
import datetime
import http.server
import ipaddress
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cortex_cli.__main__ import main
from cortex_cli.commands import get as get_command

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        plain = serialization.PrivateFormat.PKCS8
        encoding, secret = serialization.Encoding.PEM, serialization.NoEncryption()
        return self.key.private_bytes(encoding, plain, secret).decode()


def certificate(name: str, signer: Certificate | None = None, *alternatives: x509.GeneralName) -> Certificate:
    """Create a certificate: self-signed (a CA), or signed by a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return Certificate(builder.sign(signer.key if signer else key, hashes.SHA256()), key)


@dataclass
class Server:
    """An empty API server with TLS. It records the users of requests, and rejects users that contain "old"."""

    port: int
    authority: Certificate
    users: list[str] = field(default_factory=list)

    def kubeconfig(self, folder: Path, user: dict[str, Any], **cluster: Any) -> Path:
        trusted = {"certificate-authority-data": base64.b64encode(self.authority.pem.encode()).decode()}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": f"https://127.0.0.1:{self.port}", **trusted, **cluster}}
            ],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "models"}}],
            "current-context": "x",
        }
        (folder / "config").write_text(yaml.safe_dump(content))
        return folder / "config"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    authority = certificate("cluster")
    own = certificate(
        "api", authority, x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("api.example")
    )
    (tmp_path / "server.pem").write_text(own.pem + own.key_pem)
    (tmp_path / "authority.pem").write_text(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(tmp_path / "authority.pem")
    context.verify_mode = ssl.CERT_OPTIONAL

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            client = self.connection.getpeercert() or {}
            names = [
                value for part in client.get("subject", ()) for key, value in part if key == "commonName"
            ]
            user = names[0] if names else self.headers.get("authorization", "anonymous")
            server.users.append(user)
            status = 401 if "old" in user or user == "anonymous" else 200
            self.send_response(status)
            self.end_headers()
            content: dict[str, Any] = {"kind": "List", "items": []} if status == 200 else {"kind": "Status"}
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *words: Any) -> None:
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Clients that do not trust the certificate close the connection.
    http_server.handle_error = lambda *_: None  # type: ignore[method-assign]
    http_server.socket = context.wrap_socket(http_server.socket, server_side=True)
    server = Server(http_server.server_port, authority)
    threading.Thread(target=http_server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    http_server.shutdown()
    http_server.server_close()


def plugin(folder: Path, program: str) -> dict[str, Any]:
    """Return a user with a credential plugin like those of cloud providers. The program calls `answer`."""
    file = folder / "login.py"
    file.write_text(
        "import json, os, sys\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "def answer(**status):\n"
        "    print(json.dumps({**info, 'spec': {}, 'status': status}))\n" + program
    )
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(file), "get-token"],
            "env": [{"name": "PROFILE", "value": "team"}],
            "interactiveMode": "IfAvailable",
        }
    }


def get(config: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["get", *words, "--kubeconfig", str(config)])


def error_line(result: Result) -> str:
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def test_plugin_returns_a_token(server: Server, tmp_path: Path) -> None:
    user = plugin(tmp_path, "answer(token=f\"{os.environ['PROFILE']}-{sys.argv[1]}\")")
    result = get(server.kubeconfig(tmp_path, user))
    assert (result.exit_code, result.stdout) == (0, "No APIs in namespace models.\n")
    assert set(server.users) == {"Bearer team-get-token"}


def test_plugin_returns_a_certificate(server: Server, tmp_path: Path) -> None:
    client = certificate("eve", server.authority)
    user = plugin(tmp_path, f"answer(clientCertificateData={client.pem!r}, clientKeyData={client.key_pem!r})")
    result = get(server.kubeconfig(tmp_path, user))
    assert (result.exit_code, set(server.users)) == (0, {"eve"}), result.output


def test_kubeconfig_contains_a_certificate(server: Server, tmp_path: Path) -> None:
    client = certificate("eve", server.authority)
    user = {
        "client-certificate-data": base64.b64encode(client.pem.encode()).decode(),
        "client-key-data": base64.b64encode(client.key_pem.encode()).decode(),
    }
    result = get(server.kubeconfig(tmp_path, user))
    assert (result.exit_code, set(server.users)) == (0, {"eve"}), result.output


def test_error_of_a_plugin_is_shown_and_no_request_is_sent(server: Server, tmp_path: Path) -> None:
    user = plugin(tmp_path, "sys.exit('The SSO session has expired.\\nTo refresh it run: cloud sso login')")
    result = get(server.kubeconfig(tmp_path, user))
    error = error_line(result)
    assert (result.exit_code, server.users) == (4, [])
    assert error.startswith(f"no credentials from kubeconfig {tmp_path}/config: ")
    assert "The SSO session has expired. To refresh it run: cloud sso login" in error


@pytest.mark.parametrize(
    "program", ["print('no json')", "answer()", "answer(clientCertificateData='x')", "print('{}')"]
)
def test_plugin_with_invalid_output(server: Server, tmp_path: Path, program: str) -> None:
    result = get(server.kubeconfig(tmp_path, plugin(tmp_path, program)))
    assert (result.exit_code, server.users) == (4, [])
    assert f"no credentials from kubeconfig {tmp_path}/config: exec: " in error_line(result)


def test_rejected_token(server: Server, tmp_path: Path) -> None:
    result = get(server.kubeconfig(tmp_path, plugin(tmp_path, "answer(token='old')")))
    assert result.exit_code == 4
    assert "are invalid or have expired; log in again" in error_line(result)


def test_expired_token_is_renewed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "log = __file__ + '.log'\n"
        "open(log, 'a').write('x')\n"
        "answer(token=str(os.path.getsize(log)), expirationTimestamp='2026-01-01T00:00:00Z')"
    )
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(get_command, "time", SimpleNamespace(sleep=pause))
    result = get(server.kubeconfig(tmp_path, plugin(tmp_path, program)), "--watch")
    assert (result.exit_code, result.stdout.count("No APIs")) == (130, 2)
    assert len(set(server.users)) == len(server.users) >= 2


def test_cluster_with_an_untrusted_certificate(server: Server, tmp_path: Path) -> None:
    other = base64.b64encode(certificate("other").pem.encode()).decode()
    config = server.kubeconfig(tmp_path, {"token": "t"}, **{"certificate-authority-data": other})
    result = get(config)
    assert (result.exit_code, server.users) == (3, [])
    assert error_line(result).startswith(
        f"TLS connection to the cluster at https://127.0.0.1:{server.port} failed: "
    )
    config = server.kubeconfig(tmp_path, {"token": "t"}, **{"tls-server-name": "other.example"})
    assert get(config).exit_code == 3
    config = server.kubeconfig(tmp_path, {"token": "t"}, **{"tls-server-name": "api.example"})
    assert get(config).exit_code == 0


def test_environment_proxy_is_not_used_for_loopback_addresses(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert get(server.kubeconfig(tmp_path, {"token": "t"})).exit_code == 0
