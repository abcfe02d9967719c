"""`spec.candidate`: a second version of a RealtimeAPI alongside the stable one, and the merge that defines it. Pure.

The operator, `cortex validate` and `cortex promote` use the same merge.
"""

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema

from cortex_api.base import Model, Rule
from cortex_api.deployment import RealtimeAutoscaling
from cortex_api.formats import HeaderName, JSONPointer, Percentage

if TYPE_CHECKING:
    from cortex_api.kinds import RealtimeAPI

Object = dict[str, Any]

MERGED_FIELDS = ("handler", "compute")
"""The fields of a candidate that are merged over those of the spec, and that a promotion copies."""
CHOICES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("handler", "models"): ("path", "paths", "dir"),
    ("handler", "source"): ("files", "configMap", "uri"),
}
"""Fields of which one is set. A candidate that sets one replaces the one of the stable version."""


# Mappings with some of the fields of a model. They are kept as they are: only the merge is validated with the model. schema.py
# derives their schemas from the model.
HandlerPatch = Annotated[Object, WithJsonSchema({"type": "object", "x-partial": "RealtimeHandler"})]
ComputePatch = Annotated[Object, WithJsonSchema({"type": "object", "x-partial": "Compute"})]


class Compare(Model):
    """How the responses of both versions to mirrored requests are compared."""

    tolerance: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Maximum difference of two numbers that count as equal."""
    ignore: Annotated[
        list[JSONPointer], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """JSON pointers to the parts of responses that are not compared, such as "/timestamp"."""
    keep: Annotated[int, Field(ge=0, le=1000)] = 50
    """Number of differing pairs of responses that each replica keeps in memory. 0 keeps none."""


class Rollback(Model):
    """When the candidate stops receiving requests. A threshold that is absent is not checked."""

    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Number of requests (of comparisons, for disagreement) before which no threshold is checked."""
    error_rate: Percentage = "5%"
    """Maximum share of the candidate's requests that it does not answer, or answers with a status of 500 or above."""
    latency_ratio: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Maximum ratio of the candidate's 95th percentile of latency to that of the stable version."""
    disagreement: Percentage | None = None
    """Maximum share of the compared responses that differ."""


class Candidate(Model):
    """A second version that answers some of the requests, or receives copies of them."""

    handler: HandlerPatch = Field(default_factory=dict)
    """Fields of the handler that differ from those of the stable version. Mappings are merged; lists and other values replace
    those of spec.handler; null removes a field (with `kubectl apply --server-side`: client-side apply drops null)."""
    compute: ComputePatch = Field(default_factory=dict)
    """Compute resources that differ from those of the stable version, merged over spec.compute in the same way."""
    replicas: Annotated[int, Field(ge=0, le=10000)] | None = None
    """Fixed number of replicas. Without replicas and autoscaling, those of the spec apply, scaled by weight and mirror."""
    autoscaling: RealtimeAutoscaling | None = None
    """How the number of replicas follows the load. Mutually exclusive with replicas."""
    weight: Annotated[int, Field(ge=0, le=100)] = 0
    """Percentage of requests that the candidate answers."""
    mirror: Annotated[int, Field(ge=0, le=100)] = 0
    """Percentage of the other requests that are also sent to the candidate, to compare its responses."""
    key: HeaderName | None = None
    """Name of a request header. Requests with the same value meet the same version."""
    compare: Compare = Field(default_factory=Compare)
    """How the responses of both versions to mirrored requests are compared."""
    rollback: Rollback = Field(default_factory=Rollback)
    """When the candidate stops receiving requests. The spec does not change; status.candidate reports the rollback."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.replicas) && has(self.autoscaling))",
            "replicas and autoscaling are mutually exclusive; with autoscaling, set minReplicas and maxReplicas",
            lambda c: c.replicas is None or c.autoscaling is None,
        ),
    )


def merge(stable: Any, candidate: Any, path: tuple[str, ...] = ()) -> Any:
    """Return `stable` updated with `candidate`: mappings are merged, other values are replaced, null removes a field.

    path: the place of both below the spec, such as ("handler",). Neither argument is modified.
    """
    if not isinstance(stable, dict) or not isinstance(candidate, dict):
        return _without_nulls(candidate)
    choice = CHOICES.get(path, ())
    chosen = [name for name in choice if candidate.get(name) is not None]
    replaced = {name for name in choice if name not in chosen} if chosen else set()
    merged = {name: value for name, value in stable.items() if name not in replaced}
    for name, value in candidate.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value, (*path, name))
    return merged


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(item) for name, item in value.items() if item is not None}


def promoted(manifest: Object) -> Object:
    """Return a manifest whose candidate is the stable version, and that has no candidate.

    replicas and autoscaling of a candidate apply to its share of the load, so those of the stable version stay. The argument is
    not modified. Raises KeyError if the manifest has no candidate.
    """
    spec = dict(manifest["spec"])
    candidate = spec.pop("candidate")
    for name in MERGED_FIELDS:
        if merged := merge(spec.get(name) or {}, candidate.get(name) or {}, (name,)):
            spec[name] = merged
    return {**manifest, "spec": spec}


def candidate_manifest(manifest: Object) -> Object:
    """Return the manifest that describes the candidate as an ordinary API: merged, with its own number of replicas.

    Raises KeyError if the manifest has no candidate.
    """
    candidate = manifest["spec"]["candidate"]
    result = promoted(manifest)
    spec = result["spec"]
    own = {name: candidate[name] for name in ("replicas", "autoscaling") if candidate.get(name) is not None}
    if not own:
        own = _scaled(spec, candidate.get("weight", 0), candidate.get("mirror", 0))
    for name in ("replicas", "autoscaling"):
        spec.pop(name, None)
    spec |= own
    return result


def _scaled(spec: Object, weight: int, mirror: int) -> Object:
    """Return `replicas` or `autoscaling` of a spec for the candidate's share of the load, at least one replica.

    The maximum stays: the candidate may receive all requests later.
    """
    share = min(100, weight + mirror) / 100
    scaling = spec.get("autoscaling")
    if scaling is None:
        replicas = 1 if spec.get("replicas") is None else spec["replicas"]
        return {"replicas": min(replicas, max(1, math.ceil(replicas * share)))}
    lowest = max(1, math.ceil(scaling.get("minReplicas", 1) * share))
    kept = {name: value for name, value in scaling.items() if name != "initReplicas"}
    return {"autoscaling": {**kept, "minReplicas": lowest}}


def candidate_api(api: "RealtimeAPI") -> "RealtimeAPI":
    """Return the candidate of an API as an API of its own, with the same metadata. Raises KeyError if it has no candidate."""
    manifest = candidate_manifest(api.model_dump(by_alias=True, exclude_unset=True))
    return type(api).model_validate(manifest)
