"""The agent between a transport and a publisher that are fakes, on a real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, cast

import pytest

from streams.agent import Agent, StartAgain
from streams.metrics import Metrics
from streams.publisher import Publisher, Unsendable
from streams.runs import FetchedRecord, Run
from streams.settings import Settings
from streams.state.store import LostPlace, Store, script_source
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


@pytest.fixture
def act(store_url: str, unique: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Agent]:
    """Run a scenario `async (agent, world, runs)` in which the topic's records lie in one partition."""
    head, guard = script_source("guard").split("\n", 1)
    monkeypatch.setattr("streams.state.store.script_source", lambda *names: f"{head}\n{EFFECT}{guard}")

    def run(scenario: Callable[[Agent, World, Callable[..., Run]], Awaitable[None]]) -> Agent:
        async def main() -> Agent:
            world, settings = World(), Settings(kafka="x:1", redis=store_url, prefix=unique)
            agent = Agent(
                "news",
                Counting(),
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


def test_a_topic_made_again_stops_the_agent_before_any_effect(act: Callable[..., Agent]) -> None:
    """A batch that was fetched when the topic has another life changes nothing and is not acknowledged."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        world.life = "two"
        await agent.handle([run(0, "a")])
        await asyncio.wait_for(agent.run(), 10)
        assert world.events == []

    agent = act(scenario)
    assert isinstance(agent.failure, StartAgain)
    assert agent._store.outcomes("counting") == {}


def test_no_batch_overtakes_one_that_failed(act: Callable[..., Agent]) -> None:
    """After a batch that could not be committed none of the following is published or acknowledged."""

    async def scenario(agent: Agent, world: World, run: Callable[..., Run]) -> None:
        await agent.handle([run(0, "a", "b")])
        await agent.finish_batches()
        agent._store.client.flushdb()
        await agent.handle([run(2, "c", "d")])
        taking = asyncio.create_task(agent.handle([run(4, "e")]))
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
