"""Approve, review or block: by the expected cost of each, or by how many reviews a day there are hands for. Pure.

By cost (Elkan, The Foundations of Cost-Sensitive Learning, IJCAI 2001: take the action of least expected cost under a
calibrated probability p). Of a payment of amount a, in the reference currency:

    approve   p * a * loss                                 a fraud that goes through costs its amount
    block     (1 - p) * (decline + a * margin)             an honest customer who is refused costs trust and a sale
    review    review + p * a * loss * miss                 an analyst costs money and misses some

By budget (`TAPEWATCH_REVIEWS_A_DAY`): the payments with the highest scores go to review, so many a day; the threshold
is the score that so many payments of the last day exceeded, by their own times. What is cheaper to block is blocked.

Rules beside it: `allow` approves, `block` blocks, `review` asks for a review at least. A payment of an account with
fewer than `known` payments has no habits that a model could know: it is reviewed from a lower score on (`cold` times
the usual one), and never blocked by its score alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.payments.rules import Hits

Decision = Literal["approve", "review", "block"]
DECISIONS: tuple[Decision, ...] = ("approve", "review", "block")
APPROVE, REVIEW, BLOCK = range(3)
HOUR = 3_600_000  # ms
HOURS = 24
DAY = HOURS * HOUR


class Costs(NamedTuple):
    """The cost matrix, in the reference currency; TAPEWATCH_COSTS sets its parts by name."""

    review: float = 8.0  # an analyst's few minutes
    miss: float = 0.1  # the share of frauds that a review lets through
    decline: float = 25.0  # an honest customer refused, whatever the amount
    margin: float = 0.02  # the share of an honest payment's amount that is earned by it
    loss: float = 1.0  # the share of a fraud's amount that is lost
    known: float = 5.0  # payments within 90 days from which on an account has habits
    cold: float = 0.5  # times the usual score from which on a payment without habits is reviewed


def parse_costs(text: str) -> Costs:
    """`review=8,decline=25` over the table above. Raises ValueError that names the wrong part."""
    found, names = Costs(), ", ".join(Costs._fields)
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = part.partition("=")
        try:
            cost = float(value)
        except ValueError:
            cost = -1.0
        if name.strip() not in Costs._fields or not 0 <= cost < 1e12:
            raise ValueError(f"{part!r} is not NAME=NUMBER, a number of at least 0, NAME one of {names}")
        found = found._replace(**{name.strip(): cost})
    return found


class Decided(NamedTuple):
    """What becomes of the payments of a batch, [n] each."""

    decisions: NDArray[np.int64]  # into DECISIONS: by the thresholds, then by the rules that hit
    review: NDArray[np.float64]  # from which score on each is reviewed; infinite for never
    block: NDArray[np.float64]  # and blocked


class Policy:
    """Decides for one worker."""

    def __init__(self, costs: Costs | None = None, reviews_a_day: float = 0.0) -> None:
        """By cost, or by budget where `reviews_a_day` is above 0."""
        self.costs = costs or Costs()
        self._budget = Budget(reviews_a_day) if reviews_a_day > 0 else None

    def own(self, share: float) -> None:
        """Say which share of the partitions this worker has: it gets as much of the budget."""
        if self._budget is not None:
            self._budget.share = share

    def decide(
        self,
        scores: NDArray[Any],
        amounts: NDArray[Any],
        hits: Sequence[Hits],
        known: NDArray[Any],
        times: NDArray[Any],
    ) -> Decided:
        """The decision on each payment, and the thresholds it was taken by.

        `scores` are calibrated probabilities of fraud, `amounts` in the reference currency, `known` the payments of
        each account within 90 days, `times` event times in ms. The scores are counted where there is a budget, so
        call it once a payment.
        """
        review, block = self._thresholds(scores, amounts, known, times)
        return Decided(_choose(scores, review, block, hits), review, block)

    def _thresholds(
        self, scores: NDArray[Any], amounts: NDArray[Any], known: NDArray[Any], times: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """From which score on each payment is reviewed, and blocked; infinite for never."""
        review, block = by_cost(amounts, self.costs)
        if self._budget is not None:
            self._budget.note(scores, times)
            review = np.minimum(np.full(len(scores), self._budget.threshold()), block)
        cold = np.asarray(known) < self.costs.known
        early = cold & np.isfinite(review)
        return np.multiply(review, self.costs.cold, out=review, where=early), np.where(cold, np.inf, block)


def _choose(
    scores: NDArray[Any], review: NDArray[Any], block: NDArray[Any], hits: Sequence[Hits]
) -> NDArray[np.int64]:
    """The decision on each payment, into DECISIONS: by its thresholds, then by the rules that hit it."""
    found = np.where(scores >= block, BLOCK, np.where(scores >= review, REVIEW, APPROVE))
    for index, hit in enumerate(hits):
        if hit.action == "allow":
            found[index] = APPROVE
        elif hit.action:
            found[index] = max(found[index], DECISIONS.index(hit.action))
    return found


def by_cost(amounts: NDArray[Any], costs: Costs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores from which on a review, and a refusal, of each amount costs least."""
    amount = np.maximum(np.asarray(amounts, np.float64), 0.0)
    loss, refused = amount * costs.loss, costs.decline + amount * costs.margin
    with np.errstate(all="ignore"):
        review = costs.review / (loss * (1 - costs.miss))
        against_approval = refused / (refused + loss)
        against_review = (refused - costs.review) / (loss * costs.miss + refused)
    review = np.where(np.isfinite(review), review, np.inf)
    against_approval = np.where(loss > 0, against_approval, np.inf)
    never = review >= against_approval  # a review never pays
    block = np.where(never, against_approval, np.maximum(against_review, review))
    return np.where(never, against_approval, review), block


class Budget:
    """The score that so many payments a day exceed, from the scores of the last day, hour by hour of event time.

    Of one worker; it begins anew with the process and says BLIND until it has seen an hour. Scores are counted on a
    logarithmic grid of steps of 2 %, so memory is a hundred kilobytes whatever the traffic.
    """

    BLIND = 0.5

    def __init__(self, a_day: float) -> None:
        self.share = 1.0
        self._a_day = a_day
        self._edges = np.concatenate([[0.0], np.logspace(-5, 0, 580)])
        self._counts = np.zeros((HOURS, len(self._edges)))
        self._hours = np.full(HOURS, -1, np.int64)
        self._first = self._last = 0

    def note(self, scores: NDArray[Any], times: NDArray[Any]) -> None:
        """Take the scores of a batch in; what is more than a day late does not count."""
        if not len(scores):
            return
        times = np.asarray(times, np.int64)
        self._first = self._first or int(times.min())
        self._last = max(self._last, int(times.max()))
        hours = times // HOUR
        places = np.searchsorted(self._edges, scores, side="right") - 1
        for hour in np.unique(hours).tolist():
            slot = hour % HOURS
            if self._hours[slot] < hour:
                self._hours[slot], self._counts[slot] = hour, 0.0
            if self._hours[slot] == hour:
                np.add.at(self._counts[slot], places[hours == hour], 1.0)

    def threshold(self) -> float:
        """The score from which on payments are within the budget."""
        seen = self._last - max(self._first, self._last - DAY)
        if seen < HOUR:
            return self.BLIND
        newest = self._last // HOUR
        counts = self._counts[(self._hours > newest - HOURS) & (self._hours <= newest)].sum(axis=0)
        above = np.cumsum(counts[::-1])[::-1]
        within = np.flatnonzero(above <= self._a_day * self.share * seen / DAY)
        return float(self._edges[within[0]]) if len(within) else float(np.inf)
