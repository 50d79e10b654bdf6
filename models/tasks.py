"""The table of what can be trained and judged: `tapewatch models train TASK`, `tapewatch evaluate TASK`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines.bundle import Bundle, active_folder, open_bundle
from models.train import Period, TrainingError, next_version
from streams.settings import Settings

Files = Sequence[str]
Figures = list[dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """The options of a command; a task says what it does with which. Times in unix seconds, delays in days."""

    files: Files
    mapping: Mapping[str, str]
    period: Period = Period()  # noqa: RUF009 - frozen
    cut: float | None = None
    label_delay: float | None = None
    exclude_known: bool = False
    leave_last_out: bool = False
    without: tuple[str, ...] = ()


def _train_news(asked: Asked, out: Path) -> Path:
    from models.train import train_news

    return train_news(out=out, files=asked.files, mapping=asked.mapping, period=asked.period)


def _evaluate_news(asked: Asked, bundle: Bundle, settings: Settings) -> Figures:
    from models.evaluate import evaluate_news

    return evaluate_news(asked.files, asked.mapping, bundle.folder, settings.engine)


def _train_transactions(asked: Asked, out: Path) -> Path:
    from models.fraud_train import LABEL_DELAY, train_transactions

    delay = LABEL_DELAY if asked.label_delay is None else asked.label_delay
    return train_transactions(asked.files, asked.mapping, asked.period, out, label_delay=delay)


def _evaluate_transactions(asked: Asked, bundle: Bundle, settings: Settings) -> Figures:
    from models.fraud_evaluate import evaluate_transactions

    return evaluate_transactions(
        asked.files,
        asked.mapping,
        bundle,
        settings.engine,
        cut=asked.cut,
        label_delay=7.0 if asked.label_delay is None else asked.label_delay,
        exclude_known=asked.exclude_known,
    )


def _train_credit(asked: Asked, out: Path) -> Path:
    from models.credit import train_credit

    return train_credit(asked.files, asked.mapping, out, asked.without)


def _evaluate_credit(asked: Asked, bundle: Bundle, settings: Settings) -> Figures:
    from models.credit import evaluate_credit

    return evaluate_credit(asked.files, asked.mapping, bundle, settings.engine)


def _train_recommendations(asked: Asked, out: Path) -> Path:
    from models.recommendation_train import train as train_recommendations

    return train_recommendations(asked.files, asked.mapping, out).folder


def _evaluate_recommendations(asked: Asked, bundle: Bundle, settings: Settings) -> Figures:
    from models.recommendation_evaluate import evaluate as evaluate_recommendations

    return evaluate_recommendations(
        asked.files, asked.mapping, bundle, asked.cut, asked.leave_last_out, settings.engine
    )


@dataclass(frozen=True)
class Task:
    """A line of the table; `takes` are the options that mean something to it, others are refused."""

    train: Callable[[Asked, Path], Path]
    evaluate: Callable[[Asked, Bundle, Settings], Figures]
    takes: frozenset[str] = frozenset()


TASKS: dict[str, Task] = {
    "news": Task(_train_news, _evaluate_news, frozenset({"period"})),
    "transactions": Task(
        _train_transactions,
        _evaluate_transactions,
        frozenset({"period", "cut", "label_delay", "exclude_known"}),
    ),
    "credit": Task(_train_credit, _evaluate_credit, frozenset({"without"})),
    "recommendations": Task(
        _train_recommendations, _evaluate_recommendations, frozenset({"cut", "leave_last_out"})
    ),
}


def train(task: str, asked: Asked, out: str | None, settings: Settings) -> Path:
    """What `tapewatch models train TASK` does: a bundle in `out`, or as the next version among the bundles."""
    line = _checked(task, asked)
    return line.train(asked, Path(out) if out else next_version(settings.bundles / task, datetime.now(UTC)))


def evaluate(task: str, asked: Asked, bundle: str | None, settings: Settings) -> Figures:
    """What `tapewatch evaluate TASK` prints: the figures of the active bundle, or of the folder `bundle`."""
    line = _checked(task, asked)
    folder = Path(bundle) if bundle else active_folder(settings.bundles, task)
    return line.evaluate(asked, open_bundle(folder), settings)


def _checked(task: str, asked: Asked) -> Task:
    line, plain = TASKS[task], Asked(asked.files, asked.mapping)
    for name in ("period", "cut", "label_delay", "exclude_known", "leave_last_out", "without"):
        if name not in line.takes and getattr(asked, name) != getattr(plain, name):
            option = "--from and --until" if name == "period" else f"--{name.replace('_', '-')}"
            raise TrainingError(f"{option}: not an option of {task}")
    return line


def ask(
    files: Files,
    mapping: Mapping[str, str],
    *,
    since: str | None = None,
    until: str | None = None,
    cut: str | None = None,
    label_delay: float | None = None,
    exclude_known: bool = False,
    leave_last_out: bool = False,
    without: str = "",
) -> Asked:
    """The options as the command line has them; raises TrainingError for a time that is none."""
    period = Period(_time("--from", since), _time("--until", until))
    names = tuple(filter(None, (name.strip() for name in without.split(","))))
    return Asked(
        files, mapping, period, _time("--cut", cut), label_delay, exclude_known, leave_last_out, names
    )


def _time(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise TrainingError(f"{option} {text!r} is not a time like 2026-11-21T09:30:00Z") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
