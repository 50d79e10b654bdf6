"""The agent between a transport and a publisher that are fakes, on a real store."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, cast

import pytest

from streams.agent import Agent, StartAgain
from streams.guard import Prepared
from streams.metrics import Metrics
from streams.publisher import Publisher, Unsendable
from streams.records import News
from streams.runs import FetchedRecord, Run
from streams.settings import Settings
from streams.state.store import LostPlace, Store, Unavailable, script_source
from streams.transport import TP, Intake
from tests.streams.test_guard import EFFECT, NOW, Counting


class Fetched(NamedTuple):
    """A record as the transport hands it over."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class World:
    """Intake and publisher: which life the topic has, what was published, what is refused as too large."""

    def __init__(self) -> None:
        self.life: str | None = "one"
        self.largest = 1 << 30
        self.published: list[Any] = []
        self.events: list[str] = []

    async def topic_id(self, topic: str) -> str | None:
        return self.life

    def assigned(self) -> set[TP]:
        return set()

    def lag(self) -> dict[TP, int]:
        return {}

    async def publish(self, records: Sequence[Any]) -> None:
        refused = [index for index, out in enumerate(records) if len(out.value) > self.largest]
        self.published += [out for index, out in enumerate(records) if index not in refused]
        self.events.append("publish")
        if refused:
            raise Unsendable(refused, ValueError("too large"))

    async def stop(self) -> None:
        pass


class Watched(Counting):
    """A pipeline that says what was done with it, and in which thread; scoring waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.threads: dict[str, str] = {}
        self.scoring, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def prepare(self, batch: Sequence[News], now: float) -> list[Prepared]:
        self.scoring.set()
        assert self.go_on.wait(20)
        self.events.append("scored")
        return super().prepare(batch, now)

    def mask(self, raw: bytes) -> bytes:
        self.threads["mask"] = threading.current_thread().name
        return super().mask(raw)

    def close(self) -> None:
        self.events.append("closed")


SIZES = pytest.mark.parametrize("size", [2, 40], ids=["scored and committed in one go", "in two steps"])


@pytest.fixture
def act(store_url: str, unique: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Agent]:
    """Run a scenario `async (agent, world, runs)` in which the topic's records lie in one partition."""
    head, guard = script_source("guard").split("\n", 1)
    monkeypatch.setattr("streams.state.store.script_source", lambda *names: f"{head}\n{EFFECT}{guard}")

    def run(
        scenario: Callable[[Agent, World, Callable[..., Run]], Awaitable[None]],
        pipeline: Counting | None = None,
    ) -> Agent:
        async def main() -> Agent:
            world, settings = World(), Settings(kafka="x:1", redis=store_url, prefix=unique)
            agent = Agent(
                "news",
                pipeline or Counting(),
                settings,
                Store(store_url, unique),
                cast("Publisher", world),
                Metrics("news"),
                clock=lambda: NOW,
            )
            agent.bind(cast("Intake", world))
            topic = settings.topic("news")
            await agent.start_offsets({TP(topic, 0): None})

            def make(first: int, *titles: str) -> Run:
                rows = [
                    Fetched(topic, 0, first + index, 0, b"k", _raw(f"{first + index}", title))
                    for index, title in enumerate(titles)
                ]
                return Run(
                    topic, 0, cast("list[FetchedRecord]", rows), lambda: world.events.append(f"ack {first}")
                )

            await scenario(agent, world, make)
            await agent.finish()
            return agent

        return asyncio.run(main())

    return run


def _raw(identity: str, title: str) -> bytes:
    if title.startswith("{"):
        return title.encode()
    record = {"id": identity, "ts": "2026-11-18T06:00:00Z", "source": "s", "title": title}
    return json.dumps(record).encode()


def test_runs_are_acknowledged_in_order_after_their_publication(act: Callable[..., Agent]) -> None:
    """Batches overlap, and yet each is published before it is acknowledged, and before the next is."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        for first in (0, 2, 4):
            await agent.handle([run(first, "a", "b")])
        await agent.finish_batches()
        assert world.events == ["publish", "ack 0", "publish", "ack 2", "publish", "ack 4"]

    assert act(scenario).failure is None


def test_a_dead_letter_that_is_too_large_is_cut(act: Callable[..., Agent]) -> None:
    """What the broker refuses as too large arrives shorter, with its headers, and the run is acknowledged."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        world.largest = 1000
        await agent.handle([run(0, "a", "{" * 9000)])
        await agent.finish_batches()
        letter = world.published[-1]
        assert letter.topic.endswith(".dlq")
        assert 0 < len(letter.value) <= 1000
        assert dict(letter.headers)["dlq.offset"] == b"1"
        assert world.events[-1] == "ack 0"

    assert act(scenario).failure is None


@SIZES
def test_a_topic_made_again_stops_the_agent_before_any_effect(act: Callable[..., Agent], size: int) -> None:
    """A batch that was fetched when the topic has another life changes nothing and is not acknowledged."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        world.life = "two"
        taking = asyncio.create_task(agent.handle([run(0, *["a"] * size)]))
        await asyncio.wait_for(agent.run(), 10)
        taking.cancel()
        assert world.events == []

    agent = act(scenario)
    assert isinstance(agent.failure, StartAgain)
    assert agent._store.outcomes("counting") == {}


@SIZES
def test_no_batch_overtakes_one_that_failed(act: Callable[..., Agent], size: int) -> None:
    """After a batch that could not be committed none of the following is published or acknowledged."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        await agent.handle([run(0, "a", "b")])
        await agent.finish_batches()
        agent._store.client.flushdb()

        async def take() -> None:
            await agent.handle([run(2, *["c"] * size)])
            await agent.handle([run(2 + size, "e")])

        taking = asyncio.create_task(take())
        await asyncio.wait_for(agent.run(), 10)
        taking.cancel()
        assert world.events == ["publish", "ack 0"]

    assert isinstance(act(scenario).failure, LostPlace)


def test_a_run_whose_predecessor_never_came_is_refused(act: Callable[..., Agent]) -> None:
    """When a run before it was delivered and never handled, taking it would skip records for good."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        await agent.handle([run(0, "a", "b")])
        await agent.finish_batches()
        later = run(4, "e")
        later.after = 4  # 2 and 3 went out before it
        taking = asyncio.create_task(agent.handle([later]))
        await asyncio.wait_for(agent.run(), 10)
        taking.cancel()
        assert world.events == ["publish", "ack 0"]

    assert isinstance(act(scenario).failure, LostPlace)


def test_a_store_emptied_before_the_first_record_is_noticed(act: Callable[..., Agent]) -> None:
    """A worker that starts at the end of the log of a store that is then emptied starts afresh at its first record."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        await agent.handle([run(0, *"abcdef")])
        await agent.finish_batches()
        [topic] = agent._guard.kinds
        assert await agent.start_offsets({TP(topic, 0): 6}) == {TP(topic, 0): 6}
        agent._store.client.flushdb()
        taking = asyncio.create_task(agent.handle([run(6, "g")]))
        await asyncio.wait_for(agent.run(), 10)
        taking.cancel()

    agent = act(scenario)
    assert isinstance(agent.failure, LostPlace)
    assert agent._store.outcomes("counting") == {}


def test_reading_starts_where_broker_and_store_both_stand(act: Callable[..., Agent]) -> None:
    """From the commit, or from the mark when that is behind it, or from the start when the store knows nothing."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        await agent.handle([run(0, *"abcdef")])
        await agent.finish_batches()
        [topic] = agent._guard.kinds
        tp, other = TP(topic, 0), TP(topic, 1)
        assert await agent.start_offsets({tp: 4, other: 7}) == {tp: 4, other: 0}
        assert await agent.start_offsets({tp: 9}) == {tp: 6}
        assert await agent.start_offsets({tp: None}) == {tp: 0}
        world.life = "two"
        assert await agent.start_offsets({tp: 4}) == {tp: 0}

    assert act(scenario).failure is None


def test_the_model_is_closed_after_the_last_use_of_it(act: Callable[..., Agent]) -> None:
    """A stopping worker waits for the batch that is being scored before it closes the pipeline."""
    pipeline = Watched()
    pipeline.go_on.clear()

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        taking = asyncio.create_task(agent.handle([run(0, "a")]))
        await asyncio.to_thread(pipeline.scoring.wait, 20)
        taking.cancel()

    agent = act(scenario, pipeline)
    assert pipeline.events == []
    threading.Timer(0.2, pipeline.go_on.set).start()
    agent.close()
    assert pipeline.events == ["scored", "closed"]
    assert agent.failure is None


def test_dead_letters_are_made_off_the_event_loop(act: Callable[..., Agent]) -> None:
    """Masking takes long for large records: the loop, and with it the heartbeats of the group, do not wait for it."""
    pipeline = Watched()

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        await agent.handle([run(0, "{")])
        await agent.handle([run(1, *["{"] * 40)])
        await agent.finish_batches()
        assert len(world.published) == 41

    act(scenario, pipeline)
    assert pipeline.threads["mask"] != threading.main_thread().name


def test_a_small_batch_is_scored_once_while_the_store_is_away(
    act: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is scored and committed in one go is not scored again when only its commit has to be."""
    pipeline, commit, refusals = Watched(), Store.commit, iter([True, True])

    def away(store: Store, *names: Any, **step: Any) -> list[Any]:
        if next(refusals, False):
            raise Unavailable("away")
        return commit(store, *names, **step)

    monkeypatch.setattr(Store, "commit", away)

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        await agent.handle([run(0, "a", "b")])
        await agent.finish_batches()
        assert world.events == ["publish", "ack 0"]

    agent = act(scenario, pipeline)
    assert pipeline.calls == 1
    assert agent._store.outcomes("counting") == {"scored": 2}


def test_a_broker_that_is_silent_holds_up_no_thread(act: Callable[..., Agent]) -> None:
    """A small batch waits for the broker's word without the store's thread: timers go on, and a worker can stop."""
    silent, done = asyncio.Event(), Watched()

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        async def topic_id(topic: str) -> str | None:
            await silent.wait()
            return world.life

        world.topic_id = topic_id  # type: ignore[method-assign]
        await asyncio.wait_for(agent.handle([run(0, "a")]), 20)
        assert await asyncio.wait_for(agent._in(agent._storing, lambda: "free"), 20) == "free"
        assert world.events == []
        assert done.events == ["scored"]
        silent.set()
        await agent.finish_batches()
        assert world.events == ["publish", "ack 0"]

    agent = act(scenario, done)
    assert agent._store.outcomes("counting") == {"scored": 1}


def test_a_batch_before_it_keeps_a_small_one_from_overtaking(act: Callable[..., Agent]) -> None:
    """Large and small batches in turn are published and acknowledged in the order in which they were read."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        for first, count in ((0, 40), (40, 1), (41, 40), (81, 2)):
            await agent.handle([run(first, *["a"] * count)])
        await agent.finish_batches()
        assert [event for event in world.events if event != "publish"] == [
            "ack 0",
            "ack 40",
            "ack 41",
            "ack 81",
        ]

    assert act(scenario).failure is None
