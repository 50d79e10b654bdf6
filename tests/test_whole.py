"""The whole path in its real processes: `up`, records on Kafka, the contract's commands."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.state.store import Store
from tests.running import Up, alive, children_of, headline, running_up, tapewatch
from tests.stimulus import ENTITIES, background, burst, interleaved
from tests.streams.crash import read_all, wait_for


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `up` without dashboard and samples, with the engine for tests."""
    with running_up(
        tmp_path_factory.mktemp("run"), "--no-dashboard", "--replay", "none", engine="tiny"
    ) as running:
        yield running


def test_a_headline_is_scored_and_counted(up: Up) -> None:
    """A headline on Kafka comes out scored under its id, with its entities, and stands in their trend."""
    up.produce([headline("whole-1", "Shares of $QZZ plunge", time.time(), symbols=["QZY"])])
    wait_for("it is counted", lambda: _sum(up.table("trend", "QZZ", "--bucket", "1h"), "negative") == 1, 30)
    scored = {json.loads(value)["id"]: json.loads(value) for value, _ in _read(up, "tapewatch.news.scored")}
    found = scored["whole-1"]
    assert found["sentiment"]["label"] == "negative"
    assert [entity["symbol"] for entity in found["entities"]] == ["QZY", "QZZ"]
    assert (found["story"], found["duplicate_of"]) == ("whole-1", None)
    assert sum(found["sentiment"]["p"]) == pytest.approx(1, abs=1e-3)


def test_a_surge_fires_and_resolves_for_each_of_ten_entities(up: Up) -> None:
    """The stimulus, seven minutes ago by its times, gives ten alerts that fire and resolve, and no other."""
    start = time.time() - 420
    up.produce(interleaved([background(entity, start) for entity in ENTITIES]))
    up.produce(interleaved([burst(entity, start) for entity in ENTITIES]))
    wanted = {f"symbol:{entity}" for entity in ENTITIES}
    wait_for("ten alerts", lambda: _entities(up) == wanted, 60)
    wait_for("all resolved", lambda: {row["state"] for row in up.table("alerts")} == {"resolved"}, 60)
    records = [json.loads(value) for value, _ in _read(up, "tapewatch.alerts")]
    states = {entity: [r["state"] for r in records if r["entity"] == entity] for entity in wanted}
    assert states == {entity: ["firing", "resolved"] for entity in wanted}
    assert len({record["id"] for record in records}) == 20
    fired = [record for record in records if record["state"] == "firing"]
    assert all(record["value"] >= 5 and len(record["evidence"]) >= 5 for record in fired)


DEAD = "tapewatch.news.dlq"
BAD = {
    "empty": b"",
    "truncated": b'{"id": "a", "ts": "2026-',
    "types": b'{"id": 7, "ts": "2026-11-01T00:00:00Z", "source": "s", "title": "t"}',
    "nan": b'{"id": "a", "ts": NaN, "source": "s", "title": "t"}',
    "future": b'{"id": "a", "ts": "9999-01-01T00:00:00Z", "source": "s", "title": "t"}',
    "nesting": b'{"id": ' + b"[" * 50_000,
    "utf8": b'{"id": "\xff\xfe", "ts": "2026-11-01T00:00:00Z", "source": "s", "title": "t"}',
    "huge": b'{"id": "a", "ts": "2026-11-01T00:00:00Z", "source": "s", "title": "' + b"x" * 1_000_000 + b'"}',
}


def test_bad_input_is_a_dead_letter_with_its_reason(up: Up) -> None:
    """Each kind of bad record ends in the dead-letter topic with its bytes and reason; the worker goes on."""
    up.produce(list(BAD.items()))
    up.produce([headline("after-the-bad", "A quiet day", time.time())])

    wanted = {raw[: 256 * 1024] for raw in BAD.values()}
    wait_for("all dead letters", lambda: {value for value, _ in _read(up, DEAD)} == wanted, 30)
    for _, headers in _read(up, DEAD):
        assert headers["dlq.stage"] == b"decode"
        assert headers["dlq.error"]
        assert headers["dlq.topic"] == b"tapewatch.news"
    ids = {json.loads(value)["id"] for value, _ in _read(up, "tapewatch.news.scored")}
    assert "after-the-bad" in ids


def test_send_reports_wrong_rows_and_sends_the_others(up: Up, tmp_path: Path) -> None:
    """Rows of a CSV with other names become records; a wrong row is named by its line and skipped."""
    rows = [f"s{i},2026-11-01 10:00:{i:02d},Headline number {i}" for i in range(20)] + ["bad,yesterday,x"]
    file = tmp_path / "news.csv"
    file.write_text("nr,when,headline\n" + "\n".join(rows) + "\n")
    done = up.tapewatch("send", "news", str(file), "--map", "id=nr,ts=when,title=headline,source=nr")
    assert done.returncode == 0, done.stderr
    assert "line 22" in done.stderr
    assert "20 records sent" in done.stderr

    def sent() -> set[str]:
        ids = {json.loads(value)["id"] for value, _ in _read(up, "tapewatch.news.scored")}
        return ids & {f"s{i}" for i in range(20)}

    wait_for("all are scored", lambda: len(sent()) == 20, 30)


def test_doctor_finds_all_well(up: Up) -> None:
    """With `up` running, doctor sees broker, store and both workers."""
    rows = {row["what"]: row["ok"] for row in up.table("doctor")}
    assert {rows[name] for name in ("broker", "store", "worker news", "worker alerts")} == {True}


def test_up_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM ends every child within ten seconds with status 0, and the run file is gone."""
    with running_up(tmp_path, "--no-dashboard", "--replay", "none", engine="tiny") as running:
        children = children_of(running.process.pid)
        assert len(children) >= 4
        running.process.terminate()
        assert running.process.wait(10) == 0
        wait_for("no child is left", lambda: not alive(children), 1)
    assert list(tmp_path.glob("*")) == []


@pytest.mark.kafka
def test_up_uses_the_broker_and_the_store_that_are_set(
    tmp_path: Path, kafka: str, store_url: str, unique: str
) -> None:
    """With both settings `up` starts neither, replays nothing, and leaves both as they were."""
    settings = {"kafka": kafka, "redis": store_url, "prefix": unique, "engine": "tiny"}
    with running_up(tmp_path, "--no-dashboard", **settings) as up:
        assert (up.kafka, up.redis) == (kafka, store_url)
        up.produce([headline("mine", "Shares of $QZZ plunge", time.time())], f"{unique}.news")
        wait_for("it is counted", lambda: _sum(up.table("trend", "QZZ"), "negative") == 1, 60)
        children = children_of(up.process.pid)
        up.process.terminate()
        assert up.process.wait(10) == 0
        wait_for("no child is left", lambda: not alive(children), 1)
    scored = asyncio.run(read_all(kafka, f"{unique}.news.scored"))
    assert [json.loads(value)["id"] for value, _ in scored] == ["mine"]
    assert Store(store_url, unique).outcomes("news") == {"scored": 1}


def test_children_end_with_a_killed_up(tmp_path: Path) -> None:
    """SIGKILL of `up` itself ends its children too."""
    with running_up(tmp_path, "--no-dashboard", "--replay", "none", engine="tiny") as running:
        children = children_of(running.process.pid)
        running.process.kill()
        running.process.wait()
        wait_for("no child is left", lambda: not alive(children), 15)


def test_a_broker_at_its_bound_pauses_the_replay_and_goes_on(tmp_path: Path) -> None:
    """At the stated bound the sources pause and say what to do; what comes from elsewhere is still scored."""
    with running_up(tmp_path, "--no-dashboard", engine="tiny", broker_memory_mb="16") as up:
        store = Store(up.redis, "tapewatch")

        def paused() -> str:
            word: Any = store.client.get(store.keys.replay())
            return str(json.loads(word)["paused"] or "") if word else ""

        wait_for("it is paused", lambda: "TAPEWATCH_KAFKA" in paused(), 30)
        up.produce([headline("still-here", "Shares of $QZQ plunge", time.time())])
        wait_for(
            "it is scored", lambda: _sum(up.table("trend", "QZQ", "--bucket", "1h"), "negative") == 1, 60
        )
        assert up.process.poll() is None


def test_commands_without_up_say_what_to_do(tmp_path: Path) -> None:
    """Where no `up` runs, a command ends with status 1 and one line."""
    done = tapewatch("trend", environment={"PATH": "/usr/bin", "TAPEWATCH_RUN_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "tapewatch up" in done.stderr


def test_score_needs_no_broker(tmp_path: Path) -> None:
    """`score` gives scored records in order, and reports what is too long instead of failing on it."""
    rows = [headline(f"n{i}", f"Profit of company {i} rises", time.time() - i) for i in range(30)]
    lines = [value.decode() for _, value in rows]
    lines.insert(
        3, json.dumps({"id": "big", "ts": "2026-11-01T00:00:00Z", "source": "s", "title": "x" * 10_000_000})
    )
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(lines))
    done = tapewatch("score", "news", str(file), environment={"PATH": "/usr/bin", "TAPEWATCH_ENGINE": "tiny"})
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [f"n{i}" for i in range(30)]
    assert "line 4: dead letter (decode)" in done.stderr


def _read(up: Up, topic: str) -> list[tuple[bytes, dict[str, bytes]]]:
    return asyncio.run(read_all(up.kafka, topic))


def _entities(up: Up) -> set[str]:
    return {row["entity"] for row in up.table("alerts")}


def _sum(rows: list[dict[str, int]], name: str) -> int:
    return sum(row[name] for row in rows)
