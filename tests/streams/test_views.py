"""The read side, over a real store that holds what pipelines write."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from streams.launch.embedded import free_port
from streams.state import views
from streams.state.store import Store, Unavailable
from streams.state.vitals import health
from tests.dashboard.seed import BAD_DAY, Seeder, fill

NOW = time.time()


@pytest.fixture
def store(store_url: str, unique: str) -> Iterator[Store]:
    """An empty store."""
    opened = Store(store_url, unique)
    yield opened
    opened.close()


def test_an_empty_store_is_no_error(store: Store) -> None:
    """Every view of a store that holds nothing is empty."""
    found = views.overview(store, NOW)
    assert (found.alerts, found.movers, found.newest, found.health.workers) == ([], [], [], [])
    assert (found.market.stories, found.health.dead_letters, found.health.replay) == (0, 0, None)
    assert views.alert(store, "none") is None


def test_the_company_with_a_bad_day_moves_most(store: Store) -> None:
    """Its negative stories of the last five minutes stand beside the few that are usual, under its name."""
    seeder = fill(store, NOW)
    market, first, *_ = views.movers(store, NOW)
    assert (market.entity, first.entity, first.name) == ("market", f"symbol:{BAD_DAY}", "Aerolane")
    assert first.negative >= len(seeder.bad)
    assert first.usual_negative < 2
    assert market.stories >= first.stories
    assert len(first.series) == 36


def test_alerts_that_fire_come_first(store: Store) -> None:
    """Firing before resolved, the newest first among the rest, each with its outlets and its opening time."""
    fill(store, NOW)
    found = views.alerts(store)
    assert [view.record.alert for view in found] == ["a-aerolane", "a-sili", "a-volt", "a-medi"]
    assert [view.active for view in found] == [True, False, False, False]
    assert found[0].outlets == sorted(set(found[0].outlets))
    assert found[0].opened == pytest.approx((NOW - 130) * 1000, abs=1)
    assert views.alert(store, "a-aerolane") == found[0]


def test_the_feed_is_newest_first_and_bounded(store: Store) -> None:
    """A feed gives as many as were asked for, by event time."""
    fill(store, NOW)
    found = views.feed(store, "market", 50)
    assert len(found) == 50
    assert found == sorted(found, key=lambda headline: -headline.at)
    assert all(headline.entities[0].symbol == BAD_DAY for headline in views.feed(store, f"symbol:{BAD_DAY}"))


def test_what_cannot_be_read_is_left_out(store: Store) -> None:
    """An entry of another version does not take the rest with it."""
    seeder = Seeder(store)
    pipe = store.client.pipeline()
    seeder.add("A headline", "ORCH", "neutral", NOW, pipe)
    pipe.zadd(store.keys.feed("market"), {"{}": 1, "no json": 2})
    pipe.zadd(store.keys.alerts(), {"gone": 1})
    pipe.set(store.keys.replay(), "[]")
    pipe.execute()
    assert [headline.title for headline in views.feed(store)] == ["A headline"]
    assert views.alerts(store) == []
    assert health(store).replay is None


def test_health_counts_workers_and_outcomes(store: Store) -> None:
    """Heartbeats, lag and dead letters are those of the store."""
    Seeder(store).beat(NOW, behind=12, rate=3.5)
    found = health(store)
    (news,) = found.of("news")
    assert (news.behind, news.rate, news.engine) == (12, 3.5, "onnxruntime int8")
    assert found.dead_letters == 3
    assert found.used_bytes > 0


def test_a_store_that_is_away_is_unavailable() -> None:
    """Every view says so in one way."""
    away = Store(f"redis://127.0.0.1:{free_port()}/0", "t")
    for view in (views.alerts, views.feed, health, views.entities):
        with pytest.raises(Unavailable):
            view(away)
