"""A dashboard of its own over a store of its own, and a browser that looks at it."""

from __future__ import annotations

import functools
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from dashboard import launch
from streams.launch.embedded import EmbeddedStore, free_port
from streams.settings import ROOT, read_settings
from streams.state.store import Store
from tests.dashboard.seed import Seeder, fill

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NOBODY = "127.0.0.1:9"  # the dashboard never asks the broker for anything


class Desk(NamedTuple):
    """A running dashboard, the store that it shows, and who fills it."""

    url: str
    server: EmbeddedStore
    store: Store
    seeder: Seeder


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A dashboard over a store with three hours of headlines."""
    log = tmp_path_factory.mktemp("desk") / "dashboard.log"
    with EmbeddedStore() as server:
        store = Store(server.url, "tapewatch")
        seeder = fill(store, time.time())
        settings = read_settings({"TAPEWATCH_REDIS": server.url, "TAPEWATCH_KAFKA": NOBODY})
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                launch.command(port, settings),
                env={**os.environ, **launch.environment(settings)},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _healthy(url), "the dashboard answers", 30.0)
            yield Desk(url, server, store, seeder)
        finally:
            process.terminate()
            process.wait(10)
        assert "Traceback" not in log.read_text(errors="replace"), log.read_text(errors="replace")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[Callable[[str], BrowserContext]]:
    """One browser context a colour scheme, so that the scripts of the page are loaded once."""

    @functools.cache
    def of(scheme: str) -> BrowserContext:
        return browser.new_context(
            viewport={"width": 1280, "height": 720},
            color_scheme="dark" if scheme == "dark" else "light",
            timezone_id="Europe/London",
        )

    yield of
    for context in browser.contexts:
        context.close()


@pytest.fixture
def open_page(contexts: Callable[[str], BrowserContext], desk: Desk) -> Iterator[Callable[..., Page]]:
    """Open a path of the dashboard; at the end no request may have left the machine, no script may have failed."""
    requests: list[Request] = []
    errors: list[str] = []
    pages = []

    def make(path: str = "/", scheme: str = "light") -> Page:
        page = contexts(scheme).new_page()
        pages.append(page)
        page.on("request", lambda request: requests.append(request))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(desk.url + path)
        page.wait_for_selector(".tw-foot", timeout=60_000)
        return page

    yield make
    for page in pages:
        page.close()
    outside = {
        request.url
        for request in requests
        if not request.url.startswith((desk.url, "blob:", "data:", "about:"))
    }
    assert outside == set()
    assert errors == []


def until(holds: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait until the condition holds; fail with its words when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/_stcore/health", timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
