"""One whole training: several fine-tuning runs from the base, their average, the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engines.bundle import Bundle
from engines.text import wordpieces
from models.encoder import Classifier, from_bert
from models.export import MAX_TOKENS, Origin, write_bundle
from models.splits import LABELS, Splits
from models.train import BASE_NAME, base_folder
from models.tuning import Corpus, Recipe, fine_tune, soup

# One run each; they made news/2026.11.1.
RECIPES = (Recipe(label_smoothing=0.05, agreement=0.0), Recipe(label_smoothing=0.02, agreement=1.0))


def make(
    splits: Splits,
    corpora: dict[str, str],
    base: Path,
    folder: Path,
    threads: int,
    recipes: Sequence[Recipe] = RECIPES,
) -> Bundle:
    """Fine-tune once for each recipe and publish the average as `folder`."""
    torch.set_num_threads(threads)
    tokenizer = base / "tokenizer.json"
    tokenise = wordpieces(tokenizer.read_bytes(), MAX_TOKENS)
    train, validation = Corpus(splits.train, tokenise), Corpus(splits.validation, tokenise)
    tuned = [run(base, train, validation, recipe) for recipe in recipes]
    name = BASE_NAME if base == base_folder() else str(base.name)
    told = "; ".join(map(str, recipes))
    origin = Origin(
        "news", folder.name, name, f"{told}; the weights averaged where validation gains", corpora
    )
    return write_bundle(soup(tuned, validation), tokenizer, splits, origin, folder)


def run(base: Path, train: Corpus, validation: Corpus, recipe: Recipe, seed: int = 0) -> Classifier:
    """One fine-tuned classifier from the base's weights.

    Every run begins with the same random head: weights can only be averaged from a common beginning.
    """
    torch.manual_seed(0)
    return fine_tune(from_bert(base, len(LABELS), recipe.dropout), train, validation, recipe, seed)
