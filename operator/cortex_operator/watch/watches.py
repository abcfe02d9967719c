"""kopf's watches: how they are set up, and whether they live.

kopf gives up a silent watch after 70 s (bookmarks come each minute) and begins it anew; but a watch's task that ends may
leave the process alive and blind (kopf issue 1276). So the tasks themselves are looked at.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

import kopf

from cortex_operator.platform import Platform
from cortex_operator.watch import handlers

_TASK = re.compile(r"^watcher for ([a-z]+)\.")


async def run(registry: kopf.OperatorRegistry, platform: Platform, started: Callable[[], None]) -> None:
    """Watch until cancelled. API server errors are waited out, however long they last.

    started: is called once kopf has taken the process's signals, to take them back: at a signal, kopf waits 5 s for all other
    tasks of the process, while this is still the leader, and blind.
    """
    options = kopf.OperatorSettings()
    options.posting.enabled = False
    options.persistence.diffbase_storage = _NoDiffs()
    options.scanning.disabled = bool(platform.watch_namespaces)
    options.networking.error_backoffs = (1, 1, 2, 3, 5, 8, *[10] * 10_000)
    for (group, version, plural), label in handlers.selectors(platform).items():
        options.watching.label_selectors[group, version, plural] = label
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=options,
        standalone=True,
        identity=cast(
            Any, "cortex-operator"
        ),  # Else it asks for the user's name, which a container may not have.
        clusterwide=not platform.watch_namespaces,
        namespaces=platform.watch_namespaces,
    )
    started()
    await kopf.run_tasks(tasks, ignored=others)


class _NoDiffs(kopf.DiffBaseStorage):
    """Spares kopf the deep copies of every object by which it tells handlers of changes what has changed: there are none."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("only handlers of changes store what they have seen")


class Watchers:
    """Which kinds are watched at the moment."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def missing(self) -> str | None:
        """A kind whose watch has begun and is no more, by its plural; None while all live."""
        names = (_TASK.match(task.get_name()) for task in asyncio.all_tasks())
        alive = {match[1] for match in names if match}
        self._seen |= alive
        return min(self._seen - alive, default=None)
