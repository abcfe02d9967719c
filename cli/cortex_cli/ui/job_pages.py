"""The jobs of an AsyncAPI: those that have not ended, those that have failed, one by its id, and a retry that asks first."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from cortex_api.contract import PORT
from cortex_cli import api_keys, apis, jobs
from cortex_cli.apis import API
from cortex_cli.connection import ClusterError, path
from cortex_cli.platform_checks import review_access
from cortex_cli.ui.backend import Backend
from cortex_cli.ui.frame import Frame, missing
from cortex_cli.ui.highlight import json_text
from cortex_cli.ui.lookups import Lookup
from cortex_cli.ui.overview import url_of
from cortex_cli.ui.pages import Question, View
from cortex_cli.ui.states import words
from cortex_cli.ui.store import key_of

_LIST_SECONDS = 3.0
_MAY_SECONDS = 60.0
_THREADS = 8
_STATES = {"completed": "ready", "failed": "failed", "in_progress": "waiting", "in_queue": "off"}
_LIMIT = re.compile(r"^failed after \d+ attempts?, the limit of maxAttempts: ")
"""The table has a column for the attempts."""
Form = dict[str, str]


@dataclass(frozen=True)
class Job:
    """A job in a table. state: class of its badge. age, ended: since its submission, and since its end."""

    id: str
    url: str
    logs: str
    state: str
    status: str
    attempts: str
    age: str
    ended: str
    reason: str
    error: str
    progress: str


class JobPages:
    """The views. `retry` takes the submitted form, and returns the URL to show next, or a view."""

    def __init__(self, backend: Backend, frame: Frame) -> None:
        self._backend = backend
        self._frame = frame

    def jobs(self, request: Request, api: API) -> View:
        """The queue, the jobs that have not ended or have failed, and one job by its id."""
        if api.kind != "AsyncAPI":
            return missing(request)
        job = request.query_params.get("id", "").strip()
        queue = api.status.get("queue")
        listed = self._listed(api)
        content = listed.value or {}
        opened = content.get("open")
        failed = [_job(api, each) for each in content.get("failed") or ()]
        context = {
            "queue": queue,
            "oldest": apis.age((queue or {}).get("oldest")),
            "totals": self._backend.sampler.totals(key_of(api)),
            "listed": listed,
            "open": None if opened is None else [_job(api, each) for each in opened],
            "failed": failed,
            "failed_total": content.get("failed_total", len(failed)),
            "job": job,
            "found": self._find(api, job) if job and not api_keys.requires_key(api) else None,
            "needs_key": api_keys.requires_key(api),
        }
        live = ("_status.html", "_head.html", "_jobs.html")
        return View("jobs.html", {**self._frame.context(api, "/async-jobs"), **context}, live)

    def _listed(self, api: API, max_age: float = _LIST_SECONDS) -> Lookup:
        """Return the list of a gateway. Its value is None without a ready gateway."""
        cluster = self._backend.open()
        pods = self._backend.store.pods(key_of(api))
        return self._backend.lookups.get(
            ("jobs", key_of(api)), lambda: jobs.read_list(cluster, pods), max_age, 0.5
        )

    def _find(self, api: API, job: str) -> dict[str, Any]:
        """Return the state of a job, or why it cannot be read as `problem`."""
        try:
            response = jobs.get(self._backend.open(), _gateway(api), job, {})
            content = json.loads(response.body)
        except ClusterError as error:
            return {"problem": error.message}
        except ValueError:
            return {"problem": "the gateway sent no JSON"}
        if response.status != 200 or not isinstance(content, dict):
            return {"problem": str(content.get("error") if isinstance(content, dict) else content)}
        if "result" in content:
            content["result"] = json_text(json.dumps(content["result"], indent=2, ensure_ascii=False))
        return content

    def confirm_retry(self, request: Request, api: API) -> View:
        """Ask before a job, or all listed failed jobs, are retried."""
        return self._confirm(request, api, request.query_params.get("id", "").strip(), "")

    def _confirm(self, request: Request, api: API, job: str, error: str) -> View:
        if api.kind != "AsyncAPI":
            return missing(request)
        ids = [job] if job else self._failed_ids(api)
        title = f"Retry job {job}" if job else f"Retry {len(ids)} failed {'job' if len(ids) == 1 else 'jobs'}"
        may = self._may_retry(api)
        refusal = "" if ids else "No failed job can be retried."
        if may.value is False:
            refusal = "Your kubeconfig does not permit it: it needs create on services/proxy."
        ask = Question(
            title=title,
            button="Retry" if job else title,
            question="The handler gets the same payload again, under the same id, with all its attempts. A handler that is not"
            " idempotent repeats what a failed attempt has already done.",
            command=self._command(api, job or "ID"),
            submit=f"{url_of(api)}/async-jobs/retry",
            back=_url(api, job),
            refusal=refusal,
            error=error,
            hidden={"id": job},
            needs_key=api_keys.requires_key(api),
        )
        return View("confirm.html", {**self._frame.context(api, ""), "ask": ask}, ("_status.html",))

    def retry(self, request: Request, api: API, form: Form) -> View | str:
        """Retry a job, or all listed failed jobs. Returns the URL of the jobs."""
        job = form.get("id", "").strip()
        ids = [job] if job else self._failed_ids(api)
        key = form.get("key", "").strip()
        headers = {api_keys.HEADER: key} if key and api_keys.requires_key(api) else {}
        cluster = self._backend.open()

        def retry(each: str) -> str:
            try:
                return jobs.retry(cluster, _gateway(api), each, headers)
            except ClusterError as error:
                return error.message

        with ThreadPoolExecutor(_THREADS) as threads:
            errors = [error for error in threads.map(retry, ids) if error]
        self._listed(api, 0.0)
        if errors:
            done = f"{len(ids) - len(errors)} of {len(ids)} jobs are queued again. " if not job else ""
            return self._confirm(request, api, job, f"{done}{errors[0]}")
        return _url(api, job)

    def _command(self, api: API, job: str) -> str:
        cluster = self._backend.open()
        if cluster.is_local:
            return f"curl -X POST {cluster.server}/{job}/retry"
        return f"cortex predict {api.name} -n {api.namespace} --job {job} --retry"

    def _failed_ids(self, api: API) -> list[str]:
        return [str(each["id"]) for each in (self._listed(api).value or {}).get("failed") or ()]

    def _may_retry(self, api: API) -> Lookup:
        """Return whether the user may send requests to the gateway through the API server."""
        cluster = self._backend.open()
        if cluster.is_local:
            return Lookup()
        attributes = {
            "namespace": api.namespace,
            "verb": "create",
            "resource": "services",
            "subresource": "proxy",
        }
        return self._backend.lookups.get(
            ("may-retry", api.namespace), lambda: review_access(cluster, attributes), _MAY_SECONDS, 0.3
        )


def _url(api: API, job: str) -> str:
    """Return the URL of the page of the jobs of an API, or of one job."""
    return f"{url_of(api)}/async-jobs" + (f"?{urlencode({'id': job})}" if job else "")


def _gateway(api: API) -> str:
    return path("v1/services", api.namespace, f"{api.service}:{PORT}", "proxy/")


def _job(api: API, job: dict[str, Any]) -> Job:
    """Return a job of the list of a gateway as the table shows it."""
    status, progress = str(job.get("status", "")), job.get("progress")
    waits = status == "in_queue" and bool(job.get("attempts"))
    return Job(
        str(job["id"]),
        _url(api, job["id"]),
        f"{url_of(api)}/logs?{urlencode({'q': job['id']})}",
        _STATES.get(status, "off"),
        "waits for retry" if waits else status.replace("_", " "),
        str(job.get("attempts", 0)),
        apis.age(job.get("submitted")),
        apis.age(job.get("timestamp")),
        words(str(job.get("reason") or "")),
        _LIMIT.sub("", str(job.get("error") or job.get("lastError") or "")),
        ", ".join(filter(None, ("" if progress is None else f"{progress:.0%}", str(job.get("note") or "")))),
    )
