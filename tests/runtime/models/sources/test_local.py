"""Models on this machine, in folders that also contain other kinds of entries."""

import os

import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.models.disk_cache import download
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources import open_source
from cortex_runtime.models.sources.base import Changed


def names(location, project, **options):
    return [entry.name for entry in open_source(location, project, **options).listing().entries]


def test_files_below_a_folder_without_hidden_ones(tmp_path, write):
    write(tmp_path, {"m/1/a.onnx": "1", "m/1/.cache/x": "", "m/.git/config": "", "m/2/a.onnx": "2"})
    for location in ("m", "m/", f"file://{tmp_path}/m", str(tmp_path / "m")):
        assert names(location, tmp_path) == ["1/a.onnx", "2/a.onnx"]
    assert names("m", tmp_path, hidden=True) == [".git/config", "1/a.onnx", "1/.cache/x", "2/a.onnx"]


def test_links_are_followed_but_never_in_a_circle(tmp_path, write):
    write(tmp_path, {"data/a.onnx": "1", "m/3/b.onnx": "3"})
    (tmp_path / "m" / "1").symlink_to(tmp_path / "data")
    (tmp_path / "m" / "2").symlink_to(tmp_path / "data")
    (tmp_path / "m" / "3" / "around").symlink_to(tmp_path / "m")
    (tmp_path / "m" / "3" / "gone").symlink_to(tmp_path / "nowhere")
    found = names("m", tmp_path)
    assert [name for name in found if "around" not in name] == ["1/a.onnx", "2/a.onnx", "3/b.onnx"]
    assert not [name for name in found if name.count("around") > 1]


def test_entries_that_are_not_files_are_ignored(tmp_path, write):
    write(tmp_path, {"m/a.onnx": "1"})
    os.mkfifo(tmp_path / "m" / "pipe")
    assert names("m", tmp_path) == ["a.onnx"]


def test_a_file_that_changed_after_the_listing_is_not_used(tmp_path, write):
    write(tmp_path, {"m/a.onnx": "old"})
    source = open_source("m", tmp_path)
    entries = list(source.listing().entries)
    write(tmp_path, {"m/a.onnx": "new"})
    with pytest.raises(Changed):
        download(source, entries, "", tmp_path / "out", Progress("copying", None))


@pytest.mark.parametrize(
    ("error", "reason"), [(PermissionError, "ModelAccessDenied"), (TimeoutError, "ModelUnavailable")]
)
def test_unreadable_files_are_reported(tmp_path, write, monkeypatch, error, reason):
    write(tmp_path, {"m/a.onnx": "1"})

    def walk(path, **options):
        raise error(1, "no", str(path))

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(StartError, match=r"failed to read .*m") as caught:
        names("m", tmp_path)
    assert caught.value.reason == reason


@pytest.mark.parametrize("location", ["gopher://x/y", "pvc:///x", "pvc://claim/../x", "s3:///key"])
def test_an_invalid_location_is_refused(tmp_path, location):
    with pytest.raises(StartError) as caught:
        open_source(location, tmp_path)
    assert caught.value.reason == "InvalidSpec"
    assert location.partition(":")[0] in caught.value.message
