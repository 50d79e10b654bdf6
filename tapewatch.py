"""Tapewatch's front door: the table of commands. Each is a lazy call into a room; nothing is worked out here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

Command = Callable[..., Any]
TASKS = ("news", "transactions", "credit", "recommendations")  # the lines of models/tasks.py
SETTINGS = (
    "kafka",
    "redis",
    "prefix",
    "bundles",
    "engine",
    "partitions",
    "replication",
    "dedupe_hours",
    "story_hours",
    "gazetteer",
    "rules",
    "costs",
    "reviews_a_day",
    "currencies",
    "payments_held",
    "receipts",
    "threads",
    "metrics_port",
    "metrics_host",
    "broker_memory_mb",
    "store_memory_mb",
    "run_dir",
    "log_level",
)


def _room(target: str) -> Callable[..., Any]:
    """The function `module:name`, imported now and not before."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _settings(joined: bool = True, **flags: Any) -> Any:
    """The settings; with `joined` those of the `up` that runs here where none are set."""
    settings = _room("streams.settings:read_settings")(**flags)
    if not joined or not settings.embedded:
        return settings
    settings = _room("streams.launch.join:joined")(settings)
    os.environ["TAPEWATCH_EMBEDDED"] = "1"
    return settings


class Front(click.Group):
    """Turns the errors that users meet into one line and an exit status: 1 the work failed, 2 wrong usage."""

    usage = ("CutError", "SettingsError", "RulebookError", "UnknownTopic", "UnknownEntity", "WrongUsage")
    expected = (
        "AllDown",
        "BuildError",
        "BundleError",
        "DataFileError",
        "EmbeddedError",
        "EngineError",
        "ExportError",
        "GazetteerError",
        "FileNotFoundError",
        "NothingRuns",
        "NotReady",
        "Refused",
        "TooManyFailures",
        "TopicsError",
        "TrainingError",
        "Unavailable",
        "Unsendable",
        "BenchError",
    )

    extras = (
        *("torch", "transformers", "onnx", "onnxscript", "safetensors", "sklearn"),
        *("lightgbm", "onnxmltools", "scipy", "xgboost"),
    )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except ModuleNotFoundError as error:
            if error.name not in self.extras:
                raise
            click.echo(
                f"tapewatch: this needs {error.name}, of the extra `train`: run `make setup-train`", err=True
            )
            ctx.exit(1)
        except Exception as error:
            name = type(error).__name__
            if name in self.usage or name in self.expected:
                click.echo(f"tapewatch: {' '.join(str(error).split())}", err=True)
                ctx.exit(2 if name in self.usage else 1)
            raise


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
MAP = click.option(
    "--map", "mapping", default="", metavar="OURS=THEIRS,...", help="Rename columns of the file."
)


@click.group(cls=Front, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tapewatch")
def main() -> None:
    """Real-time signals for finance: Kafka in, fine-tuned models, alerts and a live dashboard out.

    Without TAPEWATCH_KAFKA and TAPEWATCH_REDIS, `up` starts a broker and a store of its own, and every other command
    joins the `up` that runs on this machine. Every setting is an environment variable, and a flag of every command.
    """


@main.command()
@click.option("--dashboard/--no-dashboard", default=True, help="Whether to run the dashboard.")
@click.option(
    "--replay",
    default=None,
    metavar="SAMPLE",
    help="Sample to replay (news, payments), or `none`. [default: all on the embedded broker, else none]",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes a pipeline."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the dashboard. [default: 8501, or a free one when that is taken]",
)
def up(dashboard: bool, replay: str | None, workers: int, port: int) -> None:
    """Run everything on this machine until Ctrl-C."""
    settings = _settings(joined=False)
    _room("streams.launch.logs:set_up_logging")("up", settings.log_level)
    known = _room("streams.launch.players:samples")()
    if replay not in (None, "none", *known):
        raise click.BadParameter(
            f"{replay!r} is none of {', '.join((*known, 'none'))}", param_hint="--replay"
        )
    wanted = known if replay is None and settings.embedded else [replay]
    samples = [name for name in wanted if name in known]
    _room("streams.launch.up:run")(settings, dashboard=dashboard, replay=samples, workers=workers, port=port)


@main.command()
@click.argument("pipelines", nargs=-1, required=True)
def worker(pipelines: tuple[str, ...]) -> None:
    """Run the named pipelines, one process each, until Ctrl-C."""
    known = _room("streams.pipelines:names")()
    for name in pipelines:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="PIPELINE")
    settings = _settings()
    _room("streams.launch.logs:set_up_logging")("worker", settings.log_level)
    _room("streams.launch.worker:run_many")(settings, pipelines)


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
def dashboard(port: int, address: str) -> None:
    """Run the dashboard alone, until Ctrl-C."""
    settings = _settings()
    command = _room("dashboard.launch:command")(port, settings, address)
    environment = _room("dashboard.launch:environment")(settings)
    os.execve(command[0], command, {**os.environ, **environment})  # noqa: S606 - our own command line


@main.group()
def topics() -> None:
    """Topics on the broker."""


@topics.command("create")
def topics_create() -> None:
    """Create all topics that are missing."""
    settings = _settings()
    created = _room("streams.launch.commands:create_topics")(settings)
    click.echo(f"created {len(created)} topics" if created else "all topics exist")


@main.command()
@click.argument("topic")
@click.argument("file")
@MAP
def send(topic: str, file: str, mapping: str) -> None:
    """Publish FILE (JSON Lines or CSV, gzip allowed, - for standard input) onto TOPIC; `news` means tapewatch.news."""
    columns = _room("streams.launch.rows:parse_mapping")(mapping)
    _room("streams.launch.send:send")(_settings(), topic, file, columns)


@main.command()
@click.argument("pipeline", type=click.Choice(["news", "transactions", "credit"]))
@click.argument("file")
@MAP
@click.option(
    "--all", "every", is_flag=True, help="Print every derived topic as {topic, key, value}, signals included."
)
def score(pipeline: str, file: str, mapping: str, every: bool) -> Any:
    """Run a pipeline over FILE with no broker: records in, scored records out on standard output, in order."""
    columns = _room("streams.launch.rows:parse_mapping")(mapping)
    if pipeline == "credit":  # applications are a file, never a stream
        return _room("streams.credit:score")(_settings(joined=False), file, columns, sys.stdout)
    score_file = _room("streams.launch.score:score")
    return score_file(_settings(joined=False), pipeline, file, columns, sys.stdout, every)


@main.command()
@click.argument("entity", default="")
@click.option("--bucket", type=click.Choice(["1m", "5m", "1h", "1d"]), default="5m", show_default=True)
@click.option(
    "--since", default=None, metavar="TIME", help="First bucket, RFC 3339. [default: 36 buckets back]"
)
@click.option("--until", default=None, metavar="TIME", help="End, RFC 3339. [default: now]")
@JSON
def trend(entity: str, bucket: str, since: str | None, until: str | None, as_json: bool) -> None:
    """Sentiment over time, towards ENTITY (a symbol) or of the whole market."""
    rows = _room("streams.launch.commands:trend")(_settings(), entity, bucket, since, until)
    _print(rows, as_json)


@main.command()
@click.option(
    "--state", type=click.Choice(["pending", "firing", "acknowledged", "silenced", "resolved"]), default=None
)
@JSON
def alerts(state: str | None, as_json: bool) -> None:
    """The alerts as the store has them, the newest first."""
    rows = _room("streams.launch.commands:alerts")(_settings(), state)
    _print(rows, as_json)


@main.command()
@click.argument("customer")
@click.option("--k", type=click.IntRange(1, 50), default=10, show_default=True, help="How many items.")
@click.option("--exclude", default="", metavar="ITEM,...", help="Items to leave out.")
@JSON
def recommend(customer: str, k: int, exclude: str, as_json: bool) -> None:
    """CUSTOMER's list as served now, with reasons."""
    _print(_room("streams.launch.commands:recommend")(_settings(), customer, k, exclude), as_json)


@main.command()
@click.argument("task", type=click.Choice(TASKS))
@click.option(
    "--data", "files", multiple=True, required=True, metavar="FILE", help="Labelled data; may be given again."
)
@MAP
@click.option("--bundle", default=None, metavar="DIR", help="A bundle's folder. [default: the active bundle]")
@click.option(
    "--cut",
    metavar="TIME",
    help="Judge what follows; what comes before only builds state (transactions, recommendations).",
)
@click.option(
    "--leave-last-out", is_flag=True, help="Judge each customer's last interaction (recommendations)."
)
@click.option(
    "--label-delay",
    type=click.FloatRange(0, 365),
    metavar="DAYS",
    help="Days until a fraud is known (transactions). [default: 7]",
)
@click.option(
    "--exclude-known", is_flag=True, help="Leave out cards whose fraud was already known (transactions)."
)
@JSON
def evaluate(
    task: str,
    files: tuple[str, ...],
    mapping: str,
    bundle: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Quality figures of a bundle on labelled data."""
    columns = _room("streams.launch.rows:parse_mapping")(mapping)
    asked = _room("models.tasks:ask")(files, columns, **options)
    _print(_room("models.tasks:evaluate")(task, asked, bundle, _settings(joined=False)), as_json)


@main.group()
def models() -> None:
    """Model bundles: list, train, build, activate, rollback."""


@models.command("list")
@JSON
def models_list(as_json: bool) -> None:
    """The bundles that this machine has."""
    _print(_room("streams.launch.commands:bundles")(_settings(joined=False), as_json), as_json)


@models.command("train")
@click.argument("task", type=click.Choice(TASKS))
@click.option(
    "--data",
    "files",
    multiple=True,
    metavar="FILE",
    help="Labelled data. [default, news only: the sets in TAPEWATCH_DATA]",
)
@MAP
@click.option(
    "--from", "since", metavar="TIME", help="Train on what is not older; older payments build state."
)
@click.option("--until", metavar="TIME", help="Train on what is older.")
@click.option(
    "--label-delay",
    type=click.FloatRange(0, 365),
    metavar="DAYS",
    help="Days until a fraud is known; younger payments are not trained on (transactions). [default: 7]",
)
@click.option("--without", default="", metavar="COLUMN,...", help="Columns that are not read (credit).")
@click.option(
    "--out", default=None, metavar="DIR", help="Where the bundle is written. [default: TAPEWATCH_BUNDLES]"
)
def models_train(task: str, files: tuple[str, ...], mapping: str, out: str | None, **options: Any) -> None:
    """Train on your own data; the result is a bundle with its model card. Needs the extra `train`."""
    columns = _room("streams.launch.rows:parse_mapping")(mapping)
    asked = _room("models.tasks:ask")(files, columns, **options)
    _room("models.tasks:train")(task, asked, out, _settings(joined=False))


@main.command()
@click.option("--bundle", default=None, metavar="DIR", help="A credit bundle. [default: the active one]")
@JSON
def scorecard(bundle: str | None, as_json: bool) -> None:
    """Points for each value of each column, of a credit bundle."""
    _print(_room("streams.credit:scorecard")(_settings(joined=False), bundle), as_json)


@main.command()
@click.argument("payment", metavar="ID")
@JSON
def why(payment: str, as_json: bool) -> None:
    """The receipt of one decision: what was seen, model, thresholds, rules, reasons, stage times."""
    found = _room("streams.launch.why:why")(_settings(), payment)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(_room("streams.launch.why:lines")(found), False)


@main.group()
def labels() -> None:
    """What is known of past decisions."""


@labels.command("export")
@click.option(
    "--ripe",
    type=click.FloatRange(0.0),
    default=30.0,
    show_default=True,
    help="Days until silence is a verdict.",
)
def labels_export(ripe: float) -> None:
    """The judged payments on Kafka as JSON Lines on standard output, ready for `models train transactions --data`."""
    _room("streams.launch.labelled:export_labelled")(_settings(), sys.stdout, ripe)


@models.command("build")
@click.argument("task", type=click.Choice(["news"]))
@click.option("--targets", default="cpu,gpu", show_default=True, help="What is made anew of: cpu, gpu.")
@click.option("--from", "source", default=None, metavar="DIR", help="A bundle. [default: the active one]")
@click.option(
    "--data",
    "files",
    multiple=True,
    metavar="FILE",
    help="Labelled headlines for scales and parity. [default: the sets in TAPEWATCH_DATA]",
)
@MAP
@click.option("--out", default=None, metavar="DIR", help="The bundle's folder. [default: the next version]")
def models_build(
    task: str, targets: str, source: str | None, files: tuple[str, ...], mapping: str, out: str | None
) -> None:
    """A bundle's graphs made anew from its weights, proved against torch, and published. Needs the extra `train`."""
    columns = _room("streams.launch.rows:parse_mapping")(mapping)
    build = _room("models.build_bundle:build")
    click.echo(build(task, targets, source, files, columns, out, _settings(joined=False)))


@models.command("activate")
@click.argument("task")
@click.argument("version")
def models_activate(task: str, version: str) -> None:
    """Let VERSION serve; running workers change over without a gap."""
    settings = _settings(joined=False)
    _room("engines.bundle:activate")(settings.bundles, task, version)
    click.echo(f"{task}/{version} serves")


@models.command("rollback")
@click.argument("task")
def models_rollback(task: str) -> None:
    """Let the version serve that served before."""
    settings = _settings(joined=False)
    click.echo(f"{task}/{_room('engines.bundle:rollback')(settings.bundles, task)} serves")


@main.command()
@click.argument("name", type=click.Choice(["stream", "news", "engine", "transactions"]))
@click.option("--rounds", type=click.IntRange(1, 50), default=5, show_default=True)
@click.option("--parts", default="", help="Of `transactions`: path,features,exact; all of them by default.")
@JSON
def bench(name: str, rounds: int, parts: str, as_json: bool) -> None:
    """Benchmarks, from a checkout: ratios against named baselines in one run."""
    chosen = {"parts": parts.split(",")} if parts else {}
    figures = _room(f"tests.benchmarks.{name}:run")(rounds=rounds, **chosen)
    _print(figures, as_json)


@main.command()
@JSON
def doctor(as_json: bool) -> None:
    """What this machine has: engines, broker, store, bundles; what is missing and how to get it."""
    _print(_room("streams.launch.doctor:examine")(_settings(joined=False)), as_json)


class Setting(click.Option):
    """A setting as a flag; what it means is read from the settings when somebody asks."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line of `--help`."""
        name = str(self.name).removeprefix("setting_")
        self.help = f"TAPEWATCH_{name.upper()}: {_room('streams.settings:meaning')(name)}"
        return super().get_help_record(ctx)


def _note_setting(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """A setting given as a flag: it goes where all settings come from, the environment of this process."""
    if value is not None and not ctx.resilient_parsing:
        os.environ[f"TAPEWATCH_{str(option.name).removeprefix('setting_').upper()}"] = str(value)


def _add_settings(command: click.Command) -> None:
    """Let every command take every setting as a flag of the same name; `tapewatch --help` lists them once."""
    for name in SETTINGS:
        flag = [f"setting_{name}", f"--{name.replace('_', '-')}"]
        hidden = command is not main
        command.params.append(
            Setting(flag, expose_value=False, callback=_note_setting, hidden=hidden, metavar="VALUE")
        )
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _add_settings(below)


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        click.echo(_room("streams.launch.tables:table")(rows))


_add_settings(main)

if __name__ == "__main__":
    main()
