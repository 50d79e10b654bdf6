"""The read side of the payments: what the review desk shows. Never writes.

Receipts were written by the transactions pipeline (keep.lua), logs by payments.lua; an entry that cannot be read is
left out. Every function raises `store.Unavailable` while the store is away. Times are ms since 1970, amounts in the
reference currency unless they are a record's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from streams.payments.features import FEATURES
from streams.payments.history import DAY, HOUR
from streams.payments.ledger import COLUMNS, FRAUD, NO_FRAUD
from streams.records import Reason, Transaction, milliseconds, short
from streams.state.store import Store, as_text, digest

SHOWN = 200  # cases of the queue that are read
BACK = 30  # days that the receipts of cases are kept
LONGEST_NAME = 64  # characters of a name in a key; a longer one is there by its digest
WINDOWS = {"1 h": HOUR, "1 d": DAY, "7 d": 7 * DAY, "30 d": 30 * DAY}


class Receipt(Struct, frozen=True):
    """What was decided about a payment, and by what."""

    record: Transaction
    score: float
    decision: str
    rules: list[str] = []
    thresholds: tuple[float, float] = (1.0, 1.0)  # for review and block
    reasons: list[Reason] = []
    features: bytes = b""
    model: str = ""
    engine: str = ""
    judged_at: float = 0.0
    stages: dict[str, float] = {}

    @property
    def at(self) -> int:
        """When it was paid."""
        return milliseconds(self.record.ts)

    @property
    def seen(self) -> dict[str, float]:
        """The features as they were seen, by name; empty where they are of another version."""
        values = np.frombuffer(self.features, "<f4") if len(self.features) % 4 == 0 else np.empty(0)
        return dict(zip(FEATURES, values.tolist(), strict=True)) if len(values) == len(FEATURES) else {}


@dataclass(frozen=True)
class Matured:
    """What labels say of the decisions on some days: counts and sums by decision and verdict."""

    counts: dict[tuple[str, str], int]
    sums: dict[tuple[str, str], float]

    def _total(self, verdict: str, decisions: Iterable[str] = ("approve", "review", "block")) -> int:
        return sum(self.counts.get((decision, verdict), 0) for decision in decisions)

    @property
    def judged(self) -> int:
        """Reviews and blocks with a label."""
        return self._total("fraud", FLAGGED) + self._total("legit", FLAGGED)

    @property
    def precision(self) -> float | None:
        """The share of fraud among the reviews and blocks that have a label; None while none has."""
        return self._total("fraud", FLAGGED) / self.judged if self.judged else None

    @property
    def frauds(self) -> int:
        """Payments with the label fraud."""
        return self._total("fraud")

    @property
    def recall(self) -> float | None:
        """The share of the known frauds that were reviewed or blocked; None while none is known."""
        return self._total("fraud", FLAGGED) / self.frauds if self.frauds else None

    @property
    def saved(self) -> float:
        """The amount of the frauds that were reviewed or blocked."""
        return sum(self.sums.get((decision, "fraud"), 0.0) for decision in FLAGGED)

    @property
    def lost(self) -> float:
        """The amount of the frauds that were approved."""
        return self.sums.get(("approve", "fraud"), 0.0)


FLAGGED = ("review", "block")


@dataclass(frozen=True)
class Desk:
    """The review desk: the newest cases that wait, how many wait in all, and what labels say of the last days."""

    waiting: int
    cases: list[Receipt]
    matured: Matured


@dataclass(frozen=True)
class Account:
    """An account's payments as its log has them, oldest first, and the cases among them."""

    name: str
    at: list[int]
    amount: list[float]
    country: list[str]
    place: list[int]  # stands for the terminal
    unusual: list[bool]
    fraud: list[bool]
    cases: dict[str, Receipt]
    windows: dict[str, tuple[int, float, float]]  # span -> count, sum, largest, until now


def desk(store: Store, now: float, limit: int = SHOWN) -> Desk:
    """The queue and the figures of the last seven days."""
    client: Any = store.client
    queue = store.keys.payments("queue")
    pipe = client.pipeline(transaction=False)
    pipe.zcard(queue)
    pipe.zrevrange(queue, 0, limit - 1)
    today = int(now * 1000) // DAY
    for day in range(today - 6, today + 1):
        pipe.hgetall(store.keys.payments(f"matured:{day}"))
    waiting, refs, *days = store.call(pipe.execute)
    return Desk(int(waiting), receipts(store, [as_text(ref) for ref in refs], now), _matured(days))


def receipts(store: Store, refs: Sequence[str], now: float) -> list[Receipt]:
    """The receipts of these cases (digests of payments' ids), in their order; those that are gone are left out."""
    client: Any = store.client
    found: dict[str, bytes] = {}
    today = int(now * 1000) // DAY
    for first, last in ((0, 1), (2, BACK)):
        missing = [ref for ref in refs if ref not in found]
        if not missing:
            break
        pipe = client.pipeline(transaction=False)
        for back in range(first, last + 1):
            pipe.hmget(store.keys.payments(f"cases:{today - back}"), missing)
        for values in store.call(pipe.execute):
            found |= {ref: raw for ref, raw in zip(missing, values, strict=True) if raw and ref not in found}
    made = (_receipt(found.get(ref)) for ref in refs)
    return [receipt for receipt in made if receipt is not None]


def case(store: Store, payment: str, now: float) -> Receipt | None:
    """The receipt of one review or block, by the payment's id."""
    return next(iter(receipts(store, [digest(short(payment))], now)), None)


def account(store: Store, name: str, now: float, known: Iterable[Receipt] = ()) -> Account:
    """The payments of an account; `known` are cases that were read already."""
    client: Any = store.client
    key = store.keys.account(name if len(name) <= LONGEST_NAME else digest(name))
    raw = store.call(lambda: client.get(key)) or b""
    body = raw[8:]
    log = np.frombuffer(body[: len(body) // COLUMNS.itemsize * COLUMNS.itemsize], COLUMNS)
    paid = log[log["kind"] < FRAUD]
    verdicts = {
        label["id"].tobytes(): int(label["kind"]) for label in log[(log["kind"] >= FRAUD)]
    }  # the last one said counts
    paid = paid[np.argsort(paid["time"], kind="stable")]
    amount = paid["cents"] / 100.0
    fraud = [verdicts.get(identity.tobytes(), NO_FRAUD) == FRAUD for identity in paid["id"]]
    at = int(now * 1000)
    return Account(
        name=name,
        at=paid["time"].tolist(),
        amount=amount.tolist(),
        country=[_country(int(code)) for code in paid["country"]],
        place=paid["other"].tolist(),
        unusual=_unusual(paid, amount),
        fraud=fraud,
        cases={receipt.record.id: receipt for receipt in known if receipt.record.account == name},
        windows={span: _window(paid["time"], amount, at - width, at) for span, width in WINDOWS.items()},
    )


def _unusual(paid: NDArray[Any], amount: NDArray[np.float64]) -> list[bool]:
    usual = paid["usual"] / 100.0
    found: list[bool] = ((usual > 0) & (amount > 3 * usual)).tolist()
    return found


def _window(
    times: NDArray[Any], amount: NDArray[np.float64], since: int, until: int
) -> tuple[int, float, float]:
    inside = amount[(times > since) & (times <= until)]
    return len(inside), round(float(inside.sum()), 2), float(inside.max()) if len(inside) else 0.0


def _country(code: int) -> str:
    text = code.to_bytes(2, "big")
    return text.decode() if text.isalpha() and text.isascii() else ""


def _matured(days: Iterable[dict[bytes, bytes]]) -> Matured:
    counts: dict[tuple[str, str], int] = {}
    sums: dict[tuple[str, str], float] = {}
    for found in days:
        for field, value in found.items():
            decision, verdict, *rest = as_text(field).split(":")
            where = (decision, verdict)
            if rest:
                sums[where] = sums.get(where, 0.0) + int(value) / 100.0
            else:
                counts[where] = counts.get(where, 0) + int(value)
    return Matured(counts, sums)


_decoder = msgspec.msgpack.Decoder(Receipt)


def _receipt(raw: bytes | None) -> Receipt | None:
    try:
        return None if raw is None else _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
