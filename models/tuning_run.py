"""One whole training: several fine-tuning runs from the base, their average, the bundle.

Every finished run is kept beside the bundle's folder until the bundle is published, so that a training that was
ended goes on after its last finished run when the same command is given again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from engines.bundle import Bundle, discard
from engines.text import wordpieces
from models.encoder import Classifier, Shape, from_bert
from models.export import MAX_TOKENS, Origin, write_bundle
from models.splits import LABELS, Splits, widened
from models.train import BASE_NAME, base_folder
from models.tuning import Corpus, Recipe, fine_tune, soup

# One run each. The first two made news/2026.11.1.
RECIPES = (
    Recipe(label_smoothing=0.05, agreement=0.0),
    Recipe(label_smoothing=0.02, agreement=1.0),
    Recipe(label_smoothing=0.02, agreement=1.0, epochs=4, seed=1, wide=True),
)


def make(
    splits: Splits,
    corpora: dict[str, str],
    base: Path,
    folder: Path,
    threads: int,
    recipes: Sequence[Recipe] = RECIPES,
) -> Bundle:
    """Fine-tune once for each recipe and publish the average as `folder`.

    The runs that never saw validation are averaged first, where the whole of it gains; then the wide runs may join,
    or that average may join them, where the third of it gains that no run saw.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # weights that fade away cost a hundred times as much on a CPU
    try:
        return _make(splits, corpora, base, folder, recipes)
    finally:
        torch.set_flush_denormal(False)  # it holds for the whole thread, whatever runs there next


def _make(
    splits: Splits, corpora: dict[str, str], base: Path, folder: Path, recipes: Sequence[Recipe]
) -> Bundle:
    tokenizer = base / "tokenizer.json"
    tokenise = wordpieces(tokenizer.read_bytes(), MAX_TOKENS)
    wide = widened(splits)
    runs = Runs(folder.with_name(f".{folder.name}.runs"), base)
    parts = {
        False: (Corpus(splits.train, tokenise), Corpus(splits.validation, tokenise), splits.digest()),
        True: (Corpus(wide.train, tokenise), Corpus(wide.validation, tokenise), wide.digest()),
    }
    tuned = [(recipe.wide, runs.once(recipe, *parts[recipe.wide])) for recipe in recipes]
    released: list[Classifier] = [model for is_wide, model in tuned if is_wide]
    narrow = [model for is_wide, model in tuned if not is_wide]
    if narrow:
        released.append(soup(narrow, parts[False][1]))
    name = BASE_NAME if base == base_folder() else str(base.name)
    told = "; ".join(map(str, recipes))
    origin = Origin(
        "news", folder.name, name, f"{told}; the weights averaged where validation gains", corpora
    )
    bundle = write_bundle(soup(released, parts[True][1]), tokenizer, wide, origin, folder)
    discard(runs.folder)
    return bundle


def run(base: Path, train: Corpus, validation: Corpus, recipe: Recipe) -> Classifier:
    """One fine-tuned classifier from the base's weights.

    Every run begins with the same random head: weights can only be averaged from a common beginning.
    """
    torch.manual_seed(0)
    return fine_tune(from_bert(base, len(LABELS), recipe.dropout), train, validation, recipe)


class Runs:
    """The finished runs of one training, as files in `folder`, named by what they were made of."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self._base = base
        with (base / "model.safetensors").open("rb") as weights:
            self._weights = hashlib.file_digest(weights, "sha256").hexdigest()

    def once(self, recipe: Recipe, train: Corpus, validation: Corpus, data: str) -> Classifier:
        """The classifier of an earlier run of this recipe on the data with this digest, or else of a new one."""
        name = hashlib.sha256(f"{self._weights} {data} {recipe}".encode()).hexdigest()[:16]
        path = self.folder / f"{name}.pt"
        if path.exists():
            model = Classifier(Shape.of(self._base), len(LABELS), recipe.dropout)
            model.load_state_dict(torch.load(path, weights_only=True))
            sys.stderr.write(f"{path}: a run of an earlier training\n")
            return model.eval()
        model = run(self._base, train, validation, recipe)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        torch.save(model.state_dict(), partial)
        partial.rename(path)
        return model
