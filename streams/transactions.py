"""Transactions: from a payment on Kafka to a decision with its reasons; and labels, which teach what was a fraud.

Read it from top to bottom. `prepare` turns a record into what the store needs; payments.lua puts it at the end of two
logs; `absorb` computes its features from what stood before it there; `judge` scores, applies rules and decides;
`derive` says what is published, `keep` what is remembered. Features and thresholds live in `payments/`.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams import records
from streams.guard import Item, Out, Prepared
from streams.payments.decide import DECISIONS, Policy, parse_costs
from streams.payments.features import FEATURES, STEP, STEPS, Payment
from streams.payments.history import DAY, RETAIN, SHRINK, UNUSUAL
from streams.payments.ledger import EXPIRE_MS, NOTHING, Claim, Judged, Ledger, Past
from streams.payments.money import cents, parse_rates
from streams.payments.rules import Hits, PaymentRules
from streams.payments.scoring import Scorer, open_scorer
from streams.records import LabelRecord, Malformed, Reason, Signal, Transaction, TransactionScored, short
from streams.settings import Settings, SettingsError
from streams.state.store import Store, digest, packed

LABEL_WAITS = DAY  # ms that a label waits for its payment
VERDICTS = {
    **dict.fromkeys(("fraud", "1", "true", "chargeback"), "fraud"),
    **dict.fromkeys(("legit", "0", "false", "genuine", "ok"), "legit"),
}
KNOWN = FEATURES.index("account_count_90d")
CHUNKS = 8  # hashes that the receipts are kept in; the oldest goes as a whole
QUEUE = 5_000  # reviews and blocks that wait for a verdict
CASES_MS = 30 * DAY
OVERDUE_AT_ONCE, OVERDUE_STEPS = 100, 20  # labels in one atomic step; steps of one tick at most
_known = struct.Struct("<8sIIH8s8s").pack  # see payments.lua
LONGEST_NOTE = 200  # characters
LARGE = 4096  # bytes of a record from which on its receipt holds its names in short
_row = struct.Struct(f"<{len(FEATURES)}f").pack
LONGEST_NAME = 64  # characters of an account or terminal in a key; a longer one is there by its digest


def open_pipeline(settings: Settings, store: Store, threads: int) -> TransactionsPipeline:
    """The pipeline with its model warm; for the table of pipelines.

    Raises SettingsError, RulebookError, and what opening the model raises.
    """
    try:
        parse_costs(settings.costs)
    except ValueError as error:
        raise SettingsError(f"TAPEWATCH_COSTS: {error}") from None
    return TransactionsPipeline(settings, store, threads=threads)


@dataclass(slots=True)
class Case:
    """A payment on its way."""

    payment: Payment
    identity: bytes
    keys: tuple[str, str]  # of the logs of account and terminal
    ref: str
    account: int  # 32 bits that stand for the account
    claims: tuple[Claim, Claim] = (NOTHING, NOTHING)  # as the store was told
    judged: Judged | None = None
    error: Exception | None = None


@dataclass(slots=True)
class Verdict:
    """What was decided about a payment, and by what."""

    score: float
    decision: str
    hits: Hits
    thresholds: tuple[float, float]  # for review and block
    reasons: list[Reason]
    features: NDArray[Any]
    at: float  # when the batch was judged, in seconds
    stages: dict[str, float]  # ms of the batch by stage
    storms: Sequence[Signal] = ()  # rules that were suspended, or decide again, on the first of a batch


class TransactionsPipeline:
    """The pipeline of payments; `guard.Pipeline` and `guard.Judging` say what each method is for."""

    name = "transactions"
    scripts = ("payments", "labels", "guard")
    piece = 128
    batch = 512

    def __init__(
        self, settings: Settings, store: Store, *, threads: int = 1, scorer: Scorer | None = None
    ) -> None:
        self._store, self._keys = store, store.keys
        self._rates = parse_rates(settings.currencies)
        self._rules = PaymentRules(Path(settings.rules) if settings.rules else None)
        self._policy = Policy(parse_costs(settings.costs), settings.reviews_a_day)
        self._scorer = scorer or open_scorer(settings, threads)
        self._scorer.warm()
        self._ledger = Ledger(settings.payments_held, self._fetch)
        self._partitions = settings.partitions
        self._chunk = chunk_size(settings)
        self._transactions, self._labels = settings.topic("transactions"), settings.topic("labels")
        self._scored, self._signals = settings.topic("transactions.scored"), settings.topic("signals")
        self._lua = {"retain_ms": RETAIN, "expire_ms": EXPIRE_MS, "shrink": SHRINK, "unusual": UNUSUAL}
        self.model, self.engine = self._scorer.model, self._scorer.engine

    def prepare(self, batch: Sequence[Transaction | LabelRecord], now: float) -> list[Prepared]:
        """What the store needs of each record."""
        at = int(now * 1000)
        return [
            self._payment(record, at) if isinstance(record, Transaction) else self._label(record, at)
            for record in batch
        ]

    def settings(self) -> dict[str, Any]:
        """For payments.lua and labels.lua."""
        return self._lua

    def settle(self, store: Store, done: Sequence[Item], now: float) -> None:
        """All that follows from a batch is in `absorb` and `keep`."""

    def claim(self, items: Sequence[Item], now: float) -> None:
        """What the store is told of the logs: as far as the histories have followed them."""
        at = int(now * 1000)
        claims: dict[str, Claim] = {}
        for item in items:
            if item.prepared is None or not isinstance(item.prepared.payload, Case):
                continue
            case = item.prepared.payload
            first, second = case.keys
            one, other = claims.get(first), claims.get(second)
            if one is None:
                one = claims[first] = self._ledger.claim(first, at)
            if other is None:
                other = claims[second] = self._ledger.claim(second, at)
            case.claims = (one, other)
            payment, effect = case.payment, item.prepared.effect
            effect["b"] = packed(
                _known(case.identity, payment.terminal, case.account, payment.country, one.last, other.last)
            )
            effect["k"] = (one.read, other.read, one.cut, other.cut, one.extend, other.extend)

    def absorb(self, items: Sequence[Item], now: float) -> None:
        """The features of each payment at its place in the logs; those that were done before at their old places."""
        at, past = int(now * 1000), Past()
        cases = [
            (item, item.prepared.payload)
            for item in items
            if item.prepared
            and isinstance(item.prepared.payload, Case)
            and item.prepared.payload.judged is None
        ]
        for item, case in cases:
            if item.status == "again":
                past.bring(case.keys[0], True, item.decision[2], item.reply)
                past.bring(case.keys[1], False, item.decision[3], item.reply)
        for item, case in cases:
            try:
                if item.status == "again":
                    case.judged = past.judge(case.keys, case.payment, case.identity)
                else:
                    case.judged = self._ledger.judge(
                        case.keys, case.claims, case.payment, case.identity,
                        item.decision, item.reply, at,
                    )  # fmt: skip
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                case.error = error  # told when this record is judged
                for key in case.keys:
                    self._ledger.forget(key)
        self._ledger.shrink()

    def judge(self, items: Sequence[Item], now: float) -> list[Any]:
        """Score, rules, decision; of a label what the store said."""
        began = time.perf_counter()
        cases = [(item, item.prepared.payload) for item in items if item.prepared]
        payments = [(item.record, case) for item, case in cases if isinstance(case, Case)]
        for _, case in payments:
            if case.error is not None:
                raise case.error
        verdicts = iter(self._verdicts(payments, now, began) if payments else ())
        return [next(verdicts) if isinstance(case, Case) else item.decision for item, case in cases]

    def derive(
        self,
        record: Transaction | LabelRecord,
        prepared: Prepared,  # noqa: ARG002
        decision: Any,
        now: float,
    ) -> Iterator[Out]:
        """The decision, and where it is no approval a signal for each entity that it is about."""
        if not isinstance(record, Transaction) or not isinstance(decision, Verdict):
            return
        scored = TransactionScored(
            id=record.id,
            ts=record.ts,
            scored_at=records.as_time(now),
            account=record.account,
            terminal=record.terminal,
            amount=record.amount,
            score=decision.score,
            decision=decision.decision,  # type: ignore[arg-type]
            reasons=decision.reasons,
            rules=list(decision.hits.names),
            model=self.model,
            engine=self.engine,
        )
        yield Out(self._scored, record.account.encode("utf-8", "surrogatepass"), records.encode(scored))
        if decision.decision != "approve":
            yield from map(self._signal, _signals(record, decision))
        yield from map(self._signal, decision.storms)

    def mask(self, raw: bytes) -> bytes:
        """Kept as they are."""
        return raw

    def keep(self, store: Store, items: Sequence[Item], now: float) -> None:
        """Receipts, the queue of reviews, what labels need of a payment; labels that wait, with their dead letters."""
        kept, dead = [], []
        for item in items:
            if isinstance(item.decision, Verdict) and item.prepared:
                kept.append(self._kept(item, item.prepared.payload, item.decision))
            elif isinstance(item.record, LabelRecord) and item.decision == 0:
                dead.append((digest(short(item.record.ref)), item.partition, _overdue(item, now)))
        if kept or dead:
            argument = {
                "prefix": self._keys.prefix,
                "now": int(now * 1000),
                "day": int(now * 1000) // DAY,
                "days": RETAIN // DAY,
                "chunk": self._chunk,
                "chunks": CHUNKS,
                "queue_max": QUEUE,
                "cases_ms": CASES_MS,
                "items": kept,
                "dead": dead,
            }
            store.run(("payments", "labels", "keep"), [], argument)

    def tick(self, store: Store, owned: Mapping[str, Sequence[int]], now: float) -> None:
        """Labels that have waited for a day; the share of the traffic that this worker has."""
        mine = owned.get(self._transactions, ())
        self._policy.own(len(mine) / self._partitions if mine else 1.0)
        self._rules.refresh(now)
        argument = {
            "prefix": self._keys.prefix,
            "now": int(now * 1000),
            "outcomes": self._keys.outcomes(self.name),
            "outboxes": {
                str(partition): self._keys.outbox(self.name, partition)
                for partition in owned.get(self._labels, ())
            },
            "at_once": OVERDUE_AT_ONCE,
        }
        for _ in range(OVERDUE_STEPS):
            if store.run(("payments", "labels", "overdue"), [], argument) < OVERDUE_AT_ONCE:
                break

    def close(self) -> None:
        """Give the engines back."""
        self._scorer.close()

    def _payment(self, record: Transaction, now: int) -> Prepared:
        ref = digest(short(record.id))  # so that a label may name it in short
        account, terminal = record.account, record.terminal
        keys = (self._keys.account(key_name(account)), self._keys.terminal(key_name(terminal)))
        payment = Payment(
            records.milliseconds(record.ts),
            cents(record.amount, record.currency, self._rates),
            stand_in(terminal),
            country_code(record.country),
        )
        effect = {
            "a": keys[0],
            "t": keys[1],
            "d": ref,
            "day": now // DAY,
            "ts": payment.time,
            "c": payment.cents,
        }
        case = Case(payment, ref[:8].encode(), keys, ref, stand_in(account))
        return Prepared(effect, case, digest=ref, time=payment.time)

    def _label(self, record: LabelRecord, now: int) -> Prepared:
        if record.subject != "transaction":
            return Prepared({"skip": True}, outcome="filtered")
        verdict = VERDICTS.get(record.label.strip().lower())
        if verdict is None:
            raise Malformed(f"label {record.label[:100]!r} is none of {', '.join(VERDICTS)}")
        effect = {
            "ref": digest(short(record.ref)),
            "v": verdict,
            "ts": records.milliseconds(record.ts),
            "day": now // DAY,
            "a": self._keys.account(key_name(record.account)) if record.account else "",
            "t": self._keys.terminal(key_name(record.terminal)) if record.terminal else "",
            "due": now + LABEL_WAITS,
        }
        return Prepared(effect)

    def _verdicts(
        self, payments: Sequence[tuple[Transaction, Case]], now: float, began: float
    ) -> Iterator[Verdict]:
        features, sequences = arrays([case.judged for _, case in payments if case.judged])
        scores = np.clip(self._scorer.score(features, sequences), 0.0, 1.0)
        modelled = time.perf_counter()
        batch = [record for record, _ in payments]
        hits = self._rules.judge(batch, features, scores, now)
        storms = list(self._rules.signals(batch[-1]))
        times = np.array([case.payment.time for _, case in payments], np.int64)
        decisions, review, block = self._policy.decide(
            scores, features[:, 0], hits, features[:, KNOWN], times
        )
        ruled = time.perf_counter()
        asked = np.flatnonzero(decisions)
        reasons = dict(
            zip(asked.tolist(), self._scorer.reasons(features[asked], sequences[asked]), strict=True)
            if len(asked)
            else ()
        )
        stages = {
            "model": round((modelled - began) * 1000, 3),
            "rules": round((ruled - modelled) * 1000, 3),
            "reasons": round((time.perf_counter() - ruled) * 1000, 3),
        }
        rows = zip(scores.tolist(), decisions.tolist(), hits, review.tolist(), block.tolist(), strict=True)
        for index, (score, decision, hit, lower, upper) in enumerate(rows):
            yield Verdict(
                round(score, 6), DECISIONS[decision], hit, (lower, upper), reasons.get(index, []),
                features[index], now, stages, () if index else storms,
            )  # fmt: skip

    def _kept(self, item: Item, case: Case, verdict: Verdict) -> dict[str, Any]:
        record: Transaction = item.record
        assert case.judged is not None
        receipt = {
            "record": record if len(item.raw) <= LARGE else _in_short(record),
            "score": verdict.score,
            "decision": verdict.decision,
            "rules": verdict.hits.names,
            "thresholds": verdict.thresholds,
            "reasons": verdict.reasons,
            "features": verdict.features.tobytes(),
            "sequence": case.judged.sequence.lstrip(b"\0"),
            "model": self.model,
            "engine": self.engine,
            "judged_at": verdict.at,
            "stages": verdict.stages,
        }
        return {
            "ref": case.ref,
            "d": verdict.decision,
            "s": verdict.score,
            "ts": case.payment.time,
            "receipt": packed(msgspec.msgpack.encode(receipt)),
            "case": verdict.decision != "approve",
        }

    def _signal(self, signal: Signal) -> Out:
        return Out(self._signals, signal.entity.encode("utf-8", "surrogatepass"), records.encode(signal))

    def _fetch(self, keys: Sequence[str]) -> list[bytes]:
        found: list[Any] = self._store.call(lambda: self._store.client.mget(keys))
        return [log or b"" for log in found]


def _in_short(record: Transaction) -> Transaction:
    """The payment with names as others give them: receipts of the largest records would fill the store."""
    names = ("id", "account", "terminal", "currency", "channel", "country", "customer")
    return msgspec.structs.replace(record, **{name: short(getattr(record, name)) for name in names})


def arrays(judged: Sequence[Judged]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features [n, len(FEATURES)] and sequences [n, STEPS, len(STEP)] of a batch."""
    rows = b"".join([_row(*one.row.values) for one in judged])
    steps = b"".join([one.sequence for one in judged])
    return (
        np.frombuffer(rows, "<f4").reshape(len(judged), len(FEATURES)),
        np.frombuffer(steps, "<f4").reshape(len(judged), STEPS, len(STEP)),
    )


def chunk_size(settings: Settings) -> int:
    """Receipts in one hash of the store."""
    return max(1, settings.receipts // (CHUNKS - 1))


def key_name(name: str) -> str:
    """What stands for an account or terminal in a key."""
    return name if len(name) <= LONGEST_NAME else digest(name)


def stand_in(name: str) -> int:
    """32 bits that stand for an account or terminal in the other's log."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def country_code(country: str) -> int:
    """16 bits that stand for a country; 0 for none."""
    code = country.strip().upper()
    return (
        int.from_bytes(code.encode(), "big")
        if len(code) == 2 and code.isascii()
        else zlib.crc32(code.encode("utf-8", "surrogatepass")) & 0xFFFF
    )


def _signals(record: Transaction, verdict: Verdict) -> Iterator[Signal]:
    """One for each entity of a payment that was not approved; the baseline is the score that asks for a review."""
    identity, account = short(record.id), short(record.account)
    entities = [f"terminal:{short(record.terminal)}", f"account:{account}"]
    if record.country:
        entities.append(f"country:{short(record.country)}")
    note = f"{record.amount:,.2f} {record.currency} at {short(record.terminal)}: {verdict.decision}"[
        :LONGEST_NOTE
    ]
    for entity in entities:
        yield Signal(
            id=f"{identity}:fraud:{entity}",
            ts=record.ts,
            kind="fraud",
            entity=entity,
            value=verdict.score,
            baseline=round(min(verdict.thresholds[0], 1.0), 6),
            severity="critical" if verdict.decision == "block" else "warning",
            evidence=[identity],
            by=account,
            note=note,
        )


def _overdue(item: Item, now: float) -> str:
    """The dead letter of a label, for when its payment does not come within a day; JSON as an outbox holds it."""
    return json.dumps(
        {
            "topic": f"{item.topic}.dlq",
            "key": (item.key or b"").decode("utf-8", "replace"),
            "value": item.raw.decode("utf-8", "replace"),
            "headers": {
                "dlq.topic": item.topic,
                "dlq.partition": str(item.partition),
                "dlq.offset": str(item.offset),
                "dlq.stage": "decode",
                "dlq.error": f"no transaction {item.record.ref[:200]!r} was known a day later",
                "dlq.at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + LABEL_WAITS / 1000)),
                "dlq.attempts": "1",
            },
        }
    )
