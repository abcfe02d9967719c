"""The interface of a handler that runs jobs. A worker writes it for the gateway, which runs no user code (see jobs.py)."""

import inspect
import logging

from cortex_runtime.handler.interfaces import JOB
from cortex_runtime.handler.loaded_handler import LoadedHandler
from cortex_runtime.http.json_encoder import dumps
from cortex_runtime.openapi import docstrings, operations, realtime
from cortex_runtime.openapi.jobs import FORMAT, Interface
from cortex_runtime.openapi.schemas import Schemas

log = logging.getLogger("cortex")

LARGEST = 256 * 1024
"""Bytes of JSON."""
UNKNOWN = dumps({"format": FORMAT})
"""An interface without types."""


def describe(handler: LoadedHandler) -> bytes:
    """Return the interface of the jobs as JSON of at most `LARGEST` bytes. Calls no method of the handler and loads no model."""
    content = dumps(_describe(handler, has_examples=True))
    if len(content) > LARGEST:
        content = dumps(_describe(handler, has_examples=False))
        log.warning("the examples of the payload are too large, and are not in the OpenAPI document")
    if len(content) > LARGEST:
        log.warning(
            "the types of the handler need more than %d bytes in the OpenAPI document, and are not in it",
            LARGEST,
        )
        content = UNKNOWN
    return content


def _describe(handler: LoadedHandler, has_examples: bool) -> Interface:
    schemas = Schemas()
    models = handler.client.info() if handler.client is not None else []
    method = handler.methods[JOB]
    described = realtime.describe(handler, JOB, method, models, False)
    api = realtime.docstring_of(handler)
    text = inspect.getdoc(described.function) if described.function is not None else None
    doc = docstrings.parse(text)
    requests, results = doc.values("request") or described.samples or {}, doc.values("response")
    if not has_examples:
        requests, results = {}, {}
    interface: Interface = {
        "format": FORMAT,
        "summary": api.summary,
        "description": api.description,
        "submit": {"summary": doc.summary, "description": doc.description},
        "result": operations.job_result(schemas, described),
        "results": results,
    }
    if method.takes_payload:
        interface["payload"] = operations.request_body(schemas, described, requests)
    schemas.finish()
    return {**interface, "schemas": schemas.components}
