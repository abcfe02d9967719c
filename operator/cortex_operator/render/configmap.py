"""The ConfigMaps of an API: the document that the runtime reads, and the code.

They are immutable and named by their content, so a pod of an earlier generation that starts during a rollout, such as after a
node drain, runs the earlier code. They are deleted when no such pod can start any more (`plan.make_plan`).
"""

from typing import Any

from cortex_api import AsyncAPI, Document, RealtimeAPI
from cortex_api.contract import API, DEFAULT_SAMPLING, DOCUMENT_FILE, PROJECT_ARCHIVES
from cortex_api.observability import Tracing
from cortex_operator.platform import Platform
from cortex_operator.render import tensorflow
from cortex_operator.render.names import child_name, digest

Object = dict[str, Any]


def config(api: RealtimeAPI | AsyncAPI, platform: Platform, component: str = API) -> Object:
    """Return the ConfigMap with the document for the runtime and the files of TensorFlow Serving."""
    tracing = _tracing(api, platform)
    if tracing != api.spec.tracing:
        api = api.model_copy(update={"spec": api.spec.model_copy(update={"tracing": tracing})})
    data = {DOCUMENT_FILE: Document.of(api).to_json().decode(), **tensorflow.files(api)}
    return _immutable(f"{child_name(api, component)}-config", {"data": data})


def _tracing(api: RealtimeAPI | AsyncAPI, platform: Platform) -> Tracing | None:
    """Return `spec.tracing` with the defaults of the platform; None if no endpoint is set."""
    default, own = platform.tracing, api.spec.tracing
    endpoint = (own and own.endpoint) or (default and default.endpoint)
    if not endpoint:
        return None
    sampling = own.sampling if own is not None else None
    if sampling is None:
        sampling = DEFAULT_SAMPLING if default is None else default.sampling
    return Tracing(endpoint=endpoint, sampling=sampling)


def code(api: RealtimeAPI | AsyncAPI, source: Object | None, component: str = API) -> Object | None:
    """Return the ConfigMap with the code: `handler.source.files`, or a copy of `source`, the live ConfigMap that
    `handler.source.configMap` names. None if the code is elsewhere.

    Paths are not valid keys, so the keys of files are numbers in the order of the paths.
    """
    of_api = api.spec.handler.source
    if of_api is not None and of_api.files is not None:
        data = {f"file-{i}": of_api.files[path] for i, path in enumerate(sorted(of_api.files))}
        return _immutable(f"{child_name(api, component)}-code", {"data": data})
    if source is None:
        return None
    contents = {name: source[name] for name in ("data", "binaryData") if source.get(name)}
    return _immutable(f"{child_name(api, component)}-code", contents)


def _immutable(prefix: str, contents: Object) -> Object:
    metadata = {"name": f"{prefix}-{digest(contents)}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, **contents}


def is_packed(code: dict[str, Any] | None) -> bool:
    """Return whether a ConfigMap has the project as an archive, which the runtime extracts."""
    return code is not None and any(name in PROJECT_ARCHIVES for name in code.get("binaryData") or ())


def code_items(api: RealtimeAPI | AsyncAPI) -> list[dict[str, str]] | None:
    """Return which key of the ConfigMap with code is mounted at which path; None where keys are file names."""
    source = api.spec.handler.source
    if source is None or source.files is None:
        return None
    return [{"key": f"file-{i}", "path": path} for i, path in enumerate(sorted(source.files))]
