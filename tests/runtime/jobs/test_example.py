"""examples/async-words, with the requests of its README."""

from collections.abc import Callable
from pathlib import Path

import yaml

from tests.runtime.jobs.conftest import Api

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "async-words"


def test_the_example_counts_words_with_progress(api: Callable[..., Api]) -> None:
    spec = yaml.safe_load((EXAMPLE / "api.yaml").read_text())["spec"]
    handler = spec.pop("handler")
    del handler["source"]  # The code is in the project.
    made = api((EXAMPLE / "handler.py").read_text(), spec=spec, **handler)
    made.gateway()
    made.consumer()
    headers = {"content-type": "application/json"}
    identity = made.submit(content=(EXAMPLE / "sample.json").read_bytes(), headers=headers)
    job = made.end(identity)
    assert job["result"] == {"job": identity, "words": {"to": 4, "be": 2, "or": 1}}
    wrong = made.end(made.submit({"texts": 3}))
    assert (wrong["status"], wrong["reason"]) == ("failed", "Rejected")
    assert "texts" in wrong["error"]


def test_the_config_map_has_the_code_of_the_file() -> None:
    code = yaml.safe_load((EXAMPLE / "code.yaml").read_text())
    assert code["data"] == {"handler.py": (EXAMPLE / "handler.py").read_text()}
