"""Rows of the panels, from views of the store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import machine, rows
from dashboard.reads import Reading
from streams.records import Alert, EntitySentiment, Label, Sentiment
from streams.state.views import AlertView, Detail, Evidence, Headline, Mover, Overview
from streams.state.vitals import Health, Replay, Worker

NOW = 1_795_316_803.0


def headline(identity: str, at: int = 0, label: Label = "neutral", **more: Any) -> Headline:
    """A scored headline about Apple."""
    given_ = {"title": f"title of {identity}", "source": "Reuters", "story": identity, **more}
    return Headline(
        id=identity,
        sentiment=Sentiment(label=label, p=(0.1, 0.8, 0.1)),
        entities=[EntitySentiment(symbol="AAPL", name="Apple", label=label, p=0.8)],
        at=at,
        scored_at=datetime.fromtimestamp(NOW - 1, UTC).isoformat(),
        **given_,
    )


def alert(identity: str, state: Any = "firing", evidence: tuple[str, ...] = ()) -> AlertView:
    """An alert about Apple."""
    record = Alert(
        id=f"{identity}:1",
        ts=datetime.fromtimestamp(NOW - 60, UTC),
        alert=identity,
        kind="sentiment",
        entity="symbol:AAPL",
        fingerprint="f",
        state=state,
        severity="critical",
        value=12,
        baseline=1.5,
        evidence=[],
        version=1,
    )
    headlines = [Evidence(id=name, source=name) for name in evidence]
    return AlertView(record, Detail(headlines=headlines, name="Apple (AAPL)", expected=1.5))


def overview(workers: list[Worker], newest: list[Headline] | None = None, **more: Any) -> Overview:
    """An overview with these workers."""
    market = Mover("market", "market", 0, 8, 4.0, 2, 1.0, [(1, 0)] * 36)
    found = newest if newest is not None else [headline("a", int(NOW * 1000))]
    return Overview(NOW, [], market, [], found, Health(workers=workers, **more))


def worker(behind: int = 0, rate: float = 1.0, at: float = NOW) -> Worker:
    """A heartbeat of a news worker."""
    return Worker(pipeline="news", at=at, lag={"tapewatch.news:0": behind}, rate=rate)


def state_of(reading: Reading[Overview]) -> tuple[str, str]:
    """The state of the head, and the level of its banner."""
    head = machine.head(reading, NOW, "127.0.0.1:6379")
    return head["state"], head["banner"]["level"] if head["banner"] else ""


def test_states_of_the_data() -> None:
    """The head says whether data flow, catch up, have no worker, or whether the store is away, and since when."""
    assert state_of(Reading(overview([worker()]), NOW)) == ("live", "")
    assert state_of(Reading(overview([worker(behind=5_000, rate=100)]), NOW)) == ("behind", "")
    assert state_of(Reading(overview([]), NOW)) == ("idle", "warning")
    assert state_of(Reading(overview([worker()], newest=[]), NOW)) == ("empty", "")
    assert state_of(Reading(None)) == ("empty", "")
    away = Reading(overview([worker()]), NOW - 7, away_since=NOW - 6)
    assert state_of(away) == ("away", "broken")
    banner = machine.head(away, NOW, "127.0.0.1:6379")["banner"]
    assert (banner["since"], banner["kept"]) == (NOW - 6, NOW - 7)
    assert "127.0.0.1:6379" in banner["todo"]


def test_data_are_as_old_as_the_last_word_of_a_worker() -> None:
    """A store that answers does not make data fresh: the worker's heartbeat and the last scored headline do."""
    head = machine.head(Reading(overview([worker(at=NOW - 9)], newest=[]), NOW), NOW, "")
    assert head["as_of"] == NOW - 9
    assert machine.head(Reading(overview([worker(at=NOW - 9)]), NOW), NOW, "")["as_of"] == NOW - 1


def test_a_paused_replay_says_what_to_do() -> None:
    """The reason that the replay gives is shown, and the page says that it is a replay."""
    replay = Replay(sample="news", paused="the broker is full; set TAPEWATCH_KAFKA")
    head = machine.head(Reading(overview([worker()], replay=replay), NOW), NOW, "")
    assert head["banner"]["todo"] == "the broker is full; set TAPEWATCH_KAFKA"
    assert head["replay"] == "Replay of sample data: news"


def test_copies_are_one_row_of_the_first_headline() -> None:
    """A story is shown once, by its first headline, with copies and distinct outlets counted."""
    copies = [
        headline("c", 3_000, story="a", duplicate_of="a", source="CNBC"),
        headline("b", 2_000, story="a", duplicate_of="a", source="Reuters"),
        headline("a", 1_000),
    ]
    (row,) = rows.tape(copies)
    assert (row["key"], row["title"], row["at"], row["copies"]) == ("a", "title of a", 1_000, 3)
    assert row["outlets"] == ["CNBC", "Reuters"]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//evil.example", ""])
def test_only_web_addresses_become_links(url: str) -> None:
    """A producer's URL is a link only when it is http or https."""
    assert rows.tape([headline("a", url=url)])[0]["url"] == ""


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (rows.Filter(), {"a", "b", "c"}),
        (rows.Filter(label="negative"), {"b"}),
        (rows.Filter(outlet="CNBC"), {"c"}),
        (rows.Filter(text="OF a"), {"a"}),
        (rows.Filter(text="apple AAPL"), {"a", "b", "c"}),
        (rows.Filter(label="negative", outlet="CNBC"), set()),
    ],
)
def test_filters_keep_what_they_name(wanted: rows.Filter, kept: set[str]) -> None:
    """Label, outlet and words all have to hold; words look at the title, names and symbols."""
    found = [
        headline("a"),
        headline("b", label="negative", title="x"),
        headline("c", source="CNBC", title="y"),
    ]
    assert {row["key"] for row in rows.tape(found, wanted)} == kept


def test_the_opened_alert_alone_has_its_detail() -> None:
    """Detail travels for the alert that is open, also when it stands below the first ones."""
    shown = [alert(f"a{number}", evidence=("AP", "AP", "CNBC")) for number in range(9)]
    made = rows.alerts(shown, opened="a8", limit=3)
    assert [row["id"] for row in made] == ["a0", "a1", "a2", "a8"]
    assert ["detail" in row for row in made] == [False, False, False, True]
    assert made[3]["outlets"] == ["AP", "CNBC"]
    assert made[3]["name"] == "AAPL Apple"
    assert "negative in 5 min, usual 1.5" in made[3]["measure"]


def test_numbers_carry_their_comparison() -> None:
    """Each figure of the overview has a note that says what is usual, or how high it was."""
    found = {
        row["title"]: row
        for row in machine.figures(overview([worker(rate=2.0)]), [(NOW, 1.0, 3), (NOW, 3.0, 7)])
    }
    assert found["Stories, last 5 min"]["note"] == "usual 4.0"
    assert found["Negative stories, last 5 min"]["note"] == "2 of 8, usual 25 %"
    assert found["Throughput, last 5 min"]["note"] == "highest 3.0, mean 2.0"
    assert found["Lag in headlines, last 5 min"]["note"] == "highest 7"


@given(st.lists(st.floats(0, 1e6), max_size=400), st.integers(1, 60))
def test_thinning_keeps_the_highest(values: list[float], most: int) -> None:
    """A thinned series has the length asked for and does not lose its peak."""
    found = machine.thinned(values, most)
    assert len(found) == most
    assert max(found, default=0) == max(values, default=0)


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.0"), (0.02, "<0.1"), (0.05, "0.1"), (34.04, "34.0")])
def test_a_small_usual_is_not_shown_as_nothing(value: float, text: str) -> None:
    """What rounds to zero but is none says so."""
    assert rows.usual(value) == text
