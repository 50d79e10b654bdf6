"""How the dashboard is started: the arguments of its process. Knows no Streamlit module."""

from __future__ import annotations

import sys
from pathlib import Path

from dashboard import palette
from streams.settings import ROOT, Settings

APP = Path(__file__).parent / "app.py"


def command(port: int, settings: Settings, address: str = "127.0.0.1") -> list[str]:  # noqa: ARG001
    """The arguments that serve the dashboard on this port; run them in the folder of the checkout, or wherever
    `dashboard` can be imported, with `environment` in the environment.
    """
    return [
        *(sys.executable, "-m", "streamlit", "run", str(APP)),
        *("--server.port", str(port), "--server.address", address, "--server.headless", "true"),
        # A full collection after each run of a fragment would cost 100 ms a viewer and second.
        *("--runner.postScriptGC", "false", "--runner.magicEnabled", "false"),
        *("--server.fileWatcherType", "none", "--server.disconnectedSessionTTL", "15"),
        *("--browser.gatherUsageStats", "false", "--server.showEmailPrompt", "false"),
        *(
            "--client.toolbarMode",
            "viewer",
            "--client.showErrorDetails",
            "none",
            "--client.showErrorLinks",
            "false",
        ),
        *("--logger.level", "warning", "--global.disableWidgetStateDuplicationWarning", "true"),
        *palette.flags(),
    ]


def environment(settings: Settings) -> dict[str, str]:
    """What the dashboard's process needs in its environment, beside the rest."""
    return {
        **settings.environment(),
        "PYTHONPATH": str(ROOT),
        "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    }
