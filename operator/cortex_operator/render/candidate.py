"""The objects of a candidate: those of an ordinary API, with the component `candidate`, and the split between both versions."""

import json
import math
from dataclasses import dataclass
from typing import Any

from cortex_api import Document, RealtimeAPI
from cortex_api.contract import (
    CANDIDATE,
    COMPONENT_LABEL,
    GRPC_PORT,
    PORT,
    RETRY_ANNOTATION,
    SPLIT_FILE,
    split_name,
)
from cortex_operator.capabilities import Capabilities
from cortex_operator.platform import Platform
from cortex_operator.render import configmap, deployment, disruption, hpa, service
from cortex_operator.render.names import child_name, digest, finish

Object = dict[str, Any]


@dataclass(frozen=True)
class RenderedCandidate:
    """A candidate as an API of its own, and its objects in the order in which they are applied. version: see `version_of`."""

    api: RealtimeAPI
    version: str
    children: list[Object]


def render(
    api: RealtimeAPI,
    candidate: RealtimeAPI,
    platform: Platform,
    source: Object | None,
    capabilities: Capabilities,
) -> RenderedCandidate:
    """Return the candidate of an API. candidate: the API as `candidate_api` returns it. source: see `render.render`."""
    config = configmap.config(candidate, platform, CANDIDATE)
    code = configmap.code(candidate, source, CANDIDATE)
    front = service.of_component(candidate, child_name(candidate, CANDIDATE), CANDIDATE)
    children: list[Object | None] = [front, config, code]
    children.append(deployment.render(candidate, platform, config, code, CANDIDATE))
    children.append(hpa.render(candidate, capabilities, CANDIDATE))
    children += disruption.render(candidate, CANDIDATE)
    for child in filter(None, children):
        child["metadata"]["labels"] = {COMPONENT_LABEL: CANDIDATE}
    finished = [finish(api, child, platform.lease_namespace) for child in children if child is not None]
    return RenderedCandidate(candidate, version_of(api, candidate, code), finished)


def version_of(api: RealtimeAPI, candidate: RealtimeAPI, code: Object | None) -> str:
    """Return a hash of what a rollback depends on: code, document and pods of the candidate, comparison, thresholds, and the
    annotation of a retry.

    It does not depend on weight, mirror and replicas, nor on the operator and its settings: none of them makes a candidate that
    was rolled back better.
    """
    spec = api.spec.candidate
    assert spec is not None
    contents = code and {key: code.get(key) for key in ("data", "binaryData")}
    rules = [spec.compare.model_dump(by_alias=True), spec.rollback.model_dump(by_alias=True)]
    retry = api.metadata.annotations.get(RETRY_ANNOTATION)
    retries = [] if retry is None else [retry]
    return digest([Document.of(candidate).to_json().decode(), contents, api.spec.pod, rules, *retries])


def split(
    api: RealtimeAPI, candidate: RenderedCandidate, host: str, active: bool, operator: str | None
) -> Object:
    """Return the ConfigMap from which the stable replicas learn which requests the candidate answers.

    host: the address of the candidate's Service. active: whether it answers requests; otherwise weight and mirror are 0.
    operator: see `names.finish`.
    """
    spec = api.spec.candidate
    assert spec is not None
    content: Object = {
        "version": candidate.version,
        "host": host,
        "port": PORT,
        "weight": spec.weight if active else 0,
        "mirror": spec.mirror if active else 0,
        "compare": spec.compare.model_dump(by_alias=True),
    }
    if candidate.api.spec.handler.serves_grpc:
        content["grpcPort"] = GRPC_PORT
    if spec.key is not None:
        content["key"] = spec.key
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": split_name(api.metadata.name)},
        "data": {SPLIT_FILE: json.dumps(content, sort_keys=True, indent=1)},
    }
    return finish(api, config_map, operator)


def forwards(split: Object) -> bool:
    """Return whether a split, as the cluster has it, gives requests to the candidate."""
    content = json.loads(split["data"][SPLIT_FILE])
    return bool(content["weight"] or content["mirror"])


def initial_replicas(api: RealtimeAPI, candidate: RealtimeAPI, stable: int) -> int:
    """Return the number of replicas that an autoscaled candidate is created with.

    candidate: the API as `candidate_api` returns it. stable: the number of replicas that the stable version has now. It is scaled
    by the share of the requests, within the limits.
    """
    spec, scaling = api.spec.candidate, candidate.spec.autoscaling
    if spec is None or scaling is None or scaling.init_replicas is not None or spec.autoscaling is not None:
        return deployment.initial_replicas(candidate)
    wanted = math.ceil(stable * min(100, spec.weight + spec.mirror) / 100)
    return min(max(wanted, scaling.min_replicas), scaling.max_replicas)


def is_of_candidate(child: Object) -> bool:
    """Return whether an object belongs to a candidate."""
    return (child["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == CANDIDATE
