"""`cortex init`: every template is a valid project whose test passes; existing files are kept."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cortex_cli.__main__ import main
from cortex_cli.commands.init import _DESCRIPTIONS as TEMPLATES

REQUIRED = {"tensorflow": None, "sklearn": "sklearn", "pytorch": "torch", "huggingface": "transformers"}


def cortex(*words: str | Path, answers: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=answers)


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projects")
    for template in TEMPLATES:
        result = cortex("init", template, folder / template)
        assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_manifest_and_the_packed_code_are_valid(projects: Path, template: str) -> None:
    folder = projects / template
    packed = cortex("pack", folder, "--name", f"{template}-code")
    assert packed.exit_code == 0, packed.output
    content = yaml.safe_load(packed.stdout)
    assert "test_handler.py" not in content.get("data", {}), "the test is not part of the deployed code"
    (folder.parent / f"{template}-code.yaml").write_text(packed.stdout)
    result = cortex("validate", folder / "api.yaml", folder.parent / f"{template}-code.yaml")
    assert result.exit_code == 0, result.output
    assert f" {template} is valid" in result.output
    assert "my-api" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_test_of_the_project_passes(projects: Path, template: str) -> None:
    module = REQUIRED.get(template)
    if module is not None and find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(projects / template)],
        cwd=projects / template,
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
    )
    assert run.returncode == 0, run.stdout


def test_existing_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("mine")
    result = cortex("init", "python", tmp_path)
    assert result.exit_code == 1
    assert "already contains handler.py; choose another folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["handler.py"]
    assert (tmp_path / "handler.py").read_text() == "mine"


def test_the_api_is_named_after_the_folder(tmp_path: Path) -> None:
    cortex("init", "python", tmp_path / "My_First API")
    assert (
        yaml.safe_load((tmp_path / "My_First API" / "api.yaml").read_text())["metadata"]["name"]
        == "my-first-api"
    )


@pytest.mark.parametrize("folder", ["1st", "x" * 51, "---"])
def test_a_folder_with_an_invalid_name_is_refused(tmp_path: Path, folder: str) -> None:
    result = cortex("init", "python", tmp_path / folder)
    assert result.exit_code == 1
    assert "is not a valid name of an API: " in result.output
    assert not (tmp_path / folder).exists()


def test_yes_asks_no_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = cortex("init", "--yes")
    assert (result.exit_code, (tmp_path / "my-api" / "handler.py").is_file()) == (0, True)
    assert "cd my-api\n    cortex run api.yaml --reload\n" in result.output


def test_missing_arguments_are_an_error_without_a_terminal() -> None:
    result = cortex("init")
    assert result.exit_code == 2
    assert (
        "pass TEMPLATE (python, onnx, tensorflow, async, sklearn, pytorch, huggingface) and FOLDER"
        in result.output
    )
