"""Projects in folders: `cortex pack` and `cortex convert` make a ConfigMap of them, which is checked, run and unpacked here."""

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
from cortex_cli.ignore import Rules
from cortex_cli.pack import LIMIT, Packed, pack_folder
from cortex_cli.project import Unpackable, files_of
from cortex_cli.sources import values
from cortex_runtime.models.project import unpack_source

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
    """What a pod finds in its project, once the manifest has been through YAML."""
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
def test_what_is_packed_is_what_a_pod_finds(tmp_path, files, keys):
    packed = pack_folder(write(tmp_path / "project", files), "code")
    assert sorted(values(packed.manifest)) == (keys or sorted(files))
    assert (packed.files, unpacked(packed, tmp_path)) == (len(files), files)


def test_the_same_files_make_the_same_manifest(tmp_path):
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


def test_what_stays_behind(tmp_path):
    left_out = (
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
    folder = write(tmp_path / "project", dict.fromkeys((*left_out, *kept), b"x: 1\n"))
    (folder / ".cortexignore").write_text("# Not needed there\nnotes/*\n!notes/keep.txt\n*.csv\n!.flags\n")
    write(folder, {"api.yaml": API.encode(), "lib/deploy.yml": b"kind: List\napiVersion: v1\nitems: []\n"})
    assert sorted(files_of(folder)) == sorted(kept)


def test_the_manifest_that_is_written_into_the_folder_does_not_hold_itself(tmp_path):
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
def test_cortexignore_is_read_as_git_reads_its_own(tmp_path, patterns, ignored, kept):
    rules = Rules(patterns)

    def is_ignored(path: str) -> bool:
        parts = path.split("/")
        return any(
            rules.verdict("/".join(parts[: end + 1]), end < len(parts) - 1) for end in range(len(parts))
        )

    assert {path: is_ignored(path) for path in (*ignored, *kept)} == {
        **dict.fromkeys(ignored, True),
        **dict.fromkeys(kept, False),
    }


def test_a_project_over_the_limit_names_its_size_its_largest_files_and_what_to_do(tmp_path):
    noise = random.Random(1)
    files = {f"data/{n}.bin": noise.randbytes(n * 100_000) for n in range(1, 7)}
    folder = write(tmp_path / "project", {**files, "handler.py": b""})
    said = cortex("pack", folder, code=1).stderr
    assert f"{folder} has 2101" in said
    assert (
        "bytes packed, and a ConfigMap holds 1048576 (1 MiB); its largest files packed: data/6.bin (586.1 KiB)"
        in said
    )
    assert "data/2.bin" in said
    assert "data/1.bin" not in said
    for remedy in (".cortexignore", "handler.models", "handler.source.uri"):
        assert remedy in said


def test_the_limit_itself_fits(tmp_path):
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
    with pytest.raises(Unpackable, match="a ConfigMap holds 1048576"):
        pack_folder(folder, "c")


def test_files_far_too_large_are_not_read(tmp_path):
    folder = write(tmp_path / "project", {"handler.py": b""})
    with (folder / "huge").open("wb") as file:
        file.truncate(10 << 40)
    assert "its largest files: huge (" in cortex("pack", folder, code=1).stderr


@pytest.mark.parametrize(
    ("size", "server_side"), [(150_000, False), (190_000, False), (197_000, True), (900_000, True)]
)
def test_what_kubectl_apply_can_not_annotate_is_to_be_applied_server_side(tmp_path, size, server_side):
    folder = write(tmp_path / "project", {"a/model.bin": random.Random(1).randbytes(size)})
    said = cortex("pack", folder).stderr
    assert ("kubectl apply --server-side" in said) == server_side
    assert ("ServerSideApply=true" in said) == server_side


def test_links_that_leave_the_project_are_refused(tmp_path):
    folder = write(tmp_path / "project", {"a.py": b"x"})
    (folder / "same.py").symlink_to("a.py")
    assert sorted(files_of(folder)) == ["a.py", "same.py"]
    (folder / "secret").symlink_to("/etc/passwd")
    said = cortex("pack", folder, code=1).stderr
    assert (
        f"{folder}/secret is a link to another folder: put a copy there, or name it in .cortexignore" in said
    )
    (folder / ".cortexignore").write_text("secret\n")
    assert sorted(files_of(folder)) == ["a.py", "same.py"]


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--name", "Big_Name"], "--name: Big_Name is not valid", 2),
        ([], "has no files for a ConfigMap", 1),
    ],
)
def test_what_can_not_be_packed_is_told(tmp_path, arguments, words, code):
    assert words in cortex("pack", tmp_path, *arguments, code=code).stderr


def test_the_name_is_the_folders(tmp_path):
    folder = write(tmp_path / "My Iris", NESTED)
    assert yaml.safe_load(cortex("pack", folder).stdout)["metadata"] == {"name": "my-iris-code"}


def old_project(folder: Path, **more: bytes) -> Path:
    text = "- kind: api\n  name: iris\n  model: s3://b/m.onnx\n  request_handler: handlers/iris.py\n"
    return write(folder, {**NESTED, "cortex.yaml": text.encode(), **more}) / "cortex.yaml"


def test_convert_brings_the_code_of_a_project_with_folders(tmp_path):
    file = old_project(tmp_path / "project")
    result = cortex("convert", file)
    config_map, api = yaml.safe_load_all(result.stdout)
    assert api["spec"]["handler"]["source"] == {"configMap": {"name": config_map["metadata"]["name"]}}
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(config_map["binaryData"]["project.zip"])))
    assert sorted(archive.namelist()) == sorted(NESTED)
    assert "the project (3 files) is copied into ConfigMap iris-code" in result.stderr
    assert f"cortex pack {file.parent} --name iris-code | kubectl apply -f -" in result.stderr
    (tmp_path / "api.yaml").write_text(result.stdout)
    cortex("validate", tmp_path / "api.yaml")


def test_the_old_file_is_not_a_part_of_the_project(tmp_path):
    file = old_project(tmp_path).rename(tmp_path / "cortex_gpu.yaml")
    config_map, _ = yaml.safe_load_all(cortex("convert", file).stdout)
    archive = zipfile.ZipFile(io.BytesIO(values(config_map)["project.zip"]))
    assert sorted(archive.namelist()) == sorted(NESTED)


def test_apis_of_one_file_share_the_code(tmp_path):
    text = "".join(
        f"- name: {name}\n  kind: RealtimeAPI\n  handler: {{type: python, path: handlers/iris.py}}\n"
        for name in "ab"
    )
    old_project(tmp_path, **{"cortex.yaml": text.encode()})
    config_map, *apis = yaml.safe_load_all(cortex("convert", tmp_path / "cortex.yaml").stdout)
    assert [api["spec"]["handler"]["source"]["configMap"]["name"] for api in apis] == ["a-code", "a-code"]
    assert config_map["metadata"]["name"] == "a-code"


def test_convert_fails_where_the_code_does_not_fit(tmp_path):
    file = old_project(tmp_path, **{"data/large.bin": random.Random(1).randbytes(2 * LIMIT)})
    said = cortex("convert", file, code=1).stderr
    assert "ConfigMap iris-code can't be written" in said
    assert "data/large.bin (2.0 MiB)" in said
    cortex("convert", file, "--source", "s3://bucket/project.zip")


def test_convert_names_a_handler_that_is_not_there(tmp_path):
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


def test_validate_takes_the_config_map_from_another_file(tmp_path):
    (tmp_path / "api.yaml").write_text(API)
    packed = pack_folder(write(tmp_path / "project", NESTED), "iris-code").manifest
    (tmp_path / "code.yaml").write_text(manifests.dump([packed]))
    assert cortex("validate", tmp_path / "code.yaml", tmp_path / "api.yaml").stderr == ""


def test_validate_looks_into_the_config_map(tmp_path):
    folder = tmp_path / "manifests"
    folder.mkdir()
    packed = pack_folder(write(tmp_path / "project", NESTED), "iris-code").manifest
    assert validated(folder, packed) == ""
    other = {**packed, "metadata": {"name": "iris-code", "namespace": "another"}}
    assert "warning: handlers/iris.py is in a folder, and keys of a ConfigMap hold no folders" in validated(
        folder, other
    )
    assert f"{folder}/api.yaml:8: warning" in validated(folder)
    assert validated(folder, api=API.replace("handlers/", "")) == ""


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"data": {"iris.py": ""}},
            "has no handlers/iris.py; keys hold no folders: `cortex pack` packs them",
        ),
        ({"data": {"handlers/iris.py": ""}}, "handlers/iris.py is not a valid key: keys hold no folders"),
        ({"binaryData": {"project.zip": "AAAA"}}, "project.zip is not a whole archive"),
        ({"binaryData": {"project.tar.gz": "AAAA"}}, "project.tar.gz is not a whole archive"),
        ({"binaryData": {"project.zip": "A-"}}, "binaryData.project.zip is not valid base64"),
        ({"data": {"a": ""}, "binaryData": {"a": ""}}, "a is in data and in binaryData"),
        ({"data": {"a": 1}}, "data.a must be a string"),
        ({"data": {"a": "x" * (LIMIT + 1)}}, f"has {LIMIT + 1} bytes, and {LIMIT} is the most"),
        (
            {"binaryData": {"project.zip": "", "project.tgz": ""}},
            "project.zip and project.tgz are both projects",
        ),
    ],
)
def test_validate_refuses_a_config_map_that_can_not_work(tmp_path, sections, words):
    said = validated(tmp_path, config_map(**sections), code=1)
    assert f"{tmp_path}/code.yaml:4: ConfigMap iris-code: " in said
    assert words in said


def test_validate_looks_for_all_that_an_api_takes_from_its_project(tmp_path):
    api = API.replace("python", "onnx") + (
        "    models: {paths: [{name: a, path: models/a/}, {name: b, path: s3://b/m}]}\n    dependencies: {pip: lib/r.txt}\n"
    )
    packed = pack_folder(write(tmp_path / "project", NESTED), "iris-code").manifest
    said = validated(tmp_path, packed, api=api, code=1)
    assert [line.rsplit(" ", 1)[1] for line in said.splitlines()] == ["lib/r.txt", "models/a"]
    inline = API.replace("{configMap: {name: iris-code}}", "{files: {other.py: ''}}")
    assert "spec.handler.source.files: has no handlers/iris.py" in validated(tmp_path, api=inline, code=1)
