"""The OpenAPI document of an AsyncAPI, which its gateway serves: submit a job, read it, cancel it, retry it.

The gateway does not run the code of the handler. It gets the types of payload and result from a worker, as an `Interface` that
job_interface.py has written; without one, both are any value.
"""

import json
from typing import Any

import orjson

from cortex_api import Document
from cortex_runtime.openapi.common import BODY_ERRORS, SAMPLE, Frame, Schema, json_of, media, parameter

Interface = dict[str, Any]
"""What a worker knows of its handler.

summary, description: of the API. submit: summary and description of the operation. payload: its request body object. result: a
schema. results: examples by name. schemas: the components to which the schemas refer.
"""
FORMAT = 1
"""Of an interface. An older gateway ignores a newer one, and describes the jobs without types."""
_TIME = {"type": "string", "format": "date-time"}
_JOB: Schema = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {
        "id": {"type": "string"},
        "status": {"enum": ["in_queue", "in_progress", "completed", "failed"]},
        "timestamp": {**_TIME, "description": "The end of the job"},
        "attempts": {"type": "integer", "description": "How often the job was started"},
        "progress": {"type": "number", "description": "From 0 to 1, as the handler reports it"},
        "note": {"type": "string", "description": "What the handler reports with its progress"},
        "error": {"type": "string", "description": "Why the job has failed"},
        "reason": {"type": "string", "description": "Why the job has failed, in one word"},
        "lastError": {"type": "string", "description": "Why the last attempt has failed"},
    },
}
_RESULT = "What the handler has returned; with status completed"
_ID = parameter("id", "path", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "The id of a job")


def read(content: bytes) -> Interface | None:
    """Return the interface that a worker has written; None if it has another format."""
    try:
        interface: Interface = orjson.loads(content)
        return interface if interface["format"] == FORMAT else None
    except (ValueError, TypeError, LookupError):
        return None


def document(api: Document, interface: Interface | None = None) -> bytes:
    """Return the document as JSON. interface: None if no worker has started yet."""
    known = interface or {}
    has_keys = api.spec.handler.api_keys is not None
    frame = Frame(api.name, known.get("summary", ""), known.get("description", ""), has_keys)
    frame.schemas.update(known.get("schemas", {}))
    job = _job(known)
    tag = frame.tag(
        "Jobs", "A job is queued, and a worker runs it. Its result is kept until `queue.retention` ends."
    )
    key: Schema = {"type": "string", "maxLength": 255}
    headers = [parameter("Idempotency-Key", "header", key, "Requests with the same key return the same job")]
    if api.async_spec.webhook is not None:
        url: Schema = {"type": "string", "format": "uri", "maxLength": 1024}
        headers.append(
            parameter("X-Cortex-Webhook", "header", url, "This URL is notified of the end of the job")
        )
    accepted = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
    texts = known.get("submit", {})
    submit: Schema = {
        "operationId": "submit",
        "tags": [tag],
        "summary": texts.get("summary") or "Submit a job",
        "description": texts.get("description", ""),
        "parameters": headers,
        "requestBody": known.get("payload") or _any_payload(api),
        "responses": {"202": json_of(accepted, "The job is stored and will run")},
    }
    submit["responses"]["202"]["links"] = {
        "read": {"operationId": "read", "parameters": {"id": "$response.body#/id"}}
    }
    frame.add("/", "POST", submit, (*BODY_ERRORS, "422", "500"))
    described = "Respond once the job has ended, or after this time, such as 20s; at most a minute"
    wait = parameter("wait", "query", {"type": "string", "pattern": "^[0-9]{1,2}s$"}, described)
    read = {
        "operationId": "read",
        "tags": [tag],
        "summary": "Read the status or the result of a job",
        "parameters": [_ID, wait],
        "responses": {"200": job},
    }
    frame.add("/{id}", "GET", read, ("400", "404", "500"))
    cancel = {
        "operationId": "cancel",
        "tags": [tag],
        "summary": "Cancel a job",
        "description": "A job that has ended stays unchanged.",
        "parameters": [_ID],
        "responses": {"200": job},
    }
    frame.add("/{id}", "DELETE", cancel, ("404", "500"))
    retry = {
        "operationId": "retry",
        "tags": [tag],
        "summary": "Run a failed job again",
        "description": "With its id, its payload and all its attempts. 409 if the job has not failed.",
        "parameters": [_ID],
        "responses": {"200": job},
    }
    frame.add("/{id}/retry", "POST", retry, ("404", "409", "500"))
    return frame.build()


def _job(known: Interface) -> Schema:
    """Return the response that describes a job."""
    schema = {
        **_JOB,
        "properties": {**_JOB["properties"], "result": {"description": _RESULT, **known.get("result", {})}},
    }
    examples = {
        name: {"id": "9f86d081884c7d65", "status": "completed", "result": value}
        for name, value in known.get("results", {}).items()
    }
    return json_of(schema, "The job", examples)


def _any_payload(api: Document) -> Schema:
    samples = _samples(api)
    content = {"application/json": media({}, samples)}
    if not samples:
        content |= {"text/plain": media({"type": "string"}), "application/octet-stream": media({})}
    return {"required": True, "content": content}


def _samples(api: Document) -> dict[str, Any]:
    """Return the content of sample.json if the manifest contains the code. The gateway does not have other projects."""
    source = api.spec.handler.source
    folder = (api.spec.handler.path or "").rpartition("/")[0]
    text = ((source.files if source is not None else None) or {}).get(f"{folder}/{SAMPLE}".lstrip("/"))
    try:
        return {} if text is None else {"sample": json.loads(text)}
    except ValueError:
        return {}
