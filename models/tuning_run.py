"""One whole training: several fine-tuning runs from the base, their average, the bundle."""

from __future__ import annotations

from pathlib import Path

import torch

from engines.bundle import Bundle
from engines.text import wordpieces
from models.encoder import Classifier, from_bert
from models.export import MAX_TOKENS, Origin, write_bundle
from models.splits import LABELS, Splits
from models.train import BASE_NAME, base_folder
from models.tuning import Corpus, Recipe, fine_tune, soup


def make(
    splits: Splits, corpora: dict[str, str], base: Path, folder: Path, runs: int, threads: int
) -> Bundle:
    """Fine-tune `runs` times with seeds 0, 1, ... and publish the average as `folder`."""
    torch.set_num_threads(threads)
    recipe = Recipe()
    tokenizer = base / "tokenizer.json"
    tokenise = wordpieces(tokenizer.read_bytes(), MAX_TOKENS)
    train, validation = Corpus(splits.train, tokenise), Corpus(splits.validation, tokenise)
    tuned = [run(base, train, validation, recipe, seed) for seed in range(runs)]
    name = BASE_NAME if base == base_folder() else str(base.name)
    origin = Origin("news", folder.name, name, f"{recipe}, {runs} runs averaged", corpora)
    return write_bundle(soup(tuned, validation), tokenizer, splits, origin, folder)


def run(base: Path, train: Corpus, validation: Corpus, recipe: Recipe, seed: int) -> Classifier:
    """One fine-tuned classifier from the base's weights."""
    torch.manual_seed(seed)
    return fine_tune(from_bert(base, len(LABELS), recipe.dropout), train, validation, recipe, seed)
