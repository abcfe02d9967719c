"""Files on the web: interrupted downloads continue, errors are reported, and incomplete or changed content is never used."""

import base64
import hashlib

import httpx
import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.models.disk_cache import download
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources import open_source
from cortex_runtime.models.sources.base import Changed

CONTENT = bytes(range(256)) * 12_000  # 3 MB


@pytest.fixture
def fetch(tmp_path):
    def go(location, into="out", entries=None):
        source = open_source(location, tmp_path)
        found = list(source.listing().entries) if entries is None else entries
        download(source, found, "", tmp_path / into, Progress("downloading", None))
        return tmp_path / into

    return go


def reason(caught):
    return caught.value.reason


def test_a_file_arrives_completely(web, fetch):
    web.files["/models/m.onnx"] = CONTENT
    assert (fetch(f"{web.url}/models/m.onnx?signature=1") / "m.onnx").read_bytes() == CONTENT


def test_the_log_does_not_contain_the_url_of_a_download(web, fetch, caplog):
    caplog.set_level("DEBUG")
    web.files["/m.onnx"] = CONTENT
    fetch(f"{web.url.replace('//', '//user:password@')}/m.onnx?signature=secret")
    assert "secret" not in caplog.text
    assert "password" not in caplog.text
    # A request of the handler is logged.
    httpx.get(f"{web.url}/m.onnx?mine=1")
    assert "m.onnx?mine=1" in caplog.text


@pytest.mark.parametrize("etags", [True, False])
def test_an_interrupted_download_continues_where_it_stopped(web, fetch, etags):
    web.files["/m.onnx"] = CONTENT
    web.etags = etags
    web.faults = [200, "break", "break"]
    web.faults[0] = "none"
    assert (fetch(f"{web.url}/m.onnx") / "m.onnx").read_bytes() == CONTENT
    asked = [asked for method, _, asked in web.seen if method == "GET"]
    half = len(CONTENT) // 2
    assert asked == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_a_server_without_ranges_sends_the_whole_file_again(web, fetch):
    web.files["/m.onnx"] = CONTENT
    web.ranges = False
    web.faults = ["none", "break"]
    assert (fetch(f"{web.url}/m.onnx") / "m.onnx").read_bytes() == CONTENT


def test_a_busy_server_is_retried(web, fetch):
    web.files["/m.onnx"] = CONTENT
    web.faults = [503, 429, "none", 500, 503]
    assert (fetch(f"{web.url}/m.onnx") / "m.onnx").read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_reported(web, fetch):
    web.files["/m.onnx"] = CONTENT
    web.faults = [503] * 20
    with pytest.raises(StartError, match=r"/m.onnx: the server responded 503 .* \(4 attempts\)") as caught:
        fetch(f"{web.url}/m.onnx")
    assert reason(caught) == "ModelUnavailable"


def test_a_missing_server_is_reported(web, fetch):
    with pytest.raises(StartError) as caught:
        fetch("http://127.0.0.1:1/m.onnx")
    assert reason(caught) == "ModelUnavailable"


@pytest.mark.parametrize(
    ("status", "expected"), [(404, "ModelNotFound"), (410, "ModelNotFound"), (403, "ModelAccessDenied")]
)
def test_permanent_errors_are_reported_at_once(web, fetch, status, expected):
    web.faults = [status, status]
    with pytest.raises(StartError) as caught:
        fetch(f"{web.url}/m.onnx?secret=1")
    assert reason(caught) == expected
    assert "secret" not in caught.value.message
    assert len(web.seen) <= 2


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_url_that_allows_get_alone_works(web, fetch, status):
    web.files["/m.onnx"] = CONTENT
    web.head = status
    assert (fetch(f"{web.url}/m.onnx") / "m.onnx").read_bytes() == CONTENT


def test_content_with_a_wrong_checksum_is_fetched_again_and_then_refused(web, fetch):
    web.files["/m.onnx"] = CONTENT
    web.headers["Content-MD5"] = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    web.faults = ["none", "lie"]
    assert (fetch(f"{web.url}/m.onnx") / "m.onnx").read_bytes() == CONTENT
    web.faults = ["none", *["lie"] * 20]
    with pytest.raises(StartError, match=r"checksum \(MD5\) of the response is wrong"):
        fetch(f"{web.url}/m.onnx", "again")


def test_a_file_that_changed_after_the_listing_is_not_used(web, fetch, tmp_path):
    web.files["/m.onnx"] = CONTENT
    entries = list(open_source(f"{web.url}/m.onnx", tmp_path).listing().entries)
    web.files["/m.onnx"] = CONTENT[::-1]
    with pytest.raises(Changed):
        fetch(f"{web.url}/m.onnx", entries=entries)


def test_the_file_name_of_the_server_is_used(web, tmp_path):
    web.files["/download"] = b"x"
    web.headers["Content-Disposition"] = 'attachment; filename="../../m.onnx"'
    listing = open_source(f"{web.url}/download", tmp_path).listing()
    assert [entry.name for entry in listing.entries] == ["m.onnx"]


def test_a_download_of_unknown_length_succeeds(web, fetch):
    web.files["/m.onnx"] = CONTENT
    web.lengths = False
    assert (fetch(f"{web.url}/m.onnx") / "m.onnx").read_bytes() == CONTENT


def test_a_folder_on_the_web_is_refused(web, tmp_path):
    with pytest.raises(StartError, match="must be the URL of a file") as caught:
        open_source(f"{web.url}/models/", tmp_path)
    assert reason(caught) == "InvalidSpec"
