"""The process that replays samples: one player each, side by side, until a signal ends it.

A player publishes some history at full speed, then the present, for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module

from streams.launch.players import SAMPLES
from streams.publisher import Publisher
from streams.settings import Settings, read_settings
from streams.state.store import Store

Player = Callable[[Settings, Store, Publisher], Awaitable[None]]


async def play(settings: Settings, samples: Sequence[str]) -> None:
    """Play these samples until cancelled; one that fails ends all, so that the supervisor starts them again."""
    store = Store(settings.redis, settings.prefix)
    publisher = Publisher(settings.kafka)
    await publisher.start()
    try:
        async with asyncio.TaskGroup() as group:
            for name in samples:
                group.create_task(_player(name)(settings, store, publisher))  # type: ignore[arg-type]
    finally:
        await publisher.stop()
        store.close()


def _player(name: str) -> Player:
    module, _, function = SAMPLES[name].partition(":")
    found: Player = getattr(import_module(module), function)
    return found


async def _main(settings: Settings, samples: Sequence[str]) -> None:
    playing = asyncio.create_task(play(settings, samples))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await playing


if __name__ == "__main__":
    asyncio.run(_main(read_settings(), sys.argv[1:]))
