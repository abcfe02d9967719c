"""`cortex validate` reports each problem with its file, line and field, and exits with 1."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cortex_api import __version__
from cortex_cli.__main__ import main

GOOD = """\
apiVersion: cortex.dev/v1alpha1
kind: RealtimeAPI
metadata: {name: good}
spec:
  handler: {type: python, path: handler.py}
"""


@pytest.fixture
def manifest(tmp_path):
    def write(text: str, name: str = "api.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def validate(*files: Path):
    return CliRunner().invoke(main, ["validate", *map(str, files)])


def test_valid_manifests_are_reported(manifest):
    config_map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: code}\n"
    file = manifest(GOOD + config_map)
    result = validate(file)
    assert (result.exit_code, result.stdout) == (0, f"{file}: RealtimeAPI good is valid\n")


def test_all_problems_of_all_files_are_printed(manifest):
    typo = manifest(GOOD.replace("path:", "pth:"), "typo.yaml")
    several = manifest(
        GOOD.replace("type: python", "type: onnx, models: {path: a, dir: b}")
        + "  autoscaling: {minReplicas: 3, maxReplicas: 1}\n  compute: {cpu: [1]}\n",
        "several.yaml",
    )
    good = manifest(GOOD, "good.yaml")
    result = validate(typo, several, good)
    assert result.exit_code == 1
    assert result.stdout == f"{good}: RealtimeAPI good is valid\n"
    lines = result.stderr.splitlines()
    for file, field in [
        (typo, "5: spec.handler.pth: "),
        (several, "5: spec.handler.models: "),
        (several, "6: spec.autoscaling: "),
        (several, "7: spec.compute.cpu: "),
    ]:
        assert any(line.startswith(f"{file}:{field}") for line in lines), (field, lines)


def test_problems_have_their_lines(manifest):
    file = manifest(
        "# A comment\n" + GOOD + "---\n" + GOOD.replace("path: handler.py", "path: [1]") + "---\na: [1\n"
    )
    result = validate(file)
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == f"{file}:12: spec.handler.path: must be a string; got a list"
    assert second.startswith(f"{file}:15: not valid YAML: ")
    assert result.stdout == f"{file}: RealtimeAPI good is valid\n"


def test_a_missing_field_has_the_line_of_its_parent(manifest):
    file = manifest(
        "apiVersion: cortex.dev/v1alpha1\nkind: RealtimeAPI\nmetadata: {}\nspec:\n  handler: {}\n"
    )
    assert {
        f"{file}:3: metadata.name: is required",
        f"{file}:5: spec.handler.type: is required",
    } <= set(validate(file).stderr.splitlines())


def test_a_duplicate_key_is_rejected(manifest):
    file = manifest(GOOD + "  paused: true\n  paused: false\n")
    assert validate(file).stderr == f"{file}:7: spec.paused: duplicate key\n"


def test_items_of_a_list_are_validated(manifest):
    items = "".join(
        "- " + text.replace("\n", "\n  ").rstrip() + "\n" for text in (GOOD, GOOD.replace("path", "pth"))
    )
    file = manifest("apiVersion: v1\nkind: List\nitems:\n" + items)
    result = validate(file)
    assert result.stdout == f"{file}: RealtimeAPI good is valid\n"
    assert f"{file}:13: spec.handler.pth: unknown field" in result.stderr


def test_manifests_in_a_folder_are_validated(manifest, tmp_path):
    (tmp_path / "below").mkdir()
    manifest(GOOD, "below/good.yml")
    manifest("services: {}\n", "compose.yaml")
    result = validate(tmp_path)
    assert (result.exit_code, result.output) == (0, f"{tmp_path}/below/good.yml: RealtimeAPI good is valid\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (validate(empty).exit_code, validate(empty).stderr) == (
        1,
        f"{empty}: contains no RealtimeAPI or AsyncAPI\n",
    )


def test_standard_input_is_a_dash():
    result = CliRunner().invoke(main, ["validate", "-"], input=GOOD)
    assert (result.exit_code, result.output) == (0, "-: RealtimeAPI good is valid\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "not valid YAML"),
        ("a:\n\tb: 1\n", ":2: not valid YAML: a tab cannot indent a line; use spaces"),
        ("a:\n  b: 1\n c: 1\n", ":3: not valid YAML: "),
        ("a:\n  b: 1\n c: 1\n", "align this line with its siblings"),
        ("", "contains no RealtimeAPI or AsyncAPI"),
        ("apiVersion: v1\nkind: ConfigMap\n", "contains no RealtimeAPI or AsyncAPI"),
        ("- 1\n", "a manifest must be a mapping"),
        ("apiVersion: cortex.dev/v1alpha1\nkind: BatchAPI\n", "must be one of RealtimeAPI, AsyncAPI"),
    ],
)
def test_files_without_a_valid_manifest_are_reported(manifest, text, words):
    file = manifest(text)
    result = validate(file)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{file}:")
    assert words in result.stderr


def test_missing_file(tmp_path):
    result = validate(tmp_path / "none.yaml")
    assert (result.exit_code, result.stderr) == (
        1,
        f"{tmp_path}/none.yaml: cannot be read: No such file or directory\n",
    )


def test_version():
    assert CliRunner().invoke(main, ["--version"]).output == f"cortex, version {__version__}\n"


def test_a_duplicate_api_is_rejected(manifest):
    file = manifest(GOOD + "---\n" + GOOD + "---\n" + GOOD.replace("RealtimeAPI", "AsyncAPI"))
    result = validate(file)
    assert result.exit_code == 1
    assert result.stderr == (
        f"{file}:9: metadata.name: RealtimeAPI good is already defined at {file}:3; the last definition would overwrite it\n"
    )


def test_a_manifest_without_metadata_is_rejected(manifest):
    file = manifest(GOOD.replace("metadata: {name: good}\n", ""))
    assert validate(file).stderr == f"{file}:1: metadata.name: is required\n"


@pytest.mark.parametrize(
    "text",
    [
        "- name: a\n  kind: RealtimeAPI\n  predictor: {type: python, path: p.py}\n",
        "- kind: deployment\n  name: a\n",
        "name: a\nkind: RealtimeAPI\nhandler: {type: python, path: p.py}\n",
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_file_of_the_original_cortex_has_a_hint_on_convert(manifest, command, text):
    file = manifest(text, "cortex.yaml")
    result = CliRunner().invoke(main, [command, str(file)])
    assert result.exit_code == 1
    assert (
        f"{file}:1: is a file of the original Cortex; convert it with `cortex convert {file}`"
        in result.stderr
    )


def test_a_folder_with_only_a_file_of_the_original_cortex_has_a_hint_on_convert(manifest, tmp_path):
    file = manifest("- name: a\n  kind: RealtimeAPI\n", "cortex.yaml")
    assert (
        f"contains no RealtimeAPI or AsyncAPI; convert {file} with `cortex convert {file}`"
        in validate(tmp_path).stderr
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("deploy", "kubectl apply -f api.yaml"),
        ("refresh", "kubectl rollout restart"),
        ("delete", "kubectl delete"),
        ("cluster", "the Helm chart"),
        ("version", "cortex --version"),
        ("valdate", "Did you mean 'validate'?"),
        ("frobnicate", "No such command 'frobnicate'."),
    ],
)
def test_a_removed_command_has_a_hint_on_its_replacement(command, words):
    result = CliRunner().invoke(main, [command, "cortex.yaml"])
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


def test_a_file_with_only_config_maps_is_rejected(manifest):
    code = manifest("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: code}\n", "code.yaml")
    for command in ("validate", "run"):
        result = CliRunner().invoke(main, [command, str(code)])
        assert (result.exit_code, f"{code}: contains no RealtimeAPI or AsyncAPI" in result.stderr) == (
            1,
            True,
        )
    assert validate(code, manifest(GOOD)).exit_code == 0


def test_an_invalid_name_has_the_line_of_the_name(manifest):
    file = manifest(GOOD.replace("name: good", "name: 9to5"))
    assert validate(file).stderr.startswith(f"{file}:3: metadata.name: must be at most 50 characters")
