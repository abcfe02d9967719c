"""The application of the page: its routes, and the pages that explain why the cluster cannot be read."""

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from cortex_api import __version__
from cortex_cli.connection import ClusterError
from cortex_cli.ui import live
from cortex_cli.ui.api_pages import APIPages
from cortex_cli.ui.backend import Backend
from cortex_cli.ui.charts import clock
from cortex_cli.ui.frame import PATH, Frame
from cortex_cli.ui.job_pages import JobPages
from cortex_cli.ui.overview import COLUMNS, Query, overview
from cortex_cli.ui.pages import Renderer, Rows, View, problem
from cortex_cli.ui.security import Guard
from cortex_cli.ui.states import STATES
from cortex_cli.ui.tool_pages import ToolPages

_STATIC = {"page.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
_MAX_FORM = 8_000_000
_FIRST_ROWS = 40
_FIRST_LIST_SECONDS = 0.7
"""How long the first page waits for the first list, so that it usually has content when it is painted first."""


class Application:
    """Routes and views."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._static = {
            name: (files("cortex_cli.ui").joinpath("static", name).read_bytes(), media_type)
            for name, media_type in _STATIC.items()
        }
        digest = hashlib.sha256(b"".join(content for content, _ in self._static.values())).hexdigest()[:12]
        self._renderer = Renderer({"site": self._site, "digest": lambda: digest})

    def starlette(self) -> Starlette:
        """Return the ASGI application."""
        routes = [Route("/static/{name}", self._file)]
        frame = Frame(self._backend)
        pages, tools = APIPages(self._backend, frame), ToolPages(self._backend, frame)
        job_pages = JobPages(self._backend, frame)
        views = {
            "": pages.overview,
            "/compare": pages.candidate,
            "/manifest": pages.manifest,
            "/logs": tools.logs,
            "/async-jobs": job_pages.jobs,
            "/async-jobs/retry": job_pages.confirm_retry,
            "/try": tools.try_form,
            "/do/{action}": tools.confirm,
        }
        shown = {"/": self._overview} | {PATH + path: frame.of_api(view) for path, view in views.items()}
        for path, view in shown.items():
            routes += [
                Route(path, self._page(view)),
                Route(f"/live{path}", self._stream(view)),
            ]
        forms = {
            "/try": frame.of_api(tools.try_send),
            "/do/{action}": frame.of_api(tools.perform),
            "/async-jobs/retry": frame.of_api(job_pages.retry),
        }
        routes += [Route(PATH + path, self._form(form), methods=["POST"]) for path, form in forms.items()]
        return Starlette(routes=routes, exception_handlers={404: self._not_found})

    def _page(self, view: Callable[[Request], View]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            found = self._guarded(view, request)
            return HTMLResponse(self._renderer.page(found), found.status)

        return endpoint

    def _form(self, view: Callable[[Request, dict[str, str]], View | str]) -> Callable[[Request], Any]:
        """Return the endpoint of a form, which shows a page or redirects to one."""

        async def endpoint(request: Request) -> Response:
            try:
                form = await _read_form(request)
            except ValueError as error:
                return HTMLResponse(
                    self._renderer.page(problem("The form cannot be read", str(error), 400)), 400
                )

            def answer() -> Response:
                found = self._guarded(lambda request: view(request, form), request)
                if isinstance(found, str):
                    return RedirectResponse(found, 303)
                return HTMLResponse(self._renderer.page(found), found.status)

            return await run_in_threadpool(answer)

        return endpoint

    def _stream(self, view: Callable[[Request], View]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            def render() -> Any:
                return self._renderer.fragments(self._guarded(view, request))

            events = live.stream(render, lambda: self._backend.version, lambda: self._backend.is_stopping())
            return StreamingResponse(events, media_type="text/event-stream")

        return endpoint

    def _guarded(self, view: Callable[[Request], Any], request: Request) -> Any:
        """Return the view, or the page that explains why there is none."""
        try:
            self._backend.open()
        except ClusterError as error:
            return problem("Not connected to a cluster", error.message)
        store = self._backend.store
        store.wait_for_list(_FIRST_LIST_SECONDS)
        trouble = store.problem()
        if trouble is not None and not store.is_loaded:
            return problem("The cluster cannot be read", trouble.message)
        return view(request)

    def _overview(self, request: Request) -> View:
        backend = self._backend
        backend.sampler.watch()
        # A browser shows the first rows at once, and gets the others from the stream of the page.
        is_first = request.headers.get("sec-fetch-mode") == "navigate" and "all" not in request.query_params
        limit = _FIRST_ROWS if is_first else None
        found = overview(backend.store, backend.sampler, Query.of(request.query_params), limit)
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
            "is_local": False,
        }
        if backend.cluster is None:
            return site
        store = backend.store
        site |= {
            "context": backend.cluster.context,
            "server": backend.cluster.server,
            "is_local": backend.cluster.is_local,
            "loaded": store.is_loaded,
        }
        if (trouble := store.problem()) is not None:
            site["problem"] = f"Not connected since {clock(trouble.since, 0)}: {trouble.message}"
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
        # The URLs in pages contain a digest of the content.
        headers = {"cache-control": "private, max-age=31536000, immutable"} if request.url.query else {}
        return Response(found[0], media_type=found[1], headers=headers)

    async def _not_found(self, request: Request, error: Exception) -> Response:
        view = problem("Page not found", f"{request.url.path} does not exist.", 404)
        return HTMLResponse(await run_in_threadpool(self._renderer.page, view), 404)


async def _read_form(request: Request) -> dict[str, str]:
    """Return the fields of a submitted form. Raises ValueError if it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            raise ValueError(f"it is larger than {_MAX_FORM // 1_000_000} MB")
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def create(backend: Backend, token: str, port: int, command: str) -> Guard:
    """Return the application behind the checks of token, Host and Origin."""
    return Guard(Application(backend).starlette(), token, port, command)
