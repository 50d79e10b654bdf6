"""What serving costs: the size of what is installed, and the time until an engine is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.engine import EngineError
from streams.launch.doctor import examine
from streams.launch.footprint import installed, ready_seconds
from streams.settings import read_settings

BUNDLES = str(Path(__file__).parents[2] / "models" / "bundles")


def test_the_serving_environment_is_what_the_package_needs() -> None:
    """Dependencies and theirs are counted, extras are not."""
    found = installed()
    assert found.distributions > 30
    assert found.bytes > sum(size for _, size in found.largest) > 0
    assert "torch" not in dict(found.largest)
    assert installed("no-such-distribution") == (0, 0, ())


def test_an_engine_becomes_ready_in_a_process_of_its_own() -> None:
    """The time is positive and the engine is named; one that cannot run is one line."""
    settings = read_settings(bundles=BUNDLES)
    seconds, name = ready_seconds(settings, "news", "tiny")
    assert (seconds > 0, name) == (True, "tiny")
    with pytest.raises(EngineError, match="did not become ready") as caught:
        ready_seconds(settings, "news", "warp")
    assert "\n" not in str(caught.value)


def test_doctor_says_which_engine_serves_and_why() -> None:
    """The row of a model names the engine that `auto` takes with the reason, and every engine has a row."""
    rows = {row["what"]: row for row in examine(read_settings(bundles=BUNDLES))}
    assert rows["engine for news"]["ok"]
    assert rows["engine for news"]["note"].startswith("auto takes ")
    assert {"engine onnxruntime", "engine openvino", "engine tensorrt", "engine torch"} <= set(rows)
    assert " MB in " in rows["serving environment"]["note"]


def test_doctor_names_an_engine_that_cannot_run() -> None:
    """A named engine that fails is a row that is not well, in one line."""
    settings = read_settings(bundles=BUNDLES, engine="onnxruntime-cuda")
    rows = {row["what"]: row for row in examine(settings)}
    assert rows["engine for news"]["ok"] is False
    assert "\n" not in rows["engine for news"]["note"]
