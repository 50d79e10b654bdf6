"""The review desk in a real browser, over a store that the real pipeline filled, and a real broker."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from dashboard import launch
from streams.launch.commands import create_topics
from streams.launch.embedded import EmbeddedBroker, EmbeddedStore, free_port
from streams.settings import ROOT, read_settings
from streams.state.store import Store
from tests.dashboard.conftest import _healthy, until
from tests.dashboard.payday import Payday
from tests.dashboard.seed import Seeder
from tests.streams.topic import read_all

pytestmark = pytest.mark.browser

SECONDS = 30_000  # ms that a page gets to show what it must


class Desk(NamedTuple):
    """A running dashboard, what pays into its store, and its broker."""

    url: str
    store: Store
    payday: Payday
    seeder: Seeder
    kafka: str


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A dashboard over a store in which one account has habits and three payments beyond them."""
    log = tmp_path_factory.mktemp("till") / "dashboard.log"
    with EmbeddedStore() as server, EmbeddedBroker() as broker:
        store = Store(server.url, "tapewatch")
        settings = read_settings({"TAPEWATCH_REDIS": server.url, "TAPEWATCH_KAFKA": broker.bootstrap})
        create_topics(settings)
        payday, seeder, now = Payday(store), Seeder(store), time.time()
        for index in range(30):
            payday.pay(f"usual-{index}", now - 3600 * (31 - index), 20.0 + index % 5)
        for index in range(3):
            payday.pay(f"odd-{index}", now - 60 * (3 - index), 900.0 + index, terminal=f"T00{index}9")
        seeder.beat(now)
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
            until(lambda: _healthy(url), "the dashboard answers", 60.0)
            yield Desk(url, store, payday, seeder, broker.bootstrap)
        finally:
            process.terminate()
            process.wait(10)
        assert "Traceback" not in log.read_text(errors="replace"), log.read_text(errors="replace")


@pytest.fixture
def visit(till: Desk, browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Open a path; at the end no script may have failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, timezone_id="Europe/London")
    errors: list[str] = []

    def make(path: str) -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(till.url + path)
        page.wait_for_selector(".tw-foot", timeout=60_000)
        return page

    yield make
    context.close()
    assert errors == []


def said(till: Desk) -> list[dict[str, str]]:
    """The labels on the broker."""
    return [msgspec.json.decode(record.value) for record in read_all(till.kafka, "tapewatch.labels")]


def test_the_queue_shows_score_amount_and_reason(visit: Callable[[str], Page]) -> None:
    """Each payment that was held is a row with its decision, score, amount with currency, and what speaks for fraud."""
    page = visit("/payments")
    rows = page.locator(".tw-case")
    expect(rows).to_have_count(3, timeout=SECONDS)
    expect(rows.first).to_contain_text("902.00 GBP")
    expect(rows.first).to_contain_text("amount / account's mean, 90 d")
    box = rows.first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 720


def test_a_case_opens_with_its_reasons_and_its_account(visit: Callable[[str], Page]) -> None:
    """Enter opens the chosen row, in the URL too: reasons with contributions, and the account's payments beside it."""
    page = visit("/payments")
    page.wait_for_selector(".tw-case")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"case=odd-2"), timeout=SECONDS)
    expect(page.locator(".tw-reasons")).to_contain_text("base rate", timeout=SECONDS)
    expect(page.locator(".tw-windows")).to_contain_text("30 d", timeout=SECONDS)
    expect(page.locator(".tw-pay").first).to_contain_text("blocked", timeout=SECONDS)
    page.go_back()
    expect(page.locator(".tw-details")).to_have_count(0, timeout=SECONDS)


def test_an_account_has_a_url_of_its_own(visit: Callable[[str], Page]) -> None:
    """A link to an account shows what it paid; one that nobody knows says so."""
    page = visit("/payments?account=A1")
    expect(page.locator(".tw-pay").first).to_be_visible(timeout=SECONDS)
    expect(page.locator(".tw-timeline rect").first).to_be_attached()
    page = visit("/payments?account=nobody")
    expect(page.get_by_text("No payment of this account is known.")).to_be_visible(timeout=SECONDS)


def test_filters_are_the_url(visit: Callable[[str], Page]) -> None:
    """What is searched for and which decisions are in the URL; what matches nothing says so."""
    page = visit("/payments?q=T0019")
    expect(page.locator(".tw-case")).to_have_count(1, timeout=SECONDS)
    expect(page.locator(".tw-search input")).to_have_value("T0019")
    page = visit("/payments?q=nothing-like-it")
    expect(page.get_by_text("None of the 3 cases")).to_be_visible(timeout=SECONDS)


def test_the_back_button_brings_the_search_back(visit: Callable[[str], Page]) -> None:
    """Going back to an earlier search sets the field, and the field does not write its own value back."""
    page = visit("/payments?q=odd-1")
    expect(page.locator(".tw-case")).to_have_count(1, timeout=SECONDS)
    page.locator(".tw-search input").fill("odd")
    expect(page.locator(".tw-case")).to_have_count(3, timeout=SECONDS)
    expect(page).to_have_url(re.compile(r"q=odd$"))
    page.locator(".tw-search input").blur()
    page.go_back()
    expect(page.locator(".tw-search input")).to_have_value("odd-1", timeout=SECONDS)
    expect(page.locator(".tw-case")).to_have_count(1, timeout=SECONDS)
    expect(page).to_have_url(re.compile(r"q=odd-1$"))


def test_letters_typed_before_the_field_is_there_are_searched_for(visit: Callable[[str], Page]) -> None:
    """After `/` nothing that is typed is a shortcut, even while the page with the field still loads."""
    page = visit("/")
    page.keyboard.press("/")
    page.keyboard.type("nope")  # n, o and p are pages
    expect(page.locator(".tw-search input")).to_have_value("nope", timeout=SECONDS)
    expect(page).to_have_url(re.compile(r"/news\?.*q=nope"), timeout=SECONDS)


def test_a_verdict_is_a_label_on_the_topic(visit: Callable[[str], Page], till: Desk) -> None:
    """`f` on the open case sends fraud, `a` approves; both name the payment, its account and its terminal."""
    page = visit("/payments?case=odd-1")
    page.wait_for_selector(".tw-details", timeout=SECONDS)
    page.keyboard.press("f")
    expect(page.locator(".tw-said").first).to_contain_text("odd-1: fraud, sent", timeout=SECONDS)
    until(lambda: len(said(till)) == 1, "the label is on the broker")
    page.locator(".tw-said button").first.click()
    expect(page.locator(".tw-said").first).to_contain_text("odd-1: approved, sent", timeout=SECONDS)
    until(lambda: len(said(till)) == 2, "the second label is on the broker")
    found = said(till)
    assert [(label["subject"], label["ref"]) for label in found] == [("transaction", "odd-1")] * 2
    assert sorted(label["label"] for label in found) == ["fraud", "legit"]
    first = next(label for label in found if label["label"] == "fraud")
    assert (first["account"], first["terminal"], first["by"]) == ("A1", "T0019", "desk")


def test_new_cases_wait_while_one_is_open(visit: Callable[[str], Page], till: Desk) -> None:
    """A case that comes while another is open is counted above and moves nothing."""
    page = visit("/payments?case=odd-0")
    page.wait_for_selector(".tw-details", timeout=SECONDS)
    before = page.locator(".tw-case").evaluate_all("nodes => nodes.map(node => node.dataset.id)")
    till.payday.pay("odd-9", time.time(), 990.0, terminal="T0999")
    expect(page.locator(".tw-new")).to_have_text("1 new", timeout=SECONDS)
    assert page.locator(".tw-case").evaluate_all("nodes => nodes.map(node => node.dataset.id)") == before
    page.locator(".tw-new").click()
    expect(page.locator(".tw-case").first).to_have_attribute("data-id", "odd-9")
