"""The page at /docs, in a browser: it shows the document, sends requests, and works by keyboard, on a phone and in the dark."""

import re
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser import chromium, page  # noqa: F401

from ..conftest import PLAIN, Replica

HANDLER = '''
"""Species of <img src=x onerror=alert(1)> flowers."""
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, Field

from cortex_runtime import UserError, route


class Place(BaseModel):
    latitude: float


class Flower(BaseModel):
    length: float = Field(gt=0, description="Length of a petal")
    count: int = 1
    kind: Literal["wild", "garden"] = "wild"
    tags: list[str] = []
    place: Place | None = None


class Order(BaseModel):
    flowers: list[Flower]


class Handler:
    def handle_post(self, payload: Flower) -> dict:
        """Return what was sent.

        Examples:
            short: {"length": 1.4}
            long: {"length": 5.1, "count": 2}
        """
        if payload.length > 100:
            raise UserError("length must be at most 100", status=422)
        return payload.model_dump()

    @route("/texts/{number:int}", method="GET")
    def text(self, number, query_params) -> str:
        """Return a text."""
        return f"text {number} {query_params.get('end', '')}"

    @route("/orders")
    def orders(self, payload: Order) -> list[Flower]:
        return payload.flowers

    @route("/words")
    def words(self, payload: dict[str, str]) -> Iterator[dict]:
        """Stream words."""
        for word in payload.get("text", "a b").split():
            yield {"word": word}
'''


@pytest.fixture(scope="module")
def replica(serve_for_module) -> Replica:
    return serve_for_module(HANDLER)


@pytest.fixture
def opened(page: Page, replica: Replica) -> Page:  # noqa: F811
    """The page, which has reported no error and has loaded nothing from elsewhere."""
    problems: list[str] = []
    # The browser reports each response with an error, also one that the page shows.
    page.on(
        "console",
        lambda message: (
            message.type == "error" and "status of 422" not in message.text and problems.append(message.text)
        ),
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: (
            request.url.startswith((replica.url, "data:", "blob:")) or problems.append(request.url)
        ),
    )
    page.goto(f"{replica.url}/docs")
    expect(page.get_by_role("heading", level=1)).to_have_text("tested")
    yield page
    assert problems == []


def trial(page: Page, name: str):  # noqa: F811
    return page.get_by_role("form", name=f"Try {name}")


def test_it_lists_all_operations_and_text_is_not_markup(opened):
    links = opened.get_by_role("navigation", name="Operations").get_by_role("link")
    assert {"POST/", "GET/texts/{number}", "POST/words", "GET/info"} <= {
        re.sub(r"\s", "", text) for text in links.all_inner_texts()
    }
    expect(opened.locator(".lead")).to_have_text("Species of <img src=x onerror=alert(1)> flowers")
    assert opened.locator(".lead img").count() == 0


def test_a_form_filled_with_the_example_is_sent(opened):
    form = trial(opened, "POST /")
    expect(form.get_by_label("length")).to_have_value("1.4")
    form.get_by_label("Example").select_option("long")
    expect(form.get_by_label("count")).to_have_value("2")
    form.get_by_label("kind").select_option("garden")
    form.get_by_role("button", name="Add to tags").click()
    form.get_by_role("textbox", name="tags 1").fill("red")
    form.get_by_role("button", name="Add place").click()
    form.get_by_label("latitude").fill("48.5")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("200 OK")
    body = form.get_by_label("Body of the response")
    for text in ('"length": 5.1', '"kind": "garden"', '["red"]', '"latitude": 48.5'):
        expect(body).to_contain_text(text)


def test_a_payload_of_nested_lists_is_edited_as_json_first(opened):
    opened.get_by_role("navigation").get_by_role("link", name="POST /words").click()
    expect(trial(opened, "POST /words").get_by_label("Body as JSON")).to_be_visible()
    opened.get_by_role("navigation").get_by_role("link", name="POST /orders").click()
    form = trial(opened, "POST /orders")
    expect(form.get_by_label("Body as JSON")).to_be_visible()
    form.get_by_role("tab", name="Form").click()
    expect(form.get_by_label("length")).to_have_value("0.5")


def test_an_error_is_shown_as_the_api_sends_it(opened):
    form = trial(opened, "POST /")
    form.get_by_label("length").fill("101")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("422")
    expect(form.get_by_label("Body of the response")).to_contain_text("length must be at most 100")


def test_json_is_checked_and_sent_with_all_digits(opened):
    form = trial(opened, "POST /")
    form.get_by_role("tab", name="JSON").click()
    editor = form.get_by_label("Body as JSON")
    editor.fill('{"length": 1.5, "count": ')
    expect(form.get_by_role("alert")).to_contain_text("Not valid JSON")
    editor.fill('{"length": 1.5, "count": 12345678901234567890}')
    expect(form.get_by_role("alert")).to_be_empty()
    form.get_by_role("tab", name="Form").click()
    expect(form.get_by_label("count")).to_have_value("12345678901234567890")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_label("Body of the response")).to_contain_text("12345678901234567890")


def test_snippets_are_what_is_sent(opened, replica):
    form = trial(opened, "POST /")
    form.get_by_label("length").fill("2.5")
    curl = form.get_by_label("Request in curl")
    expect(curl).to_contain_text(f"curl '{replica.url}/'")
    expect(curl).to_contain_text('"length": 2.5')
    form.get_by_role("tab", name="Python").click()
    code = form.get_by_label("Request in Python").inner_text()
    compile(code, "snippet", "exec")
    assert '"length": 2.5' in code
    form.get_by_role("tab", name="JavaScript").click()
    expect(form.get_by_label("Request in JavaScript")).to_contain_text("await fetch(")


def test_parameters_are_part_of_the_url(opened):
    opened.get_by_role("navigation").get_by_role("link", name="GET /texts").click()
    form = trial(opened, "GET /texts/{number}")
    form.get_by_label("number").fill("7")
    form.get_by_label("Query parameters").fill("end=a%20b")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_label("Body of the response")).to_have_text("text 7 a b")
    assert urlsplit(opened.url).path == "/docs"


def test_a_stream_is_shown_as_events(opened):
    opened.get_by_role("navigation").get_by_role("link", name="POST /words").click()
    form = trial(opened, "POST /words")
    form.get_by_label("Body as JSON").fill('{"text": "one two"}')
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_label("Body of the response")).to_contain_text('data: {"word":"two"}')


def test_it_is_usable_by_keyboard(opened):
    opened.keyboard.press("Tab")
    expect(opened.get_by_role("link", name="Skip to the operations")).to_be_focused()
    opened.keyboard.press("Enter")
    summary = opened.locator("#text > summary")
    summary.focus()
    opened.keyboard.press("Enter")
    form = trial(opened, "GET /texts/{number}")
    number = form.get_by_label("number")
    number.focus()
    opened.keyboard.press("Control+Enter")
    expect(form.get_by_role("status")).to_contain_text("200 OK")
    form.get_by_role("tab", name="curl").focus()
    opened.keyboard.press("ArrowRight")
    expect(form.get_by_role("tab", name="Python")).to_be_focused()
    expect(form.get_by_label("Request in Python")).to_be_visible()


UNLABELED = """() => [...document.querySelectorAll("input, select, textarea, button")]
  .filter((each) => !(each.labels?.length || each.textContent.trim() || each.getAttribute("aria-label")))
  .map((each) => each.outerHTML)"""

CONTRAST = """() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const weights = [0.2126, 0.7152, 0.0722];
  const light = (color) => weights.reduce((sum, weight, index) => sum + channel(color[index]) * weight, 0);
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (each) => {
    for (; each; each = each.parentElement) {
      const color = parts(getComputedStyle(each).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const each of document.querySelectorAll("body *")) {
    if (!each.checkVisibility() || ![...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const [one, two] = [light(parts(getComputedStyle(each).color)), light(behind(each))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) found.push(`${each.tagName}.${each.className} ${each.textContent.slice(0, 30)}: ${ratio}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_have_labels_and_text_has_contrast(opened, scheme):
    opened.emulate_media(color_scheme=scheme)
    form = trial(opened, "POST /")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("200 OK")
    assert opened.evaluate(UNLABELED) == []
    assert opened.evaluate(CONTRAST) == []


def test_the_theme_of_the_system_can_be_changed_and_is_kept(opened):
    def background():
        return opened.evaluate("getComputedStyle(document.body).backgroundColor")

    opened.emulate_media(color_scheme="dark")
    dark = background()
    opened.emulate_media(color_scheme="light")
    light = background()
    assert light != dark
    opened.get_by_role("button", name="Theme: auto").click()
    opened.emulate_media(color_scheme="dark")
    assert background() == light
    opened.reload()
    opened.get_by_role("button", name="Theme: light").click()
    opened.emulate_media(color_scheme="light")
    assert background() == dark
    opened.get_by_role("button", name="Theme: dark").click()
    assert background() == light


def test_it_fits_a_phone(opened):
    opened.set_viewport_size({"width": 390, "height": 844})
    for summary in opened.locator("details:not([open]) > summary").all():
        if summary.is_visible():
            summary.click()
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("start", ["/flowers", "/flowers/", "/flowers/docs"])
def test_it_works_behind_a_prefix_that_a_route_strips(page: Page, replica: Replica, start: str):  # noqa: F811
    seen = []

    def forward(route):
        path = urlsplit(route.request.url).path
        seen.append(path)
        inside = path.removeprefix("/flowers") if path.startswith("/flowers") else "/missing"
        answer = httpx.request(
            route.request.method,
            replica.url + (inside or "/"),
            content=route.request.post_data_buffer or b"",
            headers=route.request.headers,
        )
        headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
        route.fulfill(status=answer.status_code, headers=headers, body=answer.content)

    page.route("http://gateway.test/**", forward)
    page.goto(f"http://gateway.test{start}")
    form = trial(page, "POST /")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("200")
    expect(form.get_by_label("Request in curl")).to_contain_text("http://gateway.test/flowers/")
    assert all(path.startswith("/flowers") for path in seen), seen


def test_it_asks_for_an_api_key_and_sends_it(page: Page, serve_for_module, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "one").write_text("secret")
    monkeypatch.setenv("CORTEX_API_KEYS", str(tmp_path))
    replica = serve_for_module(HANDLER, apiKeys={"secret": {"name": "keys"}})
    page.goto(f"{replica.url}/docs")
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key").fill("wrong")
    dialog.get_by_role("button", name="Use key").click()
    expect(dialog).to_contain_text("refused this key")
    dialog.get_by_label("Key").fill("secret")
    dialog.get_by_label("Key").press("Enter")
    form = trial(page, "POST /")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("200 OK")
    expect(form.get_by_label("Request in curl")).to_contain_text("Bearer $API_KEY")
    assert "secret" not in page.content()


def test_the_policy_allows_no_inline_code(replica):
    policy = PLAIN.get(f"{replica.url}/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src 'self';" in policy
