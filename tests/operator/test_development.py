"""Development copies of `cortex dev`: their pods wait for the project, and they are deleted when they expire."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cortex_api import parse
from cortex_operator.autoscaling.scaling_loop import Scaler
from cortex_operator.platform import Platform
from cortex_operator.reconcile import Reconciler
from cortex_operator.render import render
from cortex_operator.watch.cache import Cache, Key

from .fake import FakeCluster

Object = dict[str, Any]
KEY = Key("RealtimeAPI", "default", "iris-dev")


def manifest(name: str = "iris-dev", kind: str = "RealtimeAPI", **annotations: str) -> Object:
    return {
        "apiVersion": "cortex.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"handler": {"type": "python", "path": "handler.py"}},
    }


def expiring(seconds: float) -> Object:
    time = datetime.now(UTC) + timedelta(seconds=seconds)
    return manifest(**{"cortex.dev/development-expires": time.isoformat()})


class World:
    """A cluster with one development copy, and an operator."""

    def __init__(self, live: Object) -> None:
        self.cluster = FakeCluster(lambda event, thing: None)
        self.requeued: list[float] = []
        cache = self.cache = Cache()
        scaler = Scaler(cache, self.cluster, lambda key: None)  # type: ignore[arg-type]
        self.reconciler = Reconciler(
            cache,
            self.cluster,  # type: ignore[arg-type]
            Platform(),
            scaler,
            requeue_after=lambda key, seconds: self.requeued.append(seconds),
        )
        self.cluster.put(live)
        cache.put_api(KEY, self.cluster.objects["RealtimeAPI", "default", "iris-dev"], False)

    @property
    def exists(self) -> bool:
        return ("RealtimeAPI", "default", "iris-dev") in self.cluster.objects


async def test_a_copy_is_reconciled_until_it_expires_and_checked_again_then():
    expires = datetime.now(UTC) + timedelta(seconds=500)
    world = World(manifest(**{"cortex.dev/development-expires": expires.isoformat()}))
    before = datetime.now(UTC)
    await world.reconciler.reconcile(KEY)
    after = datetime.now(UTC)
    assert world.exists
    assert ("Deployment", "default", "api-iris-dev") in world.cluster.objects
    (seconds,) = (timedelta(seconds=each) for each in world.requeued)
    assert before <= expires + timedelta(seconds=1) - seconds <= after


async def test_an_expired_copy_is_deleted():
    world = World(expiring(-1))
    await world.reconciler.reconcile(KEY)
    assert not world.exists


async def test_a_copy_that_was_renewed_in_the_last_moment_is_kept():
    world = World(expiring(-1))
    # The watch has not reported the renewal yet.
    world.cluster.edit("RealtimeAPI", "iris-dev", expiring(600))
    await world.reconciler.reconcile(KEY)
    assert world.exists
    assert world.requeued == [1.0]


@pytest.mark.parametrize(
    ("name", "expires", "develops"),
    [
        ("iris-dev", "2026-01-01T00:00:00Z", True),
        ("iris-dev", "2999-01-01T00:00:00+00:00", True),
        ("iris", "2999-01-01T00:00:00Z", False),
        ("iris-dev", "true", False),
        ("iris-dev", None, False),
    ],
)
def test_only_a_copy_with_the_suffix_and_an_expiry_receives_its_project(name, expires, develops):
    annotations = {} if expires is None else {"cortex.dev/development-expires": expires}
    objects = render(parse(manifest(name, **annotations)), Platform(), None)
    pod = next(each for each in objects if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert ("--development" in pod["containers"][0]["args"]) is develops
    assert ({"name": "project", "emptyDir": {}} in pod["volumes"]) is develops


def test_a_renewal_changes_no_pod():
    templates = [
        next(
            each
            for each in render(parse(expiring(seconds)), Platform(), None)
            if each["kind"] == "Deployment"
        )
        for seconds in (10, 600)
    ]
    assert templates[0] == templates[1]


async def test_another_api_with_the_annotation_is_never_deleted():
    key = Key("RealtimeAPI", "default", "iris")
    world = World(expiring(600))
    live = manifest("iris", **{"cortex.dev/development-expires": "2020-01-01T00:00:00Z"})
    world.cluster.put(live)
    world.cache.put_api(key, world.cluster.objects["RealtimeAPI", "default", "iris"], False)
    await world.reconciler.reconcile(key)
    assert ("RealtimeAPI", "default", "iris") in world.cluster.objects
