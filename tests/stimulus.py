"""The contract's surge stimulus: an hour with a headline each five minutes, then twenty negative ones in a minute."""

from __future__ import annotations

from collections.abc import Sequence

from tests.running import headline

ENTITIES = tuple(f"QX{letter}" for letter in "ABCDEFGHIJ")
BAD_NEWS = (
    "shares plunge after a profit warning for the fourth quarter",
    "hit by lawsuit over faulty batteries",
    "cuts 4,000 jobs as demand collapses",
    "credit rating downgraded to junk by agency",
    "regulator opens a probe into accounting fraud",
    "chief executive resigns amid bribery scandal",
    "recalls two million cars over brake defects",
    "posts widest loss in a decade",
    "misses revenue estimates, stock tumbles",
    "factory fire halts production, losses mount",
    "fined 900 million for price fixing",
    "dividend scrapped as cash runs out",
    "auditor quits, citing missing records",
    "bonds fall to record low on default fears",
    "loses biggest customer to rival",
    "short seller alleges fake sales in China",
    "data breach exposes millions of clients",
    "strike shuts plants, output drops sharply",
    "bankruptcy warning sends investors fleeing",
    "court rejects appeal, patent case lost",
)


def background(entity: str, until: float) -> list[tuple[str, bytes]]:
    """Twelve headlines of the hour that ends at `until` (unix seconds), one each five minutes."""
    texts = (
        "opens an office in Leeds", "names a new head of sales", "to hold its annual meeting in May",
        "renews a lease for its head office", "publishes its annual report", "to present at an investor day",
        "moves its listing to another segment", "adds a director to the board", "changes its auditor as planned",
        "hosts a visit of students", "updates its website", "confirms the date of its results",
    )  # fmt: skip
    return [
        headline(f"{entity}-quiet-{i}", f"{entity} {text}", until - 3600 + 300 * i, symbols=[entity])
        for i, text in enumerate(texts)
    ]


def burst(entity: str, at: float, within: float = 55.0) -> list[tuple[str, bytes]]:
    """Twenty distinct negative headlines in the minute that starts at `at`."""
    step = within / len(BAD_NEWS)
    return [
        headline(f"{entity}-bad-{i}", f"{entity} {text}", at + step * i, symbols=[entity])
        for i, text in enumerate(BAD_NEWS)
    ]


def interleaved(parts: Sequence[list[tuple[str, bytes]]]) -> list[tuple[str, bytes]]:
    """The first of each, the second of each, and so on."""
    return [record for together in zip(*parts, strict=True) for record in together]
