"""Who may use the page: token, Host and Origin are checked, and the browser may load nothing from elsewhere."""

import re

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from cortex_cli.ui.security import Guard

TOKEN = "s3cret-token"
HOST = "127.0.0.1:8377"
COOKIE = {"cookie": f"cortex-ui-8377={TOKEN}"}


@pytest.fixture
def browser() -> TestClient:
    page = Route("/{path:path}", lambda request: PlainTextResponse("the page"), methods=["GET", "POST"])
    guard = Guard(Starlette(routes=[page]), TOKEN, 8377, "cortex run")
    return TestClient(guard, f"http://{HOST}", follow_redirects=False)


def test_the_token_of_the_url_is_exchanged_for_a_cookie(browser):
    answer = browser.get(f"/realtimeapi/a/b?q=x&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/realtimeapi/a/b?q=x")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert browser.get("/").text == "the page"


def test_the_redirect_stays_on_this_server(browser):
    assert browser.get(f"http://{HOST}//evil.example/?token={TOKEN}").headers["location"] == "/evil.example/"


@pytest.mark.parametrize(
    "cookie", ["", "cortex-ui-8377=", "cortex-ui-8377=wrong", f"cortex-ui-1={TOKEN}", "\u00e9=;;"]
)
def test_without_the_token_nothing_is_shown(browser, cookie):
    for path in ("/", "/?token=wrong", "/live/", "/static/live.js"):
        answer = browser.get(path, headers={"cookie": cookie.encode()})
        assert answer.status_code == 401, path
        assert answer.text == "open the URL that `cortex run` printed: it contains the token of this page\n"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8377", "127.0.0.1", "127.0.0.1:80", "192.168.0.1:8377", ""]
)
def test_other_hosts_are_refused_also_with_the_token(browser, host):
    answer = browser.get(f"/?token={TOKEN}", headers={"host": host, **COOKIE})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_names_of_this_machine_are_accepted(browser):
    for host in ("localhost:8377", "[::1]:8377"):
        assert browser.get("/", headers={"host": host, **COOKIE}).text == "the page"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8377"]
)
def test_requests_of_other_origins_are_refused(browser, origin):
    for method in ("GET", "POST"):
        assert browser.request(method, "/", headers={"origin": origin, **COOKIE}).status_code == 403


def test_writes_need_the_origin(browser):
    assert browser.post("/", headers=COOKIE).status_code == 403
    assert browser.post("/", headers={"origin": f"http://{HOST}", **COOKIE}).text == "the page"


def test_other_sites_may_only_link_to_the_page(browser):
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", **COOKIE}
    assert browser.get("/", headers=link).text == "the page"
    for headers in (
        {**link, "sec-fetch-mode": "no-cors"},
        {**link, "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ):
        assert browser.get("/", headers=headers).status_code == 403
    assert browser.post("/", headers={**link, "origin": f"http://{HOST}"}).status_code == 403


def test_every_response_forbids_content_from_elsewhere(browser):
    for answer in (
        browser.get("/", headers=COOKIE),
        browser.get("/"),
        browser.get("/", headers={"host": "x"}),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"https?:|\*", policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_only_files_with_a_digest_are_cached(client):
    page = client.get("/")
    assert page.headers["cache-control"] == "no-store"
    [style] = re.findall(r'href="(/static/page.css[^"]*)"', page.text)
    answer = client.get(style)
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/static/page.css").headers["cache-control"] == "no-store"
