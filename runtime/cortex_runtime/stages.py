"""A model that is served without a class: as it is, or with the functions `pre_inference` and `post_inference` around it.

The query's `model` and `version` choose among several.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cortex_runtime import debug
from cortex_runtime.clients import Client
from cortex_runtime.errors import StartError
from cortex_runtime.handler import JOB, STAGES, Code, Method
from cortex_runtime.signatures import arguments_of, is_async

Stage = Callable[..., Any]


def methods(code: Code, client: Client, config: Mapping[str, Any]) -> dict[str, Method]:
    """The one method that runs the model. Raises StartError."""
    pipeline = Pipeline(code, client, config)
    verb = next(iter(code.verbs.values()))
    return {verb: Method(pipeline.predict, pipeline.arguments, is_async=False)}


class Pipeline:
    """payload → pre_inference → the model → post_inference. arguments: what it takes of a request or job."""

    def __init__(self, code: Code, client: Client, config: Mapping[str, Any]) -> None:
        self.client = client
        self._config = config
        available = code.interface.arguments(code.kind)
        self._wanted: dict[str, tuple[str, ...]] = {}
        for name, function in code.stages.items():
            if is_async(function):
                raise StartError(
                    "HandlerInvalid",
                    f"{code.where}: {name} is async; around a model it must be a plain function",
                )
            where = f"{code.where}: {name}"
            self._wanted[name] = arguments_of(function, available, where, bound=True, first=True)
        self._stages = {name: code.stages.get(name) for name in STAGES}
        asked = {name for names in self._wanted.values() for name in names}
        own = ("payload",) if JOB in code.verbs.values() else ("payload", "query_params")
        extra = [
            name for name in available if name in asked and name in ("query_params", "headers", "request_id")
        ]
        self.arguments = tuple(dict.fromkeys((*own, *extra)))

    def predict(self, **given: Any) -> Any:
        """Answer one request. given: what `arguments` names."""
        name, version = which(given)
        value = self.before(given)
        result = self.client.predict(value, name, version)
        return self.after(given, result)

    def before(self, given: Mapping[str, Any]) -> Any:
        """What goes to the model."""
        return self._apply("pre_inference", given["payload"], given)

    def after(self, given: Mapping[str, Any], result: Any) -> Any:
        """What goes to the client."""
        debug.show("inference", result)
        return self._apply("post_inference", result, given)

    def _apply(self, stage: str, value: Any, given: Mapping[str, Any]) -> Any:
        function = self._stages[stage]
        if function is None:
            return value
        wanted = self._wanted[stage]
        more: dict[str, Any] = {name: given[name] for name in wanted if name in given}
        if "config" in wanted:
            more["config"] = self._config
        signature = partial(self.client.signature, *which(given))
        if "signature" in wanted:
            more["signature"] = signature()
        if "metadata" in wanted:
            # Beside `signature` it is the API's; alone it was the model's signature, until release 0.10.
            more["metadata"] = self._config if "signature" in wanted else signature()
        result = function(value, **more)
        debug.show(stage, result)
        return result


def which(given: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Name and version of the model that a request asks for in its query."""
    query = given.get("query_params")
    return (query.get("model"), query.get("version")) if query else (None, None)
