"""Working with one API on its page: the candidate, logs, a request, jobs, and changes that ask first."""

import html
import json
import re

import httpx
import pytest

from cortex_cli.connection import Response
from cortex_cli.ui import actions, server
from cortex_cli.ui.try_it import answer_of

from .landscape import Landscape, job_id, serving
from .test_api_page import words
from .test_overview import eventually

IRIS = "/realtimeapi/shop/iris"


def post(client: httpx.Client, url: str, /, **form: str) -> httpx.Response:
    origin = str(client.base_url).rstrip("/")
    return client.post(url, data=form, headers={"origin": origin})


def text(answer: httpx.Response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_the_candidate_is_shown_beside_the_stable_version(client):
    page = words(client, "/realtimeapi/shop/sentiment/compare")
    assert "Answers 10% of the requests; receives a copy of 50% of the others." in page
    assert "p95 latency 81 ms 74 ms" in page
    assert "Disagreement 2.4%" in page


def test_differing_responses_are_shown_newest_first(client):
    page = eventually(
        lambda: (t := words(client, "/realtimeapi/shop/sentiment/compare")) and "/label" in t and t
    )
    assert page.index("positive → neutral") < page.index("negative → positive")
    assert "the delivery was late but the support was kind" in page
    # Both replicas report the same pairs.
    assert page.count("positive → neutral") == 1


def test_an_api_without_a_candidate_has_no_page_for_it(client):
    assert client.get(f"{IRIS}/compare").status_code == 404
    assert "Candidate" not in words(client, IRIS)


def test_logs_of_all_replicas_are_merged_and_filtered(client):
    page = "/realtimeapi/shop/fraud-score/logs"
    # The last of four lines of each replica.
    assert eventually(lambda: words(client, page).count("float(payload['x'])") == 3)
    assert words(client, page).count("model iris, version 3 loaded") == 3
    warnings = words(client, f"{page}?level=warning")
    assert ("6 of 12 lines match" in warnings, "model iris" in warnings) == (True, False)
    found = words(client, f"{page}?q=R-4712+failed")
    assert ("3 of 12 lines match" in found, "r-4711" in found) == (True, False)


def test_the_log_of_an_exited_container_is_shown_with_its_exit_code(client):
    page = "/realtimeapi/shop/returns/logs"
    found = eventually(lambda: (t := words(client, page)) and "exited with code 1" in t and t)
    assert found.index("RuntimeError: could not open index.bin") < found.index("exited with code 1")
    warnings = words(client, f"{page}?level=error")
    assert ("exited with code 1" in warnings, "model iris" in warnings) == (True, False)


def test_new_log_lines_are_sent_to_the_open_page(client):
    with client.stream("GET", f"/live{IRIS}/logs") as stream:
        updates = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        next(update for update in updates if "model iris" in str(update))
        post(client, f"{IRIS}/try", method="POST", path="/", body="{}")
        new = next(update for update in updates if "prediction" in str(update))
        assert [each for each in new["elements"] if "prediction" in each and each.startswith("<li")]


def test_the_form_has_the_sample_of_the_project(client):
    assert eventually(lambda: '"sepal_length": 5.1' in words(client, f"{IRIS}/try"))


def test_a_request_is_sent_and_its_response_shown(client):
    answer = post(client, f"{IRIS}/try", method="POST", path="/?version=2", body='{"a": [1, "<b>"]}')
    found = text(answer)
    assert re.search(r"Response 200 [\d,]+ ms application/json", found)
    assert '"label" : "setosa"'.replace(" :", ":") in found.replace('" :', '":')
    assert "<b>" not in answer.text
    assert '{"a": [1, "<b>"]}' in html.unescape(answer.text)


def test_invalid_json_and_unreachable_apis_are_explained(client):
    assert "the payload is not valid JSON: Expecting" in text(
        post(client, f"{IRIS}/try", method="POST", body="{a}")
    )
    assert "ranker is unreachable" in text(
        post(client, "/realtimeapi/shop/ranker/try", method="POST", body="{}")
    )
    assert "the path" not in text(post(client, f"{IRIS}/try", method="GET", path="/info"))


def test_requests_from_elsewhere_are_not_sent(client):
    assert client.post(f"{IRIS}/try", data={"body": "{}"}).status_code == 403
    assert client.post(f"{IRIS}/do/pause", headers={"origin": "http://evil.example"}).status_code == 403


def test_a_form_that_is_too_large_is_refused(client):
    assert post(client, f"{IRIS}/try", body="x" * 9_000_000).status_code == 400


@pytest.mark.parametrize(
    ("content_type", "body", "shown"),
    [
        ("text/plain", b"\xff\xfehello", "hello"),
        ("application/json", b"{broken", "{broken"),
        ("application/json", b"x" * 300_000, "x" * 200_000),
        ("image/svg+xml", b"<svg onload=alert(1)>", "<svg onload=alert(1)>"),
    ],
)
def test_responses_of_every_kind_are_shown_as_text(content_type, body, shown):
    answer = answer_of(Response(200, {"content-type": content_type}, body), 0.1)
    assert answer.text.endswith(shown)
    assert answer.image == ""
    assert answer.more == max(0, len(body) - 200_000)


def test_images_are_shown():
    answer = answer_of(Response(200, {"content-type": "image/png"}, b"png"), 0.1)
    assert answer.image == "data:image/png;base64,cG5n"


JOBS = "/asyncapi/default/letters/async-jobs"


def test_jobs_are_listed_with_their_states_attempts_and_errors(client):
    def read():
        # The counts and the list are read separately.
        page = words(client, JOBS)
        return page if "HandlerError 14" in page and "and 9 older ones" in page else None

    page = eventually(read)
    assert "Waiting 128 in the queue Running 4 taken by a worker" in page
    assert re.search(
        rf"Dead letters 14 .*{job_id(0)} \d+m ago 3 Handler error: the handler raised ValueError; the log",
        page,
    )
    assert "and 9 older ones" in page
    assert re.search(
        rf"{job_id(100)} waits for retry \d+m ago 2 the handler raised TimeoutError .*"
        rf"{job_id(101)} in progress \d+[sm] ago 1 40%, page 12 of 30 .*{job_id(103)} in queue",
        page,
    )
    assert f"/logs?q={job_id(0)}" in client.get(JOBS).text
    assert client.get(f"{IRIS}/async-jobs").status_code == 404
    assert client.get(f"{IRIS}/async-jobs/retry").status_code == 404


def test_one_job_by_its_id(client):
    done = words(client, f"{JOBS}?id=done")
    assert re.search(r'Job done completed .*"letters"\s?: 5', done)
    failed = words(client, f"{JOBS}?id=broken")
    assert "failed attempt 3" in failed
    assert "HandlerError: ValueError: no text" in failed
    assert "/none not found" in words(client, f"{JOBS}?id=none")


def test_a_failed_job_is_retried_after_a_confirmation(client):
    job = job_id(1)
    asked = words(client, f"{JOBS}/retry?id={job}")
    assert f"Retry job {job}" in asked
    assert f"cortex predict letters -n default --job {job} --retry" in asked
    assert eventually(lambda: job in client.get(JOBS).text)
    assert post(client, f"{JOBS}/retry", id=job).headers["location"] == f"{JOBS}?id={job}"
    assert f"Job {job} in queue" in words(client, f"{JOBS}?id={job}")
    assert eventually(lambda: "Dead letters 13" in words(client, JOBS))
    assert f"job {job}: the job is completed; only a failed job can be retried" in text(
        post(client, f"{JOBS}/retry", id=job)
    )


def test_all_listed_failed_jobs_are_retried_after_a_confirmation(client):
    assert eventually(lambda: re.search(r"Retry \d failed jobs", words(client, f"{JOBS}/retry")))
    assert post(client, f"{JOBS}/retry", id="").headers["location"] == JOBS
    assert eventually(lambda: "No failed job" in words(client, JOBS))
    assert "No failed job can be retried." in words(client, f"{JOBS}/retry")
    assert "<button" not in client.get(f"{JOBS}/retry").text


def test_a_retry_is_offered_only_with_the_permission(place: Landscape, monkeypatch):
    asked = []

    def review(cluster, attributes):
        asked.append(attributes)
        return False

    monkeypatch.setattr("cortex_cli.ui.job_pages.review_access", review)
    with (
        serving(server.prepare(place.connect, "", 0)) as url,
        httpx.Client(base_url=url.split("/?")[0], trust_env=False, timeout=30) as client,
    ):
        client.get(url)
        found = eventually(
            lambda: "needs create on services/proxy" in (t := client.get(f"{JOBS}/retry?id=x").text) and t
        )
        assert "<button" not in found
    assert asked[0] == {
        "namespace": "default",
        "verb": "create",
        "resource": "services",
        "subresource": "proxy",
    }


def test_a_change_asks_first_and_is_made_after_the_confirmation(place: Landscape, client):
    resource = "/apis/cortex.dev/v1alpha1/namespaces/shop/realtimeapis/stock"
    page = "/realtimeapi/shop/stock"

    def spec():
        return place.client.get(resource).json()["spec"]

    asked = words(client, f"{page}/do/pause")
    assert "All pods are deleted, and requests fail until the API is resumed." in asked
    assert "kubectl patch realtimeapi/stock -n shop" in asked
    assert "paused" not in spec()
    assert post(client, f"{page}/do/pause").headers["location"] == page
    assert spec()["paused"] is True
    assert eventually(lambda: "/do/resume" in client.get(page).text)
    post(client, f"{page}/do/resume")
    assert spec()["paused"] is False
    assert eventually(lambda: "/do/scale" in client.get(page).text)
    assert "must be a whole number from 0 to 1000; got '-1'" in text(
        post(client, f"{page}/do/scale", value="-1")
    )
    post(client, f"{page}/do/scale", value="3")
    assert spec()["replicas"] == 3


def test_a_candidate_is_aborted(place: Landscape, client):
    place.api("trial", spec={"candidate": {"handler": {"path": "b.py"}, "weight": 5}})
    page = "/realtimeapi/shop/trial"
    assert eventually(lambda: "Promote candidate" in client.get(page).text)
    post(client, f"{page}/do/abort")
    assert (
        "candidate"
        not in place.client.get("/apis/cortex.dev/v1alpha1/namespaces/shop/realtimeapis/trial").json()["spec"]
    )
    place.client.delete("/apis/cortex.dev/v1alpha1/namespaces/shop/realtimeapis/trial")


def test_changes_are_offered_only_with_the_permission(place: Landscape, monkeypatch):
    monkeypatch.setattr(actions, "may", lambda cluster, api: False)
    with (
        serving(server.prepare(place.connect, "", 0)) as url,
        httpx.Client(base_url=url.split("/?")[0], trust_env=False, timeout=30) as client,
    ):
        client.get(url)
        found = eventually(lambda: "does not permit changes" in (t := client.get(IRIS).text) and t)
        assert "/do/" not in found
        assert '<button class="danger"' not in client.get(f"{IRIS}/do/pause").text


def test_the_permission_is_asked_from_the_api_server():
    class APIServer:
        def __init__(self, allowed: bool) -> None:
            self.allowed = allowed

        def request(self, method, url_path, body, headers):
            asked.append(json.loads(body)["spec"]["resourceAttributes"])
            return Response(201, {}, json.dumps({"status": {"allowed": self.allowed}}).encode())

    asked: list[dict[str, str]] = []
    live = {"kind": "RealtimeAPI", "metadata": {"name": "iris", "namespace": "shop"}}
    for allowed in (True, False):
        assert actions.may(APIServer(allowed), actions.API(live)) is allowed  # type: ignore[arg-type]
    assert asked[0] == {
        "namespace": "shop",
        "verb": "patch",
        "group": "cortex.dev",
        "resource": "realtimeapis",
        "name": "iris",
    }
