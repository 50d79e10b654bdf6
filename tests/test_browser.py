"""End to end in a real browser: a headline put on Kafka appears on the page of a running `up`."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Request, sync_playwright

from tests.dashboard.conftest import CHROMIUM, FLAGS
from tests.running import headline, running_up

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}: apt-get install chromium"),
]


def test_a_produced_headline_appears_on_the_page(tmp_path: Path) -> None:
    """With the replay running, a headline about an entity of its own shows live, and no request leaves the machine."""
    with running_up(tmp_path, engine="tiny") as up, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(_host(request)))
        page.goto(up.dashboard)
        page.get_by_text("Replay of sample data", exact=False).first.wait_for(timeout=20_000)
        title = "Qwyrl Orbital shares plunge as its launcher fails"
        up.produce([headline("browser-1", title, time.time(), symbols=["QWYRL"])])
        page.get_by_text("Qwyrl Orbital", exact=False).first.wait_for(timeout=10_000)
        page.get_by_text("QWYRL", exact=True).first.wait_for(timeout=10_000)
        page.goto(f"{up.dashboard}/news?entity=symbol:QWYRL")
        page.get_by_text(title, exact=False).first.wait_for(timeout=10_000)
        browser.close()
    assert set(asked) <= {"127.0.0.1", "localhost", ""}


def _host(request: Request) -> str:
    parts = urlsplit(request.url)
    return parts.hostname or "" if parts.scheme in ("http", "https", "ws", "wss") else ""
