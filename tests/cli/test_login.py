"""Kubeconfigs as those of real clusters are: TLS, client certificates, and plugins that log in."""

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
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cortex_cli import get as get_command
from cortex_cli.__main__ import main

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
    """Signed by itself, as an authority, or by one."""
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
    """An API server without APIs, behind TLS: it remembers who asked, and refuses a token with "old" in it."""

    port: int
    authority: Certificate
    asked: list[str] = field(default_factory=list)

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
            shown = self.connection.getpeercert() or {}
            names = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
            who = names[0] if names else self.headers.get("authorization", "nobody")
            known.asked.append(who)
            status = 401 if "old" in who or who == "nobody" else 200
            self.send_response(status)
            self.end_headers()
            said: dict[str, Any] = {"kind": "List", "items": []} if status == 200 else {"kind": "Status"}
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *words: Any) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.handle_error = lambda *_: None  # type: ignore[method-assign] # of clients that trust it not
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    known = Server(listening.server_port, authority)
    threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
    yield known
    listening.shutdown()
    listening.server_close()


def plugin(folder: Path, program: str) -> dict[str, Any]:
    """As those of clouds: a command that says who one is, in words of the version that it is asked for."""
    file = folder / "login.py"
    file.write_text(
        "import json, os, sys\n"
        "asked = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "def answer(**status):\n"
        "    print(json.dumps({**asked, 'spec': {}, 'status': status}))\n" + program
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


def one_sentence(result: Result) -> str:
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def test_a_plugin_gives_a_token(server: Server, tmp_path: Path) -> None:
    user = plugin(tmp_path, "answer(token=f\"{os.environ['PROFILE']}-{sys.argv[1]}\")")
    result = get(server.kubeconfig(tmp_path, user))
    assert (result.exit_code, result.stdout) == (0, "No APIs in namespace models.\n")
    assert set(server.asked) == {"Bearer team-get-token"}


def test_a_plugin_gives_a_certificate(server: Server, tmp_path: Path) -> None:
    mine = certificate("eve", server.authority)
    user = plugin(tmp_path, f"answer(clientCertificateData={mine.pem!r}, clientKeyData={mine.key_pem!r})")
    result = get(server.kubeconfig(tmp_path, user))
    assert (result.exit_code, set(server.asked)) == (0, {"eve"}), result.output


def test_a_certificate_stands_in_the_kubeconfig(server: Server, tmp_path: Path) -> None:
    mine = certificate("eve", server.authority)
    user = {
        "client-certificate-data": base64.b64encode(mine.pem.encode()).decode(),
        "client-key-data": base64.b64encode(mine.key_pem.encode()).decode(),
    }
    result = get(server.kubeconfig(tmp_path, user))
    assert (result.exit_code, set(server.asked)) == (0, {"eve"}), result.output


def test_a_plugin_whose_session_is_over_is_quoted_and_nobody_is_asked(server: Server, tmp_path: Path) -> None:
    user = plugin(tmp_path, "sys.exit('The SSO session has expired.\\nTo refresh it run: cloud sso login')")
    result = get(server.kubeconfig(tmp_path, user))
    said = one_sentence(result)
    assert (result.exit_code, server.asked) == (4, [])
    assert said.startswith(f"the kubeconfig {tmp_path}/config gives no credentials: ")
    assert "The SSO session has expired. To refresh it run: cloud sso login" in said


@pytest.mark.parametrize(
    "program", ["print('no json')", "answer()", "answer(clientCertificateData='x')", "print('{}')"]
)
def test_a_plugin_that_answers_nonsense(server: Server, tmp_path: Path, program: str) -> None:
    result = get(server.kubeconfig(tmp_path, plugin(tmp_path, program)))
    assert (result.exit_code, server.asked) == (4, [])
    assert "gives no credentials: exec: " in one_sentence(result)


def test_a_token_that_the_cluster_does_not_take(server: Server, tmp_path: Path) -> None:
    result = get(server.kubeconfig(tmp_path, plugin(tmp_path, "answer(token='old')")))
    assert result.exit_code == 4
    assert "have expired or are wrong; log in again" in one_sentence(result)


def test_a_token_that_expires_meanwhile_is_fetched_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "log = __file__ + '.log'\n"
        "open(log, 'a').write('x')\n"
        "answer(token=str(os.path.getsize(log)), expirationTimestamp='2026-01-01T00:00:00Z')"
    )
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(get_command.time, "sleep", pause)
    result = get(server.kubeconfig(tmp_path, plugin(tmp_path, program)), "--watch")
    assert (result.exit_code, result.stdout.count("No APIs")) == (130, 2)
    assert len(set(server.asked)) == len(server.asked) >= 2


def test_a_cluster_that_nobody_vouches_for(server: Server, tmp_path: Path) -> None:
    other = base64.b64encode(certificate("other").pem.encode()).decode()
    config = server.kubeconfig(tmp_path, {"token": "t"}, **{"certificate-authority-data": other})
    result = get(config)
    assert (result.exit_code, server.asked) == (3, [])
    assert one_sentence(result).startswith(
        f"no trusted connection to the cluster at https://127.0.0.1:{server.port}: "
    )
    config = server.kubeconfig(tmp_path, {"token": "t"}, **{"tls-server-name": "other.example"})
    assert get(config).exit_code == 3
    config = server.kubeconfig(tmp_path, {"token": "t"}, **{"tls-server-name": "api.example"})
    assert get(config).exit_code == 0


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert get(server.kubeconfig(tmp_path, {"token": "t"})).exit_code == 0
