"""`tapewatch why`: the receipt of one decision. Reasons that nobody asked for then are computed now."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from streams.payments.desk import BACK, Receipt
from streams.payments.features import FEATURES, STEP, STEPS
from streams.payments.history import DAY
from streams.payments.scoring import open_scorer
from streams.records import as_time, short
from streams.settings import Settings
from streams.state.store import Store, digest
from streams.transactions import CHUNKS, chunk_size

SEQUENCE_BYTES = 4 * STEPS * len(STEP)


class UnknownEntity(ValueError):
    """The store has no receipt of this id."""


class Kept(Receipt, frozen=True):
    """A receipt with what its reasons can be computed from."""

    sequence: bytes = b""


def why(settings: Settings, payment: str) -> dict[str, Any]:
    """All that is known of the decision on the payment with this id.

    Raises UnknownEntity, Unavailable, and BundleError or EngineError where reasons are to be computed and cannot.
    """
    store = Store(settings.redis, settings.prefix)
    raw = _find(settings, store, digest(short(payment)))
    if raw is None:
        raise UnknownEntity(
            f"no receipt of {payment!r}: it was not decided, or {settings.receipts:,} others have been since"
        )
    kept = msgspec.msgpack.decode(raw, type=Kept)
    reasons, note = list(kept.reasons), "as decided"
    if not reasons:
        reasons, note = _reasons(settings, kept)
    return {
        "id": kept.record.id,
        "decision": kept.decision,
        "score": kept.score,
        "thresholds": {"review": _number(kept.thresholds[0]), "block": _number(kept.thresholds[1])},
        "rules": kept.rules,
        "reasons": msgspec.to_builtins(reasons),
        "reasons_are": note,
        "features": kept.seen,
        "record": msgspec.to_builtins(kept.record),
        "model": kept.model,
        "engine": kept.engine,
        "judged_at": as_time(kept.judged_at).isoformat(),
        "stages_ms": kept.stages,
    }


def lines(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The receipt as rows of a table."""
    facts = [
        {"what": name, "value": str(found[name]), "contribution": None}
        for name in (
            "id",
            "decision",
            "score",
            "thresholds",
            "rules",
            "model",
            "engine",
            "judged_at",
            "stages_ms",
        )
    ]
    facts += [
        {"what": f"record.{name}", "value": str(value), "contribution": None}
        for name, value in found["record"].items()
    ]
    facts += [
        {
            "what": f"reason {reason['feature']}",
            "value": str(reason["value"]),
            "contribution": reason["contribution"],
        }
        for reason in found["reasons"]
    ]
    return facts + [
        {"what": f"feature {name}", "value": f"{value:g}", "contribution": None}
        for name, value in found["features"].items()
    ]


def _find(settings: Settings, store: Store, ref: str) -> bytes | None:
    client: Any = store.client
    newest = int(store.call(lambda: client.get(store.keys.payments("receipts"))) or 0) // chunk_size(settings)
    today = int(time.time()) * 1000 // DAY
    pipe = client.pipeline(transaction=False)
    for back in range(CHUNKS + 1):
        pipe.hget(store.keys.payments(f"receipts:{newest - back}"), ref)
    for back in range(BACK + 1):
        pipe.hget(store.keys.payments(f"cases:{today - back}"), ref)
    return next((raw for raw in store.call(pipe.execute) if raw), None)


def _reasons(settings: Settings, kept: Kept) -> tuple[list[Any], str]:
    if len(kept.features) != 4 * len(FEATURES):
        return [], "not to be had: this program computes other features"
    scorer = open_scorer(settings, 1)
    try:
        if scorer.model != kept.model:
            return [], f"not to be had: the active model is {scorer.model}, not {kept.model}"
        features = np.frombuffer(kept.features, "<f4").reshape(1, -1)
        steps = np.frombuffer(kept.sequence.rjust(SEQUENCE_BYTES, b"\0"), "<f4").reshape(1, STEPS, len(STEP))
        return list(scorer.reasons(features, steps)[0]), "computed now, by the same model"
    finally:
        scorer.close()


def _number(threshold: float) -> float | None:
    """None for never."""
    return round(threshold, 6) if np.isfinite(threshold) else None
