"""Topics as the broker knows them: create them, and tell one life of a topic from the next.

A topic that was deleted and made again keeps its name and gets a new id (KIP-516). Kafka and the embedded
broker both say it, in metadata from version 10 on.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

import aiokafka.client
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from kafka import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

MAX_REPLICATION = 3
ANSWER_WITHIN_MS = 10_000
OWN_CONNECTION = "metadata"  # a broker answers in order: on the consumer's one we would wait behind its fetch
NOBODY = uuid.UUID(int=0)


class TopicSpec(NamedTuple):
    """A topic to create. `partitions` None: the number that `create_topics` is given."""

    name: str
    partitions: int | None = None
    config: Mapping[str, str] = {}


class TopicsError(RuntimeError):
    """Topics could not be created or looked up; one line."""


def create_topics(
    bootstrap: str, specs: Iterable[TopicSpec | str], partitions: int, replication: int | None = None
) -> list[str]:
    """Create the topics that are missing, with `replication` copies (None or 0: one a broker, at most three).

    Returns the names created; topics that exist stay as they are. Raises TopicsError.
    """
    with _Admin(bootstrap) as admin:
        existing = set(admin.list_topics())
        copies = replication or min(len(admin.describe_cluster()["brokers"]), MAX_REPLICATION)
        wanted = [TopicSpec(spec) if isinstance(spec, str) else spec for spec in specs]
        missing = {spec.name: spec for spec in wanted if spec.name not in existing}
        created = []
        for name, spec in missing.items():
            details = {
                "num_partitions": spec.partitions or partitions,
                "replication_factor": copies,
                "configs": dict(spec.config),
            }
            try:
                admin.create_topics({name: details}, wait_for_metadata=True)
            except TopicAlreadyExistsError:  # somebody else was quicker
                continue
            created.append(name)
        return created


def delete_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Delete topics, for tests and for `doctor`. Raises TopicsError."""
    with _Admin(bootstrap) as admin:
        admin.delete_topics(list(names))


def topic_ids(bootstrap: str, names: Sequence[str]) -> dict[str, str | None]:
    """The id of each topic's present life, None where there is no such topic. Blocks. Raises TopicsError."""
    with _Admin(bootstrap) as admin:
        existing = set(admin.list_topics())
        wanted = [name for name in names if name in existing]
        found = {topic["name"]: topic for topic in admin.describe_topics(wanted)} if wanted else {}
    return {name: str(found[name]["topic_id"]) if name in found else None for name in names}


def partition_counts(bootstrap: str, names: Sequence[str]) -> dict[str, int]:
    """How many partitions each of these existing topics has. Blocks. Raises TopicsError."""
    with _Admin(bootstrap) as admin:
        return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(list(names))}


async def client_topic_ids(client: AIOKafkaClient, names: Sequence[str]) -> dict[str, str | None]:
    """As `topic_ids`, in one round trip on an open aiokafka client.

    Raises aiokafka's KafkaError when the broker is away.
    """
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("no broker is known yet")
    reply = await client.send(node, _MetadataRequest(names), group=OWN_CONNECTION)
    found = {name: topic_id for error, name, topic_id, *_ in reply.topics if error == 0}
    return {name: found.get(name) for name in names}


def ask_without_creating() -> None:
    """Keep this process's aiokafka clients from creating topics, with the broker's defaults, by asking for
    them.

    aiokafka 0.14 has no setting for it: its metadata requests always allow it. The embedded broker then
    makes each topic that somebody still reads again, with a partition count of its own; so does Kafka where
    it is configured so.
    """
    if not isinstance(aiokafka.client.MetadataRequest, partial):
        asking = partial(aiokafka.client.MetadataRequest, allow_auto_topic_creation=False)
        aiokafka.client.MetadataRequest = asking


class _Admin:
    """kafka-python's admin client, closed at the end, its errors as one line."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def __enter__(self) -> Any:
        try:
            self._client = KafkaAdminClient(
                bootstrap_servers=self._bootstrap.split(","), bootstrap_timeout_ms=ANSWER_WITHIN_MS
            )
        except KafkaError as problem:
            raise TopicsError(f"no Kafka broker answers at {self._bootstrap}: {problem}") from None
        return self._client

    def __exit__(self, kind: Any, problem: BaseException | None, trace: Any) -> None:
        self._client.close()
        if isinstance(problem, KafkaError):
            raise TopicsError(f"the Kafka broker at {self._bootstrap} refused: {problem}") from None


# aiokafka 0.14 speaks metadata up to version 5, which has no topic ids. These classes add version 12.


class _Uuid:
    @classmethod
    def encode(cls, value: str) -> bytes:
        return uuid.UUID(value).bytes

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        return str(uuid.UUID(bytes=data.read(16)))

    @classmethod
    def repr(cls, value: str) -> str:
        return value


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequestV12(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestV12]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_MetadataRequestV12]) -> _MetadataRequestV12:
        wanted: list[tuple[str, str, dict[int, bytes]]] = [(str(NOBODY), name, {}) for name in self._names]
        return request_struct_class(wanted, False, False, {})
