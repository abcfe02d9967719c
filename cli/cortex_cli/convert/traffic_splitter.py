"""Convert a TrafficSplitter: its APIs become one RealtimeAPI with a candidate, or, if that cannot express it, an HTTPRoute."""

import copy
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cortex_api.candidate import CHOICES, MERGED_FIELDS, merge
from cortex_api.contract import PORT, VERSION_HEADER, object_name
from cortex_cli.convert import legacy
from cortex_cli.convert.legacy import Entry
from cortex_cli.convert.manifest_builder import ManifestBuilder, Remark

OWN_FIELDS = (*MERGED_FIELDS, "replicas", "autoscaling")
"""The fields of the spec that a candidate has too."""
_SCALING = ("replicas", "autoscaling")


class InvalidSplitter(ValueError):
    """The original Cortex rejected this TrafficSplitter too. field: the invalid field."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


class NotExpressible(ValueError):
    """A candidate cannot express this TrafficSplitter; the message is the reason."""


@dataclass(frozen=True)
class Target:
    """An API of a TrafficSplitter. weight: percentage of requests that it answers, or that a shadow receives a copy of."""

    name: str
    weight: int
    is_shadow: bool


@dataclass
class Splitters:
    """The converted TrafficSplitters of a file. failed: whether one of them is not converted."""

    combined: list[ManifestBuilder] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    failed: bool = False


def convert_splitters(
    entries: list[Entry], apis: dict[int, ManifestBuilder], gateway: tuple[str, str] | None
) -> Splitters:
    """Convert the TrafficSplitters of a file.

    apis: the converted APIs by the index of their entry; those that become one API are replaced by it. gateway: namespace and
    name of the Gateway for HTTPRoutes; None: a TrafficSplitter that needs one is not converted.
    """
    result = Splitters()
    splitters = [(index, entry) for index, entry in enumerate(entries) if entry.kind == "TrafficSplitter"]
    read: list[tuple[int, Entry, list[Target]]] = []
    for index, splitter in splitters:
        try:
            read.append((index, splitter, read_targets(splitter, entries)))
        except InvalidSplitter as error:
            result.remarks.append(
                Remark(splitter.line(error.field), f"not valid: {error}", needs_action=True)
            )
            result.failed = True
    uses = Counter(target.name for _, _, targets in read for target in targets)
    by_name = {str(api.manifest["metadata"].get("name")): index for index, api in apis.items()}
    for index, splitter, targets in read:
        line = splitter.line("kind")
        try:
            if shared := next((target.name for target in targets if uses[target.name] > 1), None):
                raise NotExpressible(f"{shared} is an API of several TrafficSplitters")
            combined = combine(
                splitter, targets, {name: apis[at] for name, at in by_name.items() if at in apis}
            )
        except NotExpressible as error:
            if gateway is None:
                text = (
                    f"TrafficSplitter is not converted to a candidate: {error}. The option `--gateway NAMESPACE/NAME` prints"
                    " an HTTPRoute with its weights"
                )
                result.failed = True
            else:
                text = f"TrafficSplitter is now an HTTPRoute of Gateway {'/'.join(gateway)}: {error}"
                result.routes.append(http_route(splitter, targets, *gateway))
            result.remarks.append(Remark(line, text, needs_action=True))
            continue
        for target in targets:
            apis.pop(by_name[target.name])
        apis[index] = combined
        result.combined.append(combined)
        result.remarks += combined.remarks
    return result


def read_targets(splitter: Entry, entries: list[Entry]) -> list[Target]:
    """Return the APIs of a TrafficSplitter. Raises InvalidSplitter. entries: those of the file."""
    listed = splitter.get("apis")
    if not isinstance(listed, list) or not listed:
        raise InvalidSplitter("apis", "apis must be a list of at least one API")
    found = [_target(item, f"apis[{index}]") for index, item in enumerate(listed)]
    kinds = {entry.get("name"): entry.kind for entry in entries}
    for index, target in enumerate(found):
        if (kind := kinds.get(target.name, "RealtimeAPI")) != "RealtimeAPI":
            raise InvalidSplitter(
                f"apis[{index}].name", f"{target.name} is of kind {kind}; expected RealtimeAPI"
            )
    names = [target.name for target in found]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InvalidSplitter("apis", f"API {repeated} may be listed once")
    if sum(target.is_shadow for target in found) > 1:
        raise InvalidSplitter("apis", "at most one API may be the shadow")
    if (total := sum(target.weight for target in found if not target.is_shadow)) != 100:
        raise InvalidSplitter(
            "apis", f"the weights of the APIs, without the shadow, must sum to 100; got {total}"
        )
    return found


def _target(item: Any, field: str) -> Target:
    name, weight = (item.get("name"), item.get("weight")) if isinstance(item, dict) else (None, None)
    if not isinstance(name, str):
        raise InvalidSplitter(field, f"{field}.name must be the name of an API")
    if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= 100:
        raise InvalidSplitter(
            f"{field}.weight", f"{field}.weight must be an integer from 0 to 100; got {weight}"
        )
    return Target(name, weight, item.get("shadow") is True)


def combine(splitter: Entry, targets: list[Target], apis: Mapping[str, ManifestBuilder]) -> ManifestBuilder:
    """Return one RealtimeAPI for the APIs of a TrafficSplitter, with its name and endpoint.

    apis: the converted APIs of the file by name; they are not modified. Raises NotExpressible.
    """
    stable, candidate, mirror = _roles(targets, apis)
    to = ManifestBuilder(splitter, stable.releases)
    to.manifest = copy.deepcopy(stable.manifest)
    spec = to.manifest["spec"]
    spec.pop("networking", None)
    to.lines = {
        **{
            new.replace("spec.", "spec.candidate.", 1): line
            for new, line in candidate.lines.items()
            if new.startswith(tuple(f"spec.{name}" for name in OWN_FIELDS))
        },
        **stable.lines,
    }
    to.set("metadata.name", splitter.get("name"), "name")
    to.copy("networking.endpoint", "spec.networking.endpoint", lambda text: "/" + str(text).strip("/"))
    spec["candidate"] = _patch(stable, candidate)
    weights = {target.name: target.weight for target in targets if not target.is_shadow}
    name = candidate.manifest["metadata"]["name"]
    spec["candidate"] |= {
        "weight": weights.get(name, 0),
        **({"mirror": mirror} if mirror is not None else {}),
    }
    to.lines["spec.candidate"] = splitter.line("apis")
    _remarks(to, stable, candidate)
    return to


def _roles(
    targets: list[Target], apis: Mapping[str, ManifestBuilder]
) -> tuple[ManifestBuilder, ManifestBuilder, int | None]:
    """Return the stable API, the candidate and the percentage of mirrored requests. Raises NotExpressible."""
    for target in targets:
        if target.name not in apis:
            raise NotExpressible(f"API {target.name} is not in the file, or is not converted")
    weighted = sorted((t for t in targets if not t.is_shadow), key=lambda t: -t.weight)
    shadow = next((target for target in targets if target.is_shadow), None)
    if len(weighted) > 2:
        raise NotExpressible(f"it has {len(weighted)} APIs, and an API has one candidate")
    second = weighted[1] if len(weighted) == 2 else shadow
    if second is None:
        raise NotExpressible("it has one API, which needs no candidate")
    stable, candidate = apis[weighted[0].name], apis[second.name]
    if shadow is None:
        return stable, candidate, None
    if _version(apis[shadow.name]) != _version(candidate):
        raise NotExpressible(f"shadow {shadow.name} differs from {second.name}, and an API has one candidate")
    return stable, candidate, shadow.weight


def _version(api: ManifestBuilder) -> Any:
    """Return the part of an API that determines its responses."""
    spec = {
        name: value for name, value in api.manifest["spec"].items() if name not in (*_SCALING, "networking")
    }
    return spec, api.manifest["metadata"].get("labels")


def _patch(stable: ManifestBuilder, candidate: ManifestBuilder) -> dict[str, Any]:
    """Return the fields of a candidate that make `stable` into `candidate`. Raises NotExpressible."""
    specs = [api.manifest["spec"] for api in (stable, candidate)]
    patch: dict[str, Any] = {}
    for name in MERGED_FIELDS:
        before, after = (spec.get(name, {}) for spec in specs)
        if difference := _difference(before, after, (name,)):
            patch[name] = difference
        if merge(before, difference, (name,)) != after:
            raise NotExpressible(
                f"{name} of {_name(candidate)} cannot be merged over that of {_name(stable)}"
            )
    labels = [api.manifest["metadata"].get("labels") for api in (stable, candidate)]
    names = {name for spec in specs for name in spec} - {*OWN_FIELDS, "networking"}
    different = sorted(name for name in names if specs[0].get(name) != specs[1].get(name))
    if labels[0] != labels[1]:
        different.append("metadata.labels")
    if different:
        raise NotExpressible(
            f"{_name(stable)} and {_name(candidate)} differ in {' and '.join(different)}, which both versions of an API share"
        )
    return patch | {name: specs[1][name] for name in _SCALING if name in specs[1]}


def _difference(before: Any, after: Any, path: tuple[str, ...]) -> Any:
    """Return what `cortex_api.candidate.merge` turns `before` into `after` with."""
    choice = CHOICES.get(path, ())
    replaced = choice if any(name in after for name in choice) else ()
    result = {name: None for name in before if name not in after and name not in replaced}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            if below := _difference(old, value, (*path, name)):
                result[name] = below
        elif old != value:
            result[name] = value
    return result


def _remarks(to: ManifestBuilder, stable: ManifestBuilder, candidate: ManifestBuilder) -> None:
    names = f"{_name(stable)} and {_name(candidate)}"
    line = to.entry.line("apis")
    text = (
        f"{names} are now one RealtimeAPI, {_name(to)}: {_name(stable)} is its stable version, {_name(candidate)} its"
        f" candidate. Their own endpoints no longer exist; clients select a version with the header {VERSION_HEADER}"
    )
    to.remarks.append(Remark(line, text, needs_action=True))
    text = (
        "spec.candidate.rollback: the default applies: the candidate receives no more requests if it fails more than 5% of"
        " them, which a TrafficSplitter did not check"
    )
    to.remarks.append(Remark(line, text, needs_action=True))
    if _has_null(to.manifest["spec"]["candidate"]):
        text = (
            "spec.candidate contains null, which removes a field of the stable version: apply it with"
            " `kubectl apply --server-side`, because kubectl apply without it leaves null out"
        )
        to.remarks.append(Remark(line, text, needs_action=True))
    report_other_fields(to)


def _has_null(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and any(_has_null(item) for item in value.values()))


def report_other_fields(to: ManifestBuilder) -> None:
    """Add a remark for each field of a TrafficSplitter that is not converted."""
    to.drop("networking.api_gateway", "configure access in the gateway or ingress of the cluster")
    for path, _ in legacy.fields(to.entry):
        is_known = re.fullmatch(
            r"name|kind|networking|networking\.endpoint|apis\[\d+\]\.(name|weight|shadow)", path
        )
        if not is_known and path not in to.seen:
            to.drop(path, "no equivalent exists")


def _name(api: ManifestBuilder) -> str:
    return str(api.manifest["metadata"]["name"])


def http_route(splitter: Entry, targets: list[Target], namespace: str, gateway: str) -> dict[str, Any]:
    """Return an HTTPRoute with the weights of a TrafficSplitter. namespace, gateway: of the Gateway of the cluster."""
    endpoint = splitter.get("networking.endpoint") or splitter.get("name")
    filters: list[dict[str, Any]] = [
        {
            "type": "URLRewrite",
            "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
        }
    ]
    filters += [
        {"type": "RequestMirror", "requestMirror": {"backendRef": _backend(target), "percent": target.weight}}
        for target in targets
        if target.is_shadow
    ]
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/" + str(endpoint).strip("/")}}],
        "filters": filters,
        "backendRefs": [{**_backend(t), "weight": t.weight} for t in targets if not t.is_shadow],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": str(splitter.get("name"))},
        "spec": {"parentRefs": [{"name": gateway, "namespace": namespace}], "rules": [rule]},
    }


def _backend(target: Target) -> dict[str, Any]:
    return {"name": object_name(target.name), "port": PORT}
