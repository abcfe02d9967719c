"""Serve a model without a class: directly, or with the functions `pre_inference` and `post_inference`.

The query parameters `model` and `version` select one of several models.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from cortex_runtime.clients import Client
from cortex_runtime.errors import StartError
from cortex_runtime.handler import debug
from cortex_runtime.handler.arguments import arguments_of, is_async
from cortex_runtime.handler.interfaces import JOB, STAGES, Code, Method
from cortex_runtime.handler.payload_type import first_hint_of


def methods(
    code: Code, client: Client, config: Mapping[str, Any], batched: bool = False
) -> dict[str, Method]:
    """Return the method that runs the model. batched: whether it takes lists of requests. Raises StartError."""
    pipeline = Pipeline(code, client, config)
    verb = next(iter(code.verbs.values()))
    function = pipeline.predict_many if batched else pipeline.predict
    where = f"{code.where}: pre_inference"
    hint = first_hint_of(code.stages.get("pre_inference"), where)
    payload_type = list[hint] if batched and hint is not None else hint  # type: ignore[valid-type]
    return {verb: Method(function, pipeline.arguments, False, payload_type=payload_type, where=where)}


class Pipeline:
    """payload → pre_inference → model → post_inference. arguments: those of a request or job that it takes."""

    def __init__(self, code: Code, client: Client, config: Mapping[str, Any]) -> None:
        self.client = client
        self._config = config
        available = code.interface.arguments(code.kind)
        self._wanted: dict[str, tuple[str, ...]] = {}
        for name, function in code.stages.items():
            if is_async(function):
                raise StartError(
                    "HandlerInvalid",
                    f"{code.where}: {name} must be a plain function; got an async function",
                )
            where = f"{code.where}: {name}"
            self._wanted[name] = arguments_of(function, available, where, bound=True, first=True)
        self._stages = {name: code.stages.get(name) for name in STAGES}
        # In the original Cortex these functions had to take `metadata`. A function without it has the current form.
        self._classic = frozenset(name for name, wanted in self._wanted.items() if "metadata" in wanted)
        self._flat = code.type == "tensorflow" and "post_inference" in self._classic
        taken = {name for names in self._wanted.values() for name in names}
        own = ("payload",) if JOB in code.verbs.values() else ("payload", "query_params")
        extra = [
            name for name in available if name in taken and name in ("query_params", "headers", "request_id")
        ]
        self.arguments = tuple(dict.fromkeys((*own, *extra)))

    def predict(self, **given: Any) -> Any:
        """Return the result of one request. given: the values of `arguments`."""
        name, version = requested_model(given)
        value = self._before(given)
        result = self.client.predict(value, name, version)
        return self._after(given, result)

    def predict_many(self, **lists: list[Any]) -> list[Any]:
        """Return the results of a batch: for each request its result, or an exception.

        If a model accepts any number of rows, its requests run as one; otherwise one by one.
        """
        from cortex_runtime.handler import stacking

        requests = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
        results: list[Any] = [None] * len(requests)
        groups: dict[Any, list[tuple[int, Any]]] = {}
        inputs_by_model: dict[tuple[str | None, str | None], Any] = {}
        for index, given in enumerate(requests):
            try:
                value, key = self._before(given), None
                model = requested_model(given)
                if model not in inputs_by_model:
                    inputs_by_model[model] = stacking.stackable_inputs(self.client.signature(*model))
                inputs = inputs_by_model[model]
                if inputs is not None:
                    value = stacking.to_feed(value, inputs)
                    if stacking.count_rows(value) is not None:
                        key = (*model, stacking.row_shape(value))
                groups.setdefault(index if key is None else key, []).append((index, value))
            except Exception as error:
                results[index] = error
        for items in groups.values():
            for index, result in self._run(items, requests):
                results[index] = result
        for index, given in enumerate(requests):
            if not isinstance(results[index], Exception):
                try:
                    results[index] = self._after(given, results[index])
                except Exception as error:
                    results[index] = error
        return results

    def _run(self, items: list[tuple[int, Any]], requests: list[dict[str, Any]]) -> Iterator[tuple[int, Any]]:
        """Yield the index of each request with its output or an exception. The inputs of several items must have one shape."""
        from cortex_runtime.handler import stacking

        model = requested_model(requests[items[0][0]])
        if len(items) > 1:
            values = [value for _, value in items]
            # If the joined request fails, run the requests one by one, so that only the cause fails.
            with suppress(Exception):
                outputs = self.client.predict(stacking.join(values), *model)
                parts = stacking.split(outputs, [stacking.count_rows(value) or 0 for value in values])
                if parts is not None:
                    yield from zip((index for index, _ in items), parts, strict=True)
                    return
        for index, value in items:
            try:
                yield index, self.client.predict(value, *model)
            except Exception as error:
                yield index, error

    def _before(self, given: Mapping[str, Any]) -> Any:
        """Return the input of the model."""
        return self._apply("pre_inference", given["payload"], given)

    def _after(self, given: Mapping[str, Any], result: Any) -> Any:
        """Return the result for the HTTP client."""
        debug.log_stage("inference", result)
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
            # Up to 0.9, `metadata` is the model's signature. With `signature`, since 0.10, it is the API's config.
            more["metadata"] = self._config if "signature" in wanted else signature
            if "signature" in wanted:
                more["signature"] = signature
        elif "signature" in wanted:
            more["signature"] = self.client.signature(*requested_model(given))
        result = function(value, **more)
        debug.log_stage(stage, result)
        return result

    def _classic_signature(self, stage: str, given: Mapping[str, Any]) -> Any:
        """Return the signature in the form of the original Cortex, which the current form includes."""
        read = getattr(self.client, "classic_signature", None)
        if read is None:
            return self.client.signature(*requested_model(given))
        return read("inputs" if stage == "pre_inference" else "outputs", *requested_model(given))


def requested_model(given: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return name and version of the model in the query of a request; None where missing."""
    query = given.get("query_params")
    return (query.get("model"), query.get("version")) if query else (None, None)
