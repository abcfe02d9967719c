"""The application of the page: its routes, and the pages that explain why the cluster cannot be read."""

import threading
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from cortex_api import __version__
from cortex_cli.connection import Cluster, ClusterError
from cortex_cli.ui import live
from cortex_cli.ui.charts import clock
from cortex_cli.ui.overview import COLUMNS, Query, overview
from cortex_cli.ui.pages import Renderer, Rows, View
from cortex_cli.ui.sampler import Sampler
from cortex_cli.ui.security import Guard
from cortex_cli.ui.states import STATES
from cortex_cli.ui.store import Store

_STATIC = {"page.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
_FIRST_LIST_SECONDS = 0.7
"""How long the first page waits for the first list, so that it usually has content when it is painted first."""


class Backend:
    """The cluster, what is known of it, and the version of that knowledge.

    connect: opens the cluster; called again by each page until it succeeds. namespace: "" for all namespaces.
    """

    def __init__(self, connect: Callable[[], Cluster], namespace: str) -> None:
        self._connect = connect
        self._namespace = namespace
        self._lock = threading.Lock()
        self.version = 0
        self.cluster: Cluster | None = None
        self.store: Store
        self.sampler: Sampler

    def open(self) -> Cluster:
        """Connect and start the watches, if that has not succeeded yet. Raises ClusterError."""
        with self._lock:
            if self.cluster is None:
                cluster = self._connect()
                self.store = Store(cluster, self._namespace, self._count)
                self.sampler = Sampler(cluster, self.store, self._count)
                self.store.start()
                self.sampler.start()
                self.cluster = cluster
        return self.cluster

    def _count(self) -> None:
        # Threads may overwrite each other's count; the version differs from before in any case.
        self.version += 1


class Application:
    """Routes and views."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._renderer = Renderer({"site": self._site})
        self._static = {
            name: (files("cortex_cli.ui").joinpath("static", name).read_bytes(), media_type)
            for name, media_type in _STATIC.items()
        }

    def starlette(self) -> Starlette:
        """Return the ASGI application."""
        routes = [Route("/static/{name}", self._file)]
        for path, view in (("/", self._overview),):
            routes += [
                Route(path, self._page(view)),
                Route(f"/live{path}", self._stream(view)),
            ]
        return Starlette(routes=routes, exception_handlers={404: self._not_found})

    def _page(self, view: Callable[[Request], View]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            found = self._guarded(view, request)
            return HTMLResponse(self._renderer.page(found), found.status)

        return endpoint

    def _stream(self, view: Callable[[Request], View]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            def render() -> Any:
                return self._renderer.fragments(self._guarded(view, request))

            events = live.stream(render, lambda: self._backend.version)
            return StreamingResponse(events, media_type="text/event-stream")

        return endpoint

    def _guarded(self, view: Callable[[Request], View], request: Request) -> View:
        """Return the view, or the page that explains why there is none."""
        try:
            self._backend.open()
        except ClusterError as error:
            return _problem("Not connected to a cluster", error.message)
        store = self._backend.store
        end = time.monotonic() + _FIRST_LIST_SECONDS
        while not store.is_loaded and store.problem() is None and time.monotonic() < end:
            time.sleep(0.02)
        problem = store.problem()
        if problem is not None and not store.is_loaded:
            return _problem("The cluster cannot be read", problem.message)
        return view(request)

    def _overview(self, request: Request) -> View:
        backend = self._backend
        backend.sampler.watch()
        found = overview(backend.store, backend.sampler, Query.of(request.query_params))
        context = {"overview": found, "columns": COLUMNS, "states": STATES, "path": "/"}
        return View(
            "overview.html", context, ("_status.html", "_summary.html"), (Rows("rows", "row", found.rows),)
        )

    def _site(self) -> dict[str, Any]:
        """Return what the frame of each page shows: the cluster, and whether it is connected."""
        backend = self._backend
        site: dict[str, Any] = {
            "version": __version__,
            "context": "",
            "server": "",
            "problem": "",
            "note": "",
            "loaded": False,
        }
        if backend.cluster is None:
            return site
        store = backend.store
        site |= {
            "context": backend.cluster.context,
            "server": backend.cluster.server,
            "loaded": store.is_loaded,
        }
        if (problem := store.problem()) is not None:
            site["problem"] = f"Not connected since {clock(problem.since, 0)}: {problem.message}"
        elif (pods := store.pods_problem()) is not None:
            site["note"] = f"Pods cannot be read, so requests, latency and logs are unknown: {pods.message}"
        elif store.is_restricted:
            site["note"] = (
                f"You may not list the APIs of all namespaces; this page shows namespace {store.namespace}."
            )
        return site

    def _file(self, request: Request) -> Response:
        found = self._static.get(request.path_params["name"])
        if found is None:
            return Response("not found", 404)
        return Response(found[0], media_type=found[1])

    async def _not_found(self, request: Request, error: Exception) -> Response:
        view = _problem("Page not found", f"{request.url.path} does not exist.", 404)
        return HTMLResponse(await run_in_threadpool(self._renderer.page, view), 404)


def create(backend: Backend, token: str, port: int) -> Guard:
    """Return the application behind the checks of token, Host and Origin."""
    return Guard(Application(backend).starlette(), token, port)


def _problem(title: str, message: str, status: int = 503) -> View:
    return View(
        "problem.html",
        {"title": title, "message": message, "path": ""},
        ("_status.html", "_problem.html"),
        (),
        status,
    )
