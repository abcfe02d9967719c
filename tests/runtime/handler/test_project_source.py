"""handler.source: the project is downloaded or unpacked, and files that were not downloaded are never replaced."""

import io
import tarfile
import threading
import zipfile

import httpx
import pytest

from cortex_runtime.errors import StartError, Stopped
from cortex_runtime.handler.project_source import fetch_source, unpack_source

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


def test_a_new_download_replaces_the_previous_one(web, tmp_path):
    web.files["/app.zip"] = zipped(FILES)
    fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    web.files["/app.zip"] = zipped({"handler.py": b"x = 2"})
    fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    assert files_in(tmp_path / "project") == {"handler.py": b"x = 2"}


@pytest.mark.parametrize("broken", [[404] * 3, [503] * 20])
def test_a_failed_download_keeps_the_existing_project(web, tmp_path, broken):
    web.files["/app.zip"] = zipped(FILES)
    fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    web.faults += broken
    with pytest.raises(StartError, match=r"handler\.source\.uri") as caught:
        fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    assert caught.value.reason == "SourceUnavailable"
    assert files_in(tmp_path / "project") == FILES


def test_an_archive_with_an_entry_outside_the_folder_extracts_no_file(web, tmp_path):
    web.files["/app.zip"] = zipped({"handler.py": b"", "../evil.py": b""})
    with pytest.raises(StartError, match="outside of the target folder"):
        fetch_source(f"{web.url}/app.zip", tmp_path / "project", tmp_path)
    assert files_in(tmp_path) == {}


def test_files_of_the_user_are_not_replaced(web, tmp_path, write):
    web.files["/app.zip"] = zipped(FILES)
    write(tmp_path / "mine", {"handler.py": "precious"})
    with pytest.raises(StartError, match="contains other files"):
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


def test_missing_code_is_the_reason_of_the_exit(serve, s3):
    s3.put("code", {"served/x": b""})
    api = serve(None, wait=False, source={"uri": "s3://code/missing/"})
    reason, message = api.cause_of_death()
    assert (reason, "s3://code/missing/ does not exist" in message) == ("SourceUnavailable", True)


def mounted(folder, keys, version="1"):
    """Mount a ConfigMap like the kubelet: each key is a link into the folder of its version."""
    (folder / f"..{version}").mkdir(parents=True)
    for name, content in keys.items():
        (folder / f"..{version}" / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(f"..{version}")
    (folder / "..data_tmp").rename(folder / "..data")
    return folder


@pytest.mark.parametrize(
    ("name", "pack"), [("project.zip", zipped), ("project.tar.gz", tarred), ("project.tgz", tarred)]
)
def test_a_packed_config_map_is_unpacked_with_its_plain_keys(tmp_path, name, pack):
    keys = {name: pack(FILES), "settings.json": b"{}"}
    unpack_source(mounted(tmp_path / "packed", keys), tmp_path / "project")
    assert files_in(tmp_path / "project") == {**FILES, "settings.json": b"{}"}


def test_a_config_map_without_an_archive_is_its_keys(tmp_path):
    unpack_source(mounted(tmp_path / "packed", {"handler.py": b"x"}), tmp_path / "project")
    assert files_in(tmp_path / "project") == {"handler.py": b"x"}


def test_a_new_archive_replaces_the_previous_one(tmp_path):
    packed = mounted(tmp_path / "packed", {"project.zip": zipped(FILES)})
    unpack_source(packed, tmp_path / "project")
    mounted(packed, {"project.zip": zipped({"handler.py": b"x = 2"})}, version="2")
    unpack_source(packed, tmp_path / "project")
    assert files_in(tmp_path / "project") == {"handler.py": b"x = 2"}


def linked():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        link = tarfile.TarInfo("passwords")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return content.getvalue()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"project.zip": zipped({"../evil.py": b""})}, "outside of the target folder"),
        ({"project.zip": zipped({"/etc/evil.py": b""})}, "outside of the target folder"),
        ({"project.tar.gz": linked()}, "must be a file or a folder"),
        ({"project.zip": zipped(FILES)[:-30]}, "project.zip is not a valid archive"),
        ({"project.zip": b""}, "project.zip is not a valid archive"),
        (
            {"project.zip": zipped(FILES), "handler.py": b"y"},
            "handler.py is both a key of the ConfigMap and a file",
        ),
        (
            {"project.zip": zipped(FILES), "lib": b"y"},
            "lib is both a key of the ConfigMap and a file in project.zip",
        ),
        (
            {"project.zip": zipped(FILES), "project.tgz": tarred(FILES)},
            "must have only one archive of a project",
        ),
    ],
)
def test_an_invalid_packed_config_map_keeps_the_existing_project(tmp_path, keys, words):
    unpack_source(mounted(tmp_path / "good", {"project.zip": zipped(FILES)}), tmp_path / "project")
    with pytest.raises(StartError, match=words) as caught:
        unpack_source(mounted(tmp_path / "packed", keys), tmp_path / "project")
    assert caught.value.reason == "SourceUnavailable"
    assert caught.value.message.startswith("handler.source.configMap: ")
    assert files_in(tmp_path / "project") == FILES
    assert not list(tmp_path.rglob("*evil*"))


def test_a_replica_serves_packed_code(serve, tmp_path):
    files = {"handlers/served.py": HANDLER, "lib/words.py": b"WORD = 'packed'"}
    packed = mounted(tmp_path / "packed", {"project.zip": zipped(files)})
    source = {"configMap": {"name": "code"}}
    api = serve(None, "--packed", str(packed), path="handlers/served.py", source=source)
    assert httpx.get(api.url).text == "packed"


def test_a_plain_config_map_cannot_contain_a_file_in_a_folder(serve):
    api = serve("", wait=False, path="handlers/served.py", source={"configMap": {"name": "code"}})
    reason, message = api.cause_of_death()
    assert reason == "HandlerNotFound"
    assert "file handlers/served.py does not exist" in message
    assert "`cortex pack FOLDER --name code`" in message
