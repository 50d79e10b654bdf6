"""Fine-tuning of the sentence classifier on a CPU.

The recipe: both corpora together in batches of equal length; a learning rate that falls with depth and after a warm-up
with time; R-Drop (Liang et al. 2021: two passes under dropout must agree); a moving average of the weights, which
is what is kept; and the average of several such runs (model soup, Wortsman et al. 2022).
"""

from __future__ import annotations

import copy
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engines.text import Tokenise, clean, padded, plan
from models.encoder import Classifier
from models.figures import macro_f1
from models.splits import Example
from streams.headlines.text import normalise

MASK_TOKEN = 103  # in BERT's vocabularies
FIRST_WORD = 999  # below stand special and unused tokens


def half_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 itself; where it does not, ten times slower code stands in."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class Recipe:
    """The settings of one fine-tuning run."""

    epochs: int = 5
    batch: int = 32
    rate: float = 1e-4  # of the topmost layer
    head_rate: float = 1e-3
    depth_decay: float = 0.9  # of the rate, from layer to layer downwards
    warm_up: float = 0.1  # share of the steps
    last_rate: float = 0.02  # share of the rate at the end
    weight_decay: float = 0.01
    label_smoothing: float = 0.02
    agreement: float = 1.0  # weight of R-Drop's divergence; 0 saves the second pass
    averaging: float = 0.998  # of the moving average of the weights
    dropout: float = 0.1
    masking: float = 0.0  # share of the tokens that are hidden behind [MASK], in each pass others
    clip: float = 1.0  # of the gradient's norm
    seed: int = 0
    wide: bool = False  # learn from two thirds of the validation part as well, and keep the last epoch


class Corpus:
    """Examples as tokens, ready for batches."""

    def __init__(self, examples: Sequence[Example], tokenise: Tokenise) -> None:
        self.examples = examples
        self.ids = tokenise([clean(normalise(example.text)) for example in examples])
        self.targets = torch.tensor([example.target for example in examples])
        self.labels = np.array([example.label for example in examples], np.intp)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of some rows."""
        arrays = padded([self.ids[i] for i in rows])
        return torch.from_numpy(arrays["input_ids"]), torch.from_numpy(arrays["attention_mask"])


def fine_tune(model: Classifier, train: Corpus, validation: Corpus, recipe: Recipe) -> Classifier:
    """The averaged weights of the epoch with the best macro F1 on validation; progress on standard error.

    The mean over corpora is what counts; a `wide` run, whose validation part is small, keeps its last epoch instead.
    The run is repeatable for a seed, up to the rounding of the machine.
    """
    torch.manual_seed(recipe.seed)
    chance = random.Random(recipe.seed)
    optimiser = _optimiser(model, recipe)
    steps = recipe.epochs * math.ceil(len(train.ids) / recipe.batch)
    warm = max(1, int(recipe.warm_up * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warm, max(recipe.last_rate, 1 - (step - warm) / (steps - warm))),
    )
    average, best, best_score = copy.deepcopy(model), copy.deepcopy(model), -1.0
    started, step = time.monotonic(), 0
    for epoch in range(recipe.epochs):
        model.train()
        total = 0.0
        for rows in _batches(train, recipe.batch, chance):
            loss = _loss(model, train, rows, recipe)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            step += 1
            _follow(average, model, min(recipe.averaging, (1 + step) / (10 + step)))
            total += float(loss.detach()) * len(rows)
        score = mean_macro_f1(average, validation)
        _say(f"epoch {epoch + 1}/{recipe.epochs}: loss {total / len(train.ids):.4f}, validation macro F1 "
             f"{score:.4f}, {time.monotonic() - started:.0f} s")  # fmt: skip
        if recipe.wide or score > best_score:
            best.load_state_dict(average.state_dict())
            best_score = score
    return best.eval()


def soup(models: Sequence[Classifier], validation: Corpus) -> Classifier:
    """The greedy average of the weights of several runs: each joins if validation's macro F1 does not fall."""
    ranked = sorted(models, key=lambda model: -mean_macro_f1(model, validation))
    chosen, mixed = [ranked[0]], ranked[0]
    for model in ranked[1:]:
        trial = _mean([*chosen, model])
        if mean_macro_f1(trial, validation) >= mean_macro_f1(mixed, validation):
            chosen, mixed = [*chosen, model], trial
    _say(f"{len(chosen)} of {len(models)} runs averaged, validation {mean_macro_f1(mixed, validation):.4f}")
    return mixed.eval()


def logits(model: Classifier, corpus: Corpus, rows: int = 32, *, exact: bool = False) -> NDArray[np.float32]:
    """Logits [n, classes] in order; `exact`: in float32, otherwise with bfloat16 products."""
    model.eval()
    found = np.zeros((len(corpus.ids), len(model.head.bias)), np.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=not exact and half_is_fast()):
        for which in plan([len(ids) for ids in corpus.ids], rows):
            found[which] = model(*corpus.batch(which.tolist())).numpy()
    return found


def mean_macro_f1(model: Classifier, corpus: Corpus) -> float:
    """Macro F1 averaged over the corpora that the examples come from."""
    predicted = logits(model, corpus).argmax(axis=1)
    sources = np.array([example.corpus for example in corpus.examples])
    classes = len(model.head.bias)
    parts = [sources == source for source in sorted(set(sources))]
    return float(np.mean([macro_f1(corpus.labels[part], predicted[part], classes) for part in parts]))


def _loss(model: Classifier, train: Corpus, rows: list[int], recipe: Recipe) -> Tensor:
    ids, mask = train.batch(rows)
    classes = train.targets.shape[1]
    wanted = train.targets[rows] * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
    passes = 2 if recipe.agreement else 1
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half_is_fast()):
        found = model(_masked(ids.repeat(passes, 1), recipe.masking), mask.repeat(passes, 1))
    logs = functional.log_softmax(found, dim=-1).chunk(passes)
    loss = sum((-(wanted * log).sum(-1).mean() for log in logs), torch.zeros(())) / passes
    if passes == 2:
        there = functional.kl_div(logs[0], logs[1], log_target=True, reduction="batchmean")
        back = functional.kl_div(logs[1], logs[0], log_target=True, reduction="batchmean")
        loss = loss + recipe.agreement * (there + back) / 2
    return loss


def _masked(ids: Tensor, share: float) -> Tensor:
    """`ids` with some of the words behind [MASK]; special tokens stay."""
    if not share:
        return ids
    hidden = (torch.rand(ids.shape) < share) & (ids >= FIRST_WORD)
    return ids.masked_fill(hidden, MASK_TOKEN)


def _batches(corpus: Corpus, size: int, chance: random.Random) -> Iterator[list[int]]:
    """Every row once, in random order, but with rows of about equal length together."""
    order = list(range(len(corpus.ids)))
    chance.shuffle(order)
    pool = size * 16
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda i: len(corpus.ids[i]))
        batches.extend(near[i : i + size] for i in range(0, len(near), size))
    chance.shuffle(batches)
    yield from batches


def _optimiser(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    groups = []
    for name, weights in model.named_parameters():
        if name.startswith("head."):
            rate = recipe.head_rate
        else:
            depth = int(name.split(".")[1]) + 1 if name.startswith("layers.") else 0
            rate = recipe.rate * recipe.depth_decay ** (len(model.layers) - depth)
        decay = recipe.weight_decay if weights.dim() > 1 else 0.0
        groups.append({"params": [weights], "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def _follow(average: Classifier, model: Classifier, keep: float) -> None:
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters(), strict=True):
            old.lerp_(new, 1 - keep)


def _mean(models: Sequence[Classifier]) -> Classifier:
    mixed = copy.deepcopy(models[0])
    states = [model.state_dict() for model in models]
    mixed.load_state_dict({name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]})
    return mixed


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
