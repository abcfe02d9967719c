"""Archives are extracted completely, and never outside of the target folder, even if they are malicious."""

import io
import stat
import tarfile
import zipfile

import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.models import archive


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in entries:
            content.writestr(name, data)
    return path


def tarred(path, entries):
    with tarfile.open(path, "w:gz") as content:
        for entry, data in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(data) if info.isreg() else 0
            content.addfile(info, io.BytesIO(data))
    return path


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("suffix", "make"), [(".zip", zipped), (".tar.gz", tarred), (".tgz", tarred)])
def test_an_archive_is_unpacked_with_its_folders(tmp_path, suffix, make):
    packed = make(tmp_path / f"m{suffix}", [("a/b.txt", b"1"), ("./c.txt", b"22")])
    archive.unpack(packed, tmp_path / "out", "s3://b/m")
    assert names(tmp_path / "out") == ["a/b.txt", "c.txt"]
    assert (tmp_path / "out/c.txt").read_bytes() == b"22"


@pytest.mark.parametrize("make", [(".zip", zipped), (".tar.gz", tarred)], ids=["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "C:\\evil", "..\\evil", "a//b"])
def test_no_entry_is_extracted_outside_of_the_folder(tmp_path, make, name):
    suffix, pack = make
    packed = pack(tmp_path / f"m{suffix}", [(name, b"x")])
    with pytest.raises(StartError) as caught:
        archive.unpack(packed, tmp_path / "deep" / "out", "s3://b/m")
    assert caught.value.reason == "ModelInvalid"
    assert "outside of the target folder" in caught.value.message
    assert not list(tmp_path.rglob("*evil*"))


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("passwords")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    link.create_system = 3
    packed = zipped(tmp_path / "m.zip", [(link, "/etc/passwd")])
    hard = tarfile.TarInfo("passwords")
    hard.type, hard.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for path in (packed, tarred(tmp_path / "m.tgz", [(hard, b"")])):
        with pytest.raises(StartError, match="must be a file or a folder"):
            archive.unpack(path, tmp_path / f"out-{path.name}", "m")


@pytest.mark.parametrize(("suffix", "make"), [(".zip", zipped), (".tar.gz", tarred)])
def test_a_truncated_archive_is_refused(tmp_path, suffix, make):
    packed = make(tmp_path / f"m{suffix}", [("a.bin", bytes(range(256)) * 500)])
    packed.write_bytes(packed.read_bytes()[:-400])
    with pytest.raises(StartError) as caught:
        archive.unpack(packed, tmp_path / "out", "s3://b/m")
    assert caught.value.reason == "ModelInvalid"
    assert "s3://b/m is not a valid archive" in caught.value.message


def test_a_damaged_content_is_refused(tmp_path):
    packed = zipped(tmp_path / "m.zip", [("a.bin", b"content that is checked" * 100)])
    data = bytearray(packed.read_bytes())
    data[60] ^= 0xFF
    packed.write_bytes(bytes(data))
    with pytest.raises(StartError) as caught:
        archive.unpack(packed, tmp_path / "out", "m")
    assert caught.value.reason == "ModelInvalid"


def test_an_archive_larger_than_the_free_space_is_refused(tmp_path):
    packed = zipped(tmp_path / "m.zip", [("a.bin", b"x")])
    data = packed.read_bytes()
    # The size of the only entry in the central directory, nearly 4 GB; repeated until it exceeds any disk.
    begin = data.index(b"PK\x01\x02")
    entry = data[begin : data.index(b"PK\x05\x06")]
    huge = entry[:24] + (0xFFFFFFF0).to_bytes(4, "little") + entry[28:]
    count = 60000
    end = (0).to_bytes(4, "little") + count.to_bytes(2, "little") * 2
    end += (len(huge) * count).to_bytes(4, "little") + begin.to_bytes(4, "little") + b"\0\0"
    packed.write_bytes(data[:begin] + huge * count + b"PK\x05\x06" + end)
    with pytest.raises(StartError, match="are free"):
        archive.unpack(packed, tmp_path / "out", "m")
    assert names(tmp_path / "out") == []


def test_two_entries_of_one_name_are_refused(tmp_path):
    packed = tarred(tmp_path / "m.tgz", [("a", b"1"), ("a/b", b"2")])
    with pytest.raises(StartError, match="two entries with the same name"):
        archive.unpack(packed, tmp_path / "out", "m")
