"""`make screenshots`: write the pictures of docs/ui.md, and print the time to the first paint of the overview with 300 APIs."""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from cortex_cli.ui import server
from tests.browser import ARGUMENTS

from .landscape import Landscape, landscape

IMAGES = Path(__file__).parents[3] / "docs" / "images"
MAX_BYTES = 150_000
_SEEN_SECONDS = 45
"""How long the pages are open before, so that charts have content."""
DECISIONS = (
    (8, 2, "7.2 requests in flight, target 4 for each replica: 2 replicas"),
    (22, 4, "15.1 requests in flight, target 4 for each replica: 4 replicas"),
    (34, 3, "11.8 requests in flight, target 4 for each replica: 3 replicas"),
)
"""Second, desired replicas and reason."""
PICTURES = (
    ("overview", "/?namespace=shop", 1280, 1000, "light"),
    ("broken", "/realtimeapi/shop/ranker", 1280, 620, "light"),
    ("api", "/realtimeapi/shop/fraud-score", 1280, 900, "light"),
    ("jobs", "/asyncapi/default/letters/async-jobs", 1280, 860, "light"),
    ("candidate", "/realtimeapi/shop/sentiment/compare", 1280, 760, "light"),
    ("dark", "/realtimeapi/shop/iris", 1280, 900, "dark"),
    ("phone", "/", 390, 844, "light"),
)
"""Name, path, width, height and color scheme."""


def main() -> None:
    """Take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        sys.exit("Chromium is not installed")
    with (
        tempfile.TemporaryDirectory() as folder,
        landscape(Path(folder)) as place,
        sync_playwright() as playwright,
    ):
        page = server.prepare(place.connect, "", 0)
        page.start()
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        # While its page is open, an API is read more often.
        tabs = [show(browser, page.url, *shown) for _, *shown in PICTURES]
        look(place)
        for (name, *_), tab in zip(PICTURES, tabs, strict=True):
            take(tab, name)
        print(f"first paint with 30 APIs: {first_paint(browser, page.url)}")
        for number in range(270):
            place.api(f"model-{number:03}", namespace="sandbox")
        time.sleep(5)
        print(f"first paint with 300 APIs: {first_paint(browser, page.url)}")
        browser.close()


def look(place: Landscape) -> None:
    """Wait until the charts have content. Meanwhile, the autoscaler decides."""
    began = time.monotonic()
    for second, desired, reason in DECISIONS:
        time.sleep(max(0.0, began + second - time.monotonic()))
        scaling = {
            "provider": "builtin",
            "current": 3,
            "desired": desired,
            "metric": "in-flight",
            "reason": reason,
        }
        place.update("fraud-score", {"autoscaling": scaling, "readyReplicas": min(desired, 3)})
    time.sleep(max(0.0, began + _SEEN_SECONDS - time.monotonic()))


def show(browser: Browser, url: str, path: str, width: int, height: int, scheme: str) -> Page:
    """Open a page in a tab of its own."""
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    tab.goto(url)
    tab.goto(url.split("/?")[0] + path)
    return tab


def take(tab: Page, name: str) -> None:
    """Write the picture of a page, and close it."""
    if name == "candidate":
        tab.locator(".example summary").first.click()
    file = IMAGES / f"ui-{name}.png"
    tab.screenshot(path=file)
    tab.close()
    size = file.stat().st_size
    print(f"{file.relative_to(IMAGES.parents[1])}: {size // 1000} kB")
    assert size < MAX_BYTES, f"{file} is larger than {MAX_BYTES} bytes"


def first_paint(browser: Browser, url: str) -> str:
    """Return the time from the request of the overview to its first paint with content, of ten loads."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab: Page = context.new_page()
    tab.goto(url)
    found = []
    for _ in range(10):
        tab.goto(url.split("/?")[0] + "/")
        script = """() => new Promise(resolve => new PerformanceObserver(list => {
            const entry = list.getEntriesByName('first-contentful-paint')[0];
            if (entry) resolve(entry.startTime);
        }).observe({type: 'paint', buffered: true}))"""
        found.append(float(tab.evaluate(script)))
    context.close()
    return f"p50 {statistics.median(found):.0f} ms, p95 {statistics.quantiles(found, n=20)[-1]:.0f} ms of {len(found)}"


if __name__ == "__main__":
    main()
