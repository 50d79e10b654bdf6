"""Resident memory of `tapewatch up` with its replay: `python -m tests.benchmarks.memory --minutes 10`.

Prints, minute by minute, each process's resident set and the sum (RSS, which counts shared pages once for each
process), then the growth of broker, store and the rest over the second half of the run, in MB an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.running import children_of, resident_bytes, running_up

MB = 2**20


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder, running_up(Path(folder)) as up:
        print(f"ready after {up.seconds:.1f} s", file=sys.stderr)
        began, samples = time.monotonic(), []
        with urllib.request.urlopen(up.dashboard, timeout=10) as page:
            page.read()
        while (elapsed := time.monotonic() - began) < minutes * 60:
            samples.append((elapsed, _sizes(up.process.pid)))
            told = ", ".join(f"{name} {size / MB:.0f}" for name, size in samples[-1][1].items())
            print(f"{elapsed / 60:5.1f} min: {sum(samples[-1][1].values()) / MB:.0f} MB ({told})", flush=True)
            time.sleep(min(60.0, minutes * 60 - elapsed + 0.1))
        samples.append((time.monotonic() - began, _sizes(up.process.pid)))
    first, last = samples[len(samples) // 2], samples[-1]
    hours = (last[0] - first[0]) / 3600
    print(f"in all after {last[0] / 60:.1f} minutes: {sum(last[1].values()) / MB:.0f} MB")
    for name, size in last[1].items():
        print(f"{name}: {size / MB:.1f} MB, {(size - first[1].get(name, 0)) / MB / hours:+.1f} MB an hour")


def _sizes(pid: int) -> dict[str, int]:
    found = {"up": resident_bytes({pid})}
    for child in sorted(children_of(pid)):
        name = _name(child)
        found[name] = found.get(name, 0) + resident_bytes({child})
    return found


def _name(pid: int) -> str:
    words: list[str] = []
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    line = " ".join(words)
    for sign, name in (
        ("tansu", "broker"),
        ("valkey-server", "store"),
        ("streamlit", "dashboard"),
        ("launch.replay", "replay"),
        ("launch.worker news", "news"),
        ("launch.worker alerts", "alerts"),
    ):
        if sign in line:
            return name
    return words[0] if words else "gone"


if __name__ == "__main__":
    main()
