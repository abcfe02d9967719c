"""Buckets, on a real S3 server."""

import hashlib
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.models.disk_cache import download
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources import open_source
from cortex_runtime.models.sources.base import Changed
from tests.runtime.models.local_http import serving

LARGE = bytes(range(256)) * 40_000  # 10 MB: more than one chunk of the server's


@pytest.fixture
def fetch(tmp_path):
    def go(location, into="out", entries=None):
        source = open_source(location, tmp_path)
        found = source.listing().entries
        download(
            source,
            list(found if entries is None else entries),
            "",
            tmp_path / into,
            Progress("downloading", None),
        )
        return tmp_path / into

    return go


def listed(location, tmp_path):
    listing = open_source(location, tmp_path).listing()
    return listing.is_file, {entry.name: entry.size for entry in listing.entries}


def test_a_prefix_with_folders_arrives_completely(s3, fetch):
    s3.put("arrives", {"m/1/model.onnx": LARGE, "m/2/a/b.bin": b"2", "m2/other": b"", "m/empty": b""})
    for slash in ("", "/"):
        out = fetch(f"s3://arrives/m{slash}", f"out{len(slash)}")
        found = {
            path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()
        }
        assert found == {"1/model.onnx": LARGE, "2/a/b.bin": b"2", "empty": b""}


def test_one_object(s3, tmp_path, fetch):
    s3.put("object", {"deep/m.onnx": b"123", "deep/m.onnx.bak": b"1", "deep/m/1/x": b"12"})
    assert listed("s3://object/deep/m.onnx", tmp_path) == (True, {"m.onnx": 3})
    assert listed("s3://object/deep/m", tmp_path) == (False, {"1/x": 2})
    assert (fetch("s3://object/deep/m.onnx") / "m.onnx").read_bytes() == b"123"


def test_a_part_of_a_prefix(s3, tmp_path):
    s3.put("parts", {"all/a/1/x": b"1", "all/a/10/x": b"10", "all/b/1/x": b"b"})
    source = open_source("s3://parts/all", tmp_path)
    assert [entry.name for entry in source.listing("a/1/").entries] == ["a/1/x"]
    assert source.listing("a/2/").entries == ()
    assert len(source.listing().entries) == 3


def test_more_objects_than_one_page_holds(s3, tmp_path):
    # The page size of the protocol is 1,000; a smaller one has the same effect.
    s3.put("pages", {f"m/{i:03}": b"x" for i in range(25)})
    source = open_source("s3://pages/m", tmp_path)
    ask = source._call
    source._call = lambda operation, **arguments: ask(operation, **{"MaxKeys": 10, **arguments})
    assert len(source.listing().entries) == 25


def test_missing_models_are_reported(s3, tmp_path):
    s3.put("there", {"m/x": b"1"})
    for location, words in (
        ("s3://there/nothing", "s3://there/nothing does not exist"),
        ("s3://no-bucket/m", "bucket no-bucket does not exist"),
    ):
        with pytest.raises(StartError, match=words) as caught:
            open_source(location, tmp_path).listing()
        assert caught.value.reason == "ModelNotFound"


@pytest.mark.parametrize("key", ["reader", "unknown"])
def test_denied_access_is_reported_with_a_remedy(s3, tmp_path, monkeypatch, key):
    s3.put("closed", {"m/x": b"1"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader-secret")
    for location in ("s3://closed/m", "s3://closed/m/x", "s3://closed/"):
        with pytest.raises(StartError) as caught:
            open_source(location, tmp_path).listing()
        assert caught.value.reason == "ModelAccessDenied"
        assert "AWS_ACCESS_KEY_ID" in caught.value.message


def test_read_access_without_list_access_is_enough_for_an_object(s3, fetch, monkeypatch):
    s3.put("shared", {"m.onnx": b"123"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader-secret")
    assert (fetch("s3://shared/m.onnx") / "m.onnx").read_bytes() == b"123"


def test_an_object_that_changed_after_the_listing_is_not_used(s3, fetch, tmp_path):
    s3.put("changes", {"m/x": b"old"})
    entries = open_source("s3://changes/m", tmp_path).listing().entries
    s3.put("changes", {"m/x": b"new"})
    with pytest.raises(Changed):
        fetch("s3://changes/m", entries=entries)


class Between(BaseHTTPRequestHandler):
    """Forwards requests to the S3 server, except the next ones, which have the faults of the test."""

    protocol_version = "HTTP/1.1"
    faults: list
    upstream: str
    seen: list

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.seen.append(self.headers.get("range"))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            self.send_response(fault)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        # The signature contains the Host header of the client.
        answer = httpx.get(self.upstream + self.path, headers=dict(self.headers))
        content = answer.content
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        if fault == "break":
            content, self.close_connection = content[: len(content) // 2], True
        elif fault == "lie":
            content = bytes(len(content))
        self.wfile.write(content)

    do_HEAD = do_GET


@pytest.fixture
def between(s3, monkeypatch):
    """A proxy to the S3 server that loses requests."""
    handler = type("Handler", (Between,), {"faults": [], "upstream": s3.server.url, "seen": []})
    with serving(handler) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield handler


def test_an_interrupted_download_continues_where_it_stopped(s3, between, fetch):
    s3.put("breaks", {"m.bin": LARGE})
    between.faults += [None, "break", 503, "break"]
    out = fetch("s3://breaks/m.bin")
    assert hashlib.md5((out / "m.bin").read_bytes()).digest() == hashlib.md5(LARGE).digest()
    half = len(LARGE) // 2
    assert between.seen == [None, None, f"bytes={half}-", f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_content_with_a_wrong_checksum_is_fetched_again_and_then_refused(s3, between, fetch):
    s3.put("lies", {"m.bin": b"the content" * 1000})
    between.faults += [None, "lie"]
    assert (fetch("s3://lies/m.bin") / "m.bin").read_bytes() == b"the content" * 1000
    between.faults += [None, *["lie"] * 20]
    with pytest.raises(StartError, match="checksum"):
        fetch("s3://lies/m.bin", "again")


def test_a_server_that_stays_busy_is_reported(s3, between, tmp_path):
    s3.put("busy", {"m.bin": b"1"})
    between.faults += [503] * 20
    with pytest.raises(StartError, match=r"s3://busy/m.bin: .*SlowDown.*attempts") as caught:
        open_source("s3://busy/m.bin", tmp_path).listing()
    assert caught.value.reason == "ModelUnavailable"
    between.faults[:] = [503, 503]
    assert len(open_source("s3://busy/m.bin", tmp_path).listing().entries) == 1
