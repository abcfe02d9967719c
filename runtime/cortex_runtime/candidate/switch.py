"""Puts the split into a running worker and removes it, without a restart: all connections get another application.

Imported only by workers that have a split.
"""

import logging
from collections.abc import Callable
from typing import Any

from uvicorn.server import Server

from cortex_runtime.candidate.application import SplitApp, StableApp
from cortex_runtime.candidate.client import Propagate
from cortex_runtime.candidate.counters import WorkerCounters
from cortex_runtime.candidate.session import Session
from cortex_runtime.candidate.split import Split
from cortex_runtime.http.protocol import InlineProtocol

log = logging.getLogger("cortex")


class Switch:
    """The split of one worker. Used on its event loop.

    server: of the worker. max_body: bytes of a request. timeout: seconds of a request. most_forwarded: requests
    that are forwarded at the same time. api: its name. tracker: spec.tracker, or None. wrap: returns the application to install.
    propagate: adds headers to each request for the candidate.

    on_session: called with the session of another candidate, or None.
    """

    def __init__(
        self,
        app: StableApp,
        server: Server,
        worker_counters: WorkerCounters,
        *,
        max_body: int,
        timeout: float,
        most_forwarded: int,
        api: str,
        tracker: Any = None,
        wrap: Callable[[Any], Any] = lambda app: app,
        propagate: Propagate | None = None,
    ) -> None:
        self._app, self._server = app, server
        self._counters = worker_counters
        self._max_body, self._timeout, self._most_forwarded = max_body, timeout, most_forwarded
        self._api, self._tracker = api, tracker
        self._wrap, self._propagate = wrap, propagate
        self.session: Session | None = None
        self.on_session: Callable[[Session | None], None] = lambda session: None

    def apply(self, split: Split | None) -> None:
        """Use a split from the next request on. None: the stable version answers everything."""
        self._use(split)
        if split is None:
            log.info("the candidate gets no requests")
        else:
            log.info(
                "the candidate %s gets %g%% of requests, and copies of %g%% of the others",
                split.version,
                split.weight,
                split.mirror,
            )

    def _use(self, split: Split | None) -> None:
        session = self.session
        if split is not None and session is not None and split.target == session.split.target:
            session.update(split)
            return
        if session is not None:
            session.close()
        if split is None:
            self.session = None
            self._counters.end_version()
            self._install(self._app)
            self.on_session(None)
            return
        self.session = session = Session(
            split, self._counters, self._timeout, self._tracker, self._api, self._propagate
        )
        self._install(
            SplitApp(
                self._app,
                session,
                max_body=self._max_body,
                timeout=self._timeout,
                most_forwarded=self._most_forwarded,
            )
        )
        self.on_session(session)

    def describe(self, topic: str) -> dict[str, Any]:
        """Return what this worker has compared; {} without a split. topic: "classes" or "differences"."""
        return {} if self.session is None else self.session.describe(topic)

    def _install(self, app: Any) -> None:
        app = self._wrap(app)
        config = self._server.config
        config.app = app
        if config.loaded:
            config.loaded_app = app
        for connection in self._server.server_state.connections:
            # The set has the WebSockets too.
            if isinstance(connection, InlineProtocol):
                connection.use(app)
