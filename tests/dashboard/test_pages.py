"""The pages in a real browser, over a real store."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from dashboard import palette
from tests.dashboard.conftest import Desk, until

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
SECONDS = 20_000  # ms that a page gets to show what it must


def add(desk: Desk, title: str, symbol: str = "ORCH", label: str = "negative", **more: str) -> None:
    """A headline arrives now."""
    pipe = desk.store.client.pipeline(transaction=False)
    desk.seeder.add(title, symbol, label, time.time(), pipe, **more)
    pipe.execute()
    desk.seeder.beat(time.time())


def test_overview_answers_what_to_act_on(open_page: Open, desk: Desk) -> None:
    """The first alert is on the first screen with its value beside what is usual, its outlets and its evidence."""
    desk.seeder.beat(time.time())
    page = open_page("/")
    first = page.locator(".tw-alert").first
    expect(first).to_contain_text("AERO Aerolane", timeout=SECONDS)
    expect(first).to_contain_text("critical")
    expect(first).to_contain_text("16 negative in 5 min, usual 1.4")
    expect(first).to_contain_text("outlets")
    expect(first).to_contain_text(desk.seeder.bad[0]["title"])
    box = first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 720


def test_a_headline_appears_without_reload(open_page: Open, desk: Desk) -> None:
    """A new headline comes in at the top; what was there keeps its nodes, the chart too."""
    page = open_page("/")
    page.wait_for_selector(".tw-tape .tw-row")
    page.wait_for_selector("canvas, .vega-embed svg")
    page.evaluate(
        "() => document.querySelectorAll('.tw-tape .tw-row, .tw-alert, .vega-embed').forEach(n => n.kept = 1)"
    )
    before = page.evaluate("() => document.querySelectorAll('.vega-embed').length")
    add(desk, "Zylotronix Holdings opens a plant in Ohio", "ZYLX", "positive")
    expect(page.locator(".tw-tape .tw-row").first).to_contain_text("Zylotronix Holdings", timeout=SECONDS)
    add(desk, "Zylotronix Holdings closes the plant again", "ZYLX", "negative")
    expect(page.locator(".tw-tape .tw-row").first).to_contain_text("closes the plant", timeout=SECONDS)
    kept = page.evaluate(
        "() => [...document.querySelectorAll('.tw-tape .tw-row')].slice(2).every(n => n.kept)"
        " && [...document.querySelectorAll('.tw-alert')].every(n => n.kept)"
    )
    assert kept
    assert (
        page.evaluate("() => [...document.querySelectorAll('.vega-embed')].filter(n => n.kept).length")
        == before
    )


def test_an_alert_opens_its_evidence(open_page: Open, desk: Desk) -> None:
    """A click opens the headlines that an alert stands on, in the URL too, and the back button closes them."""
    page = open_page("/")
    page.locator(".tw-alert .tw-row").first.click()
    expect(page.locator(".tw-details .tw-line").first).to_contain_text(
        desk.seeder.bad[-1]["title"], timeout=SECONDS
    )
    expect(page).to_have_url(re.compile(r"\?alert=a-aerolane"))
    page.go_back()
    expect(page.locator(".tw-details")).to_have_count(0, timeout=SECONDS)
    linked = open_page("/?alert=a-aerolane")
    expect(linked.locator(".tw-details .tw-line").first).to_be_visible(timeout=SECONDS)


def test_news_is_filtered_by_url_and_by_hand(open_page: Open, desk: Desk) -> None:
    """An entity and a label of the URL are applied; typing narrows the feed further."""
    add(desk, "Aerolane mechanics vote on a quokka clause", "AERO", "neutral", source="Harbour Wire")
    page = open_page("/news?entity=symbol:AERO&label=neutral")
    expect(page.locator("h1")).to_contain_text("AERO Aerolane", timeout=SECONDS)
    rows = page.locator(".tw-tape .tw-row")
    expect(rows.first).to_contain_text("quokka", timeout=SECONDS)
    until(lambda: rows.count() > 1, "more than one neutral headline")
    assert page.locator(".tw-tape .tw-negative").count() == 0
    page.keyboard.press("/")
    page.keyboard.type("quokka")
    expect(rows).to_have_count(1, timeout=SECONDS)
    expect(page).to_have_url(re.compile(r"q=quokka"))


def test_an_entity_is_chosen_by_click_and_by_keyboard(open_page: Open) -> None:
    """A row of the movers opens its entity on the news page; j, k and enter do the same."""
    page = open_page("/")
    row = page.locator(".tw-movers a.tw-row").first
    name = str(row.locator(".tw-c0 b").text_content())
    row.click()
    expect(page.locator("h1")).to_contain_text(name, timeout=SECONDS)
    expect(page).to_have_url(re.compile(rf"news\?entity=symbol(%3A|:){name}"))
    page.wait_for_selector(".tw-movers a.tw-row[data-entity=market]")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("Market", timeout=SECONDS)


def test_copies_of_a_story_are_one_row(open_page: Open, desk: Desk) -> None:
    """A story that three outlets carry is one row that counts its copies."""
    pipe = desk.store.client.pipeline(transaction=False)
    now = time.time()
    first = desk.seeder.add(
        "Walrus futures hit a record", "PETR", "positive", now, pipe, source="Harbour Wire"
    )
    for outlet in ("Market Post", "Northern Press"):
        desk.seeder.add("Walrus futures hit a record", "PETR", "positive", now, pipe, first["story"], outlet)
    pipe.execute()
    page = open_page("/news?entity=symbol:PETR&q=walrus")
    rows = page.locator(".tw-tape .tw-row")
    expect(rows).to_have_count(1, timeout=SECONDS)
    expect(rows.first).to_contain_text("Harbour Wire +2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_have_their_colours(open_page: Open, scheme: palette.Theme) -> None:
    """The page takes the viewer's theme: background, text, and the colour of what fires."""
    page = open_page("/", scheme=scheme)
    page.wait_for_selector(".tw-alert")
    wanted = {name: _rgb(palette.THEMES[scheme][name]) for name in ("background", "text", "critical")}
    until(
        lambda: (
            page.evaluate(
                "() => ({background: getComputedStyle(document.querySelector('.stApp')).backgroundColor,"
                " text: getComputedStyle(document.querySelector('.tw-alert .tw-name')).color,"
                " critical: getComputedStyle(document.querySelector('.tw-alert .tw-state')).color})"
            )
            == wanted
        ),
        f"the colours of the {scheme} theme",
    )


def test_colours_are_a_setting(open_page: Open) -> None:
    """The choice of colours swaps negative and positive, and stands in the URL."""
    page = open_page("/")
    page.wait_for_selector(".tw-movers a.tw-row")
    page.select_option(".tw-foot select", "east")
    expect(page).to_have_url(re.compile(r"colours=east"), timeout=SECONDS)
    negative = palette.SCHEMES["east"]["light"][0]
    until(
        lambda: (
            page.evaluate(
                "() => getComputedStyle(document.documentElement).getPropertyValue('--tw-negative').trim()"
            )
            == negative
        ),
        "negative has the colour of the scheme",
    )


def test_rows_wait_while_the_reader_is_scrolled_down(open_page: Open, desk: Desk) -> None:
    """New headlines are counted above while the reader is further down, and come in at the top of the page."""
    page = open_page("/news")
    page.wait_for_selector(".tw-tape .tw-row >> nth=60")
    page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollTo(0, 1200)")
    top = str(page.locator(".tw-tape .tw-row").first.get_attribute("data-key"))
    add(desk, "Gnu Industries buys Emu Airlines", "FORG", "neutral")
    expect(page.locator(".tw-new")).to_have_text("1 new", timeout=SECONDS)
    assert page.locator(".tw-tape .tw-row").first.get_attribute("data-key") == top
    page.locator(".tw-new").click()
    expect(page.locator(".tw-tape .tw-row").first).to_contain_text("Gnu Industries", timeout=SECONDS)


def test_markup_in_a_headline_stays_text(open_page: Open, desk: Desk) -> None:
    """A headline with markup is shown as it was written and runs nothing."""
    title = "<img src=x onerror=\"document.title='owned'\"> Acme &amp; <b>Sons</b>"
    add(desk, title, "TELQ", "neutral")
    page = open_page("/")
    expect(page.locator(".tw-tape .tw-title", has_text="Acme").first).to_have_text(title, timeout=SECONDS)
    assert "owned" not in page.title()


def test_store_away_and_back(open_page: Open, desk: Desk) -> None:
    """While the store is away the page says so and keeps its values; it recovers by itself."""
    page = open_page("/")
    expect(page.locator(".tw-alert").first).to_contain_text("AERO Aerolane", timeout=SECONDS)
    desk.server.kill()
    banner = page.locator(".tw-banner")
    expect(banner).to_contain_text("The store has not answered since", timeout=SECONDS)
    expect(banner).to_contain_text("TAPEWATCH_REDIS")
    expect(page.locator(".tw-alert").first).to_contain_text("AERO Aerolane")
    desk.server.start()
    expect(page.locator(".tw-tape")).not_to_contain_text("Aerolane", timeout=SECONDS)  # an empty store
    add(desk, "Trading resumes after an outage", "HALE", "neutral")
    expect(page.locator(".tw-tape .tw-row").first).to_contain_text("Trading resumes", timeout=SECONDS)
    expect(banner).to_be_hidden(timeout=SECONDS)
    assert page.locator(".tw-head").get_attribute("data-level") == "calm"


def _rgb(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"
