"""`tapewatch models list|activate|rollback` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tapewatch import main
from tests.engines.test_bundle import make


def ran(root: Path, *arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["models", *arguments, "--bundles", str(root)])
    return ended.exit_code, ended.output


def test_the_list_fits_a_terminal(tmp_path: Path) -> None:
    """No line of a whole bundle is longer than 120 columns; the figures are whole in JSON."""
    make(tmp_path, "2026.11.1")
    ran(tmp_path, "activate", "news", "2026.11.1")
    status, table = ran(tmp_path, "list")
    assert status == 0
    assert "news/2026.11.1" in table
    assert max(map(len, table.splitlines())) <= 120
    (row,) = json.loads(ran(tmp_path, "list", "--json")[1])
    assert row["figures"] == {"set.accuracy": 0.9}
    assert row["active"] is True


def test_activate_and_rollback_say_what_serves(tmp_path: Path) -> None:
    """Each prints the version that serves now."""
    for version in ("1", "2"):
        make(tmp_path, version)
        assert ran(tmp_path, "activate", "news", version) == (0, f"news/{version} serves\n")
    assert ran(tmp_path, "rollback", "news") == (0, "news/1 serves\n")


@pytest.mark.parametrize("arguments", [("activate", "news", "9"), ("rollback", "news")])
def test_what_cannot_serve_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A missing version and no earlier one: status 1 and one line."""
    status, told = ran(tmp_path, *arguments)
    assert status == 1
    assert len(told.splitlines()) == 1
