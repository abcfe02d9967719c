"""examples/candidate: the files are consistent, and the versions differ."""

import importlib.util
import json

import pytest
import yaml
from click.testing import CliRunner

from cortex_api import parse
from cortex_api.candidate import promoted
from cortex_cli.__main__ import main

from .conftest import EXAMPLES

FOLDER = EXAMPLES / "candidate"


def read(name: str) -> dict:
    return yaml.safe_load((FOLDER / name).read_text())


def predict(manifest: dict, flower: dict[str, float]) -> str:
    spec = importlib.util.spec_from_file_location("flowers_handler", FOLDER / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Handler(manifest["spec"]["handler"]["config"]).handle_post(flower)["label"]


def test_the_config_map_is_what_pack_writes():
    packed = CliRunner().invoke(main, ["pack", str(FOLDER), "--name", "flowers-code"])
    assert packed.stdout == (FOLDER / "code.yaml").read_text()
    assert set(read("code.yaml")["data"]) == {"handler.py", "model-1.json", "model-2.json"}


def test_the_candidate_changes_only_the_model():
    stable, candidate = read("v1.yaml"), read("candidate.yaml")
    assert {**candidate, "spec": {k: v for k, v in candidate["spec"].items() if k != "candidate"}} == stable
    after = promoted(candidate)["spec"]
    assert after["handler"]["config"] == {"model": "model-2.json"}
    assert after["handler"]["source"] == stable["spec"]["handler"]["source"]
    assert parse(candidate).spec.candidate.weight == 10


# Flowers 1, 71 and 101 of Fisher's data.
@pytest.mark.parametrize(
    ("measurements", "first", "second"),
    [
        ((5.1, 3.5, 1.4, 0.2), "setosa", "setosa"),
        ((5.9, 3.2, 4.8, 1.8), "versicolor", "virginica"),
        ((6.3, 3.3, 6.0, 2.5), "virginica", "virginica"),
    ],
)
def test_each_version_predicts_with_its_model(measurements, first, second):
    flower = dict(
        zip(("sepal_length", "sepal_width", "petal_length", "petal_width"), measurements, strict=True)
    )
    assert predict(read("v1.yaml"), flower) == first
    assert predict(promoted(read("candidate.yaml")), flower) == second


def test_the_sample_is_answered_differently():
    sample = json.loads((FOLDER / "sample.json").read_text())
    assert predict(read("v1.yaml"), sample) != predict(promoted(read("candidate.yaml")), sample)
