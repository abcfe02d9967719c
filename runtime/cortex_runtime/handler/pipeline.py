"""A model that is served without a class: as it is, or with the functions `pre_inference` and `post_inference` around it.

The query's `model` and `version` choose among several.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from cortex_runtime.clients import Client
from cortex_runtime.errors import StartError
from cortex_runtime.handler import debug
from cortex_runtime.handler.arguments import arguments_of, is_async
from cortex_runtime.handler.interfaces import JOB, STAGES, Code, Method


def methods(
    code: Code, client: Client, config: Mapping[str, Any], batched: bool = False
) -> dict[str, Method]:
    """The one method that runs the model. batched: whether it gets lists of requests. Raises StartError."""
    pipeline = Pipeline(code, client, config)
    verb = next(iter(code.verbs.values()))
    function = pipeline.predict_many if batched else pipeline.predict
    return {verb: Method(function, pipeline.arguments, is_async=False)}


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
        # All releases that had these functions demanded `metadata`, so a function without it is of today's form.
        self._classic = frozenset(name for name, wanted in self._wanted.items() if "metadata" in wanted)
        self._flat = code.type == "tensorflow" and "post_inference" in self._classic
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

    def predict_many(self, **lists: list[Any]) -> list[Any]:
        """Answer a batch: for each request its result, or the exception that it gets.

        Requests for one model run as one where the model takes any number of rows; the others one by one.
        """
        from cortex_runtime.handler import stacking

        requests = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
        results: list[Any] = [None] * len(requests)
        alike: dict[Any, list[tuple[int, Any]]] = {}
        for place, given in enumerate(requests):
            try:
                value, key = self.before(given), None
                inputs = stacking.inputs_of(self.client.signature(*which(given)))
                if inputs is not None:
                    value = stacking.feed_of(value, inputs)
                    key = (
                        (*which(given), stacking.shape(value)) if stacking.count(value) is not None else None
                    )
                alike.setdefault(place if key is None else key, []).append((place, value))
            except Exception as error:
                results[place] = error
        for items in alike.values():
            for place, result in self._run(items, requests):
                results[place] = result
        for place, given in enumerate(requests):
            if not isinstance(results[place], Exception):
                try:
                    results[place] = self.after(given, results[place])
                except Exception as error:
                    results[place] = error
        return results

    def _run(self, items: list[tuple[int, Any]], requests: list[dict[str, Any]]) -> Iterator[tuple[int, Any]]:
        """Outputs of the model, or the exception, by place. Inputs of several items can be joined."""
        from cortex_runtime.handler import stacking

        model = which(requests[items[0][0]])
        if len(items) > 1:
            values = [value for _, value in items]
            # What goes wrong together is found out one by one.
            with suppress(Exception):
                outputs = self.client.predict(stacking.join(values), *model)
                parts = stacking.split(outputs, [stacking.count(value) or 0 for value in values])
                if parts is not None:
                    yield from zip((place for place, _ in items), parts, strict=True)
                    return
        for place, value in items:
            try:
                yield place, self.client.predict(value, *model)
            except Exception as error:
                yield place, error

    def before(self, given: Mapping[str, Any]) -> Any:
        """What goes to the model."""
        return self._apply("pre_inference", given["payload"], given)

    def after(self, given: Mapping[str, Any], result: Any) -> Any:
        """What goes to the client."""
        debug.show("inference", result)
        if self._flat:
            from cortex_runtime.clients.legacy import FlatOutputs

            result = FlatOutputs(result)
        return self._apply("post_inference", result, given)

    def _apply(self, stage: str, value: Any, given: Mapping[str, Any]) -> Any:
        function = self._stages[stage]
        if function is None:
            return value
        wanted = self._wanted[stage]
        more: dict[str, Any] = {name: given[name] for name in wanted if name in given}
        if "config" in wanted:
            more["config"] = self._config
        if stage in self._classic:
            signature = self._classic_signature(stage, given)
            # Alone, as up to 0.9, it is the model's signature; beside `signature`, from 0.10, it is the API's.
            more["metadata"] = self._config if "signature" in wanted else signature
            if "signature" in wanted:
                more["signature"] = signature
        elif "signature" in wanted:
            more["signature"] = self.client.signature(*which(given))
        result = function(value, **more)
        debug.show(stage, result)
        return result

    def _classic_signature(self, stage: str, given: Mapping[str, Any]) -> Any:
        """Return the signature as the old forms of the functions read it, which today's form can read as well."""
        read = getattr(self.client, "classic_signature", None)
        if read is None:
            return self.client.signature(*which(given))
        return read("inputs" if stage == "pre_inference" else "outputs", *which(given))


def which(given: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Name and version of the model that a request asks for in its query."""
    query = given.get("query_params")
    return (query.get("model"), query.get("version")) if query else (None, None)
