"""The texts of `tapewatch bench engine`: SEntFiN's titles where the data folder is, else the bundled sample."""

from __future__ import annotations

import csv
import random

from models.splits import SENTFIN, data_folder
from tests.streams.loads import titles

SEED = 20261130


def headlines(count: int) -> tuple[str, list[str]]:
    """What the texts are called in the figures, and `count` of them, always the same in the same order."""
    path = data_folder() / SENTFIN / "sentfin.csv"
    if not path.exists():
        return "the bundled sample", titles(count)
    with path.open(encoding="utf-8", newline="") as lines:
        found = [record["title"] for record in csv.DictReader(lines)]
    random.Random(SEED).shuffle(found)
    return "SEntFiN titles", [found[i % len(found)] for i in range(count)]
