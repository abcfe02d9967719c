"""Render the objects of APIs again only if something has changed.

While the pods of an API start, their events cause several reconciliations that render the same objects. Rendering and its hashes
would be most of the work of each of them.
"""

from collections import OrderedDict
from typing import Any

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_operator.capabilities import Capabilities
from cortex_operator.platform import Platform
from cortex_operator.render import render
from cortex_operator.watch.cache import Key

Object = dict[str, Any]

RECENT = 100
"""APIs whose objects are kept."""


class Renderer:
    """Renders the objects of APIs, and keeps those of the APIs that were rendered last."""

    def __init__(self, platform: Platform, capabilities: Capabilities) -> None:
        self._platform = platform
        self._capabilities = capabilities
        self._recent: OrderedDict[Key, tuple[tuple[Any, ...], list[Object]]] = OrderedDict()

    def render(
        self, key: Key, api: RealtimeAPI | AsyncAPI, source: Object | None, routed: bool
    ) -> list[Object]:
        """Return what `render.render` returns, which must not be changed."""
        inputs = (routed, source, api)
        known, children = self._recent.pop(key, (None, []))
        if known != inputs:
            children = render(api, self._platform, source, self._capabilities, routed)
        self._recent[key] = (inputs, children)
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return list(children)

    def forget(self, key: Key) -> None:
        """Drop the objects of an API that is deleted."""
        self._recent.pop(key, None)
