"""The command line of the dashboard's process."""

from __future__ import annotations

import subprocess
import sys

from dashboard import launch
from streams.settings import ROOT, Settings


def test_the_command_keeps_to_this_machine() -> None:
    """It listens on loopback unless told, and sends no usage figures."""
    command = launch.command(8501, Settings())
    flags = dict(zip(command[5::2], command[6::2], strict=True))
    assert flags["--server.address"] == "127.0.0.1"
    assert flags["--browser.gatherUsageStats"] == "false"
    assert flags["--runner.postScriptGC"] == "false"
    assert launch.command(8501, Settings(), "0.0.0.0")[command.index("--server.address") + 1] == "0.0.0.0"


def test_the_launcher_needs_no_streamlit() -> None:
    """The command can be built without importing Streamlit, by a launcher that stays small."""
    code = "import sys, dashboard.launch; print('streamlit' in sys.modules, 'pandas' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
