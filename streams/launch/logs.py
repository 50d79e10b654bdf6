"""Logging of a process: one line an event on standard error, the libraries' chatter left out."""

from __future__ import annotations

import logging
import sys

QUIET = ("faust", "mode", "aiokafka", "kafka", "asyncio")


def set_up_logging(name: str, level: str) -> None:
    """Configure the root logger; `name` is the process's, such as `news-1`."""
    form = f"%(asctime)s {name} %(levelname)s %(message)s"
    logging.basicConfig(level=level, format=form, datefmt="%H:%M:%S", stream=sys.stderr, force=True)
    if level != "DEBUG":
        for library in QUIET:
            logging.getLogger(library).setLevel(logging.ERROR)
