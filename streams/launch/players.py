"""The table of the samples that `up` can replay: name -> who plays it. A new sample is one line here."""

from __future__ import annotations

SAMPLES: dict[str, str] = {
    "news": "streams.launch.play_news:play",
    "payments": "streams.launch.play_payments:play",
}


def samples() -> list[str]:
    """The names of all samples."""
    return list(SAMPLES)
