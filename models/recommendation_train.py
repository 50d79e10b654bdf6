"""`tapewatch models train recommendations`: from a file of interactions to a published bundle.

The ranker learns from MONTHS spans before the end of the data, each a twelfth of it (a month of a year). The figures on
the card are those of a first training that saw nothing of the last span; the bundle is then trained on all of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from engines.bundle import FORMAT, Artefact, Bundle, Manifest, Parity, discard, hashed, publish
from engines.onnx_cpu import OnnxCpu
from models import recommendation_metrics as metrics
from models.recommendation_data import Interactions, read
from models.recommendation_fit import fit
from models.recommendation_folds import by_time
from models.recommendation_ranker import Prepared, as_onnx, as_ranker, examples, grow, lists, prepare
from models.recommendation_rivals import popularity, ranked
from models.train import TrainingError
from streams.recommending.diversity import WEIGHT
from streams.recommending.knowledge import Floats, dump
from streams.recommending.model import KNOWLEDGE, RANKER, SETTINGS, ModelSettings
from streams.recommending.rank import Ranker
from streams.recommending.scores import feature_names

NEEDED = ("scipy", "lightgbm", "onnxmltools")
SPANS = 12  # the data's time is divided into
MONTH = 30.0  # days of the model in a span
MONTHS = 3
LEAST = 200  # interactions
CLOSEST = 1e-4  # of the ranker's scores, ONNX against LightGBM


def train(files: Sequence[Path | str], mapping: Mapping[str, str], folder: Path) -> Bundle:
    """Train on the interactions of the files, a bundle in `folder`; progress goes to standard error.

    Raises DataFileError or TrainingError, one line each; a bundle that fails its parity gate is not written.
    """
    for needed in NEEDED:
        if find_spec(needed) is None:
            raise TrainingError(f"training needs {needed}: run `make setup-train`")
    if folder.exists():
        raise TrainingError(f"{folder} exists; name another folder with --out")
    if not files:
        raise TrainingError("name the interactions to train on with --data FILE")
    return make(read(files, mapping), [str(name) for name in files], folder)


def pace_of(data: Interactions) -> float:
    """Days of the model in a day of the data: a span, a twelfth of the data's time, has MONTH of them."""
    length = float(data.days[-1] - data.days[0]) if len(data) else 0.0
    if len(data) < LEAST or length <= 0:
        raise TrainingError(
            f"{len(data)} interactions in {length:.1f} days; {LEAST} over some time are needed"
        )
    return MONTH * SPANS / length


def make(data: Interactions, sources: Sequence[str], folder: Path) -> Bundle:
    """Train, judge, train again on all, prove the ONNX graph, publish into `folder`."""
    pace = pace_of(data)
    paced = data.paced(pace)
    end = float(paced.days[-1]) + 1e-6
    try:
        prepared = [
            prepare(by_time(paced, end - back * MONTH, end - (back - 1) * MONTH))
            for back in range(MONTHS + 1, 0, -1)
        ]
        _say(f"{len(data)} interactions, {len(data.customer_names)} customers, {len(data.item_names)} items")
        months = [examples(one) for one in prepared]
        first = as_ranker(grow(months[:MONTHS]))
    except ValueError as error:
        raise TrainingError(str(error)) from None
    figures = judge(prepared[-1], first, WEIGHT)
    _say(f"last span, unseen: {figures}")
    booster = grow(months[-MONTHS:])
    columns = months[0].features.shape[1]
    graph = as_onnx(booster, columns)
    parity = prove(graph, as_ranker(booster), months[-1].features[:5000])
    names = feature_names(prepared[-1].shelf.trends)
    knowledge = fit(paced, end)
    settings = ModelSettings(pace, WEIGHT, names)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staged-"))
    try:
        (staged / "ranker.onnx").write_bytes(graph)
        (staged / KNOWLEDGE).write_bytes(dump(knowledge))
        (staged / SETTINGS).write_text(json.dumps(_plain(settings)) + "\n", encoding="utf-8")
        (staged / "card.md").write_text(card(folder.name, data, sources, figures, parity), encoding="utf-8")
        manifest = Manifest(
            format=FORMAT,
            task="recommendations",
            version=folder.name,
            labels=(),
            temperature=1.0,
            max_tokens=1,
            buckets=(),
            engines={},
            files=hashed(staged),
            base="EASE, item-kNN, customers alike, TF-IDF; LambdaMART",
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            data_sha256=data.digest(),
            tools={name: version(name) for name in ("lightgbm", "onnxmltools", "onnxruntime", "numpy")},
            parity={"ranker.onnx": parity},
            figures=figures,
            parts={RANKER: {"onnxruntime": Artefact("ranker.onnx", "fp32")}},
        )
        return publish(staged, manifest, folder)
    finally:
        discard(staged)


def judge(prepared: Prepared, ranker: Ranker, diversity: float) -> dict[str, float]:
    """NDCG@10 and HR@10 by full ranking, and of popularity over the last month."""
    fold = prepared.fold
    ours, rival = lists(prepared, ranker, diversity), ranked(fold, popularity(fold, MONTH))
    made = {}
    for name, shown in (("", ours), ("popularity.", rival)):
        made[f"{name}ndcg@10"] = round(float(metrics.ndcg(shown, fold.wanted).mean()), 6)
        made[f"{name}hr@10"] = round(float(metrics.hits(shown, fold.wanted).mean()), 6)
    return made | {"n": float(len(fold.customers))}


def prove(graph: bytes, reference: Ranker, features: Floats) -> Parity:
    """How far the ONNX graph is from LightGBM; raises TrainingError where that is more than rounding."""
    engine = OnnxCpu(graph, "fp32", features.shape[1])
    theirs, ours = reference(features), engine.infer({"features": features})[:, 0]
    engine.close()
    apart = np.abs(theirs - ours)
    if float(apart.max(initial=0)) > CLOSEST:
        raise TrainingError(
            f"the ONNX ranker is {apart.max():.2g} from LightGBM's scores, {CLOSEST} is allowed"
        )
    return Parity(len(features), float(apart.max(initial=0)), float(apart.mean()), 0, 0.0)


def card(
    name: str, data: Interactions, sources: Sequence[str], figures: Mapping[str, float], parity: Parity
) -> str:
    """The model card (Mitchell et al. 2019)."""
    rows = [f"| {figure} | {value:.4f} |" for figure, value in figures.items()]
    return "\n".join(
        [
            f"# recommendations/{name}",
            "",
            "A ranked list of items that are new to a customer, from what customers did with which items.",
            "",
            "## Made of",
            "",
            f"- Data: {', '.join(Path(source).name for source in sources)}; {len(data)} interactions of "
            f"{len(data.customer_names)} customers with {len(data.item_names)} items.",
            "- Candidates: EASE weighted by recency, the same times the trend of demand, item-kNN, customers alike,",
            "  baskets, TF-IDF of titles; ranked by LambdaMART on ONNX Runtime; diversity by MMR.",
            f"- The ranker's ONNX graph is at most {parity.max_difference:.2g} from LightGBM ({parity.n} rows).",
            "",
            "## How good",
            "",
            "Full ranking of all items new to the customer, on the last twelfth of the data's time, of which the",
            "judged model had seen nothing (the published one was then trained on all of it).",
            "",
            "| figure | value |",
            "|---|---|",
            *rows,
            "",
            "## Limits",
            "",
            "- It knows what was interesting to whom and when, and titles; no prices, no stock, no suitability: in",
            "  finance, what may be offered to whom is for rules to decide, not for this model.",
            "- It learns from what was offered before and repeats its biases.",
            "- Demand that is new (a season not in the data) is followed with a delay of days.",
            "",
        ]
    )


def _plain(settings: ModelSettings) -> dict[str, object]:
    return {"pace": settings.pace, "diversity": settings.diversity, "features": list(settings.features)}


def _say(what: str) -> None:
    sys.stderr.write(what + "\n")
    sys.stderr.flush()
