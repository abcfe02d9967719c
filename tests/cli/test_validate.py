"""`cortex validate`: every problem with its file and field, exit status 1."""

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


def test_good_manifests_pass_and_are_named(manifest):
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


def test_problems_of_every_document_have_their_lines(manifest):
    file = manifest(
        "# A comment\n" + GOOD + "---\n" + GOOD.replace("path: handler.py", "path: [1]") + "---\na: [1\n"
    )
    result = validate(file)
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == f"{file}:12: spec.handler.path: must be a string; got a list"
    assert second.startswith(f"{file}:15: is not valid YAML: ")
    assert result.stdout == f"{file}: RealtimeAPI good is valid\n"


def test_a_missing_field_is_placed_where_it_should_stand(manifest):
    file = manifest(
        "apiVersion: cortex.dev/v1alpha1\nkind: RealtimeAPI\nmetadata: {}\nspec:\n  handler: {}\n"
    )
    assert {
        f"{file}:3: metadata.name: is required",
        f"{file}:5: spec.handler.type: is required",
    } <= set(validate(file).stderr.splitlines())


def test_a_field_that_is_given_twice(manifest):
    file = manifest(GOOD + "  paused: true\n  paused: false\n")
    assert validate(file).stderr == f"{file}:7: spec.paused: is given twice\n"


def test_items_of_a_list_are_manifests(manifest):
    items = "".join(
        "- " + text.replace("\n", "\n  ").rstrip() + "\n" for text in (GOOD, GOOD.replace("path", "pth"))
    )
    file = manifest("apiVersion: v1\nkind: List\nitems:\n" + items)
    result = validate(file)
    assert result.stdout == f"{file}: RealtimeAPI good is valid\n"
    assert f"{file}:13: spec.handler.pth: unknown field" in result.stderr


def test_a_folder_is_its_manifests(manifest, tmp_path):
    (tmp_path / "below").mkdir()
    manifest(GOOD, "below/good.yml")
    manifest("services: {}\n", "compose.yaml")
    result = validate(tmp_path)
    assert (result.exit_code, result.output) == (0, f"{tmp_path}/below/good.yml: RealtimeAPI good is valid\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (validate(empty).exit_code, validate(empty).stderr) == (
        1,
        f"{empty}: no RealtimeAPI or AsyncAPI in it\n",
    )


def test_standard_input_is_a_dash():
    result = CliRunner().invoke(main, ["validate", "-"], input=GOOD)
    assert (result.exit_code, result.output) == (0, "-: RealtimeAPI good is valid\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "is not valid YAML"),
        ("", "no RealtimeAPI or AsyncAPI in it"),
        ("apiVersion: v1\nkind: ConfigMap\n", "no RealtimeAPI or AsyncAPI in it"),
        ("- 1\n", "a manifest must be a mapping"),
        ("apiVersion: cortex.dev/v1alpha1\nkind: BatchAPI\n", "must be one of RealtimeAPI, AsyncAPI"),
    ],
)
def test_what_is_no_manifest_is_told_with_the_file(manifest, text, words):
    file = manifest(text)
    result = validate(file)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{file}:")
    assert words in result.stderr


def test_a_file_that_is_not_there(tmp_path):
    result = validate(tmp_path / "none.yaml")
    assert (result.exit_code, result.stderr) == (
        1,
        f"{tmp_path}/none.yaml: can't be read: No such file or directory\n",
    )


def test_version():
    assert CliRunner().invoke(main, ["--version"]).output == f"cortex, version {__version__}\n"


def test_an_api_twice_in_a_file(manifest):
    file = manifest(GOOD + "---\n" + GOOD + "---\n" + GOOD.replace("RealtimeAPI", "AsyncAPI"))
    result = validate(file)
    assert result.exit_code == 1
    assert result.stderr == (
        f"{file}:9: metadata.name: RealtimeAPI good is at {file}:3 already; applied, only the last stays\n"
    )


def test_a_manifest_without_metadata_lacks_its_name(manifest):
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
def test_a_file_of_the_former_cortex_is_pointed_to_convert(manifest, command, text):
    file = manifest(text, "cortex.yaml")
    result = CliRunner().invoke(main, [command, str(file)])
    assert result.exit_code == 1
    assert (
        f"{file}:1: is a file of the former Cortex: `cortex convert {file}` makes manifests of it"
        in result.stderr
    )


def test_a_folder_with_nothing_but_a_file_of_the_former_cortex(manifest, tmp_path):
    file = manifest("- name: a\n  kind: RealtimeAPI\n", "cortex.yaml")
    assert f"no RealtimeAPI or AsyncAPI in it; `cortex convert {file}`" in validate(tmp_path).stderr


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
def test_a_command_that_is_gone_is_answered_with_what_does_it_now(command, words):
    result = CliRunner().invoke(main, [command, "cortex.yaml"])
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


def test_config_maps_alone_are_no_apis(manifest):
    code = manifest("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: code}\n", "code.yaml")
    for command in ("validate", "run"):
        result = CliRunner().invoke(main, [command, str(code)])
        assert (result.exit_code, f"{code}: no RealtimeAPI or AsyncAPI in it" in result.stderr) == (1, True)
    assert validate(code, manifest(GOOD)).exit_code == 0


def test_a_name_that_can_not_be_is_placed_at_the_name(manifest):
    file = manifest(GOOD.replace("name: good", "name: 9to5"))
    assert validate(file).stderr.startswith(f"{file}:3: metadata.name: must be at most 50 characters")
