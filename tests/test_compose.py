"""The compose file and the Dockerfile, as far as they can be checked without a container engine."""

from __future__ import annotations

import json
import re
from importlib.metadata import files
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from streams.pipelines import PIPELINES
from streams.settings import read_settings
from tapewatch import main

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name: service for name, service in OURS.items() if service["command"][0] == "worker"}
STAGES = re.findall(r"^FROM (\S+) AS (\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)


def test_compose_specification() -> None:
    """The file is valid by the compose specification's own JSON schema (which check-jsonschema carries)."""
    (schema,) = [path for path in files("check-jsonschema") or () if path.name == "compose-spec.json"]
    jsonschema.validate(COMPOSE, json.loads(schema.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "image", [*(service["image"] for service in SERVICES.values()), *(base for base, _ in STAGES)]
)
def test_images_are_pinned(image: str) -> None:
    """Every image has a tag with a version of three numbers, or is a stage of our own file."""
    assert image in dict(STAGES).values() or re.search(r":\d+\.\d+\.\d+", image)


def test_stages() -> None:
    """What a service builds is a stage of the Dockerfile, and all that it copies exists and is let in."""
    assert {service["build"]["target"] for service in OURS.values()} == {stage for _, stage in STAGES}
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for path in " ".join(copied).split():
        assert (ROOT / path).exists()
        assert f"!{path}" in ignore


def test_every_pipeline_has_a_service() -> None:
    """Each pipeline is a service of its own name, and one more on the GPU."""
    assert {name: service["command"] for name, service in WORKERS.items()} == {
        **{name: ["worker", name] for name in PIPELINES},
        "news-gpu": ["worker", "news"],
    }
    assert SERVICES["news-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize("name", WORKERS)
def test_workers_can_be_scaled(name: str) -> None:
    """A worker claims no name and no port of the host."""
    assert not {"container_name", "ports"} & set(WORKERS[name])


@pytest.mark.parametrize("name", SERVICES)
def test_memory_and_health(name: str) -> None:
    """Every service has a memory limit and, unless it only runs once, a health check and restarts."""
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    if name != "topics":
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", OURS)
def test_settings_and_commands_exist(name: str) -> None:
    """Our services are given settings that can be read, and commands of the command line that parse."""
    environ = OURS[name]["environment"]
    settings = read_settings(environ)
    assert set(environ) <= set(settings.environment())
    assert (settings.kafka, settings.redis) == ("kafka:19092", "redis://redis:6379/0")
    found: click.Command = main
    for word in OURS[name]["command"]:
        if isinstance(found, click.Group):
            found = found.commands[word]
    words = OURS[name]["command"]
    rest = words[words.index(found.name) + 1 :]
    assert found.make_context(found.name, rest)


def test_topics_come_before_who_reads_them() -> None:
    """Workers and dashboard wait until the topics are made, and those until the broker is healthy."""
    for name in OURS.keys() - {"topics"}:
        assert SERVICES[name]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}


def test_broker_and_store_keep_what_they_have() -> None:
    """The broker logs to a volume and makes no topic by itself; the store logs its writes and evicts nothing."""
    kafka, redis = SERVICES["kafka"], SERVICES["redis"]
    assert kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert kafka["volumes"] == [f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
    assert redis["volumes"] == ["redis:/data"]
    assert set(COMPOSE["volumes"]) == {"kafka", "redis", "plans"}


def test_the_gpu_worker_names_its_engine() -> None:
    """On a host without a usable GPU the worker of the profile says so instead of falling back; its plans are kept."""
    worker = SERVICES["news-gpu"]
    assert worker["environment"]["TAPEWATCH_ENGINE"] == "tensorrt"
    assert worker["environment"].items() >= SERVICES["news"]["environment"].items()
    assert worker["volumes"] == ["plans:/var/cache/tapewatch"]


def test_nothing_is_published_beyond_loopback() -> None:
    """Every published port is bound to loopback: none of the services asks for a password."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
