"""Server-side batching of inferences: requests whose inputs differ only in the number of rows run as one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cortex_runtime.handler.interfaces import Method
from cortex_runtime.inference.messages import InferRequest, InferResponse, Tensor
from cortex_runtime.inference.models import Models

Results = list[InferResponse | Exception]


def batched(models: Models) -> Method:
    """Return the method that takes a list of requests and returns for each its response, or the exception that it gets."""
    one = models.method

    def run(request: list[InferRequest]) -> Results:
        work = _work(models, request)
        reply: Any = None
        while True:
            try:
                step = work.send(reply)
            except StopIteration as done:
                results: Results = done.value
                return results
            reply = _tried(one.function, step)

    async def run_async(request: list[InferRequest]) -> Results:
        work = _work(models, request)
        reply: Any = None
        while True:
            try:
                step = work.send(reply)
            except StopIteration as done:
                results: Results = done.value
                return results
            try:
                reply = await one.function(request=step)
            except Exception as error:
                reply = error

    return Method(run_async if one.is_async else run, ("request",), one.is_async)


def _tried(function: Callable[..., Any], request: InferRequest) -> Any:
    try:
        return function(request=request)
    except Exception as error:
        return error


def _work(models: Models, requests: Sequence[InferRequest]) -> Any:
    """Yield the requests to run; receives the response or exception of each. Returns the results."""
    results: list[Any] = [None] * len(requests)
    groups: dict[Any, list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(_key(models, request) or place, []).append(place)
    for places in groups.values():
        if len(places) > 1:
            together = [requests[place] for place in places]
            parts = _split((yield _joined(together)), together)
            if parts is not None:
                for place, part in zip(places, parts, strict=True):
                    results[place] = part
                continue
        # What fails together, or cannot be split, is run one by one.
        for place in places:
            results[place] = yield requests[place]
    return results


def _key(models: Models, request: InferRequest) -> Any:
    """Return what requests must share to run as one; None for a request that must run alone."""
    if not request.inputs or any(not tensor.array.ndim for tensor in request.inputs):
        return None
    if len({len(tensor.array) for tensor in request.inputs}) != 1:
        return None
    try:
        signature = models.signature(request.model, request.version)
    except Exception:
        return None
    if not signature.has_rows:
        return None
    shapes = tuple(
        sorted((tensor.name, tensor.datatype, tensor.array.shape[1:]) for tensor in request.inputs)
    )
    names = request.output_names()
    parameters = tuple(sorted((name, repr(value)) for name, value in request.parameters.items()))
    return request.model, request.version, shapes, None if names is None else tuple(names), parameters


def _joined(requests: Sequence[InferRequest]) -> InferRequest:
    """Return one request with the rows of all."""
    first = requests[0]
    by_name = [{tensor.name: tensor.array for tensor in request.inputs} for request in requests]
    inputs = [
        Tensor(tensor.name, tensor.datatype, np.concatenate([arrays[tensor.name] for arrays in by_name]))
        for tensor in first.inputs
    ]
    return InferRequest(
        first.model, first.version, inputs, parameters=first.parameters, outputs=first.outputs
    )


def _split(
    response: InferResponse | Exception, requests: Sequence[InferRequest]
) -> list[InferResponse] | None:
    """Return the response of each request; None if an output does not have one row for each row of the inputs."""
    if isinstance(response, Exception):
        return None
    counts = [len(request.inputs[0].array) for request in requests]
    if any(not tensor.array.ndim or len(tensor.array) != sum(counts) for tensor in response.outputs):
        return None
    ends = np.cumsum(counts)[:-1]
    parts = [np.split(tensor.array, ends) for tensor in response.outputs]
    return [
        InferResponse(
            response.model,
            response.version,
            [
                Tensor(tensor.name, tensor.datatype, arrays[place], tensor.parameters)
                for tensor, arrays in zip(response.outputs, parts, strict=True)
            ],
            request.id,
            response.parameters,
        )
        for place, request in enumerate(requests)
    ]
