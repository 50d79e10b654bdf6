"""The simulator: an endless stream of card payments with their labels, made day by day from one seed. Pure.

The same seed and day give the same payments, whichever days were made before: a live source begins today, a training
set at any past day. Habits are in `population.py`, fraud in `scenarios.py`. What makes the task hard on purpose: people
travel (one account in a hundred a week), buy something large now and then (8 payments in 1,000, 4 to 15 times the
usual), try new terminals (6 in 100), and get new cards that nobody knows yet.

Labels come late, as they do: of the fraud, 85 % is charged back (median 8 days later, at most 60), 30 % is found by an
analyst within 40 minutes, some is never reported; of the honest payments, 1 % is checked by an analyst and cleared.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.payments import population
from streams.payments.money import RATES
from streams.payments.population import CHANNELS, COUNTRIES, Floats, Ints, Scale, pick
from streams.payments.scenarios import (
    DAY,
    HOUR,
    LONGEST,
    MANIPULATED,
    MINUTE,
    SCENARIOS,
    World,
    compromised,
    extras,
)
from streams.records import LabelRecord, Transaction, as_time

NEVER = -1  # the time of a label that nobody sends
FRAUD, HONEST = "fraud", "legit"  # labels on the wire
EXPLORES, LARGE, TRAVELS = 0.06, 0.008, 0.01
CHARGED_BACK, FOUND, CLEARED = 0.85, 0.30, 0.01


class Payments(NamedTuple):
    """Payments in order of time, by column; times in ms since 1970, amounts in the terminal's currency."""

    day: Ints  # since 1970
    number: Ints  # within its day
    at: Ints
    account: NDArray[np.str_]
    terminal: Ints
    amount: Floats
    country: Ints  # into COUNTRIES; it decides the currency
    channel: Ints  # into CHANNELS
    fraud: NDArray[np.bool_]
    scenario: Ints  # into SCENARIOS
    charged_back_at: Ints  # or NEVER
    verdict_at: Ints  # an analyst's, or NEVER


class Simulator:
    """One world."""

    def __init__(self, seed: int = 1, scale: Scale | None = None) -> None:
        scale = scale or Scale()
        known = population.terminals(scale, seed)
        self.seed = seed
        self._world = World(seed, scale, known, population.accounts(scale, known, seed))

    def day(self, day: int) -> Payments:
        """All payments of one day (days since 1970, UTC)."""
        world = self._world
        rng = np.random.default_rng([self.seed, 5, day])
        at, account, terminal, amount = self._honest(rng, day)
        scenario = np.zeros(len(at), np.int64)
        for first in range(day - LONGEST, day + 1):
            for place in compromised(world, first):
                hit = (terminal == place.terminal) & (at >= place.since) & (at < place.until)
                hit &= rng.random(len(at)) < MANIPULATED
                scenario[hit] = SCENARIOS.index("compromised")
                amount[hit] *= rng.uniform(1.0, 2.2, int(hit.sum()))
        for first in range(day - LONGEST, day + 1):
            extra = extras(world, first)
            today = (extra.at >= day * DAY) & (extra.at < (day + 1) * DAY)
            at = np.concatenate([at, extra.at[today]])
            account = np.concatenate([account, extra.account[today]])
            terminal = np.concatenate([terminal, extra.terminal[today]])
            amount = np.concatenate([amount, extra.amount[today]])
            scenario = np.concatenate([scenario, extra.scenario[today]])
        order = np.argsort(at, kind="stable")
        at, account, terminal = at[order], account[order], terminal[order]
        amount, scenario = amount[order], scenario[order]
        country = world.terminals.country[terminal]
        dollars = np.array([RATES[each.currency] for each in COUNTRIES])[country]
        fraud = scenario > 0
        charged_back, verdict = _labels(rng, at, fraud)
        return Payments(
            day=np.full(len(at), day),
            number=np.arange(len(at)),
            at=at,
            account=self._cards(account, at),
            terminal=terminal,
            amount=np.maximum(np.round(amount / dollars, 2), 0.01),
            country=country,
            channel=world.terminals.channel[terminal],
            fraud=fraud,
            scenario=scenario,
            charged_back_at=charged_back,
            verdict_at=verdict,
        )

    def between(self, since: int, until: int) -> Iterator[Payments]:
        """The payments from one time to another (ms, the end excluded), a day at a time."""
        for day in range(since // DAY, (until - 1) // DAY + 1):
            yield part(self.day(day), since, until)

    def _honest(self, rng: np.random.Generator, day: int) -> tuple[Ints, Ints, Ints, Floats]:
        world, habits = self._world, self._world.accounts
        weekend = 1.15 if (day + 3) % 7 >= 5 else 0.94  # 1970-01-01 was a Thursday
        counts = rng.poisson(habits.rate * weekend)
        account = np.repeat(np.arange(world.scale.accounts), counts)
        total = len(account)
        late = rng.random(total) < 0.55
        local = np.where(late, habits.late[account], habits.early[account]) + rng.normal(0, 1.7, total)
        local = np.where(rng.random(total) < 0.04, rng.uniform(0, 24, total), local)
        away = self._away(day)[account]
        offsets = np.array([each.offset for each in COUNTRIES])
        where = np.where(away >= 0, away, habits.home[account])
        hour = (local - offsets[where]) % 24
        at = day * DAY + np.minimum((hour * HOUR).astype(np.int64), DAY - 1)
        liked = (rng.random(total)[:, None] > habits.weight[account]).sum(axis=1)
        terminal = habits.usual[account, np.minimum(liked, habits.usual.shape[1] - 1)]
        new = rng.random(total) < EXPLORES
        online = world.terminals.channel == 1
        for index in range(len(COUNTRIES)):
            there = np.flatnonzero((world.terminals.country == index) | online)
            mine = np.flatnonzero(new & (habits.home[account] == index))
            terminal[mine] = pick(rng, world.terminals, there, len(mine))
            visiting = np.flatnonzero((away == index) & (rng.random(total) < 0.85))
            local_ones = np.flatnonzero((world.terminals.country == index) & ~online)
            terminal[visiting] = pick(rng, world.terminals, local_ones, len(visiting))
        amount = np.exp(habits.mean[account] + habits.spread[account] * rng.normal(size=total))
        amount *= world.terminals.price[terminal]
        big = rng.random(total) < LARGE
        amount[big] *= rng.uniform(4, 15, int(big.sum()))
        return at, account, terminal, amount

    def _away(self, day: int) -> Ints:
        """The country that each account visits this week, -1 where it is at home."""
        rng = np.random.default_rng([self.seed, 6, day // 7])
        count = self._world.scale.accounts
        country = rng.integers(len(COUNTRIES), size=count)
        gone = (rng.random(count) < TRAVELS) & (country != self._world.accounts.home)
        return np.where(gone, country, -1)

    def _cards(self, account: Ints, at: Ints) -> NDArray[np.str_]:
        """The card that each account used then: when its tenure ends a new one takes its place."""
        habits = self._world.accounts
        generation = ((at / DAY + habits.phase[account]) // habits.tenure[account]).astype(np.int64)
        return _names(account * 1000 + generation % 1000)


def part(made: Payments, since: int, until: int) -> Payments:
    """Those of the payments that fall into this time (ms, the end excluded)."""
    first, last = np.searchsorted(made.at, [since, until]).tolist()
    columns: list[Any] = [column[first:last] for column in made]
    return Payments(*columns)


def transactions(made: Payments) -> Iterator[Transaction]:
    """The payments as records of `transactions`."""
    columns = (
        made.day,
        made.number,
        made.at,
        made.account,
        made.terminal,
        made.amount,
        made.country,
        made.channel,
    )
    for day, number, at, account, terminal, amount, country, channel in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        place = COUNTRIES[country]
        yield Transaction(
            id=_id(day, number),
            ts=as_time(at / 1000),
            account=account,
            terminal=_terminal(terminal),
            amount=amount,
            currency=place.currency,
            channel=CHANNELS[channel],
            country=place.code,
        )


def labels(made: Payments) -> list[LabelRecord]:
    """What will be said about these payments, in order of time; each label is known from its own `ts` on."""
    found = []
    for column, by in ((made.charged_back_at, "chargeback"), (made.verdict_at, "analyst")):
        for index in np.flatnonzero(column != NEVER).tolist():
            ref = _id(int(made.day[index]), int(made.number[index]))
            found.append(
                LabelRecord(
                    id=f"{ref}:{by}",
                    ts=as_time(int(column[index]) / 1000),
                    subject="transaction",
                    ref=ref,
                    label=FRAUD if made.fraud[index] else HONEST,
                    by=by,
                    account=str(made.account[index]),
                    terminal=_terminal(int(made.terminal[index])),
                )
            )
    return sorted(found, key=lambda label: (label.ts, label.id))


def rows(made: Payments) -> Iterator[dict[str, Any]]:
    """The payments as rows of a labelled data file: the record's fields, `label` 0 or 1, and the scenario's name."""
    for record, fraud, scenario in zip(
        transactions(made), made.fraud.tolist(), made.scenario.tolist(), strict=True
    ):
        yield {
            "id": record.id,
            "ts": record.ts.isoformat(),
            "account": record.account,
            "terminal": record.terminal,
            "amount": record.amount,
            "currency": record.currency,
            "channel": record.channel,
            "country": record.country,
            "label": int(fraud),
            "scenario": SCENARIOS[scenario],
        }


def _labels(rng: np.random.Generator, at: Ints, fraud: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    total = len(at)
    days = np.clip(np.exp(rng.normal(np.log(8.0), 0.6, total)), 1.0, 60.0)
    back = fraud & (rng.random(total) < CHARGED_BACK)
    checked = rng.random(total) < np.where(fraud, FOUND, CLEARED)
    minutes = rng.uniform(2.0, 40.0, total)
    return (
        np.where(back, at + (days * DAY).astype(np.int64), NEVER),
        np.where(checked, at + (minutes * MINUTE).astype(np.int64), NEVER),
    )


def _names(cards: Ints) -> NDArray[np.str_]:
    unique, place = np.unique(cards, return_inverse=True)
    names = np.array([_card(int(card)) for card in unique], dtype=np.str_)
    found: NDArray[np.str_] = names[place] if len(unique) else np.empty(0, np.str_)
    return found


@lru_cache(maxsize=1 << 16)
def _card(card: int) -> str:
    account, generation = divmod(card, 1000)
    return f"A{generation:03d}{account:05d}"


@lru_cache(maxsize=1 << 14)
def _terminal(number: int) -> str:
    return f"T{number:04d}"


def _id(day: int, number: int) -> str:
    return f"pay-{day}-{number}"
