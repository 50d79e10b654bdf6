"""The features of a payment: one row of numbers from its account's and its terminal's history, before it is added.

FEATURES names them in order. The truth is: at the payment's own time, from what had arrived before it. Money is in
units of the reference currency, spans of time in seconds, parts of the day in UTC. What does not exist is 0 (counts,
sums, means, ratios) or the longest window (times since). The set follows the Fraud Detection Handbook (Le Borgne et
al. 2022, chapter 3: counts, means, risk behind a delay), the habits what helped beyond it (models/LOG.md).
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from streams.payments.history import (
    DAY,
    HOUR,
    LONGEST,
    RETAIN,
    SLACK,
    UNUSUAL,
    AccountHistory,
    History,
    exceeds,
    usual_after,
    usual_before,
)

DELAY = 7 * DAY  # windows of risk end this long ago: younger payments are not judged yet
WINDOWS = ("1h", "1d", "7d", "30d")

FEATURES: tuple[str, ...] = (
    "amount",
    "hour",
    "night",
    "weekend",
    # The account over exact sliding windows
    *(f"account_{what}_{window}" for window in WINDOWS for what in ("count", "sum", "mean", "max")),
    "account_since_last",
    # The terminal over the same
    *(f"terminal_{what}_{window}" for window in WINDOWS for what in ("count", "sum", "mean", "max")),
    "terminal_since_last",
    # The amount against habits
    "account_age",  # since the oldest payment within 90 days
    "account_count_90d",
    "account_mean_90d",
    "amount_to_mean_90d",
    "account_mean_before",  # over the 30 days that ended 14 days ago
    "amount_to_mean_before",
    "amount_to_usual",
    "amount_to_terminal_mean",
    *(
        f"account_unusual_{what}_{window}"
        for window in ("1d", "3d", "7d", "14d")
        for what in ("count", "share")
    ),
    *(f"terminal_unusual_share_{window}" for window in ("3d", "7d", "28d")),
    # Known frauds, behind the delay
    *(f"terminal_{what}_{window}" for window in ("3d", "14d", "28d", "60d") for what in ("frauds", "risk")),
    *(f"account_frauds_{window}" for window in ("7d", "30d", "60d")),
    # How the judged payments of the terminal end: frauds without an honest payment among them
    "terminal_since_honest",
    "terminal_run_count",
    "terminal_since_run",
    "terminal_since_usual_run",  # counted from the first of them that was usual for the account that paid
    "account_since_unusual",  # within 14 days
    # New for this account
    "terminal_since_seen",
    "new_terminal",
    "new_country",
    "new_hour",
)
STEPS = 32  # payments of an account that a sequence model sees, the present one last
STEP: tuple[str, ...] = (
    "log_amount",
    "log_since_previous",
    "hour_sine",
    "hour_cosine",
    "log_amount_to_usual",
    "unusual",
    "new_terminal",
    "new_country",
)
_step = struct.Struct(f"<{len(STEP)}f").pack
NO_STEP = bytes(4 * len(STEP))
LATE = SLACK - 14 * DAY  # up to here a late payment sees all that was unusual within 14 days
_CLOCK = [(math.sin(math.tau * i / 1440), math.cos(math.tau * i / 1440)) for i in range(1440)]  # by minute
# Spans that rows are made of, worked out once: 25 of them a row
_3D, _7D, _10D, _14D, _21D, _28D, _30D, _35D, _37D, _44D, _67D, _90D = (
    days * DAY for days in (3, 7, 10, 14, 21, 28, 30, 35, 37, 44, 67, 90)
)
_FOREVER = LONGEST / 1000.0
_COUNTRY, _PART = 1 << 32, 1 << 48  # so that terminals, countries and parts of the day share one table


class Payment(NamedTuple):
    """What the features need of a transaction: whole numbers only."""

    time: int  # ms since 1970
    cents: int  # of the reference currency
    terminal: int  # 32 bits that stand for the terminal
    country: int  # 16 bits, 0 where unknown


class Row(NamedTuple):
    """What a payment looked like when it arrived."""

    values: tuple[float, ...]  # in the order of FEATURES
    step: bytes  # len(STEP) float32, little endian: its step in the account's sequence
    unusual: int  # 1: far above the account's mean, as account histories count it


def row(account: AccountHistory, terminal: History, payment: Payment) -> Row:
    """The features of a payment that neither history holds yet."""
    time, cents = payment.time, payment.cents
    minute = time // 60_000
    hour = minute // 60 % 24
    amount = cents / 100.0

    # The account: the index of the first payment in each window, and of the first one after it
    times, sums, flags = account.times, account.sums, account.flags
    edge_90d, edge_44d, edge_30d, edge_14d = time - _90D, time - _44D, time - _30D, time - _14D
    edge_7d, edge_3d, edge_1d, edge_1h = time - _7D, time - _3D, time - DAY, time - HOUR
    floor = account.newest - RETAIN
    end = len(times)
    if time < account.newest:
        end = bisect_right(times, time)
        if time < account.newest - SLACK:
            edge_90d, edge_44d, edge_30d, edge_14d, edge_7d, edge_3d, edge_1d, edge_1h = (
                max(edge, floor)
                for edge in (edge_90d, edge_44d, edge_30d, edge_14d, edge_7d, edge_3d, edge_1d, edge_1h)
            )
    a90 = bisect_right(times, edge_90d, 0, end)
    a44 = bisect_right(times, edge_44d, a90, end)
    a30 = bisect_right(times, edge_30d, a44, end)
    a14 = bisect_right(times, edge_14d, a30, end)
    a7 = bisect_right(times, edge_7d, a14, end)
    a3 = bisect_right(times, edge_3d, a7, end)
    a1 = bisect_right(times, edge_1d, a3, end)
    ah = bisect_right(times, edge_1h, a1, end)
    total, flagged = sums[end], flags[end]
    n90, n44, n30, n14, n7, n3, n1, nh = (
        end - a90,
        a14 - a44,
        end - a30,
        end - a14,
        end - a7,
        end - a3,
        end - a1,
        end - ah,
    )
    s30, s7, s1, sh = (
        (total - sums[a30]) / 100.0,
        (total - sums[a7]) / 100.0,
        (total - sums[a1]) / 100.0,
        (total - sums[ah]) / 100.0,
    )
    m30 = account.peak(a30, end, edge_30d) / 100.0
    # The largest of the same payments is the same
    m7 = m30 if n7 == n30 else account.peak(a7, end, edge_7d) / 100.0 if n7 else 0.0
    m1 = m7 if n1 == n7 else account.peak(a1, end, edge_1d) / 100.0 if n1 else 0.0
    mh = m1 if nh == n1 else account.peak(ah, end, edge_1h) / 100.0 if nh else 0.0
    mean_90d = (total - sums[a90]) / 100.0 / n90 if n90 else 0.0
    mean_before = (sums[a14] - sums[a44]) / 100.0 / n44 if n44 else 0.0
    u1, u3, u7, u14 = flagged - flags[a1], flagged - flags[a3], flagged - flags[a7], flagged - flags[a14]
    if time < account.newest - LATE:  # what made them unusual may be gone: see `add`
        recent = bisect_right(times, account.newest - SLACK, 0, end)
        u1, u3, u7, u14 = (flagged - flags[max(low, recent)] for low in (a1, a3, a7, a14))
    spent, count = usual_before(account.usual, account.count, account.last, time)
    usual = spent / 100.0
    unusual = 1 if n90 and amount > UNUSUAL * (mean_before if n44 else mean_90d) else 0
    since = min(time - times[end - 1], LONGEST) / 1000.0 if n90 else _FOREVER

    # New for the account: neither within 90 days before, nor after (a late payment)
    oldest = max(edge_90d, floor)
    seen = account.seen.get
    last = seen(payment.terminal, oldest)
    new_terminal = 1.0 if last <= oldest else 0.0
    since_seen = _FOREVER if new_terminal else max(0, time - last) / 1000.0
    new_country = 1.0 if payment.country and seen(_COUNTRY + payment.country, 0) <= oldest else 0.0
    new_hour = 1.0 if seen(_PART + hour // 3, 0) <= oldest else 0.0

    # The terminal
    ttimes, tsums, tflags = terminal.times, terminal.sums, terminal.flags
    edge_67d, edge_35d, edge_21d, edge_10d = time - _67D, time - _35D, time - _21D, time - _10D
    edge_30d, edge_28d, edge_7d, edge_3d = time - _30D, time - _28D, time - _7D, time - _3D
    edge_1d, edge_1h = time - DAY, time - HOUR
    tend = len(ttimes)
    if time < terminal.newest:
        tend = bisect_right(ttimes, time)
        if time < terminal.newest - SLACK:
            floor = terminal.newest - RETAIN
            edge_67d, edge_35d, edge_30d, edge_28d, edge_21d, edge_10d, edge_7d, edge_3d, edge_1d, edge_1h = (
                max(edge, floor)
                for edge in (
                    edge_67d,
                    edge_35d,
                    edge_30d,
                    edge_28d,
                    edge_21d,
                    edge_10d,
                    edge_7d,
                    edge_3d,
                    edge_1d,
                    edge_1h,
                )
            )
    t67 = bisect_right(ttimes, edge_67d, 0, tend)
    t35 = bisect_right(ttimes, edge_35d, t67, tend)
    t30 = bisect_right(ttimes, edge_30d, t35, tend)
    t28 = bisect_right(ttimes, edge_28d, t30, tend)
    t7 = bisect_right(ttimes, edge_7d, t28, tend)
    t3 = bisect_right(ttimes, edge_3d, t7, tend)
    t1 = bisect_right(ttimes, edge_1d, t3, tend)
    th = bisect_right(ttimes, edge_1h, t1, tend)
    ttotal, tflagged = tsums[tend], tflags[tend]
    tn30, tn7, tn1, tnh = tend - t30, tend - t7, tend - t1, tend - th
    ts30, ts7, ts1, tsh = (
        (ttotal - tsums[t30]) / 100.0,
        (ttotal - tsums[t7]) / 100.0,
        (ttotal - tsums[t1]) / 100.0,
        (ttotal - tsums[th]) / 100.0,
    )
    tm30 = terminal.peak(t30, tend, edge_30d) / 100.0
    tm7 = tm30 if tn7 == tn30 else terminal.peak(t7, tend, edge_7d) / 100.0 if tn7 else 0.0
    tm1 = tm7 if tn1 == tn7 else terminal.peak(t1, tend, edge_1d) / 100.0 if tn1 else 0.0
    tmh = tm1 if tnh == tn1 else terminal.peak(th, tend, edge_1h) / 100.0 if tnh else 0.0
    tmean_30d = ts30 / tn30 if tn30 else 0.0
    tsince = (
        min(time - ttimes[tend - 1], LONGEST) if tend > bisect_right(ttimes, time - _90D, 0, t67) else LONGEST
    )
    if tsince < LONGEST and ttimes[tend - 1] <= terminal.newest - RETAIN:
        tsince = LONGEST
    f3 = f14 = f28 = f60 = 0
    r3 = r14 = r28 = r60 = 0.0
    if terminal.fraud_times:
        judged = time - DELAY
        f3 = terminal.frauds(edge_10d, judged, time)
        f14 = terminal.frauds(edge_21d, judged, time)
        f28 = terminal.frauds(edge_35d, judged, time)
        f60 = terminal.frauds(edge_67d, judged, time)
        if f60:
            # A labelled payment that has expired, or never came, may leave more frauds than payments.
            r3 = f3 / max(f3, t7 - bisect_right(ttimes, edge_10d, t28, t7), 1)
            r14 = f14 / max(f14, t7 - bisect_right(ttimes, edge_21d, t28, t7), 1)
            r28 = f28 / max(f28, t7 - t35, 1)
            r60 = f60 / max(f60, t7 - t67, 1)
    honest, first, first_usual, run = terminal.run(time - DELAY, time)
    g7 = g30 = g60 = 0
    if account.fraud_times:
        judged = time - DELAY
        g7 = account.frauds(time - _14D, judged, time)
        g30 = account.frauds(time - _37D, judged, time)
        g60 = account.frauds(time - _67D, judged, time)

    values = (
        amount,
        float(hour),
        1.0 if hour < 6 else 0.0,
        1.0 if (time // DAY + 3) % 7 >= 5 else 0.0,  # 1970 began on a Thursday
        nh, sh, sh / nh if nh else 0.0, mh,
        n1, s1, s1 / n1 if n1 else 0.0, m1,
        n7, s7, s7 / n7 if n7 else 0.0, m7,
        n30, s30, s30 / n30 if n30 else 0.0, m30,
        since,
        tnh, tsh, tsh / tnh if tnh else 0.0, tmh,
        tn1, ts1, ts1 / tn1 if tn1 else 0.0, tm1,
        tn7, ts7, ts7 / tn7 if tn7 else 0.0, tm7,
        tn30, ts30, tmean_30d, tm30,
        tsince / 1000.0,
        (time - times[a90]) / 1000.0 if n90 else 0.0,
        n90,
        mean_90d,
        amount / mean_90d if mean_90d > 0 else 0.0,
        mean_before,
        amount / mean_before if mean_before > 0 else 0.0,
        amount / usual if usual > 0 else 0.0,
        amount / tmean_30d if tmean_30d > 0 else 0.0,
        u1, u1 / n1 if n1 else 0.0,
        u3, u3 / n3 if n3 else 0.0,
        u7, u7 / n7 if n7 else 0.0,
        u14, u14 / n14 if n14 else 0.0,
        (tflagged - tflags[t3]) / (tend - t3) if tend > t3 else 0.0,
        (tflagged - tflags[t7]) / tn7 if tn7 else 0.0,
        (tflagged - tflags[t28]) / (tend - t28) if tend > t28 else 0.0,
        f3, r3, f14, r14, f28, r28, f60, r60,
        g7, g30, g60,
        (time - honest) / 1000.0 if time - honest < LONGEST else _FOREVER,
        run,
        (time - first) / 1000.0 if time - first < LONGEST else _FOREVER,
        (time - first_usual) / 1000.0 if time - first_usual < LONGEST else _FOREVER,
        (time - times[bisect_left(flags, flagged, a14, end + 1) - 1]) / 1000.0 if u14 else _FOREVER,
        since_seen,
        new_terminal,
        new_country,
        new_hour,
    )  # fmt: skip
    sine, cosine = _CLOCK[minute % 1440]
    step = _step(
        math.log1p(abs(amount)),
        math.log1p(min(abs(time - account.last), LONGEST) / 1000.0),
        sine,
        cosine,
        math.log((abs(amount) + 1.0) / (usual + 1.0)) if count else 0.0,
        unusual,
        new_terminal,
        new_country,
    )
    return Row(values, step, unusual)


def add(account: AccountHistory, payment: Payment, unusual: int, step: bytes) -> int:
    """Take a payment and its step into its account; returns whether its terminal counts it as unusual (0 or 1).

    A terminal's payments are unusual by what is usual for the account that pays, which the store knows at once.
    `unusual` and `step` are only ever used for SLACK after the payment: an older one's may be left out.
    """
    time, cents = payment.time, payment.cents
    usual, count = usual_before(account.usual, account.count, account.last, time)
    if time > account.newest - SLACK:
        account.steps.append(step)
        account.step_times.append(time)
        if len(account.steps) >= 2 * STEPS:
            del account.steps[: -STEPS + 1], account.step_times[: -STEPS + 1]
    account.add(time, cents, unusual)
    account.usual, account.count = usual_after(usual, count, cents)
    account.last = time
    seen = account.seen
    for key in (payment.terminal, _COUNTRY + payment.country, _PART + time // HOUR % 24 // 3):
        if seen.get(key, 0) < time:
            seen[key] = time
    return exceeds(usual, count, cents)


def sequence(account: AccountHistory, step: bytes, time: int) -> bytes:
    """The last steps of an account within SLACK, this one last: float32 [STEPS, len(STEP)], zeros where none are."""
    steps, times = account.steps[1 - STEPS :], account.step_times[1 - STEPS :]
    floor = max(account.newest, time) - SLACK
    if times and min(times) <= floor:
        steps = [before for before, at in zip(steps, times, strict=True) if at > floor]
    return NO_STEP * (STEPS - 1 - len(steps)) + b"".join(steps) + step
