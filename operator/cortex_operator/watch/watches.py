"""Run the watches of kopf, and check that they are alive.

kopf restarts a watch that is silent for 70 s (bookmarks arrive every minute). But when the task of a watch ends, the process may
continue without it (kopf issue 1276), so the health check looks at the tasks.
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
    """Watch until cancelled. Errors of the API server are retried forever.

    started: called after kopf has installed its signal handlers, to replace them: at a signal kopf would stop its watches and
    wait 5 s for all other tasks, while this process is still the leader.
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
        ),  # The default is the name of the user, which a container may not have.
        clusterwide=not platform.watch_namespaces,
        namespaces=platform.watch_namespaces,
    )
    started()
    await kopf.run_tasks(tasks, ignored=others)


class _NoDiffs(kopf.DiffBaseStorage):
    """Spares kopf the deep copies of every object that it needs for handlers of changes, which are not used."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("only handlers of changes store an object")


class Watchers:
    """The kinds that are watched."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def missing(self) -> str | None:
        """Return the plural of a kind whose watch has ended; None while all watches are alive."""
        names = (_TASK.match(task.get_name()) for task in asyncio.all_tasks())
        alive = {match[1] for match in names if match}
        self._seen |= alive
        return min(self._seen - alive, default=None)
