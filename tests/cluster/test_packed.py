"""A project with folders on a cluster, deployed with `cortex pack` and kubectl only."""

from pathlib import Path
from typing import Any

from cortex_cli.commands.pack import pack_folder

from .conftest import Kubectl, api, eventually, post

HANDLER = """\
from pathlib import Path
from lib.words import WORD


class Handler:
    def handle_post(self, payload):
        return {"word": WORD, "data": Path("data/note.txt").read_text(), "here": str(Path.cwd())}
"""


def project(folder: Path, word: str) -> dict[str, Any]:
    files = {"handlers/main.py": HANDLER, "lib/words.py": f"WORD = {word!r}\n", "data/note.txt": "note"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return pack_folder(folder, "echo-code").manifest


def test_a_packed_project_is_served_and_a_change_of_it_rolls_the_pods(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    handler = {"path": "handlers/main.py", "source": {"configMap": {"name": "echo-code"}}}
    kubectl.apply(project(tmp_path, "first"), api(handler=handler))
    kubectl.wait_reason("echo", "Ready")
    answer = post(kubectl, "echo", None).json()
    assert (answer["word"], answer["data"]) == ("first", "note")
    kubectl.apply(project(tmp_path, "second"))
    eventually(lambda: post(kubectl, "echo", None).json()["word"], lambda word: word == "second")


def test_a_packed_project_that_is_damaged_is_the_reason(kubectl: Kubectl, tmp_path: Path) -> None:
    handler = {"path": "handlers/main.py", "source": {"configMap": {"name": "echo-code"}}}
    damaged = {**project(tmp_path, "first"), "binaryData": {"project.zip": "AAAA"}}
    kubectl.apply(damaged, api(handler=handler))
    assert "project.zip is not a valid archive" in kubectl.wait_reason("echo", "SourceUnavailable")["message"]
    kubectl.apply(project(tmp_path, "first"))
    kubectl.wait_reason("echo", "Ready")


def test_a_project_with_folders_in_a_plain_config_map_must_be_packed(kubectl: Kubectl) -> None:
    handler = {"path": "handlers/main.py", "source": {"configMap": {"name": "echo-code"}}}
    plain = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "echo-code"},
        "data": {"main.py": HANDLER},
    }
    kubectl.apply(plain, api(handler=handler))
    assert "cortex pack FOLDER --name echo-code" in kubectl.wait_reason("echo", "HandlerNotFound")["message"]
