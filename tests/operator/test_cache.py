"""Watch events and responses to our own writes arrive in any order, and the cache never returns to an older version."""

from typing import Any

from cortex_operator.watch.cache import Cache, Key

KEY = Key("RealtimeAPI", "default", "iris")


def child(version: int, uid: str = "u", kind: str = "Deployment", name: str = "api-iris") -> dict[str, Any]:
    labels = {"cortex.dev/api": "iris", "cortex.dev/kind": "RealtimeAPI"}
    metadata = {"name": name, "namespace": "default", "uid": uid, "labels": labels}
    return {"kind": kind, "metadata": {**metadata, "resourceVersion": str(version)}}


def api(name: str, created: str, endpoint: str | None = None, version: int = 1) -> tuple[Key, dict[str, Any]]:
    metadata = {"name": name, "namespace": "default", "uid": name, "creationTimestamp": created}
    spec = {"networking": {"endpoint": endpoint}} if endpoint else {}
    live = {"metadata": {**metadata, "resourceVersion": str(version)}, "spec": spec}
    return Key("RealtimeAPI", "default", name), live


def version(cache: Cache) -> str | None:
    found = cache.child(KEY, "Deployment", "api-iris")
    return found["metadata"]["resourceVersion"] if found else None


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = Cache()
    assert cache.put_child(child(9)) == KEY
    assert cache.put_child(child(8)) is None
    assert version(cache) == "9"
    cache.put_child(child(10))
    assert version(cache) == "10"


def test_a_late_response_does_not_restore_a_deleted_object() -> None:
    cache = Cache()
    cache.put_child(child(9))
    assert cache.put_child(child(11), deleted=True) == KEY
    assert cache.put_child(child(10)) is None
    assert version(cache) is None
    cache.put_child(child(12, uid="v"))
    assert version(cache) == "12"


def test_a_late_deletion_of_an_earlier_object_keeps_the_new_one() -> None:
    cache = Cache()
    cache.put_child(child(12, uid="v"))
    cache.put_child(child(11, uid="u"), deleted=True)
    assert version(cache) == "12"


def test_the_oldest_api_owns_the_endpoint_and_its_deletion_affects_the_others() -> None:
    cache = Cache()
    old, young = api("old", "2026-01-01T00:00:00Z", "/x"), api("young", "2026-02-01T00:00:00Z", "/x/")
    cache.put_api(*young)
    assert cache.put_api(*old) == {old[0], young[0]}
    assert cache.first_at_endpoint(young[0]) == old[0]
    assert cache.put_api(*old, deleted=True) == {old[0], young[0]}
    assert cache.first_at_endpoint(young[0]) == young[0]


def test_moving_an_api_affects_every_api_on_its_old_endpoint() -> None:
    cache = Cache()
    old, young = api("old", "2026-01-01T00:00:00Z", "/x"), api("young", "2026-02-01T00:00:00Z", "/x")
    cache.put_api(*old)
    cache.put_api(*young)
    assert young[0] in cache.put_api(*api("old", "2026-01-01T00:00:00Z", "/y", version=2))
    assert cache.first_at_endpoint(young[0]) == young[0]


def test_code_that_was_read_for_one_api_still_concerns_the_others() -> None:
    cache = Cache()
    both = [api("one", "2026-01-01T00:00:00Z"), api("other", "2026-01-02T00:00:00Z")]
    for key, live in both:
        live["spec"]["handler"] = {"source": {"configMap": {"name": "code"}}}
        cache.put_api(key, live)
    code = {
        "metadata": {"namespace": "default", "name": "code", "uid": "c", "resourceVersion": "7"},
        "data": {},
    }
    cache.put_read_source(code)
    assert cache.source(both[0][0], "code") is not None
    assert cache.put_source(code) == {key for key, _ in both}
    assert cache.put_source(code) == set()
