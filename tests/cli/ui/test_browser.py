"""The page in a browser: first paint, live updates that disturb nothing, filters, keyboard, widths, colors, accessibility.

The checks of axe-core run if `make axe` has installed it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from cortex_cli.ui import app
from tests.browser import TIMEOUT

from .landscape import Landscape
from .test_overview import eventually

AXE = Path(__file__).parents[3] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = {
    "overview": "/",
    "ready": "/realtimeapi/shop/fraud-score",
    "broken": "/realtimeapi/shop/ranker",
    "classes": "/realtimeapi/shop/iris",
    "models": "/realtimeapi/vision/image-tagger",
    "candidate": "/realtimeapi/shop/sentiment/compare",
    "jobs": "/asyncapi/default/letters/async-jobs?id=broken",
    "retry": "/asyncapi/default/letters/async-jobs/retry",
    "logs": "/realtimeapi/shop/fraud-score/logs",
    "crash": "/realtimeapi/shop/returns/logs",
    "rolled back": "/realtimeapi/shop/headlines/compare",
    "try": "/realtimeapi/shop/iris/try",
    "form": "/realtimeapi/shop/sentiment/try",
    "confirm": "/realtimeapi/shop/iris/do/pause",
    "manifest": "/realtimeapi/shop/iris/manifest",
    "missing": "/realtimeapi/shop/none",
}


@pytest.fixture
def base(url: str) -> str:
    return url.split("/?")[0]


@pytest.fixture
def tab(chromium: Browser, url: str) -> Iterator[Page]:
    """A page that is logged in. It must report no error, and request nothing from elsewhere."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: (
            errors.append(request.url) if not request.url.startswith(url.split("/?")[0]) else None
        ),
    )
    page.goto(url)
    yield page
    context.close()
    # The browser reports a missing page, and a network that is off, as an error.
    assert [error for error in errors if not re.search("404|ERR_INTERNET|^data:", error)] == []


def test_the_url_with_the_token_shows_the_overview(tab, base):
    expect(tab).to_have_title("APIs – Cortex")
    expect(tab.locator("#rows tr")).to_have_count(30)
    assert tab.url == f"{base}/"


def test_the_first_rows_are_painted_first_and_the_others_follow(tab, base, monkeypatch):
    monkeypatch.setattr(app, "_FIRST_ROWS", 10)
    first = tab.goto(f"{base}/").text()
    assert first.count('<tr role="row" id=') == 10
    expect(tab.locator("#rows tr")).to_have_count(30)
    tab.get_by_role("link", name="API", exact=True).click()
    expect(tab.locator("#column-name")).to_have_attribute("aria-sort", "ascending")
    assert tab.locator("#rows tr").count() == 30


def test_typing_filters_and_keeps_the_focus(tab, base):
    tab.keyboard.press("/")
    tab.keyboard.type("torch", delay=20)
    expect(tab.locator("#rows tr")).to_have_count(1)
    expect(tab.locator("#q")).to_be_focused()
    # Fewer letters may find the same row.
    expect(tab).to_have_url(f"{base}/?q=torch")
    tab.reload()
    expect(tab.locator("#rows tr")).to_have_count(1)
    expect(tab.locator("#q")).to_have_value("torch")


def test_chips_and_titles_filter_and_sort_without_a_new_page(tab):
    tab.evaluate("window.marked = true")
    tab.get_by_role("link", name=re.compile(r"Not ready$")).click()
    expect(tab.locator("#rows tr")).to_have_count(7)
    tab.get_by_role("link", name="API", exact=True).click()
    expect(tab.locator("#column-name")).to_have_attribute("aria-sort", "ascending")
    expect(tab.locator("#rows tr").first).to_contain_text("depth")
    tab.get_by_role("link", name="API", exact=True).click()
    expect(tab.locator("#rows tr").first).to_contain_text("segment")
    assert tab.evaluate("window.marked")
    tab.go_back()
    expect(tab.locator("#rows tr").first).to_contain_text("depth")


def test_updates_keep_focus_selection_and_elements(place: Landscape, tab):
    link = tab.get_by_role("link", name="dedupe")
    link.focus()
    tab.evaluate(
        """() => {
            const name = document.querySelector('#row-realtimeapi-shop-coupon .name');
            getSelection().selectAllChildren(name);
            window.row = document.querySelector('#row-realtimeapi-shop-dedupe');
        }"""
    )
    place.update("coupon", {"readyReplicas": 4})
    expect(tab.locator("#row-realtimeapi-shop-coupon .replicas")).to_have_text("4/1")
    expect(link).to_be_focused()
    assert "coupon" in tab.evaluate("getSelection().toString()")
    # The API becomes the worst one: its row moves to the top, and is the same element.
    fails = {"type": "Ready", "status": "False", "reason": "CrashLoop", "message": "exit code 1"}
    stamp = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    place.update("dedupe", {"conditions": [fails | stamp]})
    expect(tab.locator("#row-realtimeapi-shop-dedupe")).to_have_class("failed")
    assert tab.evaluate("window.row === document.querySelector('#row-realtimeapi-shop-dedupe')")
    expect(link).to_be_focused()
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "1 of 1 replicas are ready"}
    place.update("dedupe", {"conditions": [ready | stamp]})
    place.update("coupon", {"readyReplicas": 1})
    expect(tab.locator("#row-realtimeapi-shop-coupon .replicas")).to_have_text("1/1")
    expect(tab.locator("#row-realtimeapi-shop-dedupe")).not_to_have_class("failed")


def test_open_details_stay_open(tab, base):
    tab.goto(f"{base}{PAGES['ready']}")
    expect(tab.locator("#chart-requests .plot")).to_be_visible()
    tab.locator("#values-requests summary").click()
    before = tab.locator("#values-requests tbody tr").first.inner_text()
    expect(tab.locator("#values-requests tbody tr").first).not_to_have_text(before)
    assert tab.locator("#values-requests").evaluate("element => element.open")


def test_the_pointer_and_the_arrow_keys_read_the_values_of_a_moment(tab, base):
    tab.goto(f"{base}{PAGES['ready']}")
    expect(tab.locator("#chart-latency .plot")).to_be_visible()
    tab.locator("#chart-latency .shapes").hover(position={"x": 10, "y": 20})
    for chart in ("requests", "latency", "load", "replicas"):
        expect(tab.locator(f"#chart-{chart} .cursor")).to_be_visible()
    tab.mouse.move(0, 0)
    expect(tab.locator("#chart-load .cursor")).to_be_hidden()
    tab.locator("#chart-load .plot").focus()
    tab.keyboard.press("ArrowLeft")
    expect(tab.locator("#chart-requests .cursor")).to_be_visible()


def test_a_request_is_sent_with_the_keyboard(tab, base):
    tab.goto(f"{base}{PAGES['try']}")
    tab.locator("#try-body").fill('{"petal_length": 1.4}')
    tab.keyboard.press("Control+Enter")
    expect(tab.locator("#answer")).to_contain_text('"petal_length": 1.4')
    expect(tab.locator("#answer .badge")).to_have_text("200")
    expect(tab.locator("#try-body")).to_have_value('{"petal_length": 1.4}')


def test_a_typed_form_sends_the_values_of_its_fields(tab, base, client):
    # The page waits for the OpenAPI document of the API for a second only.
    assert eventually(lambda: 'name="field:text"' in client.get(PAGES["form"]).text)
    tab.goto(f"{base}{PAGES['form']}")
    tab.get_by_label("text").fill("awful")
    tab.get_by_label("language").select_option('"de"')
    tab.get_by_role("button", name="Send").click()
    expect(tab.locator("#answer")).to_contain_text('"text": "awful"')
    expect(tab.locator("#answer")).to_contain_text('"threshold": 0.5')
    expect(tab.locator("#answer")).to_contain_text('"language": "de"')
    tab.get_by_label("threshold").fill("high")
    tab.get_by_role("button", name="Send").click()
    expect(tab.locator("#answer")).to_contain_text("threshold must be a number; got 'high'")
    expect(tab.get_by_label("text")).to_have_value("awful")


def test_logs_are_followed(tab, base):
    tab.goto(f"{base}/realtimeapi/shop/iris/logs")
    expect(tab.locator("#lines li").first).to_be_visible()
    sent = "{method: 'POST', body: new URLSearchParams({body: '{}', path: '/'})}"
    answer = tab.evaluate(f"fetch('/realtimeapi/shop/iris/try', {sent}).then(response => response.text())")
    (request,) = set(re.findall("cortex-[0-9a-f]{12}", answer))
    expect(tab.locator("#lines li").filter(has_text=request)).to_have_count(1)


def test_the_page_says_when_it_is_not_updated(tab):
    expect(tab.locator("#live-text")).to_have_text("Live")
    tab.context.set_offline(True)
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(tab.locator("#live-text")).to_contain_text("Not updated")
    tab.context.set_offline(False)
    expect(tab.locator("#live-text")).to_have_text("Live")


@pytest.mark.parametrize("name", ["overview", "broken", "rolled back", "jobs", "retry"])
def test_the_keyboard_reaches_every_link_and_control(tab, base, name):
    tab.goto(base + PAGES[name])
    controls = "a[href], button, input:not([type=hidden]), select, textarea, summary"
    tab.evaluate("window.seen = new Set()")
    missed: list[str] = []
    # What the page reads from the cluster may add controls behind the focus, which the next round reaches.
    for _ in range(3):
        for _ in range(tab.locator(controls).count() + 20):
            tab.keyboard.press("Tab")
            tab.evaluate("seen.add(document.activeElement)")
        found = f"[...document.querySelectorAll('{controls}')].filter(e => e.isConnected && !seen.has(e))"
        if not (missed := tab.evaluate(f"{found}.map(e => e.outerHTML)")):
            break
    assert missed == []


@pytest.mark.parametrize("width", [390, 1600])
def test_every_page_fits_the_width_in_both_color_schemes_and_is_accessible(tab, base, width):
    """axe-core: 0 violations. Without it, only the width is checked."""
    axe = AXE.read_text() if AXE.exists() else ""
    tab.set_viewport_size({"width": width, "height": 900})
    for name, path in PAGES.items():
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            tab.goto(base + path)
            tab.wait_for_load_state("load")
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
            if axe:
                tab.evaluate(axe)
                found = tab.evaluate("axe.run().then(result => result.violations)")
                assert [
                    (v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"]) for v in found
                ] == [], (name, scheme)


def test_the_overview_works_without_javascript(chromium: Browser, url, base):
    context = chromium.new_context(java_script_enabled=False)
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    page.goto(url)
    page.goto(f"{base}/?q=torch")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("link", name="ranker").click()
    expect(page.locator("#why")).to_contain_text("torchvision")
    context.close()


def test_the_forms_of_the_page_are_accepted(tab, base):
    tab.goto(f"{base}/asyncapi/default/letters/async-jobs/retry?id=none")
    tab.get_by_role("button", name="Retry").click()
    expect(tab.get_by_role("alert")).to_contain_text("job none")
