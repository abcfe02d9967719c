"""The OpenAPI document of an AsyncAPI, which its gateway serves: submit a job, read it, cancel it, retry it.

The gateway does not run the code of the handler, so it does not know the type of the payload.
"""

import json
from typing import Any

from cortex_api import Document
from cortex_runtime.openapi.common import BODY_ERRORS, SAMPLE, Frame, Schema, json_of, media, parameter

_TIME = {"type": "string", "format": "date-time"}
_JOB: Schema = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {
        "id": {"type": "string"},
        "status": {"enum": ["in_queue", "in_progress", "completed", "failed"]},
        "result": {"description": "What the handler has returned; with status completed"},
        "timestamp": {**_TIME, "description": "The end of the job"},
        "attempts": {"type": "integer", "description": "How often the job was started"},
        "progress": {"type": "number", "description": "From 0 to 1, as the handler reports it"},
        "note": {"type": "string", "description": "What the handler reports with its progress"},
        "error": {"type": "string", "description": "Why the job has failed"},
        "reason": {"type": "string", "description": "Why the job has failed, in one word"},
        "lastError": {"type": "string", "description": "Why the last attempt has failed"},
    },
}
_ID = parameter("id", "path", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "The id of a job")


def document(api: Document) -> bytes:
    """Return the document as JSON."""
    frame = Frame(api.name, has_keys=api.spec.handler.api_keys is not None)
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
    samples = _samples(api)
    content = {"application/json": media({}, samples)}
    if not samples:
        content |= {"text/plain": media({"type": "string"}), "application/octet-stream": media({})}
    submit: Schema = {
        "operationId": "submit",
        "tags": [tag],
        "summary": "Submit a job",
        "parameters": headers,
        "requestBody": {"required": True, "content": content},
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
        "responses": {"200": json_of(_JOB, "The job")},
    }
    frame.add("/{id}", "GET", read, ("400", "404", "500"))
    cancel = {
        "operationId": "cancel",
        "tags": [tag],
        "summary": "Cancel a job",
        "description": "A job that has ended stays unchanged.",
        "parameters": [_ID],
        "responses": {"200": json_of(_JOB, "The job")},
    }
    frame.add("/{id}", "DELETE", cancel, ("404", "500"))
    retry = {
        "operationId": "retry",
        "tags": [tag],
        "summary": "Run a failed job again",
        "description": "With its id, its payload and all its attempts. 409 if the job has not failed.",
        "parameters": [_ID],
        "responses": {"200": json_of(_JOB, "The job")},
    }
    frame.add("/{id}/retry", "POST", retry, ("404", "409", "500"))
    return frame.build()


def _samples(api: Document) -> dict[str, Any]:
    """Return the content of sample.json if the manifest contains the code. The gateway does not have other projects."""
    source = api.spec.handler.source
    folder = (api.spec.handler.path or "").rpartition("/")[0]
    text = ((source.files if source is not None else None) or {}).get(f"{folder}/{SAMPLE}".lstrip("/"))
    try:
        return {} if text is None else {"sample": json.loads(text)}
    except ValueError:
        return {}
