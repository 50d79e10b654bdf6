"""The bare engine as a child of `tapewatch bench news`: a JSON list of texts a line in, sentences a second out."""

from __future__ import annotations

import json
import sys
import time

from engines.text import open_classifier
from streams.settings import read_settings
from tests.benchmarks.news import BATCH


def main() -> None:
    """Answer each line until the input ends."""
    settings = read_settings()
    classifier = open_classifier(settings.bundles, "news", settings.engine, 1)
    classifier.warm()
    for line in sys.stdin:
        texts = json.loads(line)
        began = time.perf_counter()
        for start in range(0, len(texts), BATCH):
            classifier.probabilities(texts[start : start + BATCH])
        print("rate", len(texts) / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
