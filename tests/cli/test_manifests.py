"""The YAML that the commands print: kubectl reads the same values from it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cortex_cli.manifests import dump, read

TEXTS = [
    "y",
    "N",
    "yes",
    "off",
    "true",
    "null",
    "~",
    "1e3",
    "-1.5E-3",
    "1_0e1",
    "0o17",
    "0x1f",
    "017",
    "1_000",
    ".5",
    "2026-01-01",
    "1:30",
]
TEXTS += ["", " a ", "a: b", "# c", "a\nb\n", "- d", "ü", "\u2028"]


@pytest.fixture(scope="module")
def as_kubectl_reads_it() -> dict[str, str]:
    data = {f"value-{number}": text for number, text in enumerate(TEXTS)} | {"y": "key", "1e3": "key"}
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}
    command = [
        str(Path(sys.executable).with_name("kubectl")),
        "annotate",
        "--local",
        "-f",
        "-",
        "a=b",
        "-o",
        "json",
    ]
    printed = dump([manifest])
    assert yaml.safe_load(printed) == manifest
    done = subprocess.run(command, input=printed, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["data"]


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_text_stays_text(as_kubectl_reads_it: dict[str, str], number: int) -> None:
    assert as_kubectl_reads_it[f"value-{number}"] == TEXTS[number]


def test_keys_stay_text(as_kubectl_reads_it: dict[str, str]) -> None:
    assert {"y", "1e3"} <= set(as_kubectl_reads_it)


def test_a_folder_instead_of_a_file_is_reported(tmp_path):
    (document,) = read(tmp_path)
    assert document.problems == (
        f"{tmp_path}: is a folder; name the file with the manifest, for example {tmp_path}/api.yaml",
    )
