"""The store: one Redis client, and the atomic step of the pipelines as a script.

Knows keys and scripts, not what a headline is. Every write of a pipeline goes through `Store.commit`, in pieces that
keep the single-threaded server free for others; a piece is atomic and carries its own marks, so that sending it
again changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from streams.state.keys import Keys

DEDUPE_MAX = 1_000_000  # ids a generation of the memory holds
_HERE = Path(__file__).parent
# Answers of a living server that mean "not now": full, loading, busy with another script, a replica.
_NOT_NOW = (OutOfMemoryError, ReadOnlyError)  # redis-py drops their first word from the message
_NOT_NOW_WORDS = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "TRYAGAIN", "MISCONF")

T = TypeVar("T")


class Unavailable(Exception):
    """The store (or the broker) cannot serve now: nobody's data is at fault; slow down and try again."""


class Refused(Exception):
    """The store ran the step and failed on what it was given: one of these records is to blame."""


class LostPlace(Exception):
    """The store does not stand where this owner's reading does: read again from where it stands."""


def digest(text: str) -> str:
    """22 characters that stand for an id of any length (BLAKE2b, so that nobody can make two ids meet)."""
    found = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return base64.b64encode(found)[:22].decode()  # text: the scripts' msgpack knows no binary


def packed(value: bytes) -> msgspec.Raw:
    """Bytes as a msgpack string, for a script's argument: the scripts' msgpack knows no binary type."""
    return msgspec.Raw(b"\xdb" + len(value).to_bytes(4, "big") + value)


def as_text(value: bytes | str) -> str:
    """A reply's string; the client answers bytes."""
    return value.decode() if isinstance(value, bytes) else value


def script_source(*names: str) -> str:
    """The Lua files of these names, joined; the first line lets a full server refuse the whole before it begins."""
    return "#!lua\n" + "\n".join((_HERE / f"{name}.lua").read_text(encoding="utf-8") for name in names)


def connect(url: str, timeout: float = 5.0) -> redis.Redis:
    """A client that answers bytes and never retries by itself (a retry is decided where its meaning is known)."""
    return redis.Redis.from_url(
        url,
        decode_responses=False,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )


class Store:
    """The state of the pipelines under one prefix on one server."""

    def __init__(self, url: str, prefix: str, *, dedupe_hours: float = 1.0, timeout: float = 5.0) -> None:
        self.url = url
        self.keys = Keys(prefix)
        self.client = connect(url, timeout)
        self._dedupe_ms = int(dedupe_hours * 3_600_000)
        self._scripts: dict[tuple[str, ...], tuple[str, bytes]] = {}

    def commit(
        self,
        names: tuple[str, ...],
        *,
        pipeline: str,
        topic: str,
        life: str,
        pieces: Sequence[Sequence[dict[str, Any]]],
        now: float,
        settings: dict[str, Any],
    ) -> list[Any]:
        """Run the atomic step of the scripts `names` (the guard last) over the items of each piece; replies in order.

        One round trip. Replies are `[status, decision, bytes]` as in guard.lua, the bytes one object a piece;
        `now` is in seconds. Raises Unavailable,
        LostPlace, or Refused when a piece failed; what pieces before it did is done, and is answered as such when it
        is sent again.
        """
        script = self._script(names)
        keys = [
            self.keys.marks(topic, life),
            self.keys.seen(topic, life),
            self.keys.outcomes(pipeline),
            self.keys.watermark(topic),
        ]
        head = {
            "prefix": self.keys.prefix,
            "pipeline": pipeline,
            "topic": topic,
            "life": life,
            "now": int(now * 1000),
            "dedupe_ms": self._dedupe_ms,
            "dedupe_max": DEDUPE_MAX,
            "settings": settings,
        }
        blobs = [msgspec.msgpack.encode({**head, "items": list(piece)}) for piece in pieces]
        replies: list[Any] = []
        for answer in self._evaluate(script, keys, blobs):
            if isinstance(answer, list):  # with bytes that its decisions point into
                replies += [[*reply, answer[1]] for reply in msgspec.msgpack.decode(answer[0])]
            else:
                replies += [[*reply, b""] for reply in msgspec.msgpack.decode(answer)]
        return replies

    def run(self, names: tuple[str, ...], keys: Sequence[str], argument: Any) -> Any:
        """Run one script (its Lua files joined) outside the guard on one msgpack argument; raises as `commit` does."""
        return self._evaluate(self._script(names), keys, [msgspec.msgpack.encode(argument)])[0]

    def call(self, work: Callable[[], T]) -> T:
        """Run a piece of work on the client; Redis errors come out as Unavailable, LostPlace or Refused."""
        try:
            return work()
        except RedisError as error:
            raise _meaning(error) from error

    def outcomes(self, pipeline: str) -> dict[str, int]:
        """How many records of the pipeline ended in each outcome."""
        found = self.call(lambda: self.client.hgetall(self.keys.outcomes(pipeline)))
        return {as_text(name): int(count) for name, count in found.items()}

    def marks(self, topic: str, life: str) -> dict[int, int]:
        """The high-water offset of each partition whose records this store knows."""
        found = self.call(lambda: self.client.hgetall(self.keys.marks(topic, life)))
        return {int(partition): int(offset) for partition, offset in found.items()}

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    def _script(self, names: tuple[str, ...]) -> tuple[str, bytes]:
        if names not in self._scripts:
            source = script_source(*names).encode()
            self._scripts[names] = (hashlib.sha1(source, usedforsecurity=False).hexdigest(), source)
        return self._scripts[names]

    def _evaluate(self, script: tuple[str, bytes], keys: Sequence[str], blobs: Sequence[bytes]) -> list[Any]:
        """One EVALSHA a blob, in one round trip; the script is loaded where the server does not know it."""
        sha, source = script
        answers: list[Any] = []
        for _ in range(2):
            pipe = self.client.pipeline(transaction=False)
            for blob in blobs:
                pipe.evalsha(sha, len(keys), *keys, blob)
            answers = self.call(lambda pipe=pipe: pipe.execute(raise_on_error=False))  # type: ignore[misc]
            if not any(isinstance(answer, NoScriptError) for answer in answers):
                break
            self.call(lambda: self.client.script_load(source))
        for answer in answers:
            if isinstance(answer, RedisError):
                raise _meaning(answer)
        return answers


def _meaning(error: RedisError) -> Exception:
    text = str(error)
    if not isinstance(error, ResponseError):
        return Unavailable(f"the store does not answer: {text or type(error).__name__}")
    if "GAP partition" in text:
        return LostPlace(text)
    if isinstance(error, _NOT_NOW) or text.startswith(_NOT_NOW_WORDS):
        return Unavailable(f"the store refuses writes: {text}")
    return Refused(text)
