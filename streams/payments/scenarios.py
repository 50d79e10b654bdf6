"""The thieves of the simulator: five kinds of fraud, as campaigns that begin on a day and may last for days. Pure.

compromised  two in five payments at one terminal are manipulated, for 2 to 8 days; a quarter of all fraud
stolen       a thief uses a card for up to two days: new places, 2.5 to 7 times the usual amounts; a quarter
testing      a bot tries 15 to 45 cards at one online terminal within minutes, cents to three dollars, and empties one
             card in four within two hours; a fifth
takeover     within ten to forty minutes several accounts pay from one country that is not theirs, at their night;
             a fifth
large        one payment of 8 to 25 times the account's usual amount, at any terminal in reach; a tenth
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from streams.payments.population import COUNTRIES, Accounts, Floats, Ints, Scale, Terminals, pick

DAY = 86_400_000  # ms
MINUTE = 60_000
HOUR = 60 * MINUTE
LONGEST = 9  # days after its first that a campaign may still go on

SCENARIOS = ("", "compromised", "stolen", "testing", "takeover", "large")  # by number; 0 is no fraud
SHARES = {"compromised": 0.25, "stolen": 0.25, "testing": 0.20, "takeover": 0.20, "large": 0.10}
PAYMENTS = {"stolen": 9.0, "testing": 45.0, "takeover": 30.0, "large": 1.0}  # that one campaign makes, about
MANIPULATED = 0.4  # of the payments at a compromised terminal
COMPROMISED_DAYS = (2.0, 8.0)


class Extra(NamedTuple):
    """Payments that thieves make: time in ms, account, terminal, amount in US dollars, scenario by number."""

    at: Ints
    account: Ints
    terminal: Ints
    amount: Floats
    scenario: Ints


class Compromised(NamedTuple):
    """A terminal whose payments are manipulated from one time to another, in ms."""

    terminal: int
    since: int
    until: int


class World(NamedTuple):
    """What the thieves find."""

    seed: int
    scale: Scale
    terminals: Terminals
    accounts: Accounts


def compromised(world: World, day: int) -> list[Compromised]:
    """The terminals that were compromised on this day (days since 1970)."""
    rng = np.random.default_rng([world.seed, 3, day])
    mean_days = sum(COMPROMISED_DAYS) / 2
    each = world.scale.accounts * world.scale.per_day / len(world.terminals.country) * mean_days * MANIPULATED
    found = []
    for _ in range(rng.poisson(_frauds(world, "compromised") / each)):
        terminal = int(rng.integers(len(world.terminals.country)))
        since = day * DAY + int(rng.integers(DAY))
        found.append(Compromised(terminal, since, since + int(rng.uniform(*COMPROMISED_DAYS) * DAY)))
    return found


def extras(world: World, day: int) -> Extra:
    """All payments, in time unsorted, of the campaigns that begin on this day; some fall on later days."""
    parts = []
    for number, name in enumerate(SCENARIOS):
        if name in _MAKERS:
            rng = np.random.default_rng([world.seed, 4, day, number])
            for _ in range(rng.poisson(_frauds(world, name) / PAYMENTS[name])):
                at, account, terminal, amount = _MAKERS[name](rng, world, day)
                parts.append(Extra(at, account, terminal, amount, np.full(len(at), number, np.int64)))
    if not parts:
        empty = np.empty(0, np.int64)
        return Extra(empty, empty, empty, np.empty(0), empty)
    return Extra(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


_Made = tuple[Ints, Ints, Ints, Floats]


def _stolen(rng: np.random.Generator, world: World, day: int) -> _Made:
    victim = int(rng.integers(world.scale.accounts))
    count = 1 + rng.poisson(PAYMENTS["stolen"] - 1)
    first, lasts = day * DAY + int(rng.integers(DAY)), rng.uniform(0.05, 2.0) * DAY
    at = first + (rng.random(count) * lasts).astype(np.int64)
    home = world.accounts.home[victim]
    near = np.flatnonzero((world.terminals.country == home) | (world.terminals.channel == 1))
    terminal = rng.choice(near, count)
    return (
        at,
        np.full(count, victim),
        terminal,
        _usual(rng, world, np.full(count, victim)) * rng.uniform(2.5, 7.0),
    )


def _testing(rng: np.random.Generator, world: World, day: int) -> _Made:
    cards = int(rng.integers(15, 46))
    account = rng.choice(world.scale.accounts, min(cards, world.scale.accounts), replace=False)
    online = np.flatnonzero(world.terminals.channel == 1)
    place = int(rng.choice(online))
    start = day * DAY + int(rng.integers(DAY))
    at = start + np.sort((rng.random(len(account)) * rng.uniform(3, 12) * MINUTE).astype(np.int64))
    emptied = np.repeat(account[rng.random(len(account)) < 0.25], 2)
    later = int(at[-1]) + (rng.uniform(0.05, 2.0, len(emptied)) * HOUR).astype(np.int64)
    return (
        np.concatenate([at, later]),
        np.concatenate([account, emptied]),
        np.concatenate([np.full(len(account), place), pick(rng, world.terminals, online, len(emptied))]),
        np.concatenate(
            [rng.uniform(0.3, 3.0, len(account)), _usual(rng, world, emptied) * rng.uniform(3, 9)]
        ),
    )


def _takeover(rng: np.random.Generator, world: World, day: int) -> _Made:
    country = int(rng.integers(len(COUNTRIES)))
    foreign = np.flatnonzero(world.accounts.home != country)
    victims = rng.choice(foreign, min(len(foreign), int(rng.integers(4, 13))), replace=False)
    offsets = np.array([each.offset for each in COUNTRIES])[world.accounts.home[victims]]
    night = float(rng.uniform(0.5, 4.5)) - float(np.median(offsets))  # UTC hour: night for most of them
    start = day * DAY + int((night % 24) * HOUR)
    account = np.repeat(victims, rng.integers(2, 7, len(victims)))
    at = start + (rng.random(len(account)) * rng.uniform(0.15, 0.7) * HOUR).astype(np.int64)
    there = np.flatnonzero(world.terminals.country == country)
    amount = _usual(rng, world, account) * rng.uniform(1.5, 5.0, len(account))
    return at, account, pick(rng, world.terminals, there, len(account)), amount


def _large(rng: np.random.Generator, world: World, day: int) -> _Made:
    victim = rng.integers(world.scale.accounts, size=1)
    hour = rng.choice([world.accounts.early[victim[0]], world.accounts.late[victim[0]]])
    local = hour - COUNTRIES[world.accounts.home[victim[0]]].offset
    at = np.array([day * DAY + int((local % 24) * HOUR) + int(rng.integers(HOUR))])
    at = np.minimum(at, (day + 1) * DAY - 1)
    near = np.flatnonzero(
        (world.terminals.country == world.accounts.home[victim[0]]) | (world.terminals.channel == 1)
    )
    return at, victim, rng.choice(near, 1), np.exp(world.accounts.mean[victim]) * rng.uniform(8, 25)


_MAKERS: dict[str, Callable[[np.random.Generator, World, int], _Made]] = {
    "stolen": _stolen,
    "testing": _testing,
    "takeover": _takeover,
    "large": _large,
}


def _usual(rng: np.random.Generator, world: World, account: Ints) -> Floats:
    """An amount as each of these accounts usually pays."""
    habits = world.accounts
    usual: Floats = np.exp(habits.mean[account] + habits.spread[account] * rng.normal(size=len(account)))
    return usual


def _frauds(world: World, name: str) -> float:
    """Fraudulent payments of this scenario that a day is to have."""
    return world.scale.accounts * world.scale.per_day * world.scale.fraud * SHARES[name]
