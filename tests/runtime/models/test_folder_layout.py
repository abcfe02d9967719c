"""The versions that a list of file names contains, and the messages for invalid layouts."""

import pytest

from cortex_runtime.models import folder_layout

SAVED_MODEL = ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]


@pytest.mark.parametrize(
    ("kind", "names", "versions"),
    [
        ("onnx", ["model.onnx"], {1: ""}),
        ("onnx", ["model.onnx", "weights.bin", "labels/en.txt"], {1: ""}),
        ("onnx", ["1/a.onnx", "2/b.onnx", "10/c.onnx"], {1: "1/", 2: "2/", 10: "10/"}),
        ("onnx", ["0001/a.onnx"], {1: "0001/"}),
        ("onnx", ["1600000000/a.onnx", ".DS_Store", "1600000000/._a.onnx"], {1600000000: "1600000000/"}),
        ("onnx", ["1/m.zip"], {1: "1/"}),
        ("python", ["model.pkl"], {1: ""}),
        ("python", ["3/deep/model.pkl", "4/x"], {3: "3/", 4: "4/"}),
        ("tensorflow", SAVED_MODEL, {1: ""}),
        ("tensorflow", ["7/" + name for name in [*SAVED_MODEL, "assets/vocabulary.txt"]], {7: "7/"}),
        ("tensorflow", ["saved_model.pb"], {1: ""}),
    ],
)
def test_layouts_that_are_served(kind, names, versions):
    found = folder_layout.read(kind, names, "s3://b/m")
    assert (dict(found.versions), dict(found.problems)) == (versions, {})


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        ("onnx", [], "it contains no files"),
        ("onnx", ["a.onnx", "b.onnx"], "exactly one .onnx file; found a.onnx, b.onnx"),
        ("onnx", ["model.pt"], "found none"),
        ("onnx", ["1/a.onnx", "a.onnx"], "contains both versions (1) and other entries (a.onnx)"),
        ("onnx", ["1/a.onnx", "latest/a.onnx"], "contains both versions (1) and other entries (latest)"),
        ("python", [".hidden"], "it contains no files"),
        ("tensorflow", ["variables/variables.index"], "saved_model.pb is missing"),
        ("tensorflow", ["saved_model.pb", "variables/variables.index"], "variables.data-... is missing"),
        ("tensorflow", ["saved_model.pb", "variables/variables.data-0"], "variables.index is missing"),
    ],
)
def test_invalid_layouts_report_the_problem_the_accepted_layouts_and_the_files(kind, names, words):
    with pytest.raises(folder_layout.InvalidLayout) as caught:
        folder_layout.read(kind, names, "s3://b/m")
    message = str(caught.value)
    assert words in message
    assert "s3://b/m" in message
    assert "accepted layouts:" in message
    shown = [name for name in names if not name.startswith(".")]
    assert all(f"\n  {name}" in message for name in shown)


def test_a_broken_version_does_not_affect_the_others():
    found = folder_layout.read("onnx", ["1/a.onnx", "2/a.txt", "3/a.onnx", "03/a.onnx"], "m")
    assert dict(found.versions) == {1: "1/"}
    assert "m/2 is not an ONNX model" in found.problems[2]
    assert "version 3 has two folders" in found.problems[3]


def test_a_long_list_of_names_is_cut():
    with pytest.raises(folder_layout.InvalidLayout) as caught:
        folder_layout.read("onnx", [f"file-{i}" for i in range(1000)], "m")
    assert "... and 980 more" in str(caught.value)
