"""The people of the simulator: accounts with habits, terminals with places. Pure; a seed decides everything.

Method (ours; the idea of habits and terminals as in Le Borgne et al., Reproducible Machine Learning for Credit Card
Fraud Detection, chapter 3): an account has a home country, a log-normal spread of amounts, a rate of payments a day,
two times of day at which it likes to pay, a handful of usual terminals with weights; a terminal has a country, a
channel, a popularity and a level of prices. Payments a day are log-normal over the accounts: a few pay often, most
seldom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

USUAL = 8  # terminals that an account likes
CHANNELS = ("pos", "online", "atm")
CHANNEL_SHARES = (0.62, 0.32, 0.06)


class Country(NamedTuple):
    """A country: its share of the accounts, and what its payments look like."""

    code: str
    currency: str
    offset: float  # hours ahead of UTC, no summer time
    share: float


COUNTRIES = (
    Country("US", "USD", -6.0, 0.28),
    Country("GB", "GBP", 0.0, 0.14),
    Country("DE", "EUR", 1.0, 0.14),
    Country("FR", "EUR", 1.0, 0.10),
    Country("ES", "EUR", 1.0, 0.06),
    Country("IN", "INR", 5.5, 0.08),
    Country("BR", "BRL", -3.0, 0.06),
    Country("SG", "SGD", 8.0, 0.05),
    Country("AU", "AUD", 10.0, 0.04),
    Country("PL", "PLN", 1.0, 0.03),
    Country("TR", "TRY", 3.0, 0.01),
    Country("ZA", "ZAR", 2.0, 0.01),
)


@dataclass(frozen=True)
class Scale:
    """How large the world is, and how dangerous."""

    accounts: int = 2000  # cards in use at any time; some close and others open every day
    terminals: int = 400
    per_day: float = 12.0  # payments of an account and day, the mean over the accounts
    fraud: float = 0.01  # about this share of the payments
    tenure: float = 240.0  # days that a card is used on average before a new one takes its place


class Terminals(NamedTuple):
    """Terminals by number; `popularity` adds up to 1 over the terminals of a country, `online` ones over all."""

    country: Ints  # into COUNTRIES
    channel: Ints  # into CHANNELS
    price: Floats  # factor on the amounts paid there
    popularity: Floats


class Accounts(NamedTuple):
    """The habits of the accounts by number; amounts in US dollars."""

    home: Ints  # into COUNTRIES
    rate: Floats  # payments a day
    mean: Floats  # of the logarithm of an amount
    spread: Floats
    early: Floats  # two local hours at which the account likes to pay
    late: Floats
    usual: Ints  # (accounts, USUAL) terminals
    weight: Floats  # (accounts, USUAL) cumulative, the last 1
    tenure: Floats  # days that a card of this account is used
    phase: Floats  # days


def terminals(scale: Scale, seed: int) -> Terminals:
    """The terminals of a world: at least one of each channel for every country."""
    rng = np.random.default_rng([seed, 1])
    count = max(scale.terminals, len(COUNTRIES) * len(CHANNELS))
    shares = np.array([country.share for country in COUNTRIES])
    country = rng.choice(len(COUNTRIES), count, p=shares / shares.sum())
    channel = rng.choice(len(CHANNELS), count, p=CHANNEL_SHARES)
    for place in range(len(COUNTRIES) * len(CHANNELS)):
        country[place], channel[place] = divmod(place, len(CHANNELS))
    popularity = rng.pareto(1.6, count) + 0.3
    return Terminals(country, channel, np.exp(rng.normal(0.0, 0.45, count)), popularity / popularity.sum())


def accounts(scale: Scale, known: Terminals, seed: int) -> Accounts:
    """The accounts of a world; usual terminals are at home, or online anywhere."""
    rng = np.random.default_rng([seed, 2])
    count = scale.accounts
    shares = np.array([country.share for country in COUNTRIES])
    home = rng.choice(len(COUNTRIES), count, p=shares / shares.sum())
    spread = 0.8  # of the logarithm of the rate
    rate = scale.per_day * np.exp(rng.normal(-(spread**2) / 2, spread, count))
    usual = np.empty((count, USUAL), np.int64)
    for index in range(len(COUNTRIES)):
        mine = np.flatnonzero(home == index)
        near = np.flatnonzero((known.country == index) & (known.channel != 1))
        online = np.flatnonzero(known.channel == 1)
        usual[mine, : USUAL - 2] = _popular(rng, known, near, (len(mine), USUAL - 2))
        usual[mine, USUAL - 2 :] = _popular(rng, known, online, (len(mine), 2))
    weight = np.cumsum(rng.dirichlet(np.full(USUAL, 0.9), count), axis=1)
    weight[:, -1] = 1.0
    return Accounts(
        home=home,
        rate=np.clip(rate, 0.05, 20 * scale.per_day),
        mean=rng.normal(3.2, 0.6, count),
        spread=rng.uniform(0.3, 0.8, count),
        early=rng.uniform(8.0, 14.0, count),
        late=rng.uniform(15.0, 22.5, count),
        usual=usual,
        weight=weight,
        tenure=scale.tenure * rng.uniform(0.4, 1.6, count),
        phase=rng.uniform(0.0, 2 * scale.tenure, count),
    )


def pick(rng: np.random.Generator, known: Terminals, among: Ints, count: int) -> Ints:
    """So many of these terminals, by popularity."""
    return _popular(rng, known, among, (count,))


def _popular(rng: np.random.Generator, known: Terminals, among: Ints, shape: tuple[int, ...]) -> Ints:
    share = np.cumsum(known.popularity[among])
    places = np.searchsorted(share, rng.random(shape) * share[-1], side="right")
    found: Ints = among[np.minimum(places, len(among) - 1)]
    return found
