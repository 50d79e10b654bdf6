"""`tapewatch evaluate recommendations`: full ranking on a user's interactions, beside rivals computed in the same run.

The tables (EASE and so on) are learned again from the part of the data that counts as known, so that nothing of what is
judged was seen; the ranker, the pace and the settings are the bundle's. Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.bundle import Bundle
from models import recommendation_metrics as metrics
from models.figures import figure
from models.recommendation_data import DAY, Interactions, read
from models.recommendation_folds import Fold, by_time, leave_last_out
from models.recommendation_ranker import lists, prepare
from models.recommendation_rivals import Tuned, compete, tune
from streams.launch.rows import DataFileError
from streams.recommending.knowledge import Ints
from streams.recommending.model import open_model

UNTUNED = Tuned(30.0, (150.0, 300.0), 14.0)
MONTH = 30.0


class CutError(ValueError):
    """Neither a time nor leaving the last out says what is judged, or both do; the message is one line."""


def evaluate(
    files: Sequence[Path | str],
    mapping: Mapping[str, str],
    bundle: Bundle,
    cut: float | None,
    last_out: bool,
    engine: str = "auto",
) -> list[dict[str, Any]]:
    """`hr@10`, `ndcg@10` and those of each rival, with their 95 % intervals over customers, and `n` customers.

    `cut` in unix seconds. Raises CutError, DataFileError, BundleError or EngineError, one line each.
    """
    if (cut is not None) == last_out:
        raise CutError("say what is judged: --cut TIME (what follows it) or --leave-last-out, one of them")
    model = open_model(bundle, engine)
    try:
        paced = read(files, mapping).paced(model.settings.pace)
        cut_day = cut / DAY * model.settings.pace if cut is not None else None
        fold = leave_last_out(paced) if cut_day is None else by_time(paced, cut_day, float("inf"))
        if not len(fold.customers):
            raise DataFileError("nobody to judge: no customer who was known has a new item that was known")
        prepared = prepare(fold)
        shown = lists(prepared, model.rank, model.settings.diversity)
    finally:
        model.engine.close()
    tuned = _tuned(paced, cut_day)
    made = _figures("", shown, fold)
    for name, ranked in compete(fold, tuned):
        if name != "tfidf" or any(fold.known.titles):
            made += _figures(f"{name}.", ranked, fold)
    return [*made, figure("n", len(fold.customers), len(fold.customers), "count")]


def _figures(prefix: str, shown: Sequence[Ints], fold: Fold) -> list[dict[str, Any]]:
    made = []
    for name, values in (
        ("hr@10", metrics.hits(shown, fold.wanted)),
        ("ndcg@10", metrics.ndcg(shown, fold.wanted)),
    ):
        low, high = metrics.interval(values)
        one = figure(prefix + name, float(values.mean()), len(values))
        made.append(one | {"spread": [round(low, 6), round(high, 6)]})
    return made


def _tuned(paced: Interactions, cut: float | None) -> Tuned:
    """The rivals' settings from the month before the cut; fixed ones where there is no such month."""
    if cut is None:
        return UNTUNED
    before = by_time(paced, cut - MONTH, cut)
    return tune(before) if len(before.customers) else UNTUNED
