"""Run the watches of kopf, and check that they are alive.

kopf connects, finds the watched kinds, lists and watches them, and reconnects. Its processing of each event is replaced: handlers
of changes, timers and finalizers are not used here, and kopf's task for each object costs as much as a reconciliation.

kopf restarts a watch that is silent for 70 s (bookmarks arrive every minute). But when the task of a watch ends, the process may
continue without it (kopf issue 1276), so the health check looks at the tasks.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import kopf
import orjson
from kopf._cogs.clients import api, errors, watching
from kopf._core.reactor import orchestration

from cortex_api.contract import API_LABEL
from cortex_operator.kinds import API_KINDS, CONFIG_MAP, ObjectKind, child_kinds
from cortex_operator.platform import Platform
from cortex_operator.watch.handlers import EventHandler

PAGE = 200
"""Objects in each response to a list: pages limit the memory that a list needs."""
_TASK = re.compile(r"^watcher for ([a-z]+)\.")


class Watches:
    """The watches of all kinds. listed: set once each of them has listed the existing objects."""

    def __init__(self, platform: Platform, handler: EventHandler) -> None:
        self._platform = platform
        self._handler = handler
        self._kinds = {
            (kind.group, kind.plural): kind for kind in (*API_KINDS, *child_kinds(platform), CONFIG_MAP)
        }
        self._unlisted: set[tuple[str, str | None]] = set()
        self._seen: set[str] = set()
        self.listed = asyncio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        """Watch until cancelled. Errors of the API server are retried forever.

        started: called after kopf has installed its signal handlers, to replace them: at a signal kopf would stop its watches and
        wait 5 s for all other tasks, while this process is still the leader.
        """
        cast(Any, orchestration).queueing = SimpleNamespace(watcher=self._watch)
        cast(Any, api).json = orjson  # Decodes an event in half of the time.
        others = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=self._settings(),
            standalone=True,
            identity=cast(
                Any, "cortex-operator"
            ),  # The default is the name of the user, which a container may not have.
            clusterwide=not self._platform.watch_namespaces,
            namespaces=self._platform.watch_namespaces,
        )
        started()
        await kopf.run_tasks(tasks, ignored=others)

    def missing(self) -> str | None:
        """Return the plural of a kind whose watch has ended; None while all watches are alive."""
        names = (_TASK.match(task.get_name()) for task in asyncio.all_tasks())
        alive = {match[1] for match in names if match}
        self._seen |= alive
        return min(self._seen - alive, default=None)

    def _registry(self) -> kopf.OperatorRegistry:
        """Return a registry that makes kopf watch all kinds."""
        registry = kopf.get_default_registry()
        for kind in self._kinds.values():
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(_unused)
        return registry

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = bool(self._platform.watch_namespaces)
        settings.networking.error_backoffs = (1, 1, 2, 3, *[5] * 10_000)
        settings.watching.chunk_size = PAGE
        # ConfigMaps have no selector, because users own those with code.
        for kind in child_kinds(self._platform):
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = API_LABEL
        return settings

    async def _watch(
        self, *, settings: kopf.OperatorSettings, resource: Any, namespace: Any, **_: Any
    ) -> None:
        """Watch one kind, in place of kopf's `queueing.watcher`."""
        kind = self._kinds[resource.group, resource.plural]
        self._unlisted.add((kind.kind, namespace))
        while True:
            with contextlib.suppress(errors.APITooManyRequestsError):
                events = watching.continuous_watch(
                    settings=settings,
                    resource=resource,
                    namespace=namespace,
                    operator_pause_waiter=asyncio.Future(),
                )
                await self._handler.follow(kind, namespace, self._noting(events, kind, namespace))
            await asyncio.sleep(settings.watching.reconnect_backoff)

    async def _noting(
        self, events: AsyncIterator[Any], kind: ObjectKind, namespace: str | None
    ) -> AsyncIterator[watching.Bookmark | Mapping[str, Any]]:
        """Yield the events, and note when the list is complete."""
        async for event in events:
            yield event
            if event is watching.Bookmark.LISTED:
                self._unlisted.discard((kind.kind, namespace))
                if not self._unlisted:
                    self.listed.set()


async def _unused(**_: Any) -> None:
    raise RuntimeError("this version of kopf does not use Watches._watch")
