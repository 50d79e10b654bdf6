"""The recommender offline: reading, folds, what it learns, its ranking figures, from files to a bundle that ranks."""

from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path

import numpy as np
import pytest

from models import recommendation_data as data
from models import recommendation_folds as folds
from models import recommendation_metrics as metrics
from streams.launch.rows import DataFileError
from streams.recommending.diversity import diversify, intra_list_diversity
from streams.recommending.knowledge import Knowledge, dump, load, text_rows
from streams.recommending.room import Met, Room

DAYS = 150
START = 1_293_840_000  # 2011-01-01
KINDS = ("garden", "kitchen", "paper")


def shop(seed: int = 3) -> data.Interactions:
    """Ninety customers, each with one taste of three, and forty-five items, fifteen a taste."""
    chance = random.Random(seed)
    events = []
    for number in range(90):
        taste = number % 3
        for _ in range(14):
            kind = taste if chance.random() < 0.9 else chance.randrange(3)
            item = kind * 15 + chance.randrange(15)
            second = START + chance.randrange(DAYS * 86_400)
            events.append(data.Event(f"c{number}", f"i{item}", float(second), f"{KINDS[kind]} thing {item}"))
    return data.gather(events)


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    return path


def test_a_file_of_the_contract_is_read_with_its_columns_renamed(tmp_path: Path) -> None:
    """Columns are mapped, seconds and RFC 3339 are both times, no kind is a purchase, dismissals are left out."""
    rows = [
        {"user": "a", "item": "x", "time": "1300000000", "kind": ""},
        {"user": "b", "item": "x", "time": "2011-03-13T07:06:41Z", "kind": "view"},
        {"user": "a", "item": "y", "time": "1200000000", "kind": "dismiss"},
    ]
    path = write(tmp_path / "rows.csv", rows)
    found = data.read([path], {"customer": "user", "ts": "time"})
    assert found.customer_names == ("a", "b")
    assert found.item_names == ("x",)
    assert (found.days * data.DAY).tolist() == [1_300_000_000, 1_300_000_001]


def test_wrong_rows_are_reported_and_too_many_end_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each wrong row is named with its line, and more than one in ten wrong is an error."""
    good = {"customer": "a", "item": "x", "ts": "1300000000", "kind": "buy"}
    bad = [
        {**good, "customer": ""},
        {**good, "ts": "yesterday"},
        {**good, "kind": "steal"},
        {**good, "ts": "nan"},
    ]
    path = write(tmp_path / "rows.csv", [good] * 60 + bad)
    assert len(data.read([path], {})) == 60
    said = capsys.readouterr().err
    assert "line 62: no customer" in said
    assert "line 63: ts 'yesterday' is no time" in said
    assert "line 64: kind 'steal' is none of" in said
    assert "line 65" in said
    with pytest.raises(DataFileError, match="more than one in ten"):
        data.read([write(tmp_path / "bad.csv", [good, *bad])], {})


def test_online_retail_keeps_purchases_of_products_only(tmp_path: Path) -> None:
    """Cancelled lines, lines without customer, postage and giveaways are no purchases."""
    folder = tmp_path / data.UCI
    folder.mkdir()
    head = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    lines = [
        "1,85123a,WHITE  HEART,2,2011-03-01 08:30:00,7.95,14620.0,UK",
        "C2,85123A,WHITE HEART,-2,2011-03-02 08:30:00,7.95,14620.0,UK",
        "3,POST,POSTAGE,1,2011-03-03 08:30:00,18.0,14620.0,UK",
        "4,22138,BAKING SET,1,2011-03-04 08:30:00,4.95,,UK",
        "5,22138,BAKING SET,1,2011-03-05 08:30:00,0.0,14620.0,UK",
    ]
    with gzip.open(folder / "retail_2011-03.csv.gz", "wt") as file:
        file.write(head + "\n".join(lines) + "\n")
    for found in (data.retail(tmp_path), data.read([folder / "retail_2011-03.csv.gz"], {})):
        assert (found.customer_names, found.item_names, found.titles) == (
            ("14620",),
            ("85123A",),
            ("WHITE HEART",),
        )


def test_a_fold_by_time_judges_known_customers_on_items_new_to_them() -> None:
    """What was had before, items and customers that nobody knew, and what lies outside the span are not judged."""
    day = data.DAY
    events = [
        ("a", "x", 1),
        ("b", "y", 2),
        ("a", "x", 11),
        ("a", "y", 12),
        ("a", "new", 13),
        ("late", "x", 14),
    ]
    all_of = data.gather([data.Event(who, what, when * day, "") for who, what, when in events])
    found = folds.by_time(all_of, 10, 20)
    assert found.known.item_names == ("x", "y")
    assert [all_of.customer_names[c] for c in found.customers] == ["a"]
    assert [[all_of.item_names[i] for i in items] for items in found.wanted] == [["y"]]


def test_leave_last_out_keeps_each_customers_latest_item_back() -> None:
    """Everything but the last interaction is known, and only it is wanted."""
    events = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "x", 1), ("b", "z", 2), ("c", "y", 5)]
    all_of = data.gather([data.Event(who, what, when * data.DAY, "") for who, what, when in events])
    found = folds.leave_last_out(all_of)
    # z is known to nobody but those who are judged on it, so it cannot be ranked: only y and x remain
    assert len(found.known) == 4
    assert found.wanted == []
    more = data.gather(
        [
            *(data.Event(w, i, t * data.DAY, "") for w, i, t in events),
            data.Event("d", "z", 0, ""),
            data.Event("d", "y", 9, ""),
        ]
    )
    again = folds.leave_last_out(more)
    pairs = zip(again.customers, again.wanted, strict=True)
    named = {more.customer_names[c]: [more.item_names[i] for i in items] for c, items in pairs}
    assert named == {"a": ["z"], "b": ["z"], "d": ["y"]}


def test_ranking_figures_are_those_of_the_definition() -> None:
    """NDCG@10 discounts by the logarithm of the place against the best order; HR@10 asks whether there is a hit."""
    ranked = [np.array([5, 3, 9], np.int32), np.array([1, 2], np.int32)]
    wanted = [np.array([3, 9], np.int32), np.array([7], np.int32)]
    ideal = 1 + 1 / np.log2(3)
    expected = (1 / np.log2(3) + 1 / np.log2(4)) / ideal
    assert metrics.ndcg(ranked, wanted) == pytest.approx([expected, 0])
    assert metrics.hits(ranked, wanted).tolist() == [1, 0]


def test_a_ratio_of_a_method_with_itself_has_no_spread() -> None:
    """The bootstrap draws the same customers for both sides."""
    values = np.random.default_rng(1).random(50)
    assert metrics.ratio(values, values) == pytest.approx((1, 1, 1))


def test_diversity_puts_the_unlike_before_the_like() -> None:
    """With a weight, the second place goes to another kind of item; without, to the next best; nothing is lost."""
    titles = ["red cup", "red cup", "green tree", "blue sky"]
    words = ("red", "cup", "green", "tree", "blue", "sky")
    text = text_rows(titles, words, np.ones(6, np.float32))
    items, scores = np.arange(4, dtype=np.int32), np.array([1.0, 0.9, 0.8, 0.1], np.float32)
    assert diversify(items, scores, text, 4, 0).tolist() == [0, 1, 2, 3]
    unlike = diversify(items, scores, text, 2, 0.5).tolist()
    assert unlike == [0, 2]
    assert sorted(diversify(items, scores, text, 4, 0.5)) == [0, 1, 2, 3]
    assert intra_list_diversity(items[unlike], text) == pytest.approx(1)
    assert intra_list_diversity(items[:2], text) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def learned() -> Knowledge:
    pytest.importorskip("scipy")
    from models.recommendation_fit import fit

    made = shop()
    return fit(made, float(made.days[-1]) + 1)


@pytest.mark.train
def test_ease_is_the_solution_of_its_own_equations() -> None:
    """The weights minimise the regularised squared error with a zero diagonal: their gradient vanishes elsewhere."""
    pytest.importorskip("scipy")
    from models.recommendation_fit import ease_weights, matrix

    made = shop()
    weighted = matrix(made, float(made.days[-1]), 60.0)
    weights = ease_weights(weighted, 5.0)
    assert weights is not None
    gram = (weighted.T @ weighted).toarray()
    gradient = gram @ weights - gram + 5.0 * weights
    np.fill_diagonal(gradient, 0)
    assert np.diag(weights) == pytest.approx(np.zeros(len(weights)))
    assert np.abs(gradient).max() < 1e-2


@pytest.mark.train
def test_knowledge_comes_back_from_its_bytes(learned: Knowledge) -> None:
    """Names, tables and texts are the same after writing and reading, weights to half precision."""
    again = load(dump(learned))
    assert (again.names, again.titles, again.words) == (learned.names, learned.titles, learned.words)
    assert (again.ease.items == learned.ease.items).all()
    assert again.ease.weights == pytest.approx(learned.ease.weights, abs=1e-3)
    with pytest.raises(ValueError, match="no knowledge"):
        load(b"PK\x05\x06" + bytes(18))


@pytest.mark.train
def test_nothing_blocked_is_ever_a_candidate(learned: Knowledge) -> None:
    """Whatever is blocked, the list has none of it, and asks no more of the catalogue than is left."""
    from streams.recommending.demand import demand
    from streams.recommending.knowledge import History
    from streams.recommending.rank import recommend
    from streams.recommending.scores import shelf

    made, now = shop(), learned.now
    n = len(made.item_names)
    ready = shelf(learned, demand(made.items, made.days, now, n))
    chance = np.random.default_rng(0)
    for open_items in (0, 1, 5, n):
        blocked = np.ones(n, np.bool_)
        blocked[chance.choice(n, open_items, replace=False)] = False
        mine = chance.choice(n, chance.integers(0, 6), replace=False).astype(np.int32)
        history = History(mine, chance.random(len(mine)).astype(np.float32) * 30, 1)
        found = recommend(ready, lambda features: features[:, 0], history, blocked, 10)
        assert not blocked[found.items].any()
        assert len(set(found.items.tolist())) == len(found.items) == min(10, open_items)


@pytest.mark.train
def test_a_file_becomes_a_bundle_that_ranks_by_taste(tmp_path: Path) -> None:
    """Trained from a CSV, the published bundle opens, its ONNX ranker is at parity, and it beats popularity."""
    pytest.importorskip("lightgbm")
    pytest.importorskip("onnxmltools")
    from engines.bundle import open_bundle
    from models.recommendation_train import train
    from streams.recommending.model import open_model

    made = shop()
    rows = [
        {"user": made.customer_names[c], "item": made.item_names[i], "time": str(d * data.DAY)}
        for c, i, d in zip(made.customers, made.items, made.days, strict=True)
    ]
    path = write(tmp_path / "shop.csv", rows)
    train([path], {"customer": "user", "ts": "time"}, tmp_path / "out" / "1")
    bundle = open_bundle(tmp_path / "out" / "1")
    assert bundle.manifest.figures["ndcg@10"] > 1.2 * bundle.manifest.figures["popularity.ndcg@10"]
    assert bundle.manifest.parity["ranker.onnx"].max_difference < 1e-4
    model = open_model(bundle)
    width = len(model.settings.features)
    scores = model.rank(np.zeros((250, width), np.float32))
    assert scores.shape == (250,)
    assert model.knowledge.names == made.item_names
    serves(Room(model.knowledge, model.rank, pace=model.settings.pace), made)


def serves(room: Room, made: data.Interactions) -> None:
    """The room of a trained worker lists by taste what is new, an item that only the catalogue knows among it."""
    now = START + (DAYS + 1) * data.DAY
    room.put("new", "garden thing 99", active=True)
    room.put("i1", "garden thing 1", active=False)
    met = {item: Met(int((now - 3600) * 1000), item == "i0", False) for item in ("i0", "i2", "i4")}
    shown = room.list_for("somebody new", met, now, 10)
    garden = {f"i{number}" for number in range(15)} | {"new"}
    assert {"i0", "i1", "i2", "i4"}.isdisjoint(place.item for place in shown)
    assert len(shown) == 10
    assert sum(place.item in garden for place in shown) >= 7
    assert all(place.reason for place in shown)


@pytest.mark.train
def test_evaluate_judges_by_cut_and_by_leaving_the_last_out(tmp_path: Path) -> None:
    """Both ways print the figures of the contract with those of rivals; neither or both of them is wrong usage."""
    pytest.importorskip("lightgbm")
    pytest.importorskip("onnxmltools")
    from engines.bundle import open_bundle
    from models.recommendation_evaluate import CutError, evaluate
    from models.recommendation_train import make

    made = shop()
    make(made, ["shop.csv"], tmp_path / "b" / "1")
    rows = [
        {"customer": made.customer_names[c], "item": made.item_names[i], "ts": str(d * data.DAY)}
        for c, i, d in zip(made.customers, made.items, made.days, strict=True)
    ]
    path = write(tmp_path / "shop.csv", rows)
    bundle, may = open_bundle(tmp_path / "b" / "1"), START + 134.0 * data.DAY
    for cut, last_out in ((may, False), (None, True)):
        found = {row["figure"]: row for row in evaluate([path], {}, bundle, cut, last_out)}
        assert {"hr@10", "ndcg@10", "popularity.hr@10", "ease.ndcg@10", "n"} <= set(found)
        assert 0 < found["ndcg@10"]["value"] <= found["hr@10"]["value"] <= 1
        assert found["ndcg@10"]["value"] > found["popularity.ndcg@10"]["value"]
    for cut, last_out in ((None, False), (may, True)):
        with pytest.raises(CutError):
            evaluate([path], {}, bundle, cut, last_out)
