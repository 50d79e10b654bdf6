"""The model card of a bundle, after Mitchell et al. 2019: what it is for, what it was made of, how good it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Manifest
from models.figures import expected_calibration_error, report
from models.splits import LABELS, Example, Splits

LIMITS = """\
- English headlines and short posts. Other languages, long articles, irony and rumours are not what it was trained on.
- It reads one headline at a time and knows neither the market's expectations nor what came before.
- Its label is for the headline as a whole; where a headline names several companies with opposing news, the label
  is a compromise.
- The two training sets follow different conventions (investor posts on US stocks, Indian business news), and names
  of companies, funds and currencies of their years carry some of what it learned.
- It is no advice to buy or sell anything."""


def card(
    manifest: Manifest,
    recipe: str,
    corpora: dict[str, str],
    splits: Splits,
    probabilities: NDArray[np.float32],
) -> str:
    """The card as Markdown; `probabilities` are those of the int8 graph for `splits.test`, in order."""
    sections = [
        f"# {manifest.task}/{manifest.version}",
        f"Sentiment of financial headlines and posts: {', '.join(manifest.labels)}.",
        "## Made of",
        f"- Base: {manifest.base}",
        *[f"- Data: {name}: {source}" for name, source in corpora.items()],
        f"- Training data (with validation) SHA-256: `{manifest.data_sha256}`",
        f"- Recipe: {recipe}",
        f"- Probabilities are calibrated with temperature {manifest.temperature} (validation part).",
        f"- Made on {manifest.created} with {', '.join(f'{k} {v}' for k, v in manifest.tools.items())}.",
        "",
        _sizes(splits),
        "## How good",
        "Test parts, through the int8 graph as it is served.",
        *_reports(splits, probabilities),
        "## Parity with the float32 reference",
        _parity(manifest),
        "## Limits",
        LIMITS,
    ]
    return "\n".join(f"\n{line}\n" if line.startswith("#") else line for line in sections).lstrip() + "\n"


def _sizes(splits: Splits) -> str:
    lines = ["| part | corpus | " + " | ".join(LABELS) + " |", "|---" * 5 + "|"]
    for part in ("train", "validation", "test"):
        examples: list[Example] = getattr(splits, part)
        counts = Counter((example.corpus, example.label) for example in examples)
        for corpus in sorted({example.corpus for example in examples}):
            numbers = " | ".join(str(counts[corpus, i]) for i in range(len(LABELS)))
            lines.append(f"| {part} | {corpus} | {numbers} |")
    return "\n".join(lines)


def _reports(splits: Splits, probabilities: NDArray[np.float32]) -> list[str]:
    sources = np.array([example.corpus for example in splits.test])
    labels = np.array([example.label for example in splits.test], np.intp)
    lines = []
    for source in sorted(set(sources)):
        part = sources == source
        found, truth = probabilities[part], labels[part]
        right = float((found.argmax(axis=1) == truth).mean())
        ece = expected_calibration_error(truth, found)
        lines += [f"### {source}", f"Accuracy {right:.4f}, expected calibration error {ece:.4f}.", ""]
        lines += [report(truth, found, LABELS), ""]
    return lines


def _parity(manifest: Manifest) -> str:
    lines = ["| artefact | n | largest difference | mean | label flips | macro F1 lost |", "|---" * 6 + "|"]
    for name, p in manifest.parity.items():
        numbers = (
            f"{p.max_difference:.4f} | {p.mean_difference:.5f} | {p.label_flips} | {p.macro_f1_loss:.4f}"
        )
        lines.append(f"| {name} | {p.n} | {numbers} |")
    return "\n".join(lines)
