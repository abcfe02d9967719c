"""The folder of models follows the locations of the spec, and valid models stay if a change is invalid."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cortex_api import Document, parse
from cortex_runtime.errors import StartError, UserError
from cortex_runtime.models import disk_cache
from cortex_runtime.models.repository import LoadFailed, ModelRepository
from cortex_runtime.models.sources import local
from cortex_runtime.models.sync import ModelSync


def document(kind, models):
    handler = {"type": kind, "path": "handler.py", "models": models}
    manifest = {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": "RealtimeAPI",
        "metadata": {"name": "tested", "namespace": "default"},
        "spec": {"handler": handler},
    }
    return Document.of(parse(manifest))


class Replica:
    """The supervisor's side and the worker's side of one folder of models."""

    def __init__(self, folder: Path, kind: str, **models):
        self.project = folder / "project"
        self.project.mkdir(exist_ok=True)
        self.models = folder / "models"
        self.document = document(kind, models)
        self.sync = ModelSync(self.document, self.models, self.project)

    def start(self) -> ModelRepository:
        self.sync.start()
        self.store = ModelRepository.open(self.document.spec.handler, self.models, self.project)
        return self.store

    def poll(self) -> bool:
        changed = self.sync.poll()
        assert changed == self.store.refresh()
        return changed

    def on_disk(self) -> list[str]:
        """Return the downloaded files, complete or not, without their stamps."""
        if not self.models.exists():
            return []
        found = [path.relative_to(self.models) for path in self.models.rglob("*") if path.is_file()]
        parts = [path.parts for path in found if path.parts[0] != ".locks" and path.suffix != ".json"]
        return sorted("/".join((first, *rest)) for first, _, *rest in parts)


@pytest.fixture
def replica(tmp_path):
    return lambda kind="onnx", **models: Replica(tmp_path, kind, **models)


def zipped(entries):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_a_bucket_with_versions(s3, replica):
    s3.put("versions", {"m/1/a.onnx": b"1", "m/2/a.onnx": b"2", "m/10/a.onnx": b"10"})
    api = replica(path="s3://versions/m/")
    store = api.start()
    assert (store.names(), store.versions("_cortex_default")) == (["_cortex_default"], [1, 2, 10])
    for asked, number in ((None, 10), ("latest", 10), ("", 10), ("2", 2), (1, 1)):
        found = store.find("any name", asked)
        assert (found.version, (found.path / "a.onnx").read_text()) == (number, str(number))
        assert found.path.name == str(number)
    with pytest.raises(UserError, match=r"version 3 .* \(available: 1, 2, 10\)") as caught:
        store.find(None, 3)
    assert caught.value.status == 404
    for wrong in ("newest", "-1", "1.5", [1]):
        with pytest.raises(UserError, match="must be a number or 'latest'") as caught:
            store.find(None, wrong)
        assert caught.value.status == 400


def test_a_new_version_is_latest_until_it_is_removed(s3, replica):
    s3.put("live", {"m/1/a.onnx": b"1"})
    api = replica(path="s3://live/m")
    store = api.start()
    assert not api.poll()
    s3.put("live", {"m/2/a.onnx": b"2"})
    assert api.poll()
    assert store.find(None, None).version == 2
    s3.remove("live", "m/2/")
    assert api.poll()
    assert store.find(None, None).version == 1
    before = store.find(None, None)
    s3.put("live", {"m/1/a.onnx": b"changed"})
    assert api.poll()
    after = store.find(None, None)
    assert (after.path / "a.onnx").read_bytes() == b"changed"
    assert after.stamp != before.stamp
    # A reader of the old version is not affected.
    assert (before.path / "a.onnx").read_bytes() == b"1"


def test_an_invalid_change_is_reported_and_the_previous_model_stays(s3, replica):
    s3.put("bad", {"m/1/a.onnx": b"1"})
    api = replica(paths=[{"name": "iris", "path": "s3://bad/m"}])
    store = api.start()
    s3.put("bad", {"m/readme.txt": b"oops"})
    assert api.poll()
    assert "contains both versions (1) and other entries (readme.txt)" in store.problems()["iris"]
    assert store.find("iris", None).version == 1
    s3.remove("bad", "m/readme.txt")
    s3.put("bad", {"m/2/a.txt": b"no model"})
    assert api.poll()
    assert list(store.problems()) == ["iris 2"]
    assert store.find("iris", None).version == 1
    s3.put("bad", {"m/1/b.onnx": b"a second one"})
    assert api.poll()
    assert list(store.problems()) == ["iris"]
    assert (store.find("iris", 1).path / "a.onnx").read_bytes() == b"1"
    s3.remove("bad", "m/")
    assert api.poll()
    assert "s3://bad/m does not exist" in store.problems()["iris"]
    assert store.find("iris", None).version == 1
    s3.put("bad", {"m/3/a.onnx": b"3"})
    assert api.poll()
    assert (store.find("iris", None).version, store.problems()) == (3, {})
    assert api.sync.failures["iris"] == 4


def test_a_temporarily_unavailable_server_changes_nothing(web, replica):
    web.files["/m.onnx"] = b"1"
    api = replica(path=f"{web.url}/m.onnx")
    store = api.start()
    assert store.find(None, None).path.read_bytes() == b"1"
    web.faults += [503] * 20
    assert api.poll()
    assert "503" in store.problems()["model"]
    assert store.find(None, None).path.read_bytes() == b"1"
    web.faults.clear()
    assert api.poll()
    assert store.problems() == {}


def test_a_change_whose_download_fails_is_used_later(web, replica):
    web.files["/m.onnx"] = b"1" * 1000
    api = replica(path=f"{web.url}/m.onnx")
    store = api.start()
    web.files["/m.onnx"] = b"2" * 2000
    web.faults += ["none", "none", *[500] * 8]
    assert api.poll()
    assert "500" in "".join(store.problems().values())
    assert store.find(None, None).path.read_bytes() == b"1" * 1000
    web.faults.clear()
    assert api.poll()
    assert store.find(None, None).path.read_bytes() == b"2" * 2000


def test_no_partial_files_remain_if_a_download_fails_at_the_start(web, replica):
    web.files["/m.onnx"] = bytes(3_000_000)
    web.faults += ["none", "none", "break", *[503] * 20]
    api = replica(path=f"{web.url}/m.onnx")
    with pytest.raises(StartError, match="503") as caught:
        api.start()
    assert caught.value.reason == "ModelUnavailable"
    assert api.on_disk() == []


def test_a_folder_of_models(s3, replica):
    s3.put(
        "dir",
        {"all/iris/a.onnx": b"1", "all/wine/1/a.onnx": b"1", "all/wine/2/a.onnx": b"2", "all/readme": b""},
    )
    s3.put("dir", {"all/bad/model.txt": b""})
    api = replica(dir="s3://dir/all")
    store = api.start()
    assert (store.names(), store.versions("wine"), store.versions("iris")) == (["iris", "wine"], [1, 2], [1])
    assert "exactly one .onnx file" in store.problems()["bad"]
    with pytest.raises(UserError, match=r"'bad' does not exist \(available: iris, wine\)"):
        store.find("bad", None)
    with pytest.raises(UserError, match="the request must name a model: iris, wine"):
        store.find(None, None)
    s3.put("dir", {"all/new/a.onnx": b"1"})
    s3.remove("dir", "all/iris/")
    s3.remove("dir", "all/bad/")
    assert api.poll()
    assert (store.names(), store.problems()) == (["new", "wine"], {})


@pytest.mark.parametrize(
    ("models", "reason", "words"),
    [
        ({"path": "nowhere.onnx"}, "ModelNotFound", "does not exist"),
        ({"path": "pvc://claim/../x"}, "InvalidSpec", "without '..'"),
        ({"path": "mixed"}, "ModelInvalid", "contains both versions"),
        ({"dir": "empty"}, "ModelNotFound", "found none"),
        ({"dir": "mixed/a.onnx"}, "ModelNotFound", "got a file"),
        (
            {"paths": [{"name": "a", "path": "good"}, {"name": "b", "path": "mixed"}]},
            "ModelInvalid",
            "both versions",
        ),
    ],
)
def test_programs_that_fail_to_start(replica, write, models, reason, words):
    api = replica(**models)
    write(api.project, {"mixed/1/a.onnx": "", "mixed/a.onnx": "", "good/a.onnx": ""})
    (api.project / "empty").mkdir()
    with pytest.raises(StartError, match=words) as caught:
        api.start()
    assert caught.value.reason == reason
    assert "handler.models" in caught.value.message


def test_models_on_this_machine_are_served_from_where_they_lie(replica, write):
    api = replica(path="m")
    write(api.project, {"m/1/a.onnx": "1"})
    store = api.start()
    assert store.find(None, None).path == api.project / "m" / "1"
    assert api.on_disk() == []
    # A new file may be half copied, so it is used once two polls have seen the same.
    write(api.project, {"m/2/a.onnx": "2"})
    api.poll()
    assert store.find(None, None).version == 1
    assert api.poll()
    assert store.find(None, None).version == 2


def test_a_claim(replica, write, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "CLAIMS", tmp_path / "pvc")
    write(tmp_path, {"pvc/models/iris/3/a.onnx": "3"})
    store = replica(path="pvc://models/iris").start()
    assert (store.find(None, None).path / "a.onnx").read_text() == "3"


def test_models_for_a_separate_server_are_copied_to_its_folder(replica, write, monkeypatch):
    monkeypatch.setenv("CORTEX_TENSORFLOW_SERVING", "localhost:9000")
    api = replica("tensorflow", path="m")
    write(api.project, {"m/5/saved_model.pb": "x"})
    found = api.start().find(None, None)
    assert found.path.is_relative_to(api.models)
    assert (found.path.name, (found.path / "saved_model.pb").read_text()) == ("5", "x")


def test_a_packed_model(web, replica):
    web.files["/iris.zip"] = zipped({"export/saved_model.pb": b"x", "export/assets/words": b"y"})
    found = replica("tensorflow", path=f"{web.url}/iris.zip").start().find(None, None)
    assert sorted(path.name for path in found.path.iterdir()) == ["assets", "saved_model.pb"]
    assert found.path.name == "1"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped({"../../evil": b"x"}), "outside of the target folder"),
        (zipped({"saved_model.pb": b"x" * 500})[:-40], "not a valid archive"),
        (zipped({"readme": b"x"}), "saved_model.pb is missing"),
    ],
)
def test_an_invalid_archive_is_rejected_and_extracts_no_file(web, replica, content, words, tmp_path):
    web.files["/iris.zip"] = content
    api = replica("tensorflow", path=f"{web.url}/iris.zip")
    with pytest.raises(StartError, match=words) as caught:
        api.start()
    assert caught.value.reason == "ModelInvalid"
    assert api.on_disk() == []
    assert not list(tmp_path.rglob("evil"))


def test_a_disk_cache_fetches_requested_models_and_keeps_its_limit(s3, replica):
    s3.put("cached", {f"m/{i}/a.onnx": str(i).encode() for i in range(1, 6)})
    api = replica(path="s3://cached/m", cacheSize=1, diskCacheSize=2)
    store = api.start()
    assert (store.versions("_cortex_default"), api.on_disk()) == ([1, 2, 3, 4, 5], [])
    for number in (1, 2, 1, 3):
        with store.reading(store.find(None, number)):
            assert len(api.on_disk()) <= 2
    assert api.on_disk() == ["_cortex_default/1/a.onnx", "_cortex_default/3/a.onnx"]


def test_changes_since_the_last_poll_are_fetched(s3, replica):
    s3.put("moved", {"m/1/a.onnx": b"1", "m/2/a.onnx": b"2"})
    store = replica(path="s3://moved/m", cacheSize=1, diskCacheSize=2).start()
    s3.put("moved", {"m/1/a.onnx": b"another"})
    s3.remove("moved", "m/2/")
    assert (store.find(None, None).path / "a.onnx").read_bytes() == b"another"
    with pytest.raises(UserError, match="version 2"):
        store.find(None, 2)


def test_a_fetch_that_fails_is_not_the_callers_fault(web, replica):
    web.files["/m.onnx"] = b"1"
    store = replica(path=f"{web.url}/m.onnx", cacheSize=1).start()
    web.faults += [500] * 20
    with pytest.raises(LoadFailed, match="500"):
        store.find(None, None)
    web.faults.clear()
    assert store.find(None, None).path.read_bytes() == b"1"


FETCH = """
import sys
from pathlib import Path
from cortex_api import Document
from cortex_runtime.models.repository import ModelRepository
from cortex_runtime.models.sync import ModelSync
folder = Path(sys.argv[1])
document = Document.read(folder / "api.json")
if sys.argv[2] == "sync":
    ModelSync(document, folder / "models", folder).start()
print(ModelRepository.open(document.spec.handler, folder / "models", folder).find(None, None).path.read_text())
"""


@pytest.mark.parametrize("role", ["worker", "sync"])
def test_processes_that_share_the_folder_fetch_once(web, tmp_path, role):
    web.files["/m.onnx"] = b"1"
    described = document(
        "onnx", {"path": f"{web.url}/m.onnx", **({"cacheSize": 1} if role == "worker" else {})}
    )
    (tmp_path / "api.json").write_bytes(described.to_json())
    if role == "worker":
        ModelSync(described, tmp_path / "models", tmp_path).start()
    command = [sys.executable, "-c", FETCH, str(tmp_path), role]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in processes] == [b"1\n"] * 3
    assert [method for method, _, _ in web.seen].count("GET") == 1


def test_files_of_a_killed_process_do_not_affect_others(web, replica):
    web.files["/m.onnx"] = b"whole"
    api = replica(path=f"{web.url}/m.onnx")
    stamp = api.start().find(None, None).stamp
    other = api.models / ".incoming" / stamp / "whole" / "1"
    other.mkdir(parents=True)
    (other / "m.onnx").write_bytes(b"ha")
    (api.models / "_cortex_default" / stamp / "1" / "m.onnx").unlink()
    (api.models / "_cortex_default" / stamp / "1").rmdir()
    (api.models / "_cortex_default" / stamp).rmdir()
    again = ModelSync(api.document, api.models, api.project)
    again.start()
    assert api.store.find(None, None).path.read_bytes() == b"whole"


def test_versions_that_are_no_longer_served_are_removed_later(web, replica, monkeypatch):
    web.files["/m.onnx"] = b"1"
    api = replica(path=f"{web.url}/m.onnx")
    before = api.start().find(None, None).path
    os.utime(before.parent.parent, (0, 0))
    web.files["/m.onnx"] = b"2"
    assert api.poll()
    api.poll()
    assert before.read_bytes() == b"1"
    monkeypatch.setattr(disk_cache, "_GRACE_SECONDS", -1.0)
    api.poll()
    assert not before.exists()
    assert api.store.find(None, None).path.read_bytes() == b"2"


def test_other_files_in_the_folder_of_models_are_never_removed(web, replica, monkeypatch):
    monkeypatch.setattr(disk_cache, "_GRACE_SECONDS", -1.0)
    web.files["/m.onnx"] = b"1"
    api = replica(path=f"{web.url}/m.onnx")
    own = [api.models / name for name in ("project/handler.py", "project/data/labels.txt", "notes.txt")]
    for file in own:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    api.start()
    web.files["/m.onnx"] = b"2"
    api.poll()
    assert [file.read_text() for file in own] == ["mine"] * 3


def test_the_previous_files_stay_until_a_change_was_loaded(web, replica, monkeypatch):
    monkeypatch.setattr(disk_cache, "_GRACE_SECONDS", -1.0)
    web.files["/m.onnx"] = b"good"
    api = replica(path=f"{web.url}/m.onnx")
    store = api.start()
    good = store.find(None, None)
    store.mark_loadable(good)
    for content in (b"bad", b"worse"):
        web.files["/m.onnx"] = content
        assert api.poll()
        assert store.previous(store.find(None, None)) == good
        assert good.path.read_bytes() == b"good"
    store.mark_loadable(store.find(None, None))
    assert api.poll()
    assert store.previous(store.find(None, None)) is None
    assert not good.path.exists()
    assert store.find(None, None).path.read_bytes() == b"worse"
