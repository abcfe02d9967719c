"""The page of one API: why it is not ready and what to do, its numbers and charts, replicas, models, predictions, manifest."""

import html
import re

import httpx

from .landscape import Landscape
from .test_overview import eventually


def words(client: httpx.Client, path: str) -> str:
    """The text of a page."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_an_api_that_is_not_ready_shows_the_traceback_and_what_to_do(client):
    text = eventually(lambda: (t := words(client, "/realtimeapi/shop/ranker")) and "What to do" in t and t)
    assert (
        "Handler import error ModuleNotFoundError: No module named 'torchvision' handler.py, line 4" in text
    )
    assert "What to do: Add the package that contains torchvision to requirements.txt" in text
    assert '<pre class="trace"' in client.get("/realtimeapi/shop/ranker").text
    assert eventually(lambda: "Deployment is missing" in words(client, "/realtimeapi/shop/ranker"))
    assert "No pod exists" in text


def test_a_degraded_api_shows_why(client):
    text = words(client, "/realtimeapi/shop/bids")
    assert "Fields overwritten vpa-updater overwrites spec.template" in text
    assert "Stop the other field manager" in text


def test_numbers_of_the_last_minute_and_charts(client):
    def is_measured() -> bool:
        found = re.search(
            r"Requests ([\d.]+)/s last minute Errors 0% .* p50 (\d+) ms",
            words(client, "/realtimeapi/shop/fraud-score"),
        )
        # The first rates, of a few seconds, are inexact on a busy machine.
        return found is not None and 70 < float(found[1]) < 180

    assert eventually(is_measured)
    page = client.get("/realtimeapi/shop/fraud-score").text
    descriptions = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert [each.split(",")[0] for each in descriptions] == [
        "Requests",
        "Latency",
        "In flight",
        "Replicas",
        "Share of each class over time",
    ]
    assert re.search(r"2XX now [\d.]+/s, highest [\d.]+/s", descriptions[0])
    assert "3 / 3 ready / desired" in words(client, "/realtimeapi/shop/fraud-score")


def test_decisions_of_the_autoscaler_are_listed_and_marked_in_the_charts(place: Landscape, client):
    page = "/realtimeapi/shop/fraud-score"
    before = "11.4 requests in flight, target 4 for each replica: 3 replicas"
    assert eventually(lambda: before in words(client, page))
    reason = "19 requests in flight, target 4 for each replica: 5 replicas"
    scaling = {"provider": "builtin", "current": 3, "desired": 5, "metric": "in-flight", "reason": reason}
    place.update("fraud-score", {"autoscaling": scaling})
    try:
        assert eventually(lambda: f"3 → 5 {reason}" in words(client, page))
        assert client.get(page).text.count(f"<title>3 to 5 replicas: {reason}</title>") == 4
    finally:
        place.update("fraud-score", {"autoscaling": {"desired": 3, "reason": before}})
        assert eventually(lambda: "3 / 3 ready" in words(client, page))


def test_replicas_are_listed_with_their_state(client):
    def ready():
        return re.findall(
            r"api-recommender-\S+ Ready \d+ 0 – – dev", words(client, "/realtimeapi/shop/recommender")
        )

    assert eventually(lambda: len(ready()) == 2)


def test_models_and_their_versions(client):
    page = "/realtimeapi/vision/image-tagger"
    assert eventually(
        lambda: "resnet50 1, 2, 3 2, 3 98 MiB, 99 MiB mobilenet 7 not loaded –" in words(client, page)
    )
    assert (
        "Memory: how much a worker process grew while it loaded the version and the libraries for it"
        in words(client, page)
    )
    assert "Models" not in words(client, "/realtimeapi/shop/iris")


def test_predictions_as_bars_and_as_numbers(client):
    assert eventually(
        lambda: re.search(
            r"setosa 50% [\d,]+ versicolor 30% [\d,]+ virginica 20%", words(client, "/realtimeapi/shop/iris")
        )
    )
    numbers = r"Average 1\d\d.* Minimum \d+.* Maximum \d+"
    assert eventually(lambda: re.search(numbers, words(client, "/realtimeapi/shop/price-forecast")))


def test_an_async_api_shows_its_queue_and_jobs(client):
    text = words(client, "/asyncapi/default/letters")
    assert "Waiting + running 128 + 4 128 jobs wait, 4 run" in text
    assert "submission to end" in text


def test_the_manifest_is_highlighted_yaml(client):
    text = client.get("/realtimeapi/shop/iris/manifest").text
    assert '<span class="hl-key">kind</span>:<span class="hl-string"> RealtimeAPI</span>' in text
    assert "managedFields" not in text
    assert "readyReplicas" in text


def test_a_missing_api_is_a_page_in_words(client):
    for path in ("/realtimeapi/shop/none", "/realtimeapi/shop/none/manifest", "/other/shop/iris"):
        answer = client.get(path)
        assert (answer.status_code, "does not exist in namespace shop" in answer.text) == (404, True)
