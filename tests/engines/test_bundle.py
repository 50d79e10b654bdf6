"""Bundles: nothing damaged is opened, nothing half-written is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.bundle import (
    Artefact,
    BundleError,
    Manifest,
    activate,
    active_folder,
    hashed,
    list_bundles,
    open_bundle,
    publish,
    rollback,
)


def manifest(folder: Path, version: str) -> Manifest:
    return Manifest(
        format=1,
        task="news",
        version=version,
        labels=("negative", "neutral", "positive"),
        temperature=1.5,
        max_tokens=128,
        buckets=(16, 128),
        engines={"onnxruntime": Artefact("graph.onnx", "int8")},
        files=hashed(folder),
        base="a base",
        created="2026-11-22T00:00:00Z",
        data_sha256="0" * 64,
        tools={"torch": "2"},
        parity={},
        figures={"set.accuracy": 0.9},
    )


def make(root: Path, version: str = "2026.11.1") -> Path:
    staged = root / "staged"
    staged.mkdir(parents=True)
    (staged / "graph.onnx").write_bytes(b"graph" * 100)
    (staged / "tokenizer.json").write_bytes(b"{}")
    return publish(staged, manifest(staged, version), root / "news" / version).folder


def test_a_published_bundle_opens(tmp_path: Path) -> None:
    """What was published is read back, file by file."""
    bundle = open_bundle(make(tmp_path))
    assert bundle.model == "news/2026.11.1"
    assert bundle.read("graph.onnx") == b"graph" * 100
    assert not (tmp_path / "staged").exists()


@pytest.mark.parametrize("name", ["graph.onnx", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "append", "remove"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    """One changed, cut, longer or missing file is a BundleError of one line with the file's name."""
    path = make(tmp_path) / name
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        flipped = bytes([content[0] ^ 1]) + content[1:]
        path.write_bytes({"flip": flipped, "cut": content[:-1], "append": content + b"x"}[damage])
    with pytest.raises(BundleError, match=name) as caught:
        open_bundle(path.parent)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_after_opening_is_not_read(tmp_path: Path) -> None:
    """The bytes that are returned are the bytes that were hashed."""
    folder = make(tmp_path)
    bundle = open_bundle(folder)
    (folder / "graph.onnx").write_bytes(b"GRAPH" * 100)
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.read("graph.onnx")


@pytest.mark.parametrize(
    "change",
    [
        (b'"format": 1', b'"format": 2'),
        (b'"file": "graph.onnx"', b'"file": "../x"'),
        (b'"file": "graph.onnx"', b'"file": "other.onnx"'),
        (b'"temperature": 1.5', b'"temperature": 0'),
        (b'"labels"', b'"lables"'),
        (b"}", b""),
        (b"{", b"\xff"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    """A manifest of another format, with a path, without a hash, or no JSON is a BundleError of one line."""
    path = make(tmp_path) / "manifest.json"
    changed = path.read_bytes().replace(*change)
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(BundleError, match=r"manifest\.json") as caught:
        open_bundle(path.parent)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    """A missing bundle is a BundleError."""
    with pytest.raises(BundleError, match="not a bundle"):
        open_bundle(tmp_path)


def test_a_published_bundle_is_never_replaced(tmp_path: Path) -> None:
    """Publishing over an existing version is refused, and the old one stays whole."""
    folder = make(tmp_path)
    with pytest.raises(BundleError, match="exists"):
        make(tmp_path)
    assert open_bundle(folder).model == "news/2026.11.1"


def test_a_bundle_that_does_not_verify_is_not_published(tmp_path: Path) -> None:
    """A manifest that does not fit its files leaves no folder behind."""
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "graph.onnx").write_bytes(b"graph")
    wrong = manifest(staged, "1")
    (staged / "graph.onnx").write_bytes(b"other")
    with pytest.raises(BundleError):
        publish(staged, wrong, tmp_path / "news" / "1")
    assert not (tmp_path / "news").exists()


def test_activation_names_the_version_that_serves(tmp_path: Path) -> None:
    """The active folder is the version that was activated last."""
    make(tmp_path, "1")
    make(tmp_path, "2")
    for version in ("1", "2", "1"):
        activate(tmp_path, "news", version)
        assert active_folder(tmp_path, "news") == tmp_path / "news" / version


def test_a_damaged_bundle_is_not_activated(tmp_path: Path) -> None:
    """Activation verifies, and leaves what was active."""
    make(tmp_path, "1")
    activate(tmp_path, "news", "1")
    (make(tmp_path, "2") / "graph.onnx").unlink()
    with pytest.raises(BundleError):
        activate(tmp_path, "news", "2")
    assert active_folder(tmp_path, "news").name == "1"


def test_rollback_goes_back_and_forth(tmp_path: Path) -> None:
    """The version that served before is remembered with the active one, and serves again after `rollback`."""
    for version in ("1", "2", "3"):
        make(tmp_path, version)
        activate(tmp_path, "news", version)
    assert [rollback(tmp_path, "news") for _ in range(3)] == ["2", "3", "2"]
    assert active_folder(tmp_path, "news").name == "2"


def test_activating_again_keeps_what_came_before(tmp_path: Path) -> None:
    """A version that is activated twice does not become its own predecessor."""
    for version in ("1", "2"):
        make(tmp_path, version)
    for version in ("1", "2", "2"):
        activate(tmp_path, "news", version)
    assert rollback(tmp_path, "news") == "1"


def test_rollback_needs_an_earlier_version_that_is_whole(tmp_path: Path) -> None:
    """Nothing remembered, or a damaged predecessor: one line, and what serves stays."""
    first = make(tmp_path, "1")
    activate(tmp_path, "news", "1")
    with pytest.raises(BundleError, match="no earlier version"):
        rollback(tmp_path, "news")
    make(tmp_path, "2")
    activate(tmp_path, "news", "2")
    (first / "graph.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"graph\.onnx"):
        rollback(tmp_path, "news")
    assert active_folder(tmp_path, "news").name == "2"


@pytest.mark.parametrize("version", ["../1", ".hidden", "/etc"])
def test_a_version_is_a_plain_name(tmp_path: Path, version: str) -> None:
    """No path is activated."""
    with pytest.raises(BundleError, match="not the name of a version"):
        activate(tmp_path, "news", version)


def test_a_bundle_of_another_task_is_not_activated(tmp_path: Path) -> None:
    """The manifest's task is the folder's."""
    make(tmp_path, "1").parent.rename(tmp_path / "chat")
    with pytest.raises(BundleError, match="a bundle of 'news'"):
        activate(tmp_path, "chat", "1")


@pytest.mark.parametrize("content", ["", "../other", ".hidden", "1\n../2"])
def test_a_wrong_active_file_is_refused(tmp_path: Path, content: str) -> None:
    """The active file holds a plain name."""
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "active").write_text(content)
    with pytest.raises(BundleError, match="not the name of a version"):
        active_folder(tmp_path, "news")


def test_no_active_bundle_is_said_with_the_setting_to_change(tmp_path: Path) -> None:
    """Where nothing is active, the message names TAPEWATCH_BUNDLES."""
    with pytest.raises(BundleError, match="TAPEWATCH_BUNDLES"):
        active_folder(tmp_path, "news")


def test_the_list_names_every_bundle_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Whole bundles are listed with size and figures, a damaged one with its problem."""
    make(tmp_path, "1")
    activate(tmp_path, "news", "1")
    (make(tmp_path, "2") / "graph.onnx").unlink()
    whole, damaged = list_bundles(tmp_path)
    assert (whole.version, whole.active, whole.bytes, whole.engines) == (
        "1",
        True,
        502,
        ("onnxruntime-int8",),
    )
    assert whole.figures == {"set.accuracy": 0.9}
    assert (damaged.version, damaged.active) == ("2", False)
    assert "graph.onnx" in damaged.problem
