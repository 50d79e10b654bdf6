"""Decisions: least expected cost, a budget of reviews, rules beside the score, accounts without habits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.payments.decide import (
    APPROVE,
    BLOCK,
    DAY,
    HOUR,
    REVIEW,
    Budget,
    Costs,
    Policy,
    by_cost,
    parse_costs,
)
from streams.payments.rules import NOTHING, Hits

OLD = 100  # payments of an account with habits
costs = st.builds(
    Costs,
    review=st.floats(0, 50),
    miss=st.floats(0, 1),
    decline=st.floats(0, 100),
    margin=st.floats(0, 0.5),
    loss=st.floats(0.1, 2),
    known=st.just(0.0),
    cold=st.just(1.0),
)


def decide(policy: Policy, score: float, amount: float, hit: Hits = NOTHING, known: int = OLD) -> int:
    found = policy.decide(
        np.array([score]), np.array([amount]), [hit], np.array([known]), np.array([DAY])
    ).decisions
    return int(found[0])


@given(score=st.floats(0, 1), amount=st.floats(0.01, 1e6), costs=costs)
def test_the_decision_costs_least(score: float, amount: float, costs: Costs) -> None:
    """No other action has a lower expected cost."""
    approve = score * amount * costs.loss
    block = (1 - score) * (costs.decline + amount * costs.margin)
    review = costs.review + approve * costs.miss
    expected = (approve, review, block)
    chosen = expected[decide(Policy(costs), score, amount)]
    assert chosen <= min(expected) + 1e-6 * max(1.0, *expected)


def test_small_sums_are_not_worth_an_analyst() -> None:
    """A likely fraud of two dollars is let through, one of two thousand is reviewed early."""
    policy = Policy()
    assert decide(policy, 0.5, 2.0) == APPROVE
    assert decide(policy, 0.02, 2000.0) == REVIEW
    assert decide(policy, 0.97, 2000.0) == BLOCK


def test_rules_stand_beside_the_score() -> None:
    """A rule that allows overrules the score, one that blocks blocks, one for a review never lowers a block."""
    policy = Policy()
    assert decide(policy, 0.99, 2000.0, Hits(("a",), "allow")) == APPROVE
    assert decide(policy, 0.0001, 10.0, Hits(("b",), "block")) == BLOCK
    assert decide(policy, 0.0001, 10.0, Hits(("r",), "review")) == REVIEW
    assert decide(policy, 0.99, 2000.0, Hits(("r",), "review")) == BLOCK
    assert decide(policy, 0.0001, 10.0, Hits(("s (suspended)",), "")) == APPROVE


def test_an_account_without_habits_is_reviewed_earlier_and_never_blocked_by_its_score() -> None:
    """Where the model cannot know habits, an analyst looks, at half the usual score."""
    policy = Policy()
    review, _ = by_cost(np.array([100.0]), policy.costs)
    assert decide(policy, float(review[0]) * 0.7, 100.0) == APPROVE
    assert decide(policy, float(review[0]) * 0.7, 100.0, known=2) == REVIEW
    assert decide(policy, 0.999, 2000.0, known=2) == REVIEW
    assert decide(policy, 0.999, 2000.0, Hits(("b",), "block"), known=2) == BLOCK


def test_a_budget_is_kept() -> None:
    """Of a day of scores about fifty are at or above the threshold, the highest ones."""
    rng = np.random.default_rng(1)
    budget = Budget(50)
    times = np.sort(rng.integers(10 * DAY, 11 * DAY, 20_000))
    scores = rng.beta(0.3, 8, 20_000)
    for part in np.array_split(np.arange(20_000), 100):
        budget.note(scores[part], times[part])
    reviewed = int((scores >= budget.threshold()).sum())
    assert 40 <= reviewed <= 50


def test_a_worker_has_its_share_of_the_budget() -> None:
    """One of two workers, with half the partitions, reviews half as many."""
    rng = np.random.default_rng(2)
    budget = Budget(100)
    budget.share = 0.5
    budget.note(rng.beta(0.3, 8, 20_000), np.sort(rng.integers(10 * DAY, 11 * DAY, 20_000)))
    whole = Budget(50)
    rng = np.random.default_rng(2)
    whole.note(rng.beta(0.3, 8, 20_000), np.sort(rng.integers(10 * DAY, 11 * DAY, 20_000)))
    assert budget.threshold() == whole.threshold()


def test_a_budget_forgets_what_is_a_day_old() -> None:
    """Yesterday's high scores do not keep today's threshold up."""
    budget = Budget(24)
    budget.note(np.full(5000, 0.9), np.full(5000, 10 * DAY))
    rng = np.random.default_rng(3)
    today = 11 * DAY + np.sort(rng.integers(2 * HOUR, DAY, 5000))
    budget.note(rng.uniform(0, 0.2, 5000), today)
    assert budget.threshold() < 0.21


def test_before_an_hour_is_known_the_threshold_is_a_plain_one() -> None:
    """A worker that has just started reviews from one half on."""
    budget = Budget(50)
    budget.note(np.array([0.9, 0.99]), np.array([DAY, DAY + 1000]))
    assert budget.threshold() == Budget.BLIND


def test_costs_of_the_settings() -> None:
    """Parts of the cost matrix are set by name; a wrong one is named."""
    assert parse_costs("review=5, decline=30") == Costs(review=5, decline=30)
    assert parse_costs("") == Costs()
    with pytest.raises(ValueError, match="'cost=3' is not NAME=NUMBER"):
        parse_costs("cost=3")
    with pytest.raises(ValueError, match="'review=-1'"):
        parse_costs("review=-1")
