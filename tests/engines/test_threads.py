"""Threads: turns at the engine, cores and their shares, and a runtime that lets other threads run."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.bundle import active_folder, open_bundle
from engines.text import from_bundle
from engines.threads import GIVE_WAY, cores, give_way, share
from engines.turns import Turns

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
DEADLINE = 20.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_turns_go_to_who_waited_longest() -> None:
    """A thread that gives its turn up and wants it again at once comes after those that wait."""
    turns, order = Turns(), []

    def want(name: str) -> None:
        with turns:
            order.append(name)

    with turns:
        threads = []
        for number, name in enumerate("abc", 1):
            threads.append(threading.Thread(target=want, args=(name,)))
            threads[-1].start()
            until(lambda n=number: len(turns._waiting) == n)  # type: ignore[misc]
    want("again")
    for thread in threads:
        thread.join(DEADLINE)
    assert order == ["a", "b", "c", "again"]


def test_turns_exclude_each_other() -> None:
    """Never two threads at once, and an exception gives the turn back."""
    turns, inside, most = Turns(), [], []

    def work() -> None:
        for number in range(200):
            try:
                with turns:
                    inside.append(number)
                    most.append(len(inside))
                    inside.pop()
                    raise ValueError(number)
            except ValueError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(most) == 800
    assert max(most) == 1


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_share_the_cores(workers: int) -> None:
    """The inference threads of all workers together are no more than the cores, as long as each has one."""
    for whole in (1, 2, 8, 64):
        assert share(workers, whole) >= 1
        assert share(workers, whole) * workers <= max(whole, workers)
    assert share(1) == cores()


@pytest.mark.parametrize(
    ("quota", "expected"), [("100000 100000", 1), ("150000 100000", 1), ("max 100000", None), ("", None)]
)
def test_a_container_has_the_cores_of_its_quota(tmp_path: Path, quota: str, expected: int | None) -> None:
    """A quota below the machine's cores counts, one that is missing or unlimited does not."""
    (tmp_path / "cpu.max").write_text(quota)
    assert cores(tmp_path) == (expected or len(os.sched_getaffinity(0)))


def test_only_the_thread_that_asks_gives_way() -> None:
    """The priority of the calling thread is lowered, no other's."""
    found: list[int] = []

    def low() -> None:
        give_way()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=low)
    thread.start()
    thread.join(DEADLINE)
    assert found == [GIVE_WAY]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 0


def test_the_runtime_lets_other_threads_run() -> None:
    """While an engine runs a batch another thread computes; with switching off, it can only without the GIL."""
    classifier = from_bundle(open_bundle(active_folder(BUNDLES, "news")), "onnxruntime")
    texts = ["Shares plunge after the bank reports a record loss and its chairman resigns"] * 8
    classifier.warm()
    counted, ended = [0], threading.Event()

    def count() -> None:
        while not ended.is_set():
            counted[0] += 1
            time.sleep(0)  # lets go of the GIL itself, and takes it where nobody has it

    previous = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    other = threading.Thread(target=count)
    other.start()
    try:
        before = counted[0]
        classifier.probabilities(texts)
        during = counted[0] - before
    finally:
        ended.set()
        sys.setswitchinterval(previous)
        other.join(DEADLINE)
        classifier.close()
    assert during > 100
