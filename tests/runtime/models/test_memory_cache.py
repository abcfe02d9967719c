"""Models in memory: limits are never exceeded, concurrent requests load once, and the previous model stays if a change is
invalid."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cortex_runtime.errors import StartError, UserError
from cortex_runtime.models import memory_cache as module
from cortex_runtime.models.catalog import Version
from cortex_runtime.models.memory_cache import MemoryCache
from cortex_runtime.models.repository import LoadFailed


class Versions:
    """A fake of `ModelRepository`, without files."""

    single = None

    def __init__(self, *versions: tuple[str, int], size: int = 1, named: bool = True) -> None:
        self.named = named
        self.items = {version: Version(*version, Path("/nowhere"), "first", size) for version in versions}
        self.memory: Callable[[], set[str]] = set
        self.before: dict[tuple[str, int], Version] = {}
        self.told: list[str] = []
        self.failed = self.told.append

    def change(self, name: str, version: int, stamp: str) -> None:
        self.items[name, version] = Version(name, version, Path("/nowhere"), stamp, 1)

    def names(self):
        return sorted({name for name, _ in self.items})

    def all_versions(self):
        return list(self.items.values())

    def problems(self):
        return {}

    def best(self, name, version, use):
        numbers = sorted((number for known, number in self.items if known == name), reverse=True)
        if not numbers:
            raise UserError(f"model {name} is not there", 404)
        if version not in (None, "", "latest"):
            numbers = [int(version)]
        cause = None
        for number in numbers:
            try:
                return use(self.items[name, number])
            except LoadFailed as error:
                cause = cause or error
        raise cause

    def reading(self, version):
        return contextlib.nullcontext()

    def previous(self, version):
        return self.before.get((version.name, version.version))

    def mark_loadable(self, version):
        self.before.pop((version.name, version.version), None)

    def in_memory(self, stamps):
        self.memory = stamps


class Loads:
    """A loader that counts its calls, fails on demand, and counts the models that exist at once."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int, str]] = []
        self.broken: set[tuple[str, int, str]] = set()
        self.alive: set[str] = set()
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)

    def load(self, version: Version) -> str:
        what = (version.name, version.version, version.stamp)
        self.began.release()
        assert self.gate.wait(60)
        self.done.append(what)
        if what in self.broken:
            raise ValueError("truncated")
        model = f"{version.name} {version.version} {version.stamp}"
        self.alive.add(model)
        self.most = max(self.most, len(self.alive))
        return model

    def unload(self, model: str) -> None:
        self.alive.remove(model)


@pytest.fixture
def loads():
    return Loads()


def in_threads(*calls):
    results = [None] * len(calls)

    def run(i):
        try:
            results[i] = calls[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()

    def join():
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        return results

    return join


def test_a_version_is_loaded_once_for_concurrent_requests(loads):
    cache = MemoryCache(Versions(("a", 1), ("a", 2)), loads.load)
    loads.gate.clear()
    join = in_threads(*[lambda: cache.get("a", None)] * 8, *[lambda: cache.get("a", "2")] * 4)
    loads.began.acquire()
    loads.gate.set()
    assert join() == ["a 2 first"] * 12
    assert loads.done == [("a", 2, "first")]
    assert [cache.get("a", version) for version in ("latest", "", 2, "02")] == ["a 2 first"] * 4
    assert loads.done == [("a", 2, "first")]


def test_the_least_recently_used_model_is_evicted_before_the_next_is_loaded(loads):
    names = "abcd"
    cache = MemoryCache(Versions(*[(name, 1) for name in names]), loads.load, size=2, unload=loads.unload)
    for name in "abacad":
        cache.get(name, 1)
    assert [name for name, _, _ in loads.done] == ["a", "b", "c", "d"]
    assert loads.most == 2
    assert loads.alive == {"a 1 first", "d 1 first"}


def test_the_limit_holds_for_concurrent_loads(loads):
    names = "abcdefgh"
    cache = MemoryCache(Versions(*[(name, 1) for name in names]), loads.load, size=3, unload=loads.unload)
    join = in_threads(*[(lambda name=name: cache.get(name, 1)) for name in names * 3])
    assert sorted(set(join())) == [f"{name} 1 first" for name in names]
    assert loads.most <= 3


def test_a_limit_in_bytes(loads):
    cache = MemoryCache(
        Versions(*[(name, 1) for name in "abc"], size=40),
        loads.load,
        limit_bytes=100,
        unload=loads.unload,
    )
    for name in "abc":
        cache.get(name, 1)
    assert loads.most == 2
    large = MemoryCache(Versions(("a", 1), size=101), loads.load, limit_bytes=100)
    with pytest.raises(
        LoadFailed, match=r"models\.cacheBytes must be at least the size of model a 1 \(101\); got 100"
    ):
        large.get("a", 1)


def test_a_model_larger_in_memory_than_on_disk_pushes_others_out(loads):
    sizes = {"a": 30, "b": 90}
    cache = MemoryCache(
        Versions(("a", 1), ("b", 1), size=10),
        loads.load,
        limit_bytes=100,
        measure=lambda version, model: sizes[version.name],
        unload=loads.unload,
    )
    cache.get("a", 1)
    cache.get("b", 1)
    assert loads.alive == {"b 1 first"}


def test_latest_is_the_highest_version_that_can_be_loaded(loads):
    loads.broken.add(("a", 2, "first"))
    store = Versions(("a", 1), ("a", 2))
    cache = MemoryCache(store, loads.load)
    cache.preload()
    assert cache.get("a", "latest") == "a 1 first"
    with pytest.raises(LoadFailed, match=r"version 2|failed to load model a 2: ValueError: truncated"):
        cache.get("a", 2)
    assert "truncated" in cache.problems()["a 2"]
    assert store.told == ["a"]
    # It is not loaded again for each request.
    assert loads.done.count(("a", 2, "first")) == 1


def test_a_failed_load_is_retried_after_a_pause(loads, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    loads.broken.add(("a", 1, "first"))
    cache = MemoryCache(Versions(("a", 1)), loads.load)
    with pytest.raises(LoadFailed):
        cache.get("a", 1)
    loads.broken.clear()
    with pytest.raises(LoadFailed):
        cache.get("a", 1)
    now[0] = 6.0
    assert cache.get("a", 1) == "a 1 first"
    assert cache.problems() == {}


def test_a_named_model_that_cannot_be_loaded_fails_the_start(loads):
    loads.broken.add(("a", 1, "first"))
    with pytest.raises(StartError, match="truncated") as caught:
        MemoryCache(Versions(("a", 1), ("b", 1)), loads.load).preload()
    assert caught.value.reason == "ModelInvalid"
    folder = MemoryCache(Versions(("a", 1), ("b", 1), named=False), loads.load)
    folder.preload()
    assert folder.get("b", 1) == "b 1 first"


@pytest.mark.parametrize("size", [None, 1, 2])
def test_a_valid_change_replaces_a_model_and_an_invalid_one_does_not(loads, size):
    store = Versions(("a", 1))
    cache = MemoryCache(store, loads.load, size=size, unload=loads.unload)
    assert cache.get("a", None) == "a 1 first"
    store.change("a", 1, "second")
    cache.refresh()
    assert cache.get("a", None) == "a 1 second"
    assert loads.alive == {"a 1 second"}

    loads.broken.add(("a", 1, "third"))
    store.change("a", 1, "third")
    cache.refresh()
    assert cache.get("a", None) == "a 1 second"
    assert cache.get("a", 1) == "a 1 second"
    assert "truncated" in cache.problems()["a 1"]
    assert loads.alive == {"a 1 second"}

    store.change("a", 1, "fourth")
    cache.refresh()
    assert (cache.get("a", None), cache.problems()) == ("a 1 fourth", {})
    assert size is None or loads.most <= size


def test_an_invalid_new_version_does_not_become_latest(loads):
    store = Versions(("a", 1))
    cache = MemoryCache(store, loads.load)
    cache.preload()
    loads.broken.add(("a", 2, "first"))
    store.change("a", 2, "first")
    cache.refresh()
    assert cache.get("a", None) == "a 1 first"
    store.change("a", 3, "first")
    cache.refresh()
    assert cache.get("a", None) == "a 3 first"


def test_removed_models_are_unloaded(loads):
    store = Versions(("a", 1), ("a", 2))
    cache = MemoryCache(store, loads.load, unload=loads.unload)
    cache.preload()
    del store.items["a", 2]
    cache.refresh()
    assert cache.get("a", None) == "a 1 first"
    assert loads.alive == {"a 1 first"}


def test_requests_go_on_while_a_change_is_loaded(loads):
    store = Versions(("a", 1))
    cache = MemoryCache(store, loads.load)
    cache.preload()
    loads.began.acquire()
    store.change("a", 1, "second")
    loads.gate.clear()
    join = in_threads(cache.refresh)
    loads.began.acquire()
    assert cache.get("a", None) == "a 1 first"
    assert cache.get("a", "1") == "a 1 first"
    loads.gate.set()
    join()
    assert cache.get("a", None) == "a 1 second"


def test_a_load_may_load_another_model_but_not_itself(loads):
    store = Versions(("a", 1), ("b", 1))

    def load(version):
        if version.name == "a":
            return "a of " + cache.get("b", 1)
        return loads.load(version)

    cache: MemoryCache[str] = MemoryCache(store, load, size=1)
    assert cache.get("a", 1) == "a of b 1 first"
    itself: MemoryCache[str] = MemoryCache(
        store, lambda version: itself.get(version.name, version.version), size=1
    )
    with pytest.raises(LoadFailed, match="requires model a 1 itself"):
        itself.get("a", 1)


def test_a_loader_that_exits_is_a_failed_load():
    def load(version):
        raise SystemExit(3)

    with pytest.raises(LoadFailed, match="SystemExit: 3"):
        MemoryCache(Versions(("a", 1)), load).get("a", 1)


def test_a_name_or_version_that_is_not_a_string_is_a_user_error(loads):
    cache = MemoryCache(Versions(("a", 1)), loads.load)
    with pytest.raises(UserError):
        cache.get(["a"], 1)


def test_a_new_process_serves_the_previous_model_if_the_current_one_cannot_be_loaded(loads):
    store = Versions(("a", 1))
    store.before["a", 1] = store.items["a", 1]
    store.change("a", 1, "second")
    loads.broken.add(("a", 1, "second"))
    cache = MemoryCache(store, loads.load)
    cache.preload()
    assert (cache.get("a", None), cache.get("a", 1)) == ("a 1 first", "a 1 first")
    assert "truncated" in cache.problems()["a 1"]
    store.change("a", 1, "third")
    cache.refresh()
    assert (cache.get("a", None), store.before) == ("a 1 third", {})


def test_the_growth_of_the_process_during_a_load_is_measured_unless_another_load_runs(loads, monkeypatch):
    sizes = iter([1000, 5000, 5000, 4000])
    monkeypatch.setattr(module, "resident_bytes", lambda: next(sizes))
    cache = MemoryCache(Versions(("a", 1), ("b", 1)), loads.load)
    cache.get("a", 1)
    assert cache.growth() == {("a", 1): 4000}
    # Memory that was released meanwhile: the growth is unknown, not negative.
    cache.get("b", 1)
    assert cache.growth() == {("a", 1): 4000}
    cache.evict("a")
    assert cache.growth() == {}


def test_the_growth_of_concurrent_loads_is_unknown(loads):
    cache = MemoryCache(Versions(("a", 1), ("b", 1)), loads.load)
    loads.gate.clear()
    join = in_threads(lambda: cache.get("a", 1), lambda: cache.get("b", 1))
    assert loads.began.acquire(timeout=60)
    assert loads.began.acquire(timeout=60)
    loads.gate.set()
    join()
    assert cache.growth() == {}
