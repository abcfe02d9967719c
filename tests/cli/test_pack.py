"""`cortex pack` and `cortex convert` pack project folders into ConfigMaps; `cortex validate` checks them."""

import base64
import io
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from cortex_cli import manifests
from cortex_cli.__main__ import main
from cortex_cli.commands.pack import LIMIT, Packed, pack_folder
from cortex_cli.cortexignore import Rules
from cortex_cli.project_files import PackError, files_of
from cortex_cli.source_config_maps import values
from cortex_runtime.handler.project_source import unpack_source

API = """\
apiVersion: cortex.dev/v1alpha1
kind: RealtimeAPI
metadata: {name: iris}
spec:
  handler:
    type: python
    path: handlers/iris.py
    source: {configMap: {name: iris-code}}
"""
NESTED = {"handlers/iris.py": b"x = 1\n", "handlers/words/__init__.py": b"", "data.bin": b"\x00\xff"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def cortex(*arguments: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result


def unpacked(packed: Packed, folder: Path) -> dict[str, bytes]:
    """Return the files in the project folder of a pod, after a round trip of the manifest through YAML."""
    (manifest,) = yaml.safe_load_all(manifests.dump([packed.manifest]))
    mounted, project = folder / "mounted", folder / "unpacked"
    mounted.mkdir()
    for key, content in values(manifest).items():
        (mounted / key).write_bytes(content)
    unpack_source(mounted, project)
    files = [path for path in project.rglob("*") if path.is_file() and path.name != ".cortex-source"]
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("files", "keys"),
    [
        ({"handler.py": b"x = 1\n", "requirements.txt": b"numpy\n", ".env": b"A=1"}, None),
        ({"handler.py": b"", "model.onnx": bytes(range(256))}, None),
        (
            {
                "crlf.py": b"a\r\nb\r\n",
                "next.txt": "a\u0085b\u2028c\n".encode(),
                "spaces.txt": b" a \n b \n\n",
            },
            None,
        ),
        ({"bell.txt": b"\x07\n", "bom.py": b"\xef\xbb\xbfx\n", "latin.txt": "é".encode("latin-1")}, None),
        (NESTED, ["project.zip"]),
        ({"project.zip": b"not an archive", "handler.py": b""}, ["project.zip"]),
        ({"with space.py": b""}, ["project.zip"]),
        ({"large.txt": b"abcdefgh\n" * 100_000}, ["project.zip"]),
    ],
)
def test_packed_files_are_unpacked_in_the_pod(tmp_path, files, keys):
    packed = pack_folder(write(tmp_path / "project", files), "code")
    assert sorted(values(packed.manifest)) == (keys or sorted(files))
    assert (packed.files, unpacked(packed, tmp_path)) == (len(files), files)


def test_packing_is_reproducible(tmp_path):
    first = write(tmp_path / "a", NESTED)
    second = write(tmp_path / "b", dict(reversed(NESTED.items())))
    os.utime(second / "data.bin", (1, 1))
    (second / "handlers/iris.py").chmod(0o755)
    same = [cortex("pack", folder, "--name", "code").stdout for folder in (first, second, first)]
    assert len(set(same)) == 1
    archive = zipfile.ZipFile(io.BytesIO(values(yaml.safe_load(same[0]))["project.zip"]))
    assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    (second / "data.bin").write_bytes(b"\x00\xfe")
    assert cortex("pack", second, "--name", "code").stdout != same[0]


def test_excluded_files(tmp_path):
    excluded = (
        *(
            ".git/config",
            ".venv/lib/x.py",
            ".hidden",
            "lib/.env",
            "lib/.cache/x",
            "lib/__pycache__/a.cpython-311.pyc",
        ),
        *(
            "old.pyc",
            "venv/pyvenv.cfg",
            "venv/lib/x.py",
            "cortex.yaml",
            ".cortexignore",
            "notes/a.txt",
            "lib/deep/b.csv",
        ),
    )
    kept = ("handler.py", "lib/a.py", ".env", "lib/settings.yaml", "notes/keep.txt", "venv.py", ".flags")
    folder = write(tmp_path / "project", dict.fromkeys((*excluded, *kept), b"x: 1\n"))
    (folder / ".cortexignore").write_text("# A comment\nnotes/*\n!notes/keep.txt\n*.csv\n!.flags\n")
    write(folder, {"api.yaml": API.encode(), "lib/deploy.yml": b"kind: List\napiVersion: v1\nitems: []\n"})
    assert sorted(files_of(folder)) == sorted(kept)


def test_output_file_in_the_folder_is_excluded(tmp_path):
    folder = write(tmp_path, NESTED)
    texts = []
    for _ in range(2):
        with (folder / "code.txt").open("wb") as output:
            command = [sys.executable, "-m", "cortex_cli", "pack", ".", "--name", "code"]
            subprocess.run(command, cwd=folder, stdout=output, stderr=subprocess.PIPE, check=True)
        texts.append((folder / "code.txt").read_text())
    assert texts[0] == texts[1]
    archive = zipfile.ZipFile(io.BytesIO(values(yaml.safe_load(texts[0]))["project.zip"]))
    assert sorted(archive.namelist()) == sorted(NESTED)


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        (["*.py"], ["a.py", "b/a.py"], ["a.pyx"]),
        (["/a"], ["a", "a/b"], ["b/a"]),
        (["b/a"], ["b/a"], ["c/b/a"]),
        (["a/"], ["a/b", "c/a/b"], ["a", "c/a"]),
        (["**/a"], ["a", "b/a", "b/c/a"], ["ab"]),
        (["a/**"], ["a/b", "a/b/c"], ["a", "b/a/c"]),
        (["a/**/b"], ["a/b", "a/x/b", "a/x/y/b"], ["a/x/c"]),
        (["**/**/a"], ["a", "x/y/a"], ["b"]),
        (["a*b"], ["ab", "axb"], ["a/b"]),
        (["[ab].txt", "[!a].csv"], ["a.txt", "b.csv"], ["c.txt", "a.csv"]),
        (["*", "!a"], ["b"], ["a"]),
        (["x", "!x/a"], ["x/a"], ["a"]),
        (["# a", "", "\\#a", "\\!b", "c\\ ", "d  "], ["#a", "!b", "c ", "d"], ["# a", "a", "b", "c"]),
        (["?.py"], ["a.py"], ["ab.py", ".py"]),
        (["a\\*"], ["a*"], ["ab"]),
        (["[", "a["], [], ["a", "b"]),
    ],
)
def test_cortexignore_has_the_syntax_of_gitignore(tmp_path, patterns, ignored, kept):
    rules = Rules(patterns)

    def is_ignored(path: str) -> bool:
        parts = path.split("/")
        return any(
            rules.is_ignored("/".join(parts[: end + 1]), end < len(parts) - 1) for end in range(len(parts))
        )

    assert {path: is_ignored(path) for path in (*ignored, *kept)} == {
        **dict.fromkeys(ignored, True),
        **dict.fromkeys(kept, False),
    }


def test_error_for_large_projects_shows_size_largest_files_and_remedies(tmp_path):
    noise = random.Random(1)
    files = {f"data/{n}.bin": noise.randbytes(n * 100_000) for n in range(1, 7)}
    folder = write(tmp_path / "project", {**files, "handler.py": b""})
    stderr = cortex("pack", folder, code=1).stderr
    assert f"{folder} has 2101" in stderr
    assert (
        "bytes packed; the limit of a ConfigMap is 1048576 bytes (1 MiB). Largest files packed: data/6.bin (586.1 KiB)"
        in stderr
    )
    assert "data/2.bin" in stderr
    assert "data/1.bin" not in stderr
    for remedy in (".cortexignore", "handler.models", "handler.source.uri"):
        assert remedy in stderr


def test_project_of_the_maximum_size_fits(tmp_path):
    noise = random.Random(1).randbytes(LIMIT)
    folder = write(tmp_path / "project", {"a/b": noise})
    overhead = len(
        values(pack_folder(write(tmp_path / "small", {"a/b": noise[: LIMIT // 2]}), "c").manifest)[
            "project.zip"
        ]
    )
    room = LIMIT // 2 - (overhead - LIMIT // 2)
    (folder / "a/b").write_bytes(noise[: LIMIT // 2 + room - 400])
    assert LIMIT - 1000 < pack_folder(folder, "c").size <= LIMIT
    (folder / "a/b").write_bytes(noise)
    with pytest.raises(PackError, match="the limit of a ConfigMap is 1048576 bytes"):
        pack_folder(folder, "c")


def test_very_large_files_are_not_read(tmp_path):
    folder = write(tmp_path / "project", {"handler.py": b""})
    with (folder / "huge").open("wb") as file:
        file.truncate(10 << 40)
    assert "Largest files: huge (" in cortex("pack", folder, code=1).stderr


@pytest.mark.parametrize(
    ("size", "server_side"), [(150_000, False), (190_000, False), (197_000, True), (900_000, True)]
)
def test_large_config_maps_have_a_hint_on_server_side_apply(tmp_path, size, server_side):
    folder = write(tmp_path / "project", {"a/model.bin": random.Random(1).randbytes(size)})
    stderr = cortex("pack", folder).stderr
    assert ("kubectl apply --server-side" in stderr) == server_side
    assert ("ServerSideApply=true" in stderr) == server_side


def test_links_out_of_the_project_are_rejected(tmp_path):
    folder = write(tmp_path / "project", {"a.py": b"x"})
    (folder / "same.py").symlink_to("a.py")
    assert sorted(files_of(folder)) == ["a.py", "same.py"]
    (folder / "secret").symlink_to("/etc/passwd")
    stderr = cortex("pack", folder, code=1).stderr
    assert (
        f"{folder}/secret is a symbolic link to a file outside the project; replace it with a copy, or add it to .cortexignore"
        in stderr
    )
    (folder / ".cortexignore").write_text("secret\n")
    assert sorted(files_of(folder)) == ["a.py", "same.py"]


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--name", "Big_Name"], "lowercase letters, digits, '-' and '.'; got Big_Name", 2),
        ([], "has no files to pack", 1),
    ],
)
def test_errors_of_pack(tmp_path, arguments, words, code):
    assert words in cortex("pack", tmp_path, *arguments, code=code).stderr


def test_default_name_is_derived_from_the_folder(tmp_path):
    folder = write(tmp_path / "My Iris", NESTED)
    assert yaml.safe_load(cortex("pack", folder).stdout)["metadata"] == {"name": "my-iris-code"}


def old_project(folder: Path, **more: bytes) -> Path:
    text = "- kind: api\n  name: iris\n  model: s3://b/m.onnx\n  request_handler: handlers/iris.py\n"
    return write(folder, {**NESTED, "cortex.yaml": text.encode(), **more}) / "cortex.yaml"


def test_convert_packs_a_project_with_folders(tmp_path):
    file = old_project(tmp_path / "project")
    result = cortex("convert", file)
    config_map, api = yaml.safe_load_all(result.stdout)
    assert api["spec"]["handler"]["source"] == {"configMap": {"name": config_map["metadata"]["name"]}}
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(config_map["binaryData"]["project.zip"])))
    assert sorted(archive.namelist()) == sorted(NESTED)
    assert "ConfigMap iris-code contains a copy of the project (3 files)" in result.stderr
    assert f"cortex pack {file.parent} --name iris-code | kubectl apply -f -" in result.stderr
    (tmp_path / "api.yaml").write_text(result.stdout)
    cortex("validate", tmp_path / "api.yaml")


def test_convert_does_not_pack_the_original_file(tmp_path):
    file = old_project(tmp_path).rename(tmp_path / "cortex_gpu.yaml")
    config_map, _ = yaml.safe_load_all(cortex("convert", file).stdout)
    archive = zipfile.ZipFile(io.BytesIO(values(config_map)["project.zip"]))
    assert sorted(archive.namelist()) == sorted(NESTED)


def test_apis_of_one_file_share_the_config_map(tmp_path):
    text = "".join(
        f"- name: {name}\n  kind: RealtimeAPI\n  handler: {{type: python, path: handlers/iris.py}}\n"
        for name in "ab"
    )
    old_project(tmp_path, **{"cortex.yaml": text.encode()})
    config_map, *apis = yaml.safe_load_all(cortex("convert", tmp_path / "cortex.yaml").stdout)
    assert [api["spec"]["handler"]["source"]["configMap"]["name"] for api in apis] == ["a-code", "a-code"]
    assert config_map["metadata"]["name"] == "a-code"


def test_convert_fails_if_the_project_is_too_large(tmp_path):
    file = old_project(tmp_path, **{"data/large.bin": random.Random(1).randbytes(2 * LIMIT)})
    stderr = cortex("convert", file, code=1).stderr
    assert "ConfigMap iris-code cannot be created" in stderr
    assert "data/large.bin (2.0 MiB)" in stderr
    cortex("convert", file, "--source", "s3://bucket/project.zip")


def test_convert_reports_a_missing_handler(tmp_path):
    file = old_project(tmp_path)
    (tmp_path / "handlers/iris.py").unlink()
    result = cortex("convert", file)
    assert len(list(yaml.safe_load_all(result.stdout))) == 1
    assert "! " in result.stderr
    assert "handlers/iris.py is not in " in result.stderr


def validated(folder: Path, *config_maps: dict[str, Any], api: str = API, code: int = 0) -> str:
    (folder / "api.yaml").write_text(api)
    (folder / "code.yaml").write_text(manifests.dump(list(config_maps)) if config_maps else "")
    return cortex("validate", folder, code=code).stderr


def config_map(**sections: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "iris-code"}, **sections}


def test_validate_finds_the_config_map_in_another_file(tmp_path):
    (tmp_path / "api.yaml").write_text(API)
    packed = pack_folder(write(tmp_path / "project", NESTED), "iris-code").manifest
    (tmp_path / "code.yaml").write_text(manifests.dump([packed]))
    assert cortex("validate", tmp_path / "code.yaml", tmp_path / "api.yaml").stderr == ""


def test_validate_checks_the_config_map(tmp_path):
    folder = tmp_path / "manifests"
    folder.mkdir()
    packed = pack_folder(write(tmp_path / "project", NESTED), "iris-code").manifest
    assert validated(folder, packed) == ""
    other = {**packed, "metadata": {"name": "iris-code", "namespace": "another"}}
    assert (
        "warning: handlers/iris.py is in a folder, and keys of a ConfigMap cannot contain folders"
        in validated(folder, other)
    )
    assert f"{folder}/api.yaml:8: warning" in validated(folder)
    assert validated(folder, api=API.replace("handlers/", "")) == ""


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"data": {"iris.py": ""}},
            "handlers/iris.py is missing; keys cannot contain folders, use `cortex pack`",
        ),
        (
            {"data": {"handlers/iris.py": ""}},
            "handlers/iris.py is not a valid key; keys cannot contain folders",
        ),
        ({"binaryData": {"project.zip": "AAAA"}}, "project.zip is not a valid archive"),
        ({"binaryData": {"project.tar.gz": "AAAA"}}, "project.tar.gz is not a valid archive"),
        ({"binaryData": {"project.zip": "A-"}}, "binaryData.project.zip is not valid base64"),
        ({"data": {"a": ""}, "binaryData": {"a": ""}}, "a is in both data and binaryData"),
        ({"data": {"a": 1}}, "data.a must be a string"),
        ({"data": {"a": "x" * (LIMIT + 1)}}, f"size must be at most {LIMIT} bytes; got {LIMIT + 1}"),
        (
            {"binaryData": {"project.zip": "", "project.tgz": ""}},
            "project.zip and project.tgz are both project archives",
        ),
    ],
)
def test_validate_rejects_an_invalid_config_map(tmp_path, sections, words):
    stderr = validated(tmp_path, config_map(**sections), code=1)
    assert f"{tmp_path}/code.yaml:4: ConfigMap iris-code: " in stderr
    assert words in stderr


def test_validate_reports_all_missing_files_of_the_project(tmp_path):
    api = API.replace("python", "onnx") + (
        "    models: {paths: [{name: a, path: models/a/}, {name: b, path: s3://b/m}]}\n    dependencies: {pip: lib/r.txt}\n"
    )
    packed = pack_folder(write(tmp_path / "project", NESTED), "iris-code").manifest
    stderr = validated(tmp_path, packed, api=api, code=1)
    assert [line.split(" ")[-3] for line in stderr.splitlines()] == ["lib/r.txt", "models/a"]
    inline = API.replace("{configMap: {name: iris-code}}", "{files: {other.py: ''}}")
    assert "spec.handler.source.files: handlers/iris.py is missing" in validated(tmp_path, api=inline, code=1)
