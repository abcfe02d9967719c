"""Complete what `handle_embeddings` returns, to the object of OpenAI."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Object = dict[str, Any]


def count_inputs(given: Any) -> int:
    """Return the number of texts (or lists of tokens) in the parameter `input`."""
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        return 1
    return len(given)


def whole(result: Any, request: Mapping[str, Any]) -> Object:
    """Return the complete object. Raises TypeError and ValueError.

    result: one vector for each input, as lists or an array of shape [inputs, dimensions]; one vector for one input; or a dict
    with `embeddings` or `data`, and optionally `usage` and other fields. With encoding_format base64, a vector is sent as its
    float32 numbers in little-endian order.
    """
    own: Object = {}
    vectors: Any
    if hasattr(result, "model_dump"):
        result = result.model_dump()
    if isinstance(result, Mapping):
        own = dict(result)
        if "data" in own:
            vectors = [each["embedding"] for each in own["data"]]
        elif "embeddings" in own:
            vectors = own.pop("embeddings")
        else:
            raise TypeError("handle_embeddings must return vectors, or a dict with embeddings or data")
    else:
        vectors = result
    count = count_inputs(request["input"])
    vectors = _rows(vectors, count)
    if len(vectors) != count:
        raise ValueError(f"handle_embeddings returned {len(vectors)} vectors for {count} inputs")
    encode = _as_base64 if request.get("encoding_format") == "base64" else _as_list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(vectors)
    ]
    return {"object": "list", "model": request["model"], **own, "data": data}


def _rows(vectors: Any, count: int) -> Sequence[Any]:
    if hasattr(vectors, "tolist") and not hasattr(vectors, "__len__"):
        raise TypeError("handle_embeddings must return vectors; got a number")
    if not isinstance(vectors, Sequence | np.ndarray) or isinstance(vectors, str | bytes):
        vectors = np.asarray(vectors)
    if count == 1 and len(vectors) and np.ndim(vectors[0]) == 0 and not isinstance(vectors[0], str):
        return [vectors]
    return vectors


def _as_list(vector: Any) -> Any:
    return np.frombuffer(base64.b64decode(vector), "<f4") if isinstance(vector, str) else vector


def _as_base64(vector: Any) -> str:
    # A handler that forwards to another server may have received this form.
    return (
        vector if isinstance(vector, str) else base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
    )
