"""A worker's HTTP: metrics, single headlines through the micro-batcher, and what is refused."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engines.batcher import TooLate
from engines.text import open_classifier, serve_always
from streams.endpoint import MAX_BODY
from streams.headlines.answers import AT_ONCE
from streams.metrics import Metrics
from streams.news import LABELS, NewsPipeline
from streams.settings import Settings


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A news pipeline's endpoint on a free port."""
    settings = Settings(kafka="x:1", redis="redis://x", engine="tiny")
    pipeline = NewsPipeline(settings, classifier=open_classifier(settings.bundles, "news", "tiny"))
    yield Metrics("news").serve("127.0.0.1", 0, pipeline.posts())
    pipeline.close()


def post(address: str, body: Any, path: str = "/score", **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", raw, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_title_is_scored(address: str) -> None:
    """One title gives one object: sentiment, entities, what scored it, and the times that it waited and ran."""
    status, found = post(address, {"title": "Apple shares slump on weak sales"})
    assert status == 200
    assert found["sentiment"]["label"] == "negative"
    assert [entity["symbol"] for entity in found["entities"]] == ["AAPL"]
    assert (found["model"], found["engine"]) == ("news/tiny", "tiny")
    assert found["queue_ms"] >= 0
    assert found["inference_ms"] >= 0


def test_titles_are_answered_in_order(address: str) -> None:
    """Several titles give a list in their order; none gives an empty one."""
    status, found = post(
        address, {"titles": ["shares crash", "profit soars", "meeting"], "priority": "backfill"}
    )
    assert status == 200
    assert [one["sentiment"]["label"] for one in found] == ["negative", "positive", "neutral"]
    assert post(address, {"titles": []}) == (200, [])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "truncated"),
        (b"\xff", "JSON is malformed"),
        ({}, "one of `title` and `titles`"),
        ({"title": "a", "titles": ["b"]}, "one of `title` and `titles`"),
        ({"title": 1}, "Expected `str"),
        ({"title": "x" * 2001}, "length <= 2000"),
        ({"titles": ["x"] * (AT_ONCE + 1)}, f"length <= {AT_ONCE}"),
        ({"title": "x", "priority": "now"}, "Invalid enum value 'now'"),
        ({"title": "x", "within": -1}, "> 0"),
    ],
)
def test_a_wrong_body_is_refused(address: str, body: Any, says: str) -> None:
    """A body that is no question is answered 400 with one line."""
    status, found = post(address, body)
    assert status == 400
    assert says in found["error"]
    assert "\n" not in found["error"]


def test_a_large_body_is_not_read(address: str) -> None:
    """A body beyond the bound is refused by its length alone, and one without a length too."""
    host, _, port = address.partition(":")
    for header, status in ((f"Content-Length: {MAX_BODY + 1}", b" 413 "), ("X-None: 1", b" 411 ")):
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(f"POST /score HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
            assert status in client.recv(200)


def test_other_paths_are_unknown(address: str) -> None:
    """What is not there is a 404 that says what is."""
    assert post(address, {}, "/metrics")[0] == 404
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{address}/score", timeout=30)


def test_metrics_are_served(address: str) -> None:
    """Prometheus reads the metrics of the same address."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as reply:
        assert b"tapewatch_stage_seconds" in reply.read()


def test_many_callers_get_their_own_answers(address: str) -> None:
    """More callers at once than connections are all answered, each with its own."""
    words = {"negative": "crash", "positive": "soars", "neutral": "meeting"}
    wanted = list(words) * 40

    def ask(label: str) -> str:
        return str(post(address, {"title": f"Shares {words[label]}"})[1]["sentiment"]["label"])

    with ThreadPoolExecutor(30) as callers:
        assert list(callers.map(ask, wanted)) == wanted


def test_overload_and_failure_are_said() -> None:
    """Too late is 503, an error of the engine 500, one line each, and the server goes on."""
    errors = iter([TooLate("not begun within 5 s"), RuntimeError("out of\nmemory")])

    def fail(_: bytes) -> None:
        raise next(errors)

    address = Metrics("news").serve("127.0.0.1", 0, {"/score": fail})
    assert post(address, {}) == (503, {"error": "not begun within 5 s"})
    assert post(address, {}) == (500, {"error": "RuntimeError: out of memory"})


def test_closing_a_pipeline_tells_who_waits() -> None:
    """A caller whose answer will not come hears so."""
    settings = Settings(kafka="x:1", redis="redis://x", engine="tiny")
    pipeline = NewsPipeline(settings, classifier=open_classifier(settings.bundles, "news", "tiny"))
    address = Metrics("news").serve("127.0.0.1", 0, pipeline.posts())
    pipeline.close()
    assert post(address, {"title": "late"}) == (503, {"error": "the batcher is closed"})


def test_labels_are_checked() -> None:
    """A classifier with other columns does not serve."""
    with pytest.raises(Exception, match="has the labels"):
        serve_always(open_classifier(Settings().bundles, "news", "tiny"), LABELS[::-1])
