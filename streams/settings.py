"""Settings: one frozen structure, read from the environment, with a help text per field.

A bad value ends the program with one line that names the setting (`SettingsError`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streams.payments.money import parse_rates

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = ROOT / "models" / "bundles"
NOWHERE = Path()
ENGINES = ("auto", "onnxruntime", "openvino", "tensorrt", "onnxruntime-cuda", "torch", "tiny")


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message is one line that names it."""


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """All that can be configured. Field `kafka` is the environment variable `TAPEWATCH_KAFKA`, and so on."""

    kafka: str = _setting("", "bootstrap servers, host:port[,host:port]; empty: the embedded broker of `up`")
    redis: str = _setting("", "URL of the Redis or Valkey server; empty: the embedded store of `up`")
    prefix: str = _setting("tapewatch", "prefix of topics, consumer groups and keys")
    bundles: Path = _setting(BUNDLES, "folder of model bundles")  # noqa: RUF009 - a constant
    engine: str = _setting("auto", f"inference engine: {', '.join(ENGINES)} (`tiny` is for tests)")
    partitions: int = _setting(4, "partitions of source and derived topics when they are created")
    replication: int = _setting(0, "replicas of each topic; 0: the number of brokers, at most 3")
    dedupe_hours: float = _setting(1.0, "how long a record's id is remembered, at most a million ids a topic")
    story_hours: float = _setting(6.0, "how long after its first headline a story still takes copies in")
    gazetteer: str = _setting(
        "", f"further gazetteer files (CSV: symbol,name,aliases), split by '{os.pathsep}'"
    )
    rules: str = _setting("", "rulebook of the payments (YAML); empty: the shipped one")
    costs: str = _setting("", "cost matrix of decisions, review=8,decline=25,...; empty: the defaults")
    reviews_a_day: float = _setting(0.0, "so many payments a day go to review; 0: by cost alone")
    currencies: str = _setting("", "USD for one unit of a currency, EUR=1.13,...; adds to the built-in table")
    payments_held: int = _setting(
        1_000_000, "payments of accounts and terminals that a worker keeps in memory"
    )
    receipts: int = _setting(
        20_000, "decisions of which `why` still knows all; reviews and blocks: a month's"
    )
    threads: int = _setting(
        0, "inference threads of a worker; 0: all cores (`up` divides them among its workers)"
    )
    metrics_port: int = _setting(0, "port of a worker's /metrics on loopback; 0: a free one")
    metrics_host: str = _setting("127.0.0.1", "address that /metrics listens on")
    broker_memory_mb: int = _setting(1024, "`up` pauses its sources when the embedded broker holds this much")
    store_memory_mb: int = _setting(
        512, "memory limit of the embedded store (it refuses writes, evicts nothing)"
    )
    run_dir: Path = _setting(NOWHERE, "where `up` says that it runs; empty: the user's runtime folder")  # noqa: RUF009
    log_level: str = _setting("INFO", "DEBUG, INFO, WARNING or ERROR")

    @property
    def embedded(self) -> bool:
        """Whether broker and store are the embedded ones."""
        return not self.kafka

    def topic(self, name: str) -> str:
        """The full name of a topic: `news` is `tapewatch.news`; a full name stays as it is."""
        return name if name.startswith(self.prefix + ".") else f"{self.prefix}.{name}"

    def group(self, pipeline: str) -> str:
        """The consumer group of a pipeline."""
        return f"{self.prefix}-{pipeline}"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for child processes."""
        return {variable(item.name): str(getattr(self, item.name)) for item in fields(self)}


def variable(name: str) -> str:
    """The environment variable of a field."""
    return "TAPEWATCH_" + name.upper()


def meaning(name: str) -> str:
    """The help text of a field."""
    [text] = [item.metadata["help"] for item in fields(Settings) if item.name == name]
    return str(text)


def read_settings(environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    """Settings from the environment, overridden by flags that are not None.

    Raises SettingsError when a value cannot be used, or when only one of broker and store is set.
    """
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for item in fields(Settings):
        name = variable(item.name)
        raw = flags.get(item.name)
        raw = source.get(name, "") if raw is None else raw
        text = str(raw).strip()
        if text:
            values[item.name] = _convert(name, text, item.default)
    settings = Settings(**values)
    _check(settings)
    return settings


def _convert(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is not a number") from None
    return Path(text).expanduser() if isinstance(default, Path) else text


def _check(settings: Settings) -> None:
    def need(condition: bool, name: str, why: str) -> None:
        if not condition:
            raise SettingsError(f"{variable(name)}: {getattr(settings, name)!r} {why}")

    need(
        bool(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings.prefix)),
        "prefix",
        "may have letters, digits, _ and - only",
    )
    need(settings.engine in ENGINES, "engine", f"is none of {', '.join(ENGINES)}")
    need(1 <= settings.partitions <= 1024, "partitions", "is not between 1 and 1024")
    need(0 <= settings.replication <= 16, "replication", "is not between 0 and 16")
    need(0 < settings.dedupe_hours <= 168, "dedupe_hours", "is not above 0 and at most 168")
    need(0 < settings.story_hours <= 168, "story_hours", "is not above 0 and at most 168")
    need(0 <= settings.reviews_a_day <= 1e9, "reviews_a_day", "is not between 0 and a thousand million")
    need(1_000 <= settings.payments_held <= 10**9, "payments_held", "is not between 1000 and 1000000000")
    need(1_000 <= settings.receipts <= 10**8, "receipts", "is not between 1000 and 100000000")
    try:
        parse_rates(settings.currencies)
    except ValueError as error:
        raise SettingsError(f"TAPEWATCH_CURRENCIES: {error}") from None
    need(0 <= settings.threads <= 256, "threads", "is not between 0 and 256")
    need(0 <= settings.metrics_port < 65536, "metrics_port", "is not a port")
    need(settings.broker_memory_mb >= 16, "broker_memory_mb", "is below 16")
    need(settings.store_memory_mb >= 64, "store_memory_mb", "is below 64")
    need(settings.log_level in ("DEBUG", "INFO", "WARNING", "ERROR"), "log_level", "is no log level")
    for server in filter(None, settings.kafka.split(",")):
        host, _, port = server.strip().rpartition(":")
        need(bool(host) and port.isdigit() and 0 < int(port) < 65536, "kafka", "is not host:port[,host:port]")
    if settings.redis:
        parts = urlsplit(settings.redis)
        if parts.scheme not in ("redis", "rediss", "unix") or not (parts.hostname or parts.path):
            raise SettingsError("TAPEWATCH_REDIS: is not a URL like redis://host:6379/0")
    if bool(settings.kafka) != bool(settings.redis):
        missing = variable("redis" if settings.kafka else "kafka")
        raise SettingsError(
            f"{missing}: is not set, its partner is; set both (committed offsets would outlive the store) or none"
        )
