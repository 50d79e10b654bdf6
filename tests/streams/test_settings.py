"""Settings: read from the environment, one line for a bad value, a help text for each field."""

from __future__ import annotations

import os
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

import pytest

from streams.settings import ROOT, Settings, SettingsError, read_settings, variable

BOTH = {"TAPEWATCH_KAFKA": "127.0.0.1:9092", "TAPEWATCH_REDIS": "redis://127.0.0.1:6379/0"}
BAD = {
    "kafka": ["broker", "broker:", ":9092", "broker:99999", "a:1,b", "broker:9092x"],
    "redis": ["127.0.0.1:6379", "http://127.0.0.1", "redis://"],
    "prefix": ["tape watch", "tape.watch", "x" * 65, "tape:watch"],
    "engine": ["cuda", "ONNXRUNTIME"],
    "partitions": ["0", "1025", "four", "2.5", "-1"],
    "replication": ["-1", "17", "all"],
    "dedupe_hours": ["0", "-1", "169", "nan", "inf", "an hour"],
    "story_hours": ["0", "169", "nan", "six"],
    "threads": ["-1", "257", "many"],
    "metrics_port": ["-1", "65536", "http"],
    "broker_memory_mb": ["15", "1 GB"],
    "store_memory_mb": ["63", "half"],
    "log_level": ["debug", "LOUD"],
}


def test_defaults() -> None:
    """Without any variable, everything is as the structure says, and broker and store are embedded."""
    settings = read_settings({})
    assert settings == Settings()
    assert settings.embedded
    assert settings.bundles == ROOT / "models" / "bundles"


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_bad_value_names_its_variable(name: str, value: str) -> None:
    """A value that cannot be used ends with one line that begins with the variable's name."""
    with pytest.raises(SettingsError) as caught:
        read_settings(BOTH | {variable(name): value})
    assert str(caught.value).startswith(f"{variable(name)}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_bad_flag_is_refused_as_well(name: str) -> None:
    """A flag is checked like the variable of the same name."""
    with pytest.raises(SettingsError, match=variable(name)):
        read_settings(BOTH, **{name: BAD[name][0]})


@pytest.mark.parametrize("name", ["kafka", "redis"])
def test_one_of_two_is_refused(name: str) -> None:
    """A broker without a store, or a store without a broker, is refused: the line names the one that is missing."""
    other = {"kafka": "redis", "redis": "kafka"}[name]
    with pytest.raises(SettingsError, match=f"^{variable(other)}: is not set"):
        read_settings({variable(name): BOTH[variable(name)]})


def test_password_of_the_store_is_not_shown() -> None:
    """The line about a bad URL does not repeat it: it may hold a password."""
    with pytest.raises(SettingsError) as caught:
        read_settings(BOTH | {"TAPEWATCH_REDIS": "http://:secret@host"})
    assert "secret" not in str(caught.value)


def test_flag_before_environment() -> None:
    """A flag that is given wins, one that is None does not count, and a blank variable is not set."""
    environ = {"TAPEWATCH_PARTITIONS": "8", "TAPEWATCH_PREFIX": "  "}
    assert read_settings(environ, partitions=2).partitions == 2
    assert read_settings(environ, partitions=None) == replace(Settings(), partitions=8)


def test_environment_carries_all_settings() -> None:
    """What a parent hands to its children is read back as the same settings."""
    settings = read_settings(
        BOTH, prefix="other", engine="tiny", dedupe_hours=0.5, gazetteer=os.pathsep.join("ab"), threads=3
    )
    assert read_settings(settings.environment()) == settings
    assert read_settings(Settings().environment()) == Settings()


def test_names() -> None:
    """Topics and groups carry the prefix, and a full topic name stays as it is."""
    settings = read_settings({}, prefix="desk")
    assert settings.topic("news") == "desk.news" == settings.topic("desk.news")
    assert settings.group("alerts") == "desk-alerts"


def test_home_is_expanded() -> None:
    """A folder may begin with the user's home."""
    assert read_settings({"TAPEWATCH_BUNDLES": "~/bundles"}).bundles == Path.home() / "bundles"


@pytest.mark.parametrize("item", fields(Settings), ids=lambda item: item.name)
def test_each_field_has_a_help_text_and_stands_in_the_readme(item: Field[Any]) -> None:
    """Each setting says what it is, and the README has its variable with that text."""
    assert item.metadata["help"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert any(
        f"`{variable(item.name)}`" in line and item.metadata["help"] in line for line in readme.splitlines()
    )


def test_every_setting_is_a_flag_of_every_command() -> None:
    """The front door offers each field of the settings as a flag, and no other."""
    from tapewatch import SETTINGS

    assert list(SETTINGS) == [field.name for field in fields(Settings)]
