"""The controllers of Deployments and ReplicaSets. `rollout` computes what they do."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime

from cortex_devcluster.client import Client, ControllerLoop, Informer, Key, StatusError
from cortex_devcluster.controllers import rollout_algorithm
from cortex_devcluster.events import Recorder
from cortex_devcluster.objects import Object, nested, parse_time, ready_condition

DEPLOYMENTS, REPLICASETS, PODS = "apps/v1/deployments", "apps/v1/replicasets", "v1/pods"


def controller_of(obj: Object | None) -> Object | None:
    refs = (obj or {}).get("metadata", {}).get("ownerReferences") or ()
    return next((ref for ref in refs if ref.get("controller")), None)


def owner_reference(owner: Object, kind: str) -> Object:
    meta = owner["metadata"]
    flags = {"controller": True, "blockOwnerDeletion": True}
    return {"apiVersion": "apps/v1", "kind": kind, "name": meta["name"], "uid": meta["uid"], **flags}


class DeploymentController:
    """Both controllers, with shared caches."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._deployments = Informer(client, DEPLOYMENTS)
        self._replicasets = Informer(client, REPLICASETS)
        self._pods = Informer(client, PODS)
        self._deployment_events = Recorder(client, "deployment-controller")
        self._replicaset_events = Recorder(client, "replicaset-controller")
        self._rollouts = ControllerLoop("deployment", self._sync_deployment)
        self._replicas = ControllerLoop("replicaset", self._sync_replicaset)
        self._deployments.listen(lambda before, after: self._add(self._rollouts, after or before))
        self._replicasets.listen(self._replicaset_changed)
        self._pods.listen(self._pod_changed)

    @staticmethod
    def _add(loop: ControllerLoop, obj: Object | None) -> None:
        if obj:
            loop.add(obj["metadata"]["namespace"], obj["metadata"]["name"])

    def _replicaset_changed(self, before: Object | None, after: Object | None) -> None:
        self._add(self._replicas, after)
        owner = controller_of(after or before)
        if owner and owner["kind"] == "Deployment":
            self._rollouts.add((after or before or {})["metadata"]["namespace"], owner["name"])

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        owner = controller_of(after or before)
        if owner and owner["kind"] == "ReplicaSet":
            self._replicas.add((after or before or {})["metadata"]["namespace"], owner["name"])

    async def run(self) -> None:
        informers = (self._deployments, self._replicasets, self._pods)
        async with asyncio.TaskGroup() as tasks:
            for informer in informers:
                tasks.create_task(informer.run())
            for informer in informers:
                await informer.synced.wait()
            tasks.create_task(self._rollouts.run())
            tasks.create_task(self._replicas.run())

    async def _sync_deployment(self, key: Key) -> None:
        deployment = self._deployments.get(*key)
        if deployment is None or deployment["metadata"].get("deletionTimestamp"):
            return
        uid = deployment["metadata"]["uid"]
        sets = [rs for rs in self._replicasets.list(key[0]) if (controller_of(rs) or {}).get("uid") == uid]
        digest = rollout_algorithm.template_hash(deployment["spec"]["template"])
        new = next(
            (rs for rs in sets if rs["metadata"]["labels"].get(rollout_algorithm.HASH) == digest), None
        )
        old = [rs for rs in sets if rs is not new]
        if not deployment["spec"].get("paused"):
            new = await self._ensure_new_replicaset(deployment, new, old, digest)
            for name, size in rollout_algorithm.plan(deployment, new, old).items():
                await self._resize(
                    deployment, next(rs for rs in [*old, new] if rs["metadata"]["name"] == name), size
                )
            await self._delete_old_replicasets(deployment, old)
        elif new and not old and new["spec"]["replicas"] != deployment["spec"]["replicas"]:
            await self._resize(deployment, new, deployment["spec"]["replicas"])
        await self._update_status(key, deployment, new, old)

    async def _ensure_new_replicaset(
        self, deployment: Object, new: Object | None, old: list[Object], digest: str
    ) -> Object:
        """Return the ReplicaSet of the current template with the highest revision; create it if it does not exist."""
        revisions = [
            int(rs["metadata"].get("annotations", {}).get(rollout_algorithm.REVISION, 0)) for rs in old
        ]
        revision = str(max(revisions, default=0) + 1)
        meta = deployment["metadata"]
        if new is None:
            template = copy.deepcopy(deployment["spec"]["template"])
            template["metadata"].setdefault("labels", {})[rollout_algorithm.HASH] = digest
            selector = copy.deepcopy(deployment["spec"]["selector"])
            selector.setdefault("matchLabels", {})[rollout_algorithm.HASH] = digest
            notes = {
                k: v
                for k, v in (meta.get("annotations") or {}).items()
                if not k.startswith("kubectl.kubernetes.io/last")
            }
            made = {
                "metadata": {
                    "name": f"{meta['name']}-{digest}",
                    "labels": template["metadata"]["labels"],
                    "annotations": {**notes, rollout_algorithm.REVISION: revision},
                    "ownerReferences": [owner_reference(deployment, "Deployment")],
                },
                "spec": {"replicas": 0, "selector": selector, "template": template},
            }
            new = await self._client.create(REPLICASETS, meta["namespace"], made)
            self._replicasets.update(new)
        elif int(new["metadata"].get("annotations", {}).get(rollout_algorithm.REVISION, 0)) < int(revision):
            change = {"metadata": {"annotations": {rollout_algorithm.REVISION: revision}}}
            new = await self._client.patch(REPLICASETS, meta["namespace"], new["metadata"]["name"], change)
            self._replicasets.update(new)
        current = new["metadata"]["annotations"][rollout_algorithm.REVISION]
        if (meta.get("annotations") or {}).get(rollout_algorithm.REVISION) != current:
            change = {"metadata": {"annotations": {rollout_algorithm.REVISION: current}}}
            self._deployments.update(
                await self._client.patch(DEPLOYMENTS, meta["namespace"], meta["name"], change)
            )
        return new

    async def _resize(self, deployment: Object, replicaset: Object, size: int) -> None:
        meta, was = replicaset["metadata"], replicaset["spec"]["replicas"]
        change = {"spec": {"replicas": size}}
        self._replicasets.update(
            await self._client.patch(REPLICASETS, meta["namespace"], meta["name"], change)
        )
        direction = "up" if size > was else "down"
        message = f"Scaled {direction} replica set {meta['name']} from {was} to {size}"
        await self._deployment_events.record(deployment, "Normal", "ScalingReplicaSet", message)

    async def _delete_old_replicasets(self, deployment: Object, old: list[Object]) -> None:
        idle = [rs for rs in old if not rs["spec"]["replicas"] and not nested(rs, "status.replicas")]
        idle.sort(
            key=lambda rs: int(rs["metadata"].get("annotations", {}).get(rollout_algorithm.REVISION, 0))
        )
        for rs in idle[: max(0, len(idle) - deployment["spec"]["revisionHistoryLimit"])]:
            await self._client.delete(REPLICASETS, rs)

    async def _update_status(
        self, key: Key, deployment: Object, new: Object | None, old: list[Object]
    ) -> None:
        fresh = self._deployments.get(*key) or deployment
        progressing = next(
            (c for c in nested(fresh, "status.conditions") or () if c["type"] == "Progressing"), None
        )
        deadline_exceeded = False
        if progressing and progressing["reason"] != "NewReplicaSetAvailable":
            waited = (datetime.now(UTC) - parse_time(progressing["lastUpdateTime"])).total_seconds()
            deadline_exceeded = waited >= fresh["spec"]["progressDeadlineSeconds"]
            if not deadline_exceeded:
                self._rollouts.add_after(key, fresh["spec"]["progressDeadlineSeconds"] - waited + 1)
        sets = [self._replicasets.get(key[0], rs["metadata"]["name"]) or rs for rs in old]
        current = (self._replicasets.get(key[0], new["metadata"]["name"]) or new) if new else None
        status = rollout_algorithm.status(fresh, current, sets, deadline_exceeded=deadline_exceeded)
        if status != fresh.get("status"):
            self._deployments.update(
                await self._client.patch(DEPLOYMENTS, *key, {"status": status}, "status")
            )

    async def _sync_replicaset(self, key: Key) -> None:
        replicaset = self._replicasets.get(*key)
        if replicaset is None or replicaset["metadata"].get("deletionTimestamp"):
            return
        uid = replicaset["metadata"]["uid"]
        pods = [pod for pod in self._pods.list(key[0]) if (controller_of(pod) or {}).get("uid") == uid]
        active = [
            pod
            for pod in pods
            if not pod["metadata"].get("deletionTimestamp")
            and nested(pod, "status.phase") not in ("Succeeded", "Failed")
        ]
        missing = replicaset["spec"]["replicas"] - len(active)
        active += [await self._create_pod(replicaset) for _ in range(missing)]
        if missing < 0:
            for pod in sorted(active, key=_deletion_order)[:-missing]:
                await self._client.delete(PODS, pod)
                active.remove(pod)
                name = pod["metadata"]["name"]
                await self._replicaset_events.record(
                    replicaset, "Normal", "SuccessfulDelete", f"Deleted pod: {name}"
                )
        await self._update_replicaset_status(key, replicaset, active)

    async def _create_pod(self, replicaset: Object) -> Object:
        meta, template = replicaset["metadata"], replicaset["spec"]["template"]
        pod = {
            "metadata": {
                **template["metadata"],
                "generateName": f"{meta['name']}-",
                "ownerReferences": [owner_reference(replicaset, "ReplicaSet")],
            },
            "spec": template["spec"],
        }
        try:
            created = await self._client.create(PODS, meta["namespace"], pod)
        except StatusError as error:
            await self._replicaset_events.record(
                replicaset, "Warning", "FailedCreate", f"Error creating: {error}"
            )
            raise
        self._pods.update(created)
        message = f"Created pod: {created['metadata']['name']}"
        await self._replicaset_events.record(replicaset, "Normal", "SuccessfulCreate", message)
        return created

    async def _update_replicaset_status(self, key: Key, replicaset: Object, active: list[Object]) -> None:
        settle = replicaset["spec"].get("minReadySeconds") or 0
        ready = [found for pod in active if (found := ready_condition(pod))]
        ages = [(datetime.now(UTC) - parse_time(c["lastTransitionTime"])).total_seconds() for c in ready]
        if soon := [settle - age for age in ages if age < settle]:
            self._replicas.add_after(key, min(soon) + 0.1)
        status = {
            "observedGeneration": replicaset["metadata"]["generation"],
            "replicas": len(active),
            "fullyLabeledReplicas": len(active),
            "readyReplicas": len(ready),
            "availableReplicas": sum(age >= settle for age in ages),
        }
        if status != replicaset.get("status"):
            self._replicasets.update(
                await self._client.patch(REPLICASETS, *key, {"status": status}, "status")
            )


def _deletion_order(pod: Object) -> tuple[bool, bool, bool, float]:
    """Return a sort key: unscheduled, not running, not ready and young pods are deleted first."""
    running = nested(pod, "status.phase") == "Running"
    born = parse_time(pod["metadata"]["creationTimestamp"]).timestamp()
    return (bool(nested(pod, "spec.nodeName")), running, ready_condition(pod) is not None, -born)
