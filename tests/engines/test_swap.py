"""Hot swap: another version takes over between two batches, or the old one serves on."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engines.bundle import ACTIVE, BundleError, activate, active_folder, open_bundle, publish
from engines.engine import EngineError
from engines.swap import HotSwap, Version, active_version
from engines.text import open_serving
from engines.threads import GIVE_WAY

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
LABELS = ("negative", "neutral", "positive")
DEADLINE = 240.0


class Versioned:
    """A model that remembers what was done to it."""

    def __init__(self, folder: Path) -> None:
        self.model = folder.name
        self.warmed = False
        self.closed = False
        self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def warm(self) -> None:
        if "cold" in self.model:
            raise EngineError(f"{self.model} does not run")
        self.warmed = True

    def close(self) -> None:
        self.closed = True


class Shelf:
    """What is active, and every model that was opened."""

    def __init__(self) -> None:
        self.active: Version | None = Version(Path("1"), 1)
        self.opened: list[Versioned] = []

    def version(self) -> Version:
        if self.active is None:
            raise BundleError("no active bundle")
        return self.active

    def open(self, folder: Path) -> Versioned:
        if "broken" in folder.name:
            raise BundleError(f"{folder.name} is damaged")
        self.opened.append(Versioned(folder))
        return self.opened[-1]

    def activate(self, name: str) -> None:
        self.active = Version(Path(name), (self.active.activated if self.active else 0) + 1)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def swap(shelf: Shelf) -> Iterator[HotSwap[Versioned]]:
    made = HotSwap(shelf.open, shelf.version)
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_another_version_takes_over_between_two_batches(shelf: Shelf, swap: HotSwap[Versioned]) -> None:
    """A batch under way ends on the old version, which closes then; the next runs on the new one, warm."""
    with swap.use() as old:
        shelf.activate("2")
        assert swap.refresh() is True
        with swap.use() as new:
            assert (new.model, new.warmed) == ("2", True)
        assert (old.model, old.closed) == ("1", False)
    assert old.closed
    assert swap.now is new


def test_nothing_is_opened_when_nothing_changed(shelf: Shelf, swap: HotSwap[Versioned]) -> None:
    """Looking is free, and activating what serves already opens nothing."""
    assert swap.refresh() is None
    shelf.activate("1")
    assert swap.refresh() is None
    assert len(shelf.opened) == 1


@pytest.mark.parametrize("name", ["broken", "cold"])
def test_a_version_that_fails_leaves_the_old_one(
    shelf: Shelf, swap: HotSwap[Versioned], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A version that does not open or warm is refused once, said in the log, and what it opened is closed."""
    shelf.activate(name)
    with caplog.at_level(logging.ERROR, "tapewatch.swap"):
        assert [swap.refresh(), swap.refresh()] == [False, None]
    assert [record.message for record in caplog.records] == [
        f"1 serves on, {name} is refused: {name} {'is damaged' if name == 'broken' else 'does not run'}"
    ]
    assert swap.now.model == "1"
    assert all(opened.closed for opened in shelf.opened[1:])
    shelf.activate(name)
    assert swap.refresh() is False
    shelf.activate("1")
    assert swap.refresh() is None
    assert not swap.now.closed


def test_a_lost_activation_leaves_the_old_one(shelf: Shelf, swap: HotSwap[Versioned]) -> None:
    """Where no version is named any more, that is noted once and the old one serves on; another may follow."""
    shelf.active = None
    assert [swap.refresh(), swap.refresh()] == [False, None]
    shelf.activate("2")
    assert swap.refresh() is True


def test_loading_gives_way_to_scoring(shelf: Shelf, swap: HotSwap[Versioned]) -> None:
    """The new version is loaded at a lower priority, and no other thread is left at it."""
    shelf.activate("2")
    swap.refresh()
    assert [opened.niceness for opened in shelf.opened] == [0, GIVE_WAY]
    assert niceness() == {0}


def test_the_watcher_tells_of_each_change(shelf: Shelf, swap: HotSwap[Versioned]) -> None:
    """`watch` swaps by itself, and notes what took over and what was refused."""
    noted: list[bool] = []
    swap.watch(noted.append, every=0.01)
    for count, name in enumerate(["2", "broken", "3"], 1):
        shelf.activate(name)
        until(lambda c=count: len(noted) == c)  # type: ignore[misc]
    assert noted == [True, False, True]
    assert swap.now.model == "3"


def test_a_look_that_fails_is_not_the_last(
    shelf: Shelf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a look raises, the watcher looks again, and takes the next version."""
    swap = HotSwap(shelf.open, shelf.version)
    looks = iter([OSError("the disk is away")])
    plain = swap.refresh

    def refresh() -> bool | None:
        for error in looks:
            raise error
        return plain()

    monkeypatch.setattr(swap, "refresh", refresh)
    shelf.activate("2")
    with caplog.at_level(logging.ERROR):
        swap.watch(lambda _: None, every=0.01)
        until(lambda: swap.now.model == "2")
    assert "looking for another version failed" in caplog.text
    swap.close()


def test_closing_waits_for_the_last_user(shelf: Shelf) -> None:
    """A model is not closed under a batch that uses it."""
    swap = HotSwap(shelf.open, shelf.version)
    with swap.use() as model:
        swap.close()
        assert not model.closed
    assert model.closed


def niceness() -> set[int]:
    """The priorities of all threads of this process."""
    until(lambda: "load" not in {thread.name for thread in threading.enumerate()})
    return {os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")}


def another(bundles: Path, version: str, labels: tuple[str, ...] = LABELS) -> None:
    """The active news bundle once more under another version, without its GPU graph."""
    source, staged = active_folder(BUNDLES, "news"), bundles / f".{version}"
    manifest = open_bundle(source).manifest
    engines = {"onnxruntime": manifest.engines["onnxruntime"]}
    needed = {engines["onnxruntime"].file, "tokenizer.json"}
    staged.mkdir()
    for name in needed:
        shutil.copyfile(source / name, staged / name)
    manifest = msgspec.structs.replace(
        manifest, engines=engines, files={name: manifest.files[name] for name in needed}
    )
    publish(
        staged, msgspec.structs.replace(manifest, version=version, labels=labels), bundles / "news" / version
    )


def test_a_real_bundle_is_swapped_under_load(tmp_path: Path) -> None:
    """While texts are scored without a pause, an activated bundle takes over and no request fails."""
    for version in ("1", "2"):
        another(tmp_path, version)
    another(tmp_path, "upside-down", LABELS[::-1])
    activate(tmp_path, "news", "1")
    swap = open_serving(tmp_path, "news", "auto", 1, LABELS)
    before, ended = niceness(), threading.Event()
    scored: list[str] = []
    failed: list[Exception] = []

    def load() -> None:
        while not ended.is_set():
            try:
                with swap.use() as model:
                    assert model.probabilities(["Profit surges, dividend raised"]).argmax() == 2
                    scored.append(model.model)
            except Exception as error:
                failed.append(error)

    caller = threading.Thread(target=load)
    caller.start()
    noted: list[bool] = []
    swap.watch(noted.append, every=0.01)
    until(lambda: len(scored) > 3)
    activate(tmp_path, "news", "2")
    until(lambda: scored[-1] == "news/2")
    activate(tmp_path, "news", "upside-down")
    until(lambda: len(noted) == 2)
    (tmp_path / "news" / "3").mkdir()
    (tmp_path / "wanted").write_text("3\n")
    (tmp_path / "wanted").replace(tmp_path / "news" / ACTIVE)
    until(lambda: len(noted) == 3)
    count = len(scored)
    until(lambda: len(scored) > count + 3)
    ended.set()
    caller.join(DEADLINE)
    assert failed == []
    assert noted == [True, False, False]
    assert scored == sorted(scored)
    assert set(scored) == {"news/1", "news/2"}
    assert niceness() == before
    swap.close()


def test_the_active_version_changes_when_it_is_activated_again(tmp_path: Path) -> None:
    """A repaired bundle is tried again after the same `activate`."""
    another(tmp_path, "1")
    activate(tmp_path, "news", "1")
    first = active_version(tmp_path, "news")

    def activated_later() -> bool:
        activate(tmp_path, "news", "1")
        return active_version(tmp_path, "news") != first

    until(activated_later)
    assert active_version(tmp_path, "news").folder == first.folder == tmp_path / "news" / "1"
    (tmp_path / "news" / ACTIVE).unlink()
    with pytest.raises(BundleError, match="no active bundle"):
        active_version(tmp_path, "news")
    for torn, why in ((b"\xff\xfe", "it is no text"), (b"1\0", "is not the name of a version")):
        (tmp_path / "news" / ACTIVE).write_bytes(torn)
        with pytest.raises(BundleError, match=why):
            active_version(tmp_path, "news")
