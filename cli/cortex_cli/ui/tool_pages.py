"""The views of one API to work with it: logs, a request of the reader's own, and changes."""

import json
from dataclasses import replace

from starlette.requests import Request

from cortex_api.contract import PORT
from cortex_cli import api_keys
from cortex_cli.apis import API
from cortex_cli.connection import ClusterError, path
from cortex_cli.ui import actions, openapi_form, try_it
from cortex_cli.ui.backend import Backend
from cortex_cli.ui.frame import Frame, missing
from cortex_cli.ui.highlight import json_text
from cortex_cli.ui.log_book import LEVELS
from cortex_cli.ui.overview import url_of
from cortex_cli.ui.pages import Question, Rows, View
from cortex_cli.ui.store import key_of

_SHOWN_LINES = 600
Form = dict[str, str]


class ToolPages:
    """The views. Those that change something take the submitted form, and return the URL to show next, or a view."""

    def __init__(self, backend: Backend, frame: Frame) -> None:
        self._backend = backend
        self._frame = frame

    def logs(self, request: Request, api: API) -> View:
        """The logs of all replicas, filtered by the URL."""
        query = request.query_params
        level = query.get("level", "") if query.get("level") in LEVELS else ""
        text, pod = query.get("q", "").strip(), query.get("pod", "")
        every, errors = self._backend.logs.lines(key_of(api))
        words = text.lower().split()
        matching = [line for line in every if line.matches(level, words, pod)]
        lines = matching[-_SHOWN_LINES:]
        pods = sorted(
            {line.pod for line in every}
            | {str(p["metadata"]["name"]) for p in self._backend.store.pods(key_of(api))}
        )
        context = {
            "lines": lines,
            "matching": len(matching),
            "total": len(every),
            "levels": LEVELS,
            "level": level,
            "text_filter": text,
            "pod": pod,
            "pods": pods,
            "log_errors": errors,
            "prefix": f"{api.service}-",
        }
        live = ("_status.html", "_head.html", "_log_state.html")
        return View(
            "logs.html",
            {**self._frame.context(api, "/logs"), **context},
            live,
            (Rows("lines", "line", lines),),
        )

    def try_form(self, request: Request, api: API) -> View:
        """The form for a request: with a field for each value of the payload, or for JSON, with the sample of the project."""
        operation = self._operation(api, request.query_params.get("operation", ""))
        as_json = request.query_params.get("as") == "json"
        if operation is None:
            cluster = self._backend.open()
            key = ("sample", key_of(api))
            sample = self._backend.lookups.get(key, lambda: try_it.sample(cluster, api), 300.0, 1.0)
            return self._try(api, try_it.Request(body=sample.value or "{}"), None, None, False, {})
        body = operation.example or ("{}" if operation.has_body else "")
        values = {field.name: field.value for field in operation.fields or ()}
        return self._try(
            api, try_it.Request(operation.method, operation.path, body), None, operation, as_json, values
        )

    def try_send(self, request: Request, api: API, form: Form) -> View:
        """Send the request of the form, and show the response."""
        sent = try_it.Request.of(form)
        operation = self._operation(api, form.get("operation", "")) if form.get("operation") else None
        has_fields = operation is not None and operation.fields is not None and "body" not in form
        values = {
            name.removeprefix("field:"): text for name, text in form.items() if name.startswith("field:")
        }
        try:
            if has_fields:
                assert operation is not None
                sent = replace(sent, body=openapi_form.payload(operation, values))
            answer = try_it.send(self._backend.open(), api, sent)
        except ValueError as error:
            answer = try_it.Answer(error=str(error))
        return self._try(api, sent, answer, operation, not has_fields, values)

    def _operations(self, api: API) -> list[openapi_form.Operation]:
        """Return the operations of the OpenAPI document; none if the API does not serve one."""
        cluster = self._backend.open()

        def read() -> list[openapi_form.Operation]:
            url = path("v1/services", api.namespace, f"{api.service}:{PORT}", "proxy/openapi.json")
            response = cluster.request("GET", url, timeout=5)
            return openapi_form.operations(json.loads(response.body)) if response.status == 200 else []

        return self._backend.lookups.get(("openapi", key_of(api)), read, 60.0, 1.0).value or []

    def _operation(self, api: API, id: str) -> openapi_form.Operation | None:
        """Return an operation by its id, or else the first one; None without an OpenAPI document."""
        found = self._operations(api)
        return next((each for each in found if each.id == id), found[0] if found else None)

    def _try(
        self,
        api: API,
        request: try_it.Request,
        answer: try_it.Answer | None,
        operation: openapi_form.Operation | None,
        as_json: bool,
        values: dict[str, str],
    ) -> View:
        context = {
            "request": request,
            "answer": answer,
            "body": json_text(answer.text) if answer and answer.is_json else (answer.text if answer else ""),
            "methods": try_it.METHODS,
            "needs_key": api_keys.requires_key(api),
            "operations": self._operations(api),
            "operation": operation,
            "fields": None if operation is None or as_json else operation.fields,
            "values": values,
        }
        return View(
            "try.html", {**self._frame.context(api, "/try"), **context}, ("_status.html", "_head.html")
        )

    def confirm(self, request: Request, api: API) -> View:
        """Ask before a change."""
        return self._confirm(request, api, "", "")

    def _confirm(self, request: Request, api: API, error: str, value: str) -> View:
        name = request.path_params["action"]
        action = next((each for each in actions.actions_of(api) if each.name == name), None)
        if action is None:
            return missing(request)
        try:
            warning = actions.warning(actions.read(self._backend.open(), api))
        except ClusterError as failure:
            warning = failure.message
        value = value or str(api.live["spec"].get("replicas", 1))
        frame = self._frame.context(api, "")
        ask = Question(
            title=f"{action.title}: {api.name}",
            button=action.title,
            question=action.question,
            command=action.command,
            submit=f"{url_of(api)}/do/{action.name}",
            back=url_of(api),
            refusal="" if frame["may_change"] else frame["refusal"] or "The permission is not known yet.",
            warning=warning,
            error=error,
            is_dangerous=action.is_dangerous,
            label=action.value,
            value=value,
        )
        return View("confirm.html", {**frame, "ask": ask}, ("_status.html",))

    def perform(self, request: Request, api: API, form: Form) -> View | str:
        """Make a change. Returns the URL of the API."""
        cluster = self._backend.open()
        try:
            current = actions.read(cluster, api)
            action = next(
                (a for a in actions.actions_of(current) if a.name == request.path_params["action"]), None
            )
            if action is None:
                raise ClusterError("the API has changed meanwhile, and the change does not apply any more")
            actions.perform(cluster, current, action, form.get("value", ""))
        except ClusterError as error:
            return self._confirm(request, api, error.message, form.get("value", ""))
        return url_of(api)
