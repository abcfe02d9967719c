"""Objects are rendered again exactly if something that they depend on has changed."""

from typing import Any

import pytest

from cortex_api import parse
from cortex_operator import renderer as module
from cortex_operator.capabilities import Capabilities
from cortex_operator.platform import Platform
from cortex_operator.render import render
from cortex_operator.renderer import RECENT, Renderer
from cortex_operator.watch.cache import Key

Object = dict[str, Any]
KEY = Key("RealtimeAPI", "default", "iris")
CODE: Object = {"metadata": {"name": "code"}, "data": {"handler.py": "1"}}


def api(**spec: Any) -> Any:
    source = {"configMap": {"name": "code"}}
    handler = {"type": "python", "path": "handler.py", "source": source}
    metadata = {"name": "iris", "namespace": "default", "uid": "u"}
    return parse({"kind": "RealtimeAPI", "metadata": metadata, "spec": {"handler": handler, **spec}})


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The APIs that were rendered."""
    calls: list[Any] = []

    def record(of: Any, *arguments: Any) -> list[Object]:
        calls.append(of)
        return render(of, *arguments)

    monkeypatch.setattr(module, "render", record)
    return calls


def test_the_same_api_is_rendered_once(rendered: list[Any]) -> None:
    renderer = Renderer(Platform(), Capabilities())
    first = renderer.render(KEY, api(), CODE, True)
    first.append({"kind": "Of the candidate"})
    assert renderer.render(KEY, api(), CODE, True) == render(api(), Platform(), CODE, Capabilities(), True)
    assert len(rendered) == 1


@pytest.mark.parametrize(
    "inputs",
    [
        (api(replicas=2), CODE, True),
        (api(), {**CODE, "data": {"handler.py": "2"}}, True),
        (api(), CODE, False),
    ],
)
def test_each_input_that_changes_is_rendered(rendered: list[Any], inputs: tuple[Any, Object, bool]) -> None:
    platform = Platform.model_validate({"ingress": {"className": "nginx", "hostname": "example.com"}})
    renderer = Renderer(platform, Capabilities())
    before = renderer.render(KEY, api(), CODE, True)
    of, source, routed = inputs
    after = renderer.render(KEY, of, source, routed)
    assert after == render(of, platform, source, Capabilities(), routed) != before


def test_only_the_last_apis_are_kept(rendered: list[Any]) -> None:
    renderer = Renderer(Platform(), Capabilities())
    for number in range(RECENT + 1):
        renderer.render(Key("RealtimeAPI", "default", f"api-{number}"), api(), CODE, True)
    renderer.render(Key("RealtimeAPI", "default", "api-1"), api(), CODE, True)
    assert len(rendered) == RECENT + 1
    renderer.render(Key("RealtimeAPI", "default", "api-0"), api(), CODE, True)
    assert len(rendered) == RECENT + 2
