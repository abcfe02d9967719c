"""handler.apiKeys: a request without a valid key gets 401 before its body is read; keys change without a restart."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cortex_api.contract import API_KEYS_VARIABLE
from cortex_runtime.errors import StartError
from cortex_runtime.http.api_keys import ApiKeys

from ..conftest import PLAIN, Replica

ECHO = "class Handler:\n    def handle_post(self, payload):\n        return payload\n"
KEYS = {"secret": {"name": "keys"}}


def mount(folder: Path, keys: dict[str, str]) -> None:
    """Write keys into a folder like a kubelet: files are links through ..data, which is replaced as a whole."""
    content = folder / f"..{len(list(folder.glob('..2*')))}".replace("..", "..2")
    content.mkdir(parents=True)
    for name, key in keys.items():
        (content / name).write_text(key)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    (folder / "..new").symlink_to(content.name)
    os.replace(folder / "..new", folder / "..data")
    for link in folder.iterdir():
        if not link.name.startswith("..") and link.name not in keys:
            link.unlink()


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()}


def test_several_keys_are_valid_and_both_headers_carry_them(tmp_path: Path) -> None:
    mount(tmp_path, {"old": "one\n", "new": " two ", "empty": "\n"})
    keys = ApiKeys(tmp_path, "iris", "keys")
    for key in ("one", "two"):
        assert keys.admits(bearer(key))
        assert keys.admits({b"x-api-key": key.encode()})
        assert keys.admits({b"authorization": f"bearer  {key}".encode()})
        assert keys.admits({b"authorization": b"Basic abc", b"x-api-key": key.encode()})
    for headers in (
        {},
        bearer(""),
        bearer("three"),
        bearer("on"),
        bearer("onee"),
        {b"x-api-key": b""},
        {b"authorization": b"one"},
        {b"authorization": b"Basic one"},
        {b"x-api-key": b"\xff\x00"},
    ):
        assert not keys.admits(headers)
    assert keys.challenge == (b"www-authenticate", b'Bearer realm="iris"')


@pytest.mark.parametrize("keys", [None, {}, {"a": ""}])
def test_an_api_without_a_valid_key_does_not_start(tmp_path: Path, keys: dict[str, str] | None) -> None:
    if keys is not None:
        mount(tmp_path / "keys", keys)
    with pytest.raises(StartError, match=r"handler\.apiKeys.* Secret my-keys ") as caught:
        ApiKeys(tmp_path / "keys", "iris", "my-keys")
    assert caught.value.reason == "InvalidSpec"


def test_keys_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cortex_runtime.http.api_keys.CHECK_SECONDS", 0.0)
    mount(tmp_path, {"a": "one"})
    keys = ApiKeys(tmp_path, "iris", "keys")
    mount(tmp_path, {"a": "one", "b": "two"})
    assert keys.admits(bearer("one"))
    assert keys.admits(bearer("two"))
    mount(tmp_path, {"b": "two"})
    assert not keys.admits(bearer("one"))
    assert keys.admits(bearer("two"))
    mount(tmp_path, {})
    assert not keys.admits(bearer("two"))
    mount(tmp_path, {"b": "three"})
    assert keys.admits(bearer("three"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mounted"
    mount(folder, {"a": "first-key"})
    monkeypatch.setenv(API_KEYS_VARIABLE, str(folder))
    return folder


def test_a_replica_requires_a_key_and_explains_how_to_send_it(
    serve: Callable[..., Replica], folder: Path
) -> None:
    replica = serve(ECHO, apiKeys=KEYS)
    shown = {"authorization": "Bearer first-key"}
    assert replica.post({"a": 1}, headers=shown).json() == {"a": 1}
    assert PLAIN.get(f"{replica.url}/info", headers={"x-api-key": "first-key"}).status_code == 200

    refused = replica.post({"a": 1}, headers={"authorization": "Bearer not-it", "x-request-id": "abc"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="tested"'
    assert refused.json()["requestId"] == "abc"
    assert "X-API-Key" in refused.json()["error"]
    for answer in (replica.post({}), PLAIN.get(f"{replica.url}/info"), PLAIN.get(f"{replica.url}/nowhere")):
        assert answer.status_code == 401
    with httpx.Client(
        trust_env=False
    ) as client:  # One connection: the body of a refused request is not part of the next one.
        assert client.post(replica.url, content=b"x" * 200_000).status_code == 401
        assert client.post(replica.url, json=[1], headers=shown).json() == [1]

    assert PLAIN.get(f"{replica.admin}/readyz").status_code == 200
    assert replica.wait_metric('cortex_requests_total{method="POST",status="401"}', 3) == 3
    assert replica.wait_metric('cortex_requests_total{method="POST",status="200"}', 2) == 2
    assert "first-key" not in replica.log.read_text()
    assert "not-it" not in replica.log.read_text()

    mount(folder, {"b": "second-key"})
    replica.until(lambda: replica.post({}, headers={"x-api-key": "second-key"}).status_code == 200)
    assert replica.post({}, headers=shown).status_code == 401


def test_the_body_of_a_request_without_a_key_is_not_waited_for(
    serve: Callable[..., Replica], folder: Path
) -> None:
    replica = serve(ECHO, apiKeys=KEYS)
    with socket.create_connection(("127.0.0.1", replica.port), timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_a_replica_without_keys_reports_the_missing_secret(
    serve: Callable[..., Replica], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(API_KEYS_VARIABLE, str(tmp_path / "nothing"))
    replica = serve(ECHO, apiKeys=KEYS, wait=False)
    reason, message = replica.cause_of_death()
    assert reason == "InvalidSpec"
    assert "handler.apiKeys" in message
