"""A dev cluster with many APIs, and its page."""

from collections.abc import Iterator

import httpx
import pytest

from cortex_cli.ui import server
from tests.browser import chromium as chromium

from .landscape import Landscape, landscape, serving


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landscape]:
    with landscape(tmp_path_factory.mktemp("landscape")) as found:
        yield found


@pytest.fixture(scope="session")
def url(place: Landscape) -> Iterator[str]:
    """The URL of the page of the cluster, with the token."""
    with serving(server.prepare(place.connect, "", 0)) as found:
        yield found


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[httpx.Client]:
    """A client that is logged in to the page."""
    with httpx.Client(base_url=url.split("/?")[0], trust_env=False, timeout=30) as found:
        found.get(url)
        yield found
