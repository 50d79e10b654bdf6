"""Build the sample that `tapewatch up` replays: streams/launch/samples/news.jsonl.gz and news.meta.json.

    python -m models.build_sample

Real headlines of the training and validation parts of SEntFiN and Twitter Financial News Sentiment (both MIT), with
made-up outlets and times, in the order of a made-up working day. What comes before `live_from` is replayed as history;
there the bad day of a company begins. Apart from that and from the later rough patches no entity has five headlines in
five minutes, so that no other surge can be found. Some stories are followed by copies from other outlets.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from models.splits import LABELS, Example, data_folder, official
from streams.headlines.entities import Finder, load_gazetteer
from streams.headlines.stories import Memory, prepare
from streams.headlines.text import normalise

SAMPLES = Path(__file__).resolve().parent.parent / "streams" / "launch" / "samples"
RECORDS = 10_000
LIVE_FROM = 3_600  # three hours of history at a headline each three seconds
MEAN_GAP = 3.0  # seconds
BAD_DAY = "BA"
BAD_DAY_GAP = (
    1.7  # seconds between headlines while the bad day breaks: a dozen of them in 45 s, and others between
)
ROUGH_PATCHES = ("UBER", "INFY", "HD", "RANBAXY", "M", "WIPRO")  # about fifty minutes apart
PATCH_EVERY = 1_000  # records
PATCH_GAP = 4.0
MOST_MENTIONS, WINDOW = 4, 330.0  # of one entity in five minutes and a little, where nothing is planned
COPIED_SHARE = 0.06  # of the stories
COPY_DELAY = (4, 90)  # records
OUTLETS = (
    "Blue Heron News", "Copper Kettle Report", "Inkwell Finance", "Lantern Financial", "Northgate Newswire",
    "Old Mill Markets", "Paper Crane Press", "Pier Nine Business", "Signal Box Daily", "Teacup Tribune",
    "The Daily Tape", "Windmill Wire",
)  # fmt: skip
META = {
    "what": "Real headlines; outlets and times are made up, so is their order. Not news of today.",
    "live_from": LIVE_FROM,
    "licence": "MIT",
    "attribution": [
        "SEntFiN 1.0: Sinha, Kedas, Kumar, Malo (2022), JASIST, doi 10.1002/asi.24634; MIT licence of pyRis/SEntFiN",
        "Twitter Financial News Sentiment: zeroshot/twitter-financial-news-sentiment on Hugging Face; MIT licence",
    ],
    "built_by": "python -m models.build_sample",
}
_LINK = re.compile(r"https?:?/?/?\S*|(?:\s*#\w+)+\s*$|\s*\(?via @\w+\)?|\s+-?\s*@\w+\s*$")
_UNWANTED = re.compile(
    r"@|\.\.\.|https?|[#&]\w+;|#\w+.*#|\$\w+.*\$[A-Z]+.*\$[A-Z]|COMDX|ECONX|SCANX|SUMRX|BONDX|OPTNX|\bRECAP\b|"
    r"highlight:|read more|follow|subscribe|sign up|click|retweet|get more|check out|join us|tune in|our (?:live|free)|"
    r"watch:|listen|unusual (?:puts|calls)|edited transcript|earnings call|slideshow|marketscreener|podcast|giveaway|"
    r"black friday deals|cyber monday deals|\bI'm\b|\bI've\b|\bmy\b|\blol\b|"
    r"\b(?:fuck|shit|bitch|bastard|suck|damn|crap|porn|sex|nude|rape|kill|murder|suicide|nazi|ass)\w{0,3}\b",
    re.I,
)
_STARK = re.compile(
    r"halt|suspend|div(?:es|ing)|hit by|slips?\b|slash|crisis|lawsuit|tumbl|slump|plunge|sinks?|falls|loses|cuts|quits",
    re.I,
)
_MORNING = re.compile(
    r"\b(?:open(?:s|ing|ed)?|pre-?market|early trade|today|to watch|ahead of|morning|seen)\b", re.I
)
_EVENING = re.compile(r"\b(?:clos(?:e|es|ed|ing)|end(?:s|ed)?|settles?|after[- ]hours|week|day's)\b", re.I)
_EDITS = (
    (r"^(?=\w)", "UPDATE 1-"), (r"^(?=\w)", "BREAKING: "), (r"\bper cent\b", "pct"), (r"\bshares\b", "stock"),
    (r"\bsays\b", "said"), (r"\bcrore\b", "cr"), (r"$", " - sources"), (r"$", " - report"), (r"\bfalls\b", "drops"),
    (r"\brises\b", "gains"), (r"\bbillion\b", "bn"), (r"\bmillion\b", "mn"),
)  # fmt: skip


class Story(NamedTuple):
    """One headline of the sets."""

    title: str
    label: str
    symbols: tuple[str, ...]


class Schedule:
    """The records in their order, with the rule that keeps unplanned surges out."""

    def __init__(self, rng: random.Random) -> None:
        self.records: list[dict[str, object]] = []
        self._rng = rng
        self._now = 0.0
        self._mentions: dict[str, deque[float]] = defaultdict(deque)

    def fits(self, symbols: Sequence[str], gap: float) -> bool:
        """Whether one more headline about these is no surge; half of one near the ends, where the loop closes."""
        near_an_end = min(len(self.records), RECORDS - len(self.records)) < WINDOW / MEAN_GAP * 1.5
        most = MOST_MENTIONS // 2 if near_an_end else MOST_MENTIONS
        for symbol in symbols:
            times = self._mentions[symbol]
            while times and times[0] < self._now + gap - WINDOW:
                times.popleft()
            if len(times) >= most:
                return False
        return True

    def add(self, title: str, symbols: Sequence[str], gap: float, outlet: str = "") -> str:
        """Put one headline at the end; its outlet."""
        outlet = outlet or self._rng.choice(OUTLETS)
        self._now += gap
        for symbol in symbols:
            self._mentions[symbol].append(self._now)
        self.records.append({"gap": gap, "title": title, "source": outlet, "symbols": [], "lang": "en"})
        return outlet

    def gap(self) -> float:
        """Seconds to the next headline: news come in bursts."""
        return round(min(20.0, 0.4 + self._rng.gammavariate(1.4, (MEAN_GAP - 0.4) / 1.4)), 1)


def stories(examples: Sequence[Example], finder: Finder) -> Iterator[Story]:
    """What is fit to be shown, near-duplicates once."""
    memory = Memory(1000.0)
    for number, example in enumerate(examples):
        title = normalise(_LINK.sub("", normalise(example.text))).strip(" -:|")
        if (
            not 4 <= len(title.split()) <= 24
            or not title.isascii()
            or len(title) > 150
            or _UNWANTED.search(title)
        ):
            continue
        symbols = tuple(entity.symbol for entity in finder.find(title))
        if memory.assign(prepare(str(number), title, symbols), 0, 0)[1] is None:
            yield Story(
                title,
                LABELS[example.label] if max(example.target) == 1 else "mixed",
                symbols,
            )


def _hour(story: Story, rng: random.Random) -> float:
    """When in the day, 0 to 1, the headline may come."""
    if _MORNING.search(story.title):
        return rng.uniform(0.0, 0.4)
    return rng.uniform(0.5, 1.0) if _EVENING.search(story.title) else rng.random()


def copy_of(story: Story, finder: Finder, rng: random.Random) -> str:
    """The headline as another outlet might take it over: often as it is, else lightly edited."""
    edits = [(pattern, new) for pattern, new in _EDITS if re.search(pattern, story.title)]
    title = re.sub(*rng.choice(edits), story.title, count=1) if rng.random() < 0.6 else story.title
    memory = Memory(1.0)
    memory.assign(prepare("story", story.title, story.symbols), 0, 0)
    symbols = [entity.symbol for entity in finder.find(title)]
    return title if memory.assign(prepare("copy", title, symbols), 0, 0)[1] else story.title


def build() -> list[dict[str, object]]:
    """All records."""
    rng = random.Random(20)
    finder = Finder(load_gazetteer())
    splits = official(data_folder())
    examples = [*splits.train, *splits.validation]
    rng.shuffle(examples)
    found = list(stories(examples, finder))
    bad = {symbol: _bad_news(found, symbol) for symbol in (BAD_DAY, *ROUGH_PATCHES)}
    reserved = {story.title for chosen in bad.values() for story in chosen}
    ordinary = deque(
        sorted((s for s in found if s.title not in reserved), key=lambda story: _hour(story, rng))
    )
    reported = ", ".join(f"{symbol} {len(chosen)}" for symbol, chosen in bad.items())
    sys.stderr.write(f"{len(found)} stories; planned: {reported}\n")
    planned = _plan(bad)
    schedule = Schedule(rng)
    waiting: deque[Story] = deque()
    copies: list[tuple[int, Story, str]] = []  # not before this place, what, by whom not
    while len(schedule.records) < RECORDS:
        place = len(schedule.records)
        if place in planned:
            story, gap = planned[place]
            schedule.add(story.title, story.symbols, gap)
            continue
        gap = planned[place + 1][1] if place + 1 in planned else schedule.gap()
        due = next(
            (copy for copy in copies if copy[0] <= place and schedule.fits(copy[1].symbols, gap)), None
        )
        if due:
            copies.remove(due)
            outlet = rng.choice([name for name in OUTLETS if name != due[2]])
            schedule.add(copy_of(due[1], finder, rng), due[1].symbols, gap, outlet)
            continue
        story = _next(schedule, ordinary, waiting, gap)
        outlet = schedule.add(story.title, story.symbols, gap)
        if rng.random() < COPIED_SHARE:
            for _ in range(rng.choice([1, 1, 2, 3])):
                copies.append((place + rng.randint(*COPY_DELAY), story, outlet))
    return schedule.records


def _bad_news(found: Sequence[Story], symbol: str) -> list[Story]:
    """Negative headlines about one company, the starkest first, then those about it alone."""
    chosen = [story for story in found if symbol in story.symbols and story.label == "negative"]
    return sorted(chosen, key=lambda story: (not _STARK.search(story.title), len(story.symbols)))[:14]


def _plan(bad: dict[str, list[Story]]) -> dict[int, tuple[Story, float]]:
    """Place -> headline and gap of what is planned: every second record while it breaks."""
    planned: dict[int, tuple[Story, float]] = {}
    for number, story in enumerate(bad[BAD_DAY]):
        planned[LIVE_FROM + 1 + 2 * number] = (story, BAD_DAY_GAP)
    for patch, symbol in enumerate(ROUGH_PATCHES, 1):
        for number, story in enumerate(bad[symbol]):
            planned[LIVE_FROM + PATCH_EVERY * patch + 3 * number] = (story, PATCH_GAP)
    return planned


def _next(schedule: Schedule, ordinary: deque[Story], waiting: deque[Story], gap: float) -> Story:
    """The next headline of the day that may come now; what may not waits."""
    for story in waiting:
        if schedule.fits(story.symbols, gap):
            waiting.remove(story)
            return story
    while ordinary:
        story = ordinary.popleft()
        if schedule.fits(story.symbols, gap):
            return story
        waiting.append(story)
    raise SystemExit("not enough headlines for this many records")


def main() -> None:
    """Write both files; the same input gives the same bytes."""
    records = build()
    SAMPLES.mkdir(exist_ok=True)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with (SAMPLES / "news.jsonl.gz").open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(lines.encode())
    meta = META | {
        "records": len(records),
        "seconds": round(sum(float(str(record["gap"])) for record in records), 1),
    }
    (SAMPLES / "news.meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    size = (SAMPLES / "news.jsonl.gz").stat().st_size
    sys.stderr.write(f"{len(records)} records, {meta['seconds']} s, {size} bytes\n")


if __name__ == "__main__":
    main()
