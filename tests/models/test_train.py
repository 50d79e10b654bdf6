"""Training on a user's own files, from labelled rows to a bundle that serves."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from engines.bundle import open_bundle
from engines.text import from_bundle
from models.evaluate import evaluate_news
from models.train import Period, TrainingError, next_version, train_news, user_splits
from streams.launch.rows import DataFileError

WORDS = {
    "negative": ["falls", "plunges", "crashes", "loses", "sinks"],
    "positive": ["rises", "surges", "soars", "gains", "wins"],
    "neutral": ["meets", "holds", "opens", "names", "visits"],
}
FILLER = [f"word{i}" for i in range(40)]


def write(path: Path, rows: int, ts: str = "2026-01-01T00:00:00Z") -> Path:
    chance = random.Random(5)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["title", "label", "ts"])
        for i in range(rows):
            label = sorted(WORDS)[i % 3]
            words = chance.sample(FILLER, 4)
            words.insert(chance.randrange(4), chance.choice(WORDS[label]))
            out.writerow([" ".join(words), label, ts])
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT folder with one small layer of random weights and a word vocabulary."""
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("base")
    known = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *FILLER,
        *(word for words in WORDS.values() for word in words),
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    wide, inner = 64, 256
    config = {
        "model_type": "bert", "vocab_size": len(known), "hidden_size": wide, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": inner, "max_position_embeddings": 128,
        "layer_norm_eps": 1e-12,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    layer = "encoder.layer.0."
    sizes = {
        "embeddings.word_embeddings": (len(known), wide),
        "embeddings.position_embeddings": (128, wide),
        "embeddings.token_type_embeddings": (2, wide),
        **{f"{layer}attention.self.{name}": (wide, wide) for name in ("query", "key", "value")},
        f"{layer}attention.output.dense": (wide, wide),
        f"{layer}intermediate.dense": (inner, wide),
        f"{layer}output.dense": (wide, inner),
    }
    weights = {f"{name}.weight": torch.randn(*size) * 0.1 for name, size in sizes.items()}
    weights |= {f"{name}.bias": torch.zeros(size[0]) for name, size in sizes.items() if "embed" not in name}
    for name in ("embeddings.", f"{layer}attention.output.", f"{layer}output."):
        weights |= {f"{name}LayerNorm.weight": torch.ones(wide), f"{name}LayerNorm.bias": torch.zeros(wide)}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.train
def test_labelled_rows_become_a_bundle_that_serves(base: Path, tmp_path: Path) -> None:
    """A model trained on a user's file is published with its proofs, and evaluates well on the file."""
    from models import tuning_run
    from models.tuning import Recipe

    path = write(tmp_path / "own.csv", 900)
    splits = user_splits([path], {}, Period())
    recipes = [Recipe(epochs=4, rate=3e-3, depth_decay=1.0, averaging=0.9), Recipe(epochs=1, masking=0.1)]
    recipes.append(Recipe(epochs=2, rate=3e-3, depth_decay=1.0, averaging=0.9, seed=1, wide=True))
    folder = tmp_path / "bundle"
    bundle = tuning_run.make(splits, {"own": "own"}, base, folder, 1, recipes)
    assert open_bundle(folder).manifest == bundle.manifest
    assert bundle.manifest.parity["cpu-int8.onnx"].macro_f1_loss <= 0.003
    found = {figure["figure"]: figure["value"] for figure in evaluate_news([path], {}, folder)}
    assert found["macro_f1"] > 0.9
    assert from_bundle(bundle).model == "news/bundle"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.train
def test_a_finished_run_is_not_made_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that was ended takes finished runs from their files; another recipe or other data make new ones."""
    import torch

    from engines.text import wordpieces
    from models import tuning_run
    from models.tuning import Corpus, Recipe

    splits = user_splits([write(tmp_path / "own.csv", 900)], {}, Period())
    tokenise = wordpieces((base / "tokenizer.json").read_bytes(), 128)
    validation = Corpus(splits.validation, tokenise)
    made: list[Recipe] = []
    real = tuning_run.run

    def counted(base: Path, train: Corpus, validation: Corpus, recipe: Recipe) -> object:
        made.append(recipe)
        return real(base, train, validation, recipe)

    monkeypatch.setattr(tuning_run, "run", counted)
    first = tuning_run.Runs(tmp_path / "runs", base).once(Recipe(epochs=1), validation, validation, "a")
    again = tuning_run.Runs(tmp_path / "runs", base).once(Recipe(epochs=1), validation, validation, "a")
    assert len(made) == 1
    assert torch.equal(first.head.weight, again.head.weight)
    tuning_run.Runs(tmp_path / "runs", base).once(Recipe(epochs=1, seed=1), validation, validation, "a")
    tuning_run.Runs(tmp_path / "runs", base).once(Recipe(epochs=1), validation, validation, "b")
    assert len(made) == 3


def test_rows_outside_the_period_are_left_out(tmp_path: Path) -> None:
    """`--from` and `--to` choose by ts; a time without a zone is UTC."""
    files = [write(tmp_path / "old.csv", 600, "2025-01-01"), write(tmp_path / "new.csv", 600, "2026-01-01")]
    splits = user_splits(files, {}, Period(since=1751328000.0))
    assert {example.corpus for example in splits.train} == {str(files[1])}


def test_too_few_rows_are_said(tmp_path: Path) -> None:
    """A file that cannot give three parts with every label is refused in one line."""
    with pytest.raises(DataFileError, match="too few rows"):
        user_splits([write(tmp_path / "f.csv", 60)], {}, Period())


def test_an_existing_folder_is_not_written_over(tmp_path: Path) -> None:
    """`--out` of a folder that exists is refused before any work."""
    pytest.importorskip("torch", reason="needs the extra `train`")
    with pytest.raises(TrainingError, match="exists"):
        train_news(out=tmp_path)


def test_a_missing_data_folder_names_the_setting(tmp_path: Path) -> None:
    """Where the sets are missing, the message names TAPEWATCH_DATA."""
    pytest.importorskip("torch", reason="needs the extra `train`")
    with pytest.raises(TrainingError, match="TAPEWATCH_DATA"):
        train_news(tmp_path / "absent", tmp_path / "out")


def test_versions_are_counted_within_a_month(tmp_path: Path) -> None:
    """The next version is the first free number of the month."""
    from datetime import UTC, datetime

    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert next_version(tmp_path, now).name == "2026.11.1"
    (tmp_path / "2026.11.1").mkdir()
    assert next_version(tmp_path, now).name == "2026.11.2"
