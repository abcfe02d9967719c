"""Writes: validation, defaults, generations, finalizers and managed fields, on top of the store.

`api` calls it with parsed bodies. It raises APIError for every rejected write. Callers must not change the objects that it
returns.
"""

from __future__ import annotations

import copy
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from cortex_devcluster.apiserver import builtin, cel, managed_fields
from cortex_devcluster.apiserver import schema as schemas
from cortex_devcluster.apiserver.errors import APIError, FieldError, conflict, exists, invalid, not_found
from cortex_devcluster.apiserver.resources import Resource, ServedResources, resources_of_crd, validate_crd
from cortex_devcluster.apiserver.store import Store
from cortex_devcluster.objects import Object, nested, now

SYSTEM_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
UNCHECKED = FieldError(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True)
class WriteOptions:
    """The options of a write. manager: the field manager. field_validation: Strict, Warn or Ignore. force: resolve conflicts."""

    manager: str = "unknown"
    field_validation: str = "Strict"
    dry_run: bool = False
    subresource: str = ""
    apply: bool = False
    force: bool = False


class Registry:
    """Reads and writes the objects of all served kinds. service_address: allocates the cluster IP of a service."""

    def __init__(self, service_address: Callable[[], str]) -> None:
        self.store = Store()
        self.kinds = ServedResources()
        self._service_address = service_address
        for name in NAMESPACES:
            self.create(
                self._resource("", "v1", "namespaces"),
                "",
                {"metadata": {"name": name}},
                WriteOptions("kube-apiserver"),
            )

    def _resource(self, group: str, version: str, plural: str) -> Resource:
        resource = self.kinds.find(group, version, plural)
        if resource is None:
            raise APIError(404, "the server could not find the requested resource")
        return resource

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        obj = self.store.get(resource.key, namespace, name)
        if obj is None:
            raise not_found(resource.plural, resource.group, name)
        return obj

    def create(self, resource: Resource, namespace: str, body: Object, write: WriteOptions) -> Object:
        meta = {
            k: v for k, v in (body.get("metadata") or {}).items() if k not in SYSTEM_FIELDS and v is not None
        }
        meta.pop("managedFields", None) if not write.apply else None
        meta.pop("resourceVersion", None)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(secrets.choice(ALPHABET) for _ in range(5))
        self._check_namespace(resource, namespace, meta)
        name = meta.get("name", "")
        if name and self.store.get(resource.key, namespace, name):
            raise exists(resource.plural, resource.group, name)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if resource.namespaced:
            meta["namespace"] = namespace
        obj = {**body, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
        if resource.status and resource.schema is not None:
            obj.pop("status", None)
        obj = self._default_and_validate(resource, obj, None, write)
        if "spec" in obj or resource.schema is not None:
            meta["generation"] = 1
            obj["metadata"]["generation"] = 1
        if not write.apply:
            managed_fields.update_managers(None, obj, resource.shape, self._manager(resource, write))
        if write.dry_run:
            return obj
        stored = self.store.put(resource.key, namespace, name, obj)
        self._serve_definition(resource, stored)
        return self.get(resource, namespace, name)

    def _check_namespace(self, resource: Resource, namespace: str, meta: Object) -> None:
        if meta.get("namespace") and resource.namespaced and meta["namespace"] != namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise APIError(400, f"{message} ({meta['namespace']} != {namespace})")
        if resource.namespaced:
            space = self.store.get("/namespaces", "", namespace)
            if space is None:
                raise not_found("namespaces", "", namespace)
            if space["metadata"].get("deletionTimestamp"):
                message = (
                    f"unable to create new content in namespace {namespace} because it is being terminated"
                )
                raise APIError(403, f'{resource.plural} "{meta.get("name", "")}" is forbidden: {message}')

    def update(
        self, resource: Resource, namespace: str, name: str, body: Object, write: WriteOptions
    ) -> Object:
        """Replace an object or its status. A resourceVersion in the body must be the current one."""
        old = self.get(resource, namespace, name)
        meta = dict(body.get("metadata") or {})
        version = meta.get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            why = (
                "the object has been modified; please apply your changes to the latest version and try again"
            )
            raise conflict(resource.plural, resource.group, name, why)
        if meta.get("uid") and meta["uid"] != old["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old['metadata']['uid']}"
            raise conflict(resource.plural, resource.group, name, why)
        if meta.get("name", name) != name:
            message = f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
            raise APIError(400, message)
        for field in (*SYSTEM_FIELDS, "namespace", "resourceVersion"):
            meta.pop(field, None)
            if field in old["metadata"]:
                meta[field] = old["metadata"][field]
        meta = {key: value for key, value in meta.items() if value is not None}
        meta["name"] = name
        if "managedFields" not in meta:
            meta["managedFields"] = old["metadata"].get("managedFields", [])
        obj = {**body, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
        obj = self._limit_to_subresource(resource, old, obj, write)
        obj = self._default_and_validate(resource, obj, old, write)
        if self._desired_state(obj) != self._desired_state(old) and "generation" in obj["metadata"]:
            obj["metadata"]["generation"] += 1
        if not write.apply:
            managed_fields.update_managers(old, obj, resource.shape, self._manager(resource, write))
        if self._is_unchanged(obj, old) or write.dry_run:
            return old if not write.dry_run else obj
        released = obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers")
        if released and not self._deletion_is_pending(resource, obj):
            self.store.put(resource.key, namespace, name, obj)
            self._remove(resource, namespace, name)
            return obj
        stored = self.store.put(resource.key, namespace, name, obj)
        self._serve_definition(resource, stored)
        return self.store.get(resource.key, namespace, name) or stored

    @staticmethod
    def _limit_to_subresource(resource: Resource, old: Object, obj: Object, write: WriteOptions) -> Object:
        """Keep the old status, or with subresource `status` everything else."""
        if not resource.status:
            return obj
        if write.subresource == "status":
            meta = {**old["metadata"], "managedFields": obj["metadata"]["managedFields"]}
            kept = {**old, "metadata": meta, "status": obj.get("status")}
            return {key: value for key, value in kept.items() if value is not None}
        obj.pop("status", None)
        return {**obj, "status": old["status"]} if "status" in old else obj

    @staticmethod
    def _desired_state(obj: Object) -> Object:
        return {key: value for key, value in obj.items() if key not in ("metadata", "status")}

    @staticmethod
    def _is_unchanged(a: Object, b: Object) -> bool:
        def bare(obj: Object) -> Object:
            entries = obj["metadata"].get("managedFields", ())
            plain = [{key: value for key, value in entry.items() if key != "time"} for entry in entries]
            return {**obj, "metadata": {**obj["metadata"], "managedFields": plain}}

        return bare(a) == bare(b)

    def _default_and_validate(
        self, resource: Resource, obj: Object, old: Object | None, write: WriteOptions
    ) -> Object:
        """Prune, set defaults and validate. Raises APIError (422)."""
        name = obj["metadata"].get("name", "")
        problems = builtin.validate_metadata(obj["metadata"])
        if resource.schema is not None:
            obj = schemas.default(schemas.prune(obj, resource.schema), resource.schema)
            found = list(schemas.validate(obj, resource.schema))
            if schemas.prevents_rules(found):
                found.append(UNCHECKED)
            else:
                found += cel.evaluate_rules(obj, resource.schema)
            problems += found
        else:
            obj = builtin.with_defaults(resource, copy.deepcopy(obj), old, self._service_address)
            problems += builtin.validate(resource, obj, old)
            if resource.kind == "CustomResourceDefinition":
                problems += validate_crd(obj)
        if problems:
            raise invalid(resource.kind, resource.group, name, problems)
        return obj

    def check_unknown_fields(self, resource: Resource, body: Object, write: WriteOptions) -> list[str]:
        """Return warnings about unknown fields. Raises APIError (400) if the validation is Strict."""
        if resource.schema is None or write.field_validation == "Ignore":
            return []
        found = [f'unknown field "{path}"' for path in schemas.unknown_fields(body, resource.schema)]
        if found and write.field_validation == "Strict":
            what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise APIError(400, f"{what}: strict decoding error: {', '.join(found)}")
        return found

    def apply(
        self, resource: Resource, namespace: str, name: str, config: Object, write: WriteOptions
    ) -> tuple[Object, bool]:
        """Apply a configuration (server-side apply). Return the object, and whether it was created."""
        if (config.get("metadata") or {}).get("managedFields"):
            raise APIError(400, "metadata.managedFields must be nil")
        if config.get("apiVersion") != resource.api_version or config.get("kind") != resource.kind:
            raise APIError(400, f"apiVersion and kind must be {resource.api_version}, {resource.kind}")
        if resource.schema is not None and write.field_validation != "Ignore":
            found = [
                f".{path}: field not declared in schema"
                for path in schemas.unknown_fields(config, resource.schema)
            ]
            if found:
                what = f"{namespace}/{name}; {resource.api_version}, Kind={resource.kind}"
                text = found[0] if len(found) == 1 else "errors:\n  " + "\n  ".join(found)
                raise APIError(500, f"failed to create typed patch object ({what}): {text}", reason="")
        live = self.store.get(resource.key, namespace, name)
        config = {**config, "metadata": {**(config.get("metadata") or {}), "name": name}}
        merged, conflicts = managed_fields.apply(
            live, config, resource.shape, self._manager(resource, write), write.force
        )
        if conflicts:
            raise _conflict_error(conflicts)
        if live is None:
            if write.subresource:
                raise not_found(resource.plural, resource.group, name)
            return self.create(resource, namespace, merged, write), True
        return self.update(resource, namespace, name, merged, write), False

    def _manager(self, resource: Resource, write: WriteOptions) -> managed_fields.Manager:
        operation = "Apply" if write.apply else "Update"
        return managed_fields.Manager(
            write.manager, operation, resource.api_version, write.subresource, managed_fields.Fields(), now()
        )

    def delete(self, resource: Resource, namespace: str, name: str, options: Object) -> tuple[Object, bool]:
        """Delete an object, or mark it for deletion if it has finalizers or a grace period.

        Return the object, and whether it was removed.
        """
        obj = self.get(resource, namespace, name)
        preconditions = options.get("preconditions") or {}
        for field in ("uid", "resourceVersion"):
            if preconditions.get(field) and preconditions[field] != obj["metadata"][field]:
                expected, actual = preconditions[field], obj["metadata"][field]
                why = f"Precondition failed: {field} in precondition: {expected}, in object meta: {actual}"
                raise conflict(resource.plural, resource.group, name, why)
        if options.get("dryRun"):
            return obj, True
        meta = dict(obj["metadata"])
        finalizers = list(meta.get("finalizers") or ())
        policy = options.get("propagationPolicy") or (
            "Orphan" if options.get("orphanDependents") else "Background"
        )
        extra = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy)
        if extra and extra not in finalizers:
            finalizers.append(extra)
        grace = self._grace_period(resource, obj, options)
        if not finalizers and not grace and resource.kind != "Namespace":
            return self._remove(resource, namespace, name), True
        if finalizers:
            meta["finalizers"] = finalizers
        if "deletionTimestamp" not in meta or grace < meta.get("deletionGracePeriodSeconds", 0):
            meta |= {"deletionTimestamp": builtin.timestamp_in(grace), "deletionGracePeriodSeconds": grace}
        marked = {**obj, "metadata": meta}
        if resource.kind == "Namespace":
            marked["status"] = {"phase": "Terminating"}
        if marked == obj:
            return obj, False
        return self.store.put(resource.key, namespace, name, marked), False

    @staticmethod
    def _deletion_is_pending(resource: Resource, obj: Object) -> bool:
        """Return whether a marked object without finalizers remains: a pod until it stopped, a namespace until it is empty."""
        if resource.kind == "Namespace":
            return bool(nested(obj, "spec.finalizers"))
        return resource.kind == "Pod" and bool(obj["metadata"].get("deletionGracePeriodSeconds"))

    @staticmethod
    def _grace_period(resource: Resource, obj: Object, options: Object) -> int:
        if resource.kind != "Pod" or not nested(obj, "spec.nodeName"):
            return 0
        if nested(obj, "status.phase") in ("Succeeded", "Failed"):
            return 0
        requested = options.get("gracePeriodSeconds")
        return int(
            requested if requested is not None else nested(obj, "spec.terminationGracePeriodSeconds") or 0
        )

    def finalize_namespace(self, name: str, body: Object) -> Object:
        resource = self._resource("", "v1", "namespaces")
        obj = copy.deepcopy(self.get(resource, "", name))
        obj["spec"] = body.get("spec") or {}
        stored = self.store.put(resource.key, "", name, obj)
        if stored["metadata"].get("deletionTimestamp") and not nested(stored, "spec.finalizers"):
            self._remove(resource, "", name)
        return stored

    def bind(self, namespace: str, name: str, body: Object) -> None:
        """Assign a pod to a node. Raises APIError (409) if it has one."""
        resource = self._resource("", "v1", "pods")
        obj = self.get(resource, namespace, name)
        if nested(obj, "spec.nodeName"):
            raise conflict(
                "pods/binding",
                "",
                name,
                f"pod {name} is already assigned to node {obj['spec']['nodeName']!r}",
            )
        bound = copy.deepcopy(obj)
        bound["spec"]["nodeName"] = body["target"]["name"]
        status = bound.setdefault("status", {})
        others = [c for c in status.get("conditions", ()) if c["type"] != "PodScheduled"]
        status["conditions"] = [
            *others,
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()},
        ]
        self.store.put(resource.key, namespace, name, bound)

    def _remove(self, resource: Resource, namespace: str, name: str) -> Object:
        gone = self.store.remove(resource.key, namespace, name)
        if resource.kind == "CustomResourceDefinition":
            spec = gone["spec"]
            self.kinds.drop(spec["group"], spec["names"]["plural"])
            key = f"{spec['group']}/{spec['names']['plural']}"
            for obj in self.store.list(key):
                self.store.remove(key, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
            self.store.drop_kind(key)
        return gone

    def _serve_definition(self, resource: Resource, obj: Object) -> None:
        """After a write of a CustomResourceDefinition, serve its kinds and set its status."""
        if resource.kind != "CustomResourceDefinition":
            return
        self.kinds.drop(obj["spec"]["group"], obj["spec"]["names"]["plural"])
        for served in resources_of_crd(obj):
            self.kinds.add(served)
        status = builtin.crd_status(obj)
        if obj.get("status") != status:
            self.store.put(
                resource.key,
                "",
                obj["metadata"]["name"],
                {**obj, "status": status, "metadata": dict(obj["metadata"])},
            )


def _conflict_error(conflicts: list[managed_fields.Conflict]) -> APIError:
    count = len(conflicts)
    by_manager: dict[str, list[str]] = {}
    for found in conflicts:
        by_manager.setdefault(found.manager.name, []).append(managed_fields.format_path(found.path))
    texts = []
    for manager, paths in by_manager.items():
        listed = f": {paths[0]}" if len(paths) == 1 else ":\n- " + "\n- ".join(paths)
        texts.append(
            f'conflict with "{manager}"{listed}' if len(paths) == 1 else f'conflicts with "{manager}"{listed}'
        )
    noun = "conflict" if count == 1 else "conflicts"
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{c.manager.name}"',
            "field": managed_fields.format_path(c.path),
        }
        for c in conflicts
    ]
    message = f"Apply failed with {count} {noun}: " + "\n".join(texts)
    return APIError(409, message, details={"causes": causes})
