"""The distribution: what is locked, what the set-up installs, and what nobody else may own."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
OURS = {"engines", "streams", "models", "dashboard", "tapewatch", "tests"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
LOCKS = {
    "serve": PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"],
    "dev": EXTRAS["dev"],
    "train": [line for line in EXTRAS["train"] if not line.startswith("torch")],
}
LOCKED = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; .*)? \\$")


def locked(lock: str) -> dict[str, str]:
    """The versions that a lock names."""
    lines = (ROOT / "locks" / f"{lock}.txt").read_text(encoding="utf-8").splitlines()
    heads = [match for match in map(LOCKED.match, lines) if match]
    assert len(heads) == sum(bool(line) and line[0] not in " #" for line in lines)
    return {match["name"]: match["version"] for match in heads}


def test_no_installed_distribution_owns_our_names() -> None:
    """The top-level names of our rooms belong to no other distribution: they would hide each other."""
    owners = metadata.packages_distributions()
    assert {name for name in OURS if set(owners.get(name, [])) - {"tapewatch"}} == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_what_the_project_asks_for(lock: str) -> None:
    """Each requirement of pyproject.toml is locked at a version that it allows."""
    versions = locked(lock)
    for requirement in map(Requirement, LOCKS[lock]):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_locks_agree() -> None:
    """The larger locks name the same versions as the smaller ones."""
    serve, dev, train = locked("serve"), locked("dev"), locked("train")
    assert serve.items() <= dev.items() <= train.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_are_hashed_and_name_no_host(lock: str) -> None:
    """Every locked package has a hash, and no lock says where packages come from."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted", text)
    for block in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block


def test_serving_is_locked_without_torch() -> None:
    """The serving lock has no torch, nothing of CUDA, and nothing of what belongs to training."""
    unwanted = re.compile(r"torch|transformers|nvidia|cuda|triton|scikit|onnx$|onnxscript")
    assert [name for name in locked("serve") if unwanted.search(name)] == []
    added = sorted(
        {*locked("train")} - {*locked("dev")}
    )  # what tests need of CUDA are bindings, with no library of it
    assert [name for name in added if re.search(r"nvidia|cuda|triton", name)] == []


def test_installed_version_is_ours() -> None:
    """The console command says the version of pyproject.toml."""
    said = subprocess.run(
        [sys.executable, "-m", "tapewatch", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert PROJECT["project"]["version"] in said.stdout


def test_changelog_has_this_version() -> None:
    """The changelog has an entry for the version of pyproject.toml."""
    assert f"## {PROJECT['project']['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("python", "why"),
    [
        ("no-such-python", "no-such-python: not found; install Python 3.11 or newer"),
        ("old", "is too old; name Python 3.11 or newer: make setup PYTHON="),
        ("without-venv", "cannot make a virtual environment; install its venv module"),
    ],
)
def test_setup_says_what_is_missing(python: str, why: str, tmp_path: Path) -> None:
    """A machine without a fit Python gets one line that says what to do, and no half-made environment."""
    for name, check in (("old", "version_info"), ("without-venv", "ensurepip")):
        fake = tmp_path / name
        fake.write_text(f'#!/bin/sh\ncase "$*" in -V) echo Python 3.9.2;; *{check}*) exit 1;; esac\n')
        fake.chmod(0o755)
    name = python if python == "no-such-python" else str(tmp_path / python)
    command = ["make", "setup", f"PYTHON={name}", f"VENV={tmp_path}/venv"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert why in ended.stderr.splitlines()[0]
    assert not (tmp_path / "venv").exists()


def test_make_lists_its_commands() -> None:
    """`make` alone lists the commands that the README names."""
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in ("setup", "run", "test", "lint", "bench", "train", "soak"):
        assert f"make {name} " in said
        assert f"make {name}" in (ROOT / "README.md").read_text(encoding="utf-8")
