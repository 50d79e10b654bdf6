"""`python -m models.recommendation_protocol [--json]`: the quality figures on UCI Online Retail, month by month.

For each test month everything is learned from what came before it; the settings of the rivals are those that did best
on the month before the test, and the ranker learns from the three months before it. Ratios have 95 % intervals over
customers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np

from models import recommendation_metrics as metrics
from models.figures import figure
from models.recommendation_data import Interactions, retail
from models.recommendation_folds import Fold, by_time
from models.recommendation_ranker import Examples, Prepared, as_ranker, examples, grow, lists, prepare
from models.recommendation_rivals import Tuned, compete, few_visits, tune
from streams.launch.tables import table
from streams.recommending.demand import FRESH
from streams.recommending.diversity import WEIGHT, intra_list_diversity
from streams.recommending.knowledge import Ints

STARTS = ("2011-05-26", "2011-06-26", "2011-07-26", "2011-08-26", "2011-09-26", "2011-10-26", "2011-11-26")
TESTS = (5, 3, 4)  # places in STARTS; the month first
MONTHS = 3  # that the ranker learns from


class Month(NamedTuple):
    """One month: what came before it, learned, and the examples that it gives a later ranker."""

    prepared: Prepared
    examples: Examples


def figures(data: Interactions | None = None, starts: Sequence[str] = STARTS) -> list[dict[str, Any]]:
    """Every row of the protocol, in the objects that `evaluate --json` prints."""
    all_of = data or retail()
    months: dict[int, Month] = {}
    made: list[dict[str, Any]] = []
    for place in TESTS:
        for number in range(place - MONTHS, place):
            if number not in months:
                prepared = prepare(fold(all_of, starts, number))
                months[number] = Month(prepared, examples(prepared))
        booster = grow([months[number].examples for number in range(place - MONTHS, place)])
        tuned = tune(months[place - 1].prepared.fold)
        test = months[place].prepared if place in months else prepare(fold(all_of, starts, place))
        ranker = as_ranker(booster)
        ours = lists(test, ranker, WEIGHT)
        made += list(_month(test, ours, tuned, starts[place], main=place == TESTS[0]))
        if place == TESTS[0]:
            plain = lists(test, ranker, 0.0)
            made += list(_diversity(test, plain, "without"))
            made += list(_diversity(test, ours, "with"))
    return made


def fold(all_of: Interactions, starts: Sequence[str], number: int) -> Fold:
    """The month that begins at `starts[number]`."""
    return by_time(all_of, day(starts[number]), day(starts[number + 1]))


def day(text: str) -> float:
    """Days since 1970 of a date."""
    return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC).timestamp() / 86_400


def _month(
    test: Prepared, ours: list[Ints], tuned: Tuned, start: str, main: bool
) -> Iterator[dict[str, Any]]:
    wanted = test.fold.wanted
    gain, hit = metrics.ndcg(ours, wanted), metrics.hits(ours, wanted)
    yield _mean(f"{start}.ndcg@10", gain)
    yield _mean(f"{start}.hr@10", hit)
    rivals = dict(compete(test.fold, tuned))
    for name, ranked in rivals.items():
        yield _mean(f"{start}.{name}.ndcg@10", metrics.ndcg(ranked, wanted))
        yield _mean(f"{start}.{name}.hr@10", metrics.hits(ranked, wanted))
    bars = {"ease": 1.6, "ease_trend": 1.3} if main else {"ease": 1.35}
    for name, bar in bars.items():
        yield _ratio(f"{start}.ndcg@10/{name}", gain, metrics.ndcg(rivals[name], wanted), name, bar)
    if not main:
        return
    yield _ratio(f"{start}.hr@10/ease", hit, metrics.hits(rivals["ease"], wanted), "ease", 1.28)
    few = few_visits([history.visits for history in test.histories])
    popular = metrics.hits(rivals["popularity"], wanted)
    yield _ratio(f"{start}.few_baskets.hr@10/popularity", hit[few], popular[few], "popularity", 1.35)
    fresh = np.flatnonzero((test.shelf.demand.first <= FRESH) & (test.shelf.demand.first > 0))
    new = [items[np.isin(items, fresh)] for items in wanted]
    some = np.array([len(items) > 0 for items in new])
    found, text = metrics.hits(ours, new), metrics.hits(rivals["tfidf"], new)
    yield _ratio(f"{start}.new_items.hr@10/tfidf", found[some], text[some], "tfidf", 2.5)


def _diversity(test: Prepared, shown: list[Ints], which: str) -> Iterator[dict[str, Any]]:
    known = len(test.fold.known.item_names)
    covered = len(np.unique(np.concatenate(shown))) / known
    yield figure(f"coverage.{which}_mmr", covered, known)
    unlike = [intra_list_diversity(items, test.shelf.knowledge.text) for items in shown]
    yield figure(f"diversity.{which}_mmr", float(np.mean(unlike)), len(shown))


def _mean(name: str, values: metrics.Values) -> dict[str, Any]:
    low, high = metrics.interval(values)
    return figure(name, float(values.mean()), len(values)) | {"spread": [round(low, 4), round(high, 4)]}


def _ratio(
    name: str, ours: metrics.Values, theirs: metrics.Values, against: str, bar: float
) -> dict[str, Any]:
    value, low, high = metrics.ratio(ours, theirs)
    made = figure(name, value, len(ours))
    return made | {
        "spread": [round(low, 3), round(high, 3)],
        "against": against,
        "bar": bar,
        "ok": value >= bar,
    }


if __name__ == "__main__":
    found = figures()
    sys.stdout.write((json.dumps(found) if "--json" in sys.argv[1:] else table(found)) + "\n")
