"""Near-duplicate stories, in Python and in the store."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
import redis

from streams.headlines import stories
from streams.headlines.entities import Finder, load_gazetteer
from streams.headlines.stories import COEFFICIENTS, THRESHOLD, Memory, prepare
from streams.headlines.text import normalise
from streams.headlines.tokens import load_vocabulary
from streams.state.store import packed, script_source

HOUR = 3_600_000
NOW = 1_800_000_000_000
_HARNESS = """
local ctx = cmsgpack.unpack(ARGV[1])
local replies = {}
for _, call in ipairs(ctx.calls) do
  local story, first = assign_story(ctx.prefix, ctx.life, call.now, call.ts, call.item, ctx.hours)
  replies[#replies + 1] = {story, first}
end
return cmsgpack.pack(replies)
"""

Answer = tuple[str, str | None]


class StoreMemory:
    """The stories as the store keeps them."""

    def __init__(self, url: str, prefix: str, hours: float) -> None:
        self.client = redis.Redis.from_url(url)
        self._script = self.client.register_script(script_source("stories") + _HARNESS)
        self._prefix, self._hours = prefix, hours

    def assign_all(self, calls: Sequence[dict[str, Any]], life: str = "life") -> list[Answer]:
        """The answers to many calls, 100 a script."""
        answers: list[Answer] = []
        for at in range(0, len(calls), 100):
            some = [{**one, "item": _for_lua(one["item"])} for one in calls[at : at + 100]]
            head = {"prefix": self._prefix, "life": life, "hours": self._hours, "calls": some}
            replies = msgspec.msgpack.decode(self._script(args=[msgspec.msgpack.encode(head)]))
            answers += [(story, first or None) for story, first in replies]
        return answers

    def all_keys(self) -> list[bytes]:
        """Every key of these stories."""
        return list(self.client.scan_iter(f"{self._prefix}:*", count=1000))


def _for_lua(item: dict[str, Any]) -> dict[str, Any]:
    return {name: packed(value) if isinstance(value, bytes) else value for name, value in item.items()}


@pytest.fixture
def kept(store_url: str, unique: str) -> Iterator[StoreMemory]:
    memory = StoreMemory(store_url, unique, 6.0)
    yield memory
    memory.client.close()


def call(
    record_id: str, title: str, symbols: Sequence[str] = (), *, now: int = NOW, ts: int = NOW
) -> dict[str, Any]:
    """One call of assign_story."""
    return {"now": now, "ts": ts, "item": prepare(record_id, normalise(title), symbols)}


def answers_of(titles: Sequence[str], symbols: Sequence[str] = ()) -> list[str | None]:
    """What each title repeats, by place, in a memory of its own."""
    memory = Memory(6.0)
    return [
        memory.assign(prepare(str(at), normalise(title), symbols), NOW, NOW)[1]
        for at, title in enumerate(titles)
    ]


ORIGINAL = "Boeing shares fall 4% after FAA orders new 737 MAX inspections"


@pytest.mark.parametrize(
    "copy",
    [
        ORIGINAL,
        ORIGINAL.upper(),
        "UPDATE 1-Boeing shares fall 4 per cent after FAA orders new 737 MAX inspections - Reuters",
        "Boeing stock drops 4% following FAA order of new 737 MAX inspections https://t.co/abc",
        "Boeing shares fall 4% after FAA orders new 737 MAX inspections, sources say",
    ],
)
def test_a_copy_joins(copy: str) -> None:
    """A headline that another outlet took over in its own style is the same story."""
    assert answers_of([ORIGINAL, copy]) == [None, "0"]


@pytest.mark.parametrize(
    "other",
    [
        "Airbus shares fall 4% after FAA orders new 737 MAX inspections",
        "Boeing shares fall 7% after FAA orders new 737 MAX inspections",
        "Boeing shares rise 4% after FAA orders new 737 MAX inspections",
        "Boeing shares fall 4% after FAA halts 737 MAX deliveries",
        "Boeing shares fall 4% after EASA orders new 737 MAX inspections",
        "Boeing shares do not fall after FAA orders new 737 MAX inspections",
    ],
)
def test_another_story_stays_apart(other: str) -> None:
    """The same template with another company, number, direction, matter or a negation is another story."""
    assert answers_of([ORIGINAL, other]) == [None, None]


def test_repeated_directions_count() -> None:
    """A direction word that stands twice is no match for one that stands once beside its opposite."""
    assert answers_of(
        ["Acme misses on profit, beats on revenue", "Acme misses on profit, misses on revenue"]
    ) == [None, None]


def test_other_entities_are_another_story() -> None:
    """The same words about other entities are another story, about fewer of them they are not."""
    memory = Memory(6.0)
    title = "Quarterly results beat estimates at the maker of chips"
    found = [
        memory.assign(prepare(str(at), title, symbols), NOW, NOW)[1]
        for at, symbols in enumerate([["A"], ["B"], []])
    ]
    assert found == [None, None, "0"]


SURGE_WORDS = """\
sued over faulty brakes
recalls cars over airbag fire
cuts profit outlook
chief resigns abruptly
auditor quits
faces antitrust probe in Europe
faces antitrust probe in Japan
loses Pentagon contract
factory hit by explosion
misses Q1 estimates
misses Q2 estimates
shares plunge 4%
shares plunge 9%
to lay off 300 workers
to lay off 900 workers
downgraded by Nomura
downgraded by Barclays
credit rating cut to junk
defaults on loan
under investigation for fraud""".splitlines()


@pytest.mark.parametrize("company", ["Zorblatt Corp", "Boeing"])
def test_a_surge_is_not_one_story(company: str) -> None:
    """Twenty distinct bad headlines about one company, some from one template, are twenty stories."""
    assert answers_of([f"{company} {words}" for words in SURGE_WORDS], ["ZBLT"]) == [None] * 20


@pytest.mark.parametrize(
    "template",
    [
        "Acme hit by lawsuit number {}",
        "Acme loses contract #{} as crisis deepens",
        "Acme falls {}% on weak demand",
    ],
)
def test_a_template_with_a_number_is_not_one_story(template: str) -> None:
    """Headlines that differ in a number only are stories of their own."""
    assert answers_of([template.format(number) for number in range(20)], ["ACME"]) == [None] * 20


def test_companies_in_one_template_are_apart() -> None:
    """Ten companies with the same twenty headlines are two hundred stories, known to the gazetteer or not."""
    titles = [f"{name} {words}" for name in ("Zorblatt", "Quuxly", "Fnordex") for words in SURGE_WORDS]
    assert answers_of(titles) == [None] * 60


def test_a_story_takes_copies_in_for_its_time_only() -> None:
    """A copy joins within the story's hours from its first headline, by event time."""
    memory = Memory(6.0)
    found = [
        memory.assign(prepare(str(at), ORIGINAL, []), NOW, NOW + hours * HOUR)[1]
        for at, hours in enumerate([0, 6, 7, 8])
    ]
    assert found == [None, "0", None, "2"]


def test_a_short_title_joins_its_equal_only() -> None:
    """A title of one or two words is a copy of the same words alone."""
    assert answers_of(["Market update", "Market update", "Market", "", ""]) == [None, "0", None, None, None]


def test_a_prepared_headline_is_small() -> None:
    """What goes to the store about a headline of any length has a bound."""
    item = prepare(
        "id", " ".join(f"word{number}" for number in range(5000)), [f"S{number}" for number in range(32)]
    )
    assert len(msgspec.msgpack.encode(item)) < 450


def _edits(rng: random.Random, count: int) -> list[str]:
    """Headlines and copies with words dropped, repeated, exchanged: near enough to be hard to judge."""
    names = ["Boeing", "Infosys", "Yes Bank", "Zorblatt", "India", "Nifty"]
    text = "shares fall rise 4% 5% Q1 after as profit loss beats misses on new order probe not at Rs 100 crore high"
    words = text.split()
    titles = [
        f"{rng.choice(names)} {' '.join(rng.choices(words, k=rng.randint(0, 11)))}" for _ in range(count // 4)
    ]
    while len(titles) < count:
        copy = rng.choice(titles).split()
        for _ in range(rng.randint(0, 3)):
            at = rng.randrange(len(copy))
            copy[at : at + rng.randint(0, 2)] = rng.choices([*words, *names], k=rng.randint(0, 2)) or ["and"]
        titles.append(" ".join(copy))
    return titles


@pytest.mark.parametrize("seed", range(3))
def test_the_store_agrees_with_python(kept: StoreMemory, seed: int) -> None:
    """Over a corpus of random edits with clocks that move on, the store gives the answers that Memory
    gives."""
    rng = random.Random(seed)
    finder = Finder(load_gazetteer())
    calls, now = [], NOW
    for at, title in enumerate(_edits(rng, 1500)):
        now += rng.choice([0, 0, 1000, 60_000, 120_000])
        ts = now - rng.choice([0, 0, 0, 1, 5, 7]) * HOUR
        symbols = [entity.symbol for entity in finder.find(title)]
        record_id = f"r{at if rng.random() < 0.95 else rng.randrange(at + 1)}"
        calls.append(call(record_id, title, symbols, now=now, ts=ts))
    memory = Memory(6.0)
    expected = [memory.assign(one["item"], one["now"], one["ts"]) for one in calls]
    assert kept.assign_all(calls) == expected
    assert 100 < sum(first is not None for _, first in expected) < 1400


def test_asking_again_changes_nothing(kept: StoreMemory) -> None:
    """The same call gives the same answer, and the store is as it was."""
    calls = [call("a", ORIGINAL), call("b", ORIGINAL), call("c", "Gold rises on weak dollar")]
    first = kept.assign_all(calls)
    before = {key: kept.client.dump(key) for key in kept.all_keys()}
    assert kept.assign_all(calls) == first == [("a", None), ("a", "a"), ("c", None)]
    assert {key: kept.client.dump(key) for key in kept.all_keys()} == before


def test_lives_do_not_share_stories(kept: StoreMemory) -> None:
    """A topic that was made again starts with no stories."""
    assert kept.assign_all([call("a", ORIGINAL)], life="one") == [("a", None)]
    assert kept.assign_all([call("b", ORIGINAL)], life="two") == [("b", None)]


def test_every_key_expires(kept: StoreMemory) -> None:
    """Each key has an expiry of at most two story times and a minute, whatever the clock says."""
    kept.assign_all(
        [
            call(str(at), f"Acme {word} {at}", now=at * HOUR, ts=at * HOUR)
            for at, word in enumerate(SURGE_WORDS)
        ]
    )
    left = [kept.client.pttl(key) for key in kept.all_keys()]
    assert left
    assert all(0 < milliseconds <= 12 * HOUR + 60_000 for milliseconds in left)


def test_postings_are_capped(kept: StoreMemory) -> None:
    """A token remembers its newest 64 first headlines."""
    kept.assign_all([call(str(at), f"Zorblatt {at}") for at in range(200)])
    lists = [value for key in kept.all_keys() if b":p:" in key for value in kept.client.hvals(key)]
    assert max(len(value) for value in lists) == 4 * stories.POSTINGS


def test_the_script_has_the_fitted_numbers() -> None:
    """The coefficients and limits that stand in stories.lua are those of stories.py."""
    source = script_source("stories")
    numbers = re.search(r"local coefficients = \{(.*)\}", source)
    assert numbers is not None
    assert tuple(float(number) for number in numbers[1].split(",")) == COEFFICIENTS
    assert f"math.log({THRESHOLD} / (1 - {THRESHOLD}))" in source
    assert f"local least = {stories.BLOCKING_SHARE} * rest" in source
    assert f"math.min({stories.CANDIDATES}, #found)" in source
    assert f"math.min(size, count) < {stories.SHORTEST}" in source


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("profit of Rs 1,200 crore", "profit of 1200 cr"),
        ("up 3.50 per cent", "up 3.5%"),
        ("third quarter sales", "Q3 sales"),
        ("3Q sales", "Q3 sales"),
        ("$2 billion fund", "2bn fund"),
        ("shares rising", "stock climbs"),
        ("U.S. bank's profits", "US bank profit"),
    ],
)
def test_tokens_do_not_depend_on_style(one: str, other: str) -> None:
    """Numbers with their units, quarters, endings and words for moves are the same tokens in each style."""
    vocabulary = load_vocabulary()
    assert [token.text for token in vocabulary.tokens(one)] == [
        token.text for token in vocabulary.tokens(other)
    ]
