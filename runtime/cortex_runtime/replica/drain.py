"""Decide when a draining replica closes its ports: once clients have stopped to connect.

After the deletion of a pod, each proxy in the cluster removes it from its Service in its own time: usually within a second, later
if the cluster is large or busy. Until then the proxy sends connections, which a closed port would refuse. While no other pod is
ready, proxies keep sending connections to a pod that is being deleted.
"""

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger("cortex")

_POLL_SECONDS = 0.1


class QuietPeriod:
    """The time since the last new connection.

    delay: seconds without a new connection after which the ports may be closed. limit: seconds after which they are closed in any
    case. connections: number of connections so far. now: seconds of a clock.
    """

    def __init__(self, delay: float, limit: float, connections: float, now: float) -> None:
        self._delay = delay
        self._connections = connections
        self._quiet_since = now
        self._end = now + limit

    def is_over(self, connections: float, now: float) -> bool:
        """Return whether the ports may be closed. connections, now: as above, at present."""
        if connections != self._connections:
            self._connections, self._quiet_since = connections, now
        return now >= min(self._quiet_since + self._delay, self._end)


async def wait_until_quiet(
    delay: float, limit: float, connections: Callable[[], float], interrupted: asyncio.Event
) -> None:
    """Return when the ports may be closed, or on `interrupted`.

    delay, limit: seconds, as of `QuietPeriod`. connections: returns the number of connections so far.
    """
    loop = asyncio.get_running_loop()
    before, began = connections(), loop.time()
    period = QuietPeriod(delay, limit, before, began)
    interruption = asyncio.create_task(interrupted.wait())
    while not interruption.done() and not period.is_over(connections(), loop.time()):
        await asyncio.wait((interruption,), timeout=_POLL_SECONDS)
    interruption.cancel()
    accepted, seconds = connections() - before, loop.time() - began
    log.info("refusing new connections; %d were accepted in %.1f s of the drain", accepted, seconds)
