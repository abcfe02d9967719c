"""handler.source.uri: the project is fetched, and nobody's own files are touched."""

import io
import tarfile
import threading
import zipfile

import httpx
import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.models.progress import Stopped
from cortex_runtime.models.project import fetch_source

FILES = {"handler.py": b"x = 1", "lib/util.py": b"y = 2", ".env": b"A=1"}


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def tarred(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def files_in(folder):
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != ".cortex-source"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_prefix_in_a_bucket(s3, tmp_path):
    s3.put("code", {f"app/{name}": content for name, content in FILES.items()})
    fetch_source("s3://code/app", tmp_path / "project", tmp_path)
    assert files_in(tmp_path / "project") == FILES


@pytest.mark.parametrize(("name", "pack"), [("app.zip", zipped), ("app.tar.gz", tarred), ("app.tgz", tarred)])
def test_an_archive(web, tmp_path, name, pack):
    web.files[f"/{name}"] = pack(FILES)
    fetch_source(f"{web.url}/{name}", tmp_path / "project", tmp_path)
    assert files_in(tmp_path / "project") == FILES


def test_a_folder_on_this_machine(tmp_path, write):
    write(tmp_path / "code", FILES)
    for uri in ("code", f"file://{tmp_path}/code"):
        fetch_source(uri, tmp_path / "project", tmp_path)
        assert files_in(tmp_path / "project") == FILES


def test_what_is_fetched_again_replaces_what_was_fetched_before(web, tmp_path):
    web.files["/app.zip"] = zipped(FILES)
    fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    web.files["/app.zip"] = zipped({"handler.py": b"x = 2"})
    fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    assert files_in(tmp_path / "project") == {"handler.py": b"x = 2"}


@pytest.mark.parametrize("broken", [[404] * 3, [503] * 20])
def test_what_can_not_be_had_leaves_what_is_there(web, tmp_path, broken):
    web.files["/app.zip"] = zipped(FILES)
    fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    web.faults += broken
    with pytest.raises(StartError, match=r"handler\.source\.uri") as caught:
        fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    assert caught.value.reason == "SourceUnavailable"
    assert files_in(tmp_path / "project") == FILES


def test_an_archive_that_would_leave_the_folder_leaves_nothing(web, tmp_path):
    web.files["/app.zip"] = zipped({"handler.py": b"", "../evil.py": b""})
    with pytest.raises(StartError, match="outside of the folder"):
        fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    assert files_in(tmp_path) == {}


def test_nobodys_own_files_are_replaced(web, tmp_path, write):
    web.files["/app.zip"] = zipped(FILES)
    write(tmp_path / "mine", {"handler.py": "precious"})
    with pytest.raises(StartError, match="holds other files"):
        fetch_source(f"{web.url}/app.zip", tmp_path / "mine", tmp_path)
    assert files_in(tmp_path / "mine") == {"handler.py": b"precious"}


def test_a_stop_ends_it(web, tmp_path):
    web.faults += [503] * 20
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path, stop)


HANDLER = b"""
from lib.words import WORD
class Handler:
    def handle_get(self):
        return WORD
"""


def test_a_replica_serves_fetched_code(serve, s3):
    s3.put("code", {"served/handler.py": HANDLER, "served/lib/words.py": b"WORD = 'fetched'"})
    api = serve("raise SystemExit('not this one')", source={"uri": "s3://code/served/"})
    assert httpx.get(api.url).text == "fetched"
    assert (api.project / "handler.py").read_text() == "raise SystemExit('not this one')"


def test_code_that_is_not_there_is_the_cause_of_death(serve, s3):
    s3.put("code", {"served/x": b""})
    api = serve(None, wait=False, source={"uri": "s3://code/missing/"})
    reason, message = api.cause_of_death()
    assert (reason, "nothing at s3://code/missing/" in message) == ("SourceUnavailable", True)
