"""How well near-duplicate headlines are found: `python -m tests.benchmarks.stories [--fit]`.

Real headlines with edited copies (1, 5, 10 and 20 % of the words, and what outlets put around them) among other
headlines and hard negatives: the same headline with another company, number, quarter, direction or matter. It is
measured on the test parts of SEntFiN and Twitter Financial News Sentiment, which neither the vocabulary nor the fit
has seen; `--fit` fits the verifier's coefficients on the training parts.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from models.splits import data_folder, official
from streams.headlines.entities import NOBODY, Finder, load_gazetteer
from streams.headlines.stories import Head, Headline, Memory, compare, prepare
from streams.headlines.text import normalise

RATES = (0.01, 0.05, 0.10, 0.20)
HOURS = 6.0
HARD = ("company", "number", "quarter", "direction", "matter")
SYNONYMS = """
falls/drops/declines/slips fall/drop/decline rises/gains/climbs/advances rise/gain/climb surges/jumps/soars
plunges/tumbles/slumps says/states shares/stock buys/acquires profit/earnings raises/hikes/lifts cuts/reduces/trims
firm/company reports/posts likely/set expects/sees deal/agreement names/appoints launches/unveils boost/lift amid/on
after/following government/govt percent/% pc/% crore/cr billion/bn million/mn wins/secures big/large plans/intends
unit/arm head/chief high/peak India's/Indian US/U.S. results/numbers talks/negotiations
"""
ANTONYMS = """
rise/fall rises/falls gains/drops up/down higher/lower beats/misses raises/cuts upgrades/downgrades profit/loss buy/sell
surges/plunges jumps/slumps above/below strong/weak high/low climbs/slides positive/negative gain/drop rally/slump
upgrade/downgrade bullish/bearish opens/closes wins/loses
"""
FILLERS = [
    "today",
    "now",
    "report",
    "analysts say",
    "sources",
    "on Monday",
    "again",
    "in early trade",
    "this week",
    "here",
    "may",
]
BEFORE = ["UPDATE 1-", "UPDATE 2-", "BREAKING: ", "Exclusive: ", "BRIEF-", "Live: "]
AFTER = [
    " - Reuters",
    " | Mint",
    " - report",
    " via @newswire",
    " https://t.co/abcdef123",
    " (Reuters)",
    " - Economic Times",
]


class Example(NamedTuple):
    """A headline of the stream: copies have the group of their original."""

    title: str
    group: int
    kind: str  # seed, the rate of a copy, other, or the kind of a hard negative


_LINK = re.compile(r"https?://\S+")


class Matters(NamedTuple):
    """Words that say what a headline is about."""

    words: list[str]
    known: frozenset[str]


@cache
def groups_of(table: str) -> list[list[str]]:
    """The groups of words of a table."""
    return [group.split("/") for group in table.split()]


def edited(title: str, rate: float, rng: random.Random) -> str:
    """A copy with about this share of its words edited as outlets do, and often a decoration."""
    words = title.split()
    for _ in range(max(1, round(rate * len(words)))):
        words = rng.choices([_drop, _insert, _synonym, _swap, _recase], weights=[2, 3, 6, 1, 2])[0](
            words, rng
        )
    text = " ".join(words)
    chance = rng.random()
    if chance < 0.25:
        return text + rng.choice(AFTER)
    return rng.choice(BEFORE) + text if chance < 0.4 else text


def _drop(words: list[str], rng: random.Random) -> list[str]:
    plain = [at for at, word in enumerate(words) if word.islower() and word not in ("not", "no")]
    if len(plain) <= 3:
        return words
    gone = rng.choice(plain)
    return [*words[:gone], *words[gone + 1 :]]


def _insert(words: list[str], rng: random.Random) -> list[str]:
    at = rng.choice([len(words), len(words), rng.randrange(1, len(words) + 1)])
    return [*words[:at], rng.choice(FILLERS), *words[at:]]


def _synonym(words: list[str], rng: random.Random) -> list[str]:
    text = " ".join(words)
    groups = [
        (group, word)
        for group in groups_of(SYNONYMS)
        for word in group
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    ]
    if not groups:
        return _insert(words, rng)
    group, word = rng.choice(groups)
    other = rng.choice([candidate for candidate in group if candidate != word])
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", other, text, count=1).split()


def _swap(words: list[str], rng: random.Random) -> list[str]:
    if len(words) < 3:
        return words
    at = rng.randrange(len(words) - 1)
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]


def _recase(words: list[str], rng: random.Random) -> list[str]:
    return (
        [word.title() if word.islower() else word for word in words]
        if rng.random() < 0.5
        else [words[0].upper(), *words[1:]]
    )


def negatives(
    title: str, company: str, others: Sequence[str], matters: Matters, rng: random.Random
) -> list[tuple[str, str]]:
    """The same template with something else: what another story looks like."""
    found: list[tuple[str, str]] = []
    if company and company in title:
        found.append(("company", title.replace(company, rng.choice(others), 1)))
    number = re.search(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d(?![\w.])", title)
    if number:
        found.append(("number", title[: number.start()] + str(rng.randrange(2, 999)) + title[number.end() :]))
    quarter = re.search(r"\bQ([1-4])\b", title)
    if quarter:
        found.append(("quarter", title.replace(quarter[0], f"Q{int(quarter[1]) % 4 + 1}", 1)))
    for pair in groups_of(ANTONYMS):
        for one, other in (pair, pair[::-1]):
            if re.search(rf"\b{one}\b", title):
                found.append(("direction", re.sub(rf"\b{one}\b", other, title, count=1)))
    content = [
        word
        for word in title.split()[2:]
        if word in matters.known and not any(word in pair for pair in groups_of(ANTONYMS))
    ]
    if content:
        word = rng.choice(content)
        found.append(("matter", title.replace(word, rng.choice(matters.words), 1)))
    return [(kind, text) for kind, text in found if text != title]


def make(seeds: Sequence[str], others: Sequence[str], rng: random.Random) -> list[Example]:
    """A stream in a random order: the seeds with copies and hard negatives, the others once."""
    seeds = list(dict.fromkeys(_LINK.sub("", title).strip() for title in seeds))
    titles = list(dict.fromkeys([*seeds, *(_LINK.sub("", title).strip() for title in others)]))
    rows = [row for row in load_gazetteer() if row.symbol != NOBODY and len(row.name) > 4]
    finder = Finder(rows)
    count = Counter(word for title in titles for word in set(title.split()) if _is_content(word))
    words = [word for word, times in count.items() if 3 <= times <= len(titles) / 150]
    matters = Matters(words, frozenset(words))
    stream = [Example(title, group, "other") for group, title in enumerate(titles)]
    for group, title in enumerate(seeds):
        stream[group] = Example(title, group, "seed")
        if len(title.split()) < 5:
            continue
        for _ in range(rng.choice([2, 3, 4, 5])):
            rate = rng.choice(RATES)
            stream.append(Example(edited(title, rate, rng), group, f"{rate:.0%}"))
        company = next((entity.name for entity in finder.find(title)), "")
        options = negatives(title, company, [row.name for row in rows], matters, rng)
        for kind, text in rng.sample(options, min(1, len(options))):
            stream.append(Example(text, len(stream), kind))
    rng.shuffle(stream)
    return stream


def _is_content(word: str) -> bool:
    return word.isalpha() and word.islower() and len(word) > 4


def run(stream: Sequence[Example], finder: Finder) -> tuple[dict[str, float], dict[str, Counter[str]]]:
    """Figures of the memory over the stream, and by kind how often a headline was joined rightly and
    wrongly."""
    memory = Memory(HOURS)
    group_of: dict[str, int] = {}
    met: set[int] = set()
    tally: dict[str, Counter[str]] = {}
    spent = 0.0
    for number, example in enumerate(stream):
        title = normalise(example.title)
        symbols = [entity.symbol for entity in finder.find(title)]
        began = time.process_time()
        _, first = memory.assign(prepare(str(number), title, symbols), 0, 0)
        spent += time.process_time() - began
        group_of[str(number)] = example.group
        outcome = "repeat" if example.group in met else "new"
        joined = "apart" if first is None else "right" if group_of[first] == example.group else "wrong"
        tally.setdefault(example.kind, Counter()).update([f"{outcome} {joined}", "all"])
        met.add(example.group)
    return _figures(tally, spent / len(stream)), tally


def _figures(tally: dict[str, Counter[str]], seconds: float) -> dict[str, float]:
    total = sum((counts for kind, counts in tally.items() if kind != "other"), Counter[str]())
    right = total["repeat right"]
    joined = right + total["repeat wrong"] + total["new wrong"]
    repeats = right + total["repeat wrong"] + total["repeat apart"]
    precision, recall = right / max(1, joined), right / max(1, repeats)
    hard = sum((tally.get(kind, Counter()) for kind in HARD), Counter[str]())
    others = tally.get("other", Counter())
    figures = {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
        "hard_negatives_joined": hard["new wrong"] / max(1, hard["all"]),
        "others_joined": others["new wrong"] / max(1, others["all"]),
    }
    for rate in RATES:
        kind = tally.get(f"{rate:.0%}", Counter())
        figures[f"recall@{rate:.0%}"] = kind["repeat right"] / max(
            1, kind["repeat right"] + kind["repeat wrong"] + kind["repeat apart"]
        )
    for name in HARD:
        kind = tally.get(name, Counter())
        figures[f"joined.{name}"] = kind["new wrong"] / max(1, kind["all"])
    return figures | {"python_us_per_headline": seconds * 1e6, "n": total["all"]}


def fit(stream: Sequence[Example], finder: Finder) -> list[float]:
    """Coefficients of a logistic regression over pairs that no hard rule parts (needs scikit-learn)."""
    from sklearn.linear_model import LogisticRegression

    memory = Teacher(HOURS)
    for number, example in enumerate(stream):
        title = normalise(example.title)
        symbols = [entity.symbol for entity in finder.find(title)]
        memory.assign(prepare(f"{example.group}:{number}", title, symbols), 0, 0)
    model = LogisticRegression(C=10.0, max_iter=5000).fit(memory.features, memory.same)
    print(f"{len(memory.same)} pairs, {sum(memory.same)} of one story")
    return [round(float(value), 3) for value in (model.intercept_[0], *model.coef_[0])]


class Teacher(Memory):
    """A memory that keeps the pairs which the regression would judge, and joins what is one story by its
    id."""

    def __init__(self, hours: float) -> None:
        super().__init__(hours)
        self.features: list[tuple[float, ...]] = []
        self.same: list[bool] = []

    def best(self, record_id: str, headline: Headline, candidates: Sequence[Head], ts_ms: int) -> Head | None:
        """The candidate of the same group, if any."""
        right = None
        for head in candidates:
            comparison = compare(head.headline, headline)
            same = head.id.split(":")[0] == record_id.split(":")[0]
            if not comparison.conflict:
                self.features.append(comparison.features)
                self.same.append(same)
            right = head if same else right
        return right


def timed_headlines(folder: Path) -> list[str]:
    """The headlines of the unlicensed stream that is only measured, where it is beside the checkout."""
    titles: list[str] = []
    for name, column in (
        ("guardian_headlines", "Headlines"),
        ("cnbc_headlines", "Headlines"),
        ("analyst_headlines_sample", "title"),
    ):
        path = folder / "news-headlines-timestamped" / f"{name}.csv.gz"
        if path.exists():
            with gzip.open(path, "rt", encoding="utf-8") as file:
                titles += [normalise(row[column] or "") for row in csv.DictReader(file)]
    return [title for title in titles if title]


def main() -> None:
    """Print the figures, or the fitted coefficients."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--fit", action="store_true", help="fit the verifier on the training parts")
    parser.add_argument("--others", type=int, default=30_000, help="other headlines in the stream")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    splits = official(data_folder())
    finder = Finder(load_gazetteer())
    train = [normalise(example.text) for example in (*splits.train, *splits.validation)]
    if options.fit:
        print(fit(make(train[::2], train[1::2], rng), finder))
        return
    others = [*train, *timed_headlines(data_folder())]
    stream = make(
        [normalise(example.text) for example in splits.test],
        rng.sample(others, min(options.others, len(others))),
        rng,
    )
    figures, tally = run(stream, finder)
    for kind, counts in sorted(tally.items()):
        print(f"{kind:10}", dict(sorted(counts.items())))
    for name, value in figures.items():
        print(f"{name:24} {value:.4f}")


if __name__ == "__main__":
    main()
