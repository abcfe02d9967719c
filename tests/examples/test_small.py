"""The examples of single features, with the commands in their READMEs."""

import json
import sys

import httpx
import openai
import pytest
import yaml
from click.testing import CliRunner

from cortex_api import parse
from cortex_cli.__main__ import main
from cortex_operator.platform import Platform
from cortex_operator.render import render

from .conftest import EXAMPLES, Run, metrics_with, post

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def test_streaming_sends_lines_or_events(run: Run) -> None:
    url, _ = run("streaming")
    with httpx.stream("POST", url, json={"text": "to be"}) as answer:
        words = [json.loads(line)["word"] for line in answer.iter_lines() if line]
    assert words == ["to", "be"]
    accept = {"accept": "text/event-stream"}
    with httpx.stream("POST", url, json={"text": "to be"}, headers=accept) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line for line in answer.iter_lines() if line.startswith("data:")]
    assert json.loads(events[1].removeprefix("data:")) == {"number": 1, "word": "be"}
    assert post(url, {"no": "text"}).status_code == 400


def test_clients_of_openai_are_answered(run: Run) -> None:
    url, _ = run("openai-chat")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    (model,) = client.models.list()
    messages = [{"role": "user", "content": "The sea"}]
    whole = client.chat.completions.create(model=model.id, messages=messages, seed=1)
    stream = client.chat.completions.create(model=model.id, messages=messages, seed=1, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in stream) == whole.choices[0].message.content
    assert whole.usage.prompt_tokens == 2
    near, same, far = client.embeddings.create(model=model.id, input=["warm sea", "sea warm", "cold"]).data
    assert near.embedding == pytest.approx(same.embedding, abs=1e-6)
    assert near.embedding != pytest.approx(far.embedding, abs=0.1)


def test_scikit_learn_model_is_trained_and_served(run: Run) -> None:
    url, metrics = run("scikit-learn", prepare=[sys.executable, "train.py"])
    assert post(url, FLOWER).json() == {"label": "setosa"}
    assert post(url, {}).status_code == 400
    metrics_with(metrics, 'class="setosa"')


def test_tensorflow_serving_gets_the_gpu() -> None:
    done = CliRunner().invoke(main, ["validate", str(EXAMPLES / "gpu" / "api.yaml")])
    assert done.exit_code == 0, done.output
    children = render(parse(yaml.safe_load((EXAMPLES / "gpu" / "api.yaml").read_text())), Platform(), None)
    deployment = next(child for child in children if child["kind"] == "Deployment")
    (server,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
