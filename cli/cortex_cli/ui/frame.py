"""What all pages of an API have in common: the API of the URL, its state, tabs and possible changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from starlette.requests import Request

from cortex_api import KINDS
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.ui import actions
from cortex_cli.ui.backend import Backend
from cortex_cli.ui.candidate_view import candidate_of
from cortex_cli.ui.detail import advice
from cortex_cli.ui.lookups import Lookup
from cortex_cli.ui.overview import url_of
from cortex_cli.ui.pages import View, problem
from cortex_cli.ui.states import STATES, condition_of
from cortex_cli.ui.store import key_of

PATH = "/{kind}/{namespace}/{name}"
_KINDS = {kind.lower(): kind for kind in KINDS}
_MAY_SECONDS = 60.0
_LIST_SECONDS = 10.0
"""How long the page of an API waits for the first list: before it, no API is known."""
Parameters = ParamSpec("Parameters")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Tab:
    """A page of an API."""

    title: str
    url: str
    is_current: bool


class Frame:
    """Finds the API of a request, and returns the variables of the templates that all its pages use."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def of_api(
        self, view: Callable[Concatenate[Request, API, Parameters], Found]
    ) -> Callable[Concatenate[Request, Parameters], Found | View]:
        """Return a view that passes the API of the URL to `view`, or shows that it does not exist.

        The API is sampled more often from then on.
        """

        def find_and_show(
            request: Request, *arguments: Parameters.args, **options: Parameters.kwargs
        ) -> Found | View:
            params = request.path_params
            key = (_KINDS.get(params["kind"], ""), params["namespace"], params["name"])
            self._backend.sampler.watch(key)
            store = self._backend.store
            store.wait_for_list(_LIST_SECONDS)
            if (api := store.find(key)) is not None:
                return view(request, api, *arguments, **options)
            return missing(request) if store.is_loaded else unread()

        return find_and_show

    def context(self, api: API, tab: str) -> dict[str, Any]:
        """Return the variables. tab: the end of the URL of the page."""
        backend, url = self._backend, url_of(api)
        condition, candidate = condition_of(api), candidate_of(api)
        tabs = [("Overview", "")]
        tabs += [("Candidate", "/compare")] if candidate else []
        tabs += [("Jobs", "/async-jobs")] if api.kind == "AsyncAPI" else []
        tabs += [("Logs", "/logs"), ("Try it", "/try"), ("Manifest", "/manifest")]
        cluster = backend.open()
        may = Lookup()
        if not cluster.is_local:
            may = backend.lookups.get(
                ("may", key_of(api)), lambda: actions.may(cluster, api), _MAY_SECONDS, 0.3
            )
        return {
            "api": api,
            "url": url,
            "path": url,
            "age": apis.age(api.live["metadata"].get("creationTimestamp")),
            "condition": condition,
            "candidate": candidate,
            "remedy": advice(api, condition),
            "states": STATES,
            "tabs": [Tab(title, url + suffix, suffix == tab) for title, suffix in tabs],
            "errors": backend.sampler.errors(key_of(api)),
            "actions": actions.actions_of(api),
            # Until the review has been answered, the page offers nothing.
            "may_change": may.value is True,
            "refusal": may.error or "Your kubeconfig does not permit changes of this API"
            if may.is_known
            else "",
        }


def unread() -> View:
    """Return the page of an API before the first list of all APIs."""
    return problem(
        "The cluster has not answered yet", "The APIs are being listed. Reload this page to see it."
    )


def missing(request: Request) -> View:
    """Return the page of an API that does not exist."""
    params = request.path_params
    message = f"{params['name']} does not exist in namespace {params['namespace']}. It may have been deleted."
    return problem("API not found", message, 404)
