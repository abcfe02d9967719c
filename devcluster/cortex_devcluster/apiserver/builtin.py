"""Defaults and validation of built-in kinds, as far as controllers, kubectl and the node rely on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cortex_devcluster.apiserver.errors import FieldError
from cortex_devcluster.apiserver.resources import Resource
from cortex_devcluster.objects import Object, now
from cortex_devcluster.selectors import matches

_LABEL = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.:]*[a-z0-9])?$")


def timestamp_in(seconds: float) -> str:
    """Return the time in some seconds as a timestamp."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def validate_metadata(meta: Object) -> list[FieldError]:
    """Return the errors in the name and labels of an object."""
    validate = []
    name = meta.get("name")
    if not name:
        validate.append(FieldError("metadata.name", "Required value: name or generateName is required"))
    elif not _NAME.match(str(name)) or len(name) > 253:
        rule = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        validate.append(FieldError("metadata.name", f'Invalid value: "{name}": {rule}'))
    for key, value in (meta.get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > 63 or not _LABEL.match(value):
            rule = (
                "a valid label must be an empty string or consist of alphanumeric characters, "
                "'-', '_' or '.', at most 63 of them"
            )
            validate.append(FieldError("metadata.labels", f'Invalid value: "{value}": {key}: {rule}'))
    return validate


def validate(resource: Resource, obj: Object, old: Object | None) -> list[FieldError]:
    """Return the errors in an object of a built-in kind."""
    spec = obj.get("spec") or {}
    found: list[FieldError] = []
    if resource.kind in ("Deployment", "ReplicaSet"):
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
        if not spec.get("selector"):
            found.append(FieldError("spec.selector", "Required value"))
        elif not matches(spec["selector"], labels):
            message = f"Invalid value: {labels}: `selector` does not match template `labels`"
            found.append(FieldError("spec.template.metadata.labels", message))
        if old and spec.get("selector") != old["spec"]["selector"]:
            found.append(FieldError("spec.selector", "Invalid value: field is immutable"))
        found += _pod_problems((spec.get("template") or {}).get("spec") or {}, "spec.template.spec")
    elif resource.kind == "Pod":
        found += _pod_problems(spec, "spec")
    elif resource.kind == "Service" and not spec.get("ports") and spec.get("type") != "ExternalName":
        found.append(FieldError("spec.ports", "Required value"))
    return found


def _pod_problems(spec: Object, path: str) -> list[FieldError]:
    if not spec.get("containers"):
        return [FieldError(f"{path}.containers", "Required value")]
    found = []
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    for index, container in enumerate(spec["containers"]):
        at = f"{path}.containers[{index}]"
        found += [
            FieldError(f"{at}.{name}", "Required value")
            for name in ("name", "image")
            if not container.get(name)
        ]
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            if mount.get("name") not in volumes:
                found.append(
                    FieldError(f"{at}.volumeMounts[{number}].name", f'Not found: "{mount.get("name")}"')
                )
    return found


def with_defaults(
    resource: Resource, obj: Object, old: Object | None, service_address: Callable[[], str]
) -> Object:
    """Set the defaults of a built-in kind in the object, and return it."""
    spec = obj.get("spec")
    if resource.kind == "Namespace":
        obj.setdefault("spec", {}).setdefault("finalizers", [] if old else ["kubernetes"])
        obj.setdefault("status", {"phase": "Active"})
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"].get("name")
    elif resource.kind == "Secret" and "stringData" in obj:
        from base64 import b64encode

        plain = obj.pop("stringData") or {}
        obj.setdefault("data", {}).update(
            {key: b64encode(text.encode()).decode() for key, text in plain.items()}
        )
    elif not isinstance(spec, dict):
        return obj
    elif resource.kind in ("Deployment", "ReplicaSet"):
        spec.setdefault("replicas", 1)
        if resource.kind == "Deployment":
            _deployment(spec)
        _pod(spec.setdefault("template", {}).setdefault("spec", {}))
        spec["template"].setdefault("metadata", {})
    elif resource.kind == "Pod":
        _pod(spec)
        obj.setdefault("status", {}).setdefault("phase", "Pending")
        obj["status"].setdefault("qosClass", "BestEffort")
    elif resource.kind == "Service":
        _service(spec, (old or {}).get("spec") or {}, service_address)
    elif resource.kind == "CustomResourceDefinition":
        names = spec.get("names") or {}
        names.setdefault("singular", str(names.get("kind", "")).lower())
        names.setdefault("listKind", f"{names.get('kind', '')}List")
        spec.setdefault("conversion", {"strategy": "None"})
    elif resource.kind == "PersistentVolumeClaim":
        obj.setdefault("status", {}).setdefault("phase", "Pending")
    return obj


def _deployment(spec: Object) -> None:
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")


def _pod(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        image = str(container.get("image", ""))
        latest = image.endswith(":latest") or ":" not in image.rsplit("/", 1)[-1]
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        container.setdefault("resources", {})
        for port in container.get("ports") or ():
            port.setdefault("protocol", "TCP")
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe := container.get(name):
                for field, value in _PROBE.items():
                    probe.setdefault(field, value)
                if "httpGet" in probe:
                    probe["httpGet"].setdefault("path", "/")
                    probe["httpGet"].setdefault("scheme", "HTTP")


_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


def _service(spec: Object, old: Object, service_address: Callable[[], str]) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if "clusterIP" not in spec and spec["type"] != "ExternalName":
        spec["clusterIP"] = old.get("clusterIP") or service_address()
    if spec.get("clusterIP") and spec["clusterIP"] != "None":
        spec["clusterIPs"] = [spec["clusterIP"]]
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def crd_status(crd: Object) -> Object:
    """Return the status of a CustomResourceDefinition, which is served as soon as it is stored."""
    before = {c["type"]: c for c in (crd.get("status") or {}).get("conditions", ())}

    def condition(kind: str, reason: str, message: str) -> Object:
        since = before.get(kind, {}).get("lastTransitionTime") or now()
        return {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
        }

    return {
        "acceptedNames": crd["spec"]["names"],
        "storedVersions": [version["name"] for version in crd["spec"]["versions"] if version.get("storage")],
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    }
