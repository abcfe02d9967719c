"""Send the changed parts of an open page as server-sent events.

Each event is JSON: {"elements": [HTML], "orders": {parent id: [ids]}}. live.js replaces the elements by their ids.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from cortex_cli.ui.pages import Fragments

PAUSE = 1.0
"""Seconds between two looks for changes."""
_REFRESH = 4
"""Number of looks after which a page is rendered again without a change, because ages and the time axes of charts move on."""


async def stream(
    render: Callable[[], Fragments], version: Callable[[], int], is_stopping: Callable[[], bool]
) -> AsyncIterator[str]:
    """Yield server-sent events until the client disconnects, or the server is stopping.

    render: returns the parts of the page; called in a thread. version: a number that differs after each change of the data.
    """
    sent, seen = Fragments(), -1
    yield "retry: 1000\n\n"
    for look in itertools.count():
        if is_stopping():
            return
        newest = version()
        if newest == seen and look % _REFRESH:
            await asyncio.sleep(PAUSE)
            continue
        seen = newest
        current = await run_in_threadpool(render)
        elements = [html for name, html in current.elements.items() if sent.elements.get(name) != html]
        orders = {name: ids for name, ids in current.orders.items() if sent.orders.get(name) != ids}
        sent = current
        # A comment finds out that the client has disconnected.
        content = json.dumps({"elements": elements, "orders": orders}) if elements or orders else ""
        yield f"data: {content}\n\n" if content else ":\n\n"
        await asyncio.sleep(PAUSE)
