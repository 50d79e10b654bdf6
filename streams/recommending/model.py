"""The recommender of a bundle: what was learned, the ranker's graph, and its settings."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from engines.bundle import Bundle
from engines.engine import Engine, EngineError
from engines.parts import open_part
from streams.recommending.knowledge import Floats, Knowledge, load
from streams.recommending.scores import CUSTOMER, RANKED, SCORES

KNOWLEDGE, SETTINGS, RANKER = "knowledge.npz", "settings.json", "ranker"


class ModelSettings(msgspec.Struct, frozen=True):
    """What a bundle says of its recommender: `pace` is how many days of the model pass in a day of the clock."""

    pace: float
    diversity: float
    features: tuple[str, ...]


class Model(NamedTuple):
    """An opened recommender; the engine belongs to it."""

    name: str
    knowledge: Knowledge
    engine: Engine
    settings: ModelSettings

    def rank(self, features: Floats) -> Floats:
        """One score a row, higher is better."""
        return self.engine.infer({"features": features})[:, 0]


def open_model(bundle: Bundle, engine: str = "auto", threads: int = 1) -> Model:
    """The recommender of an opened bundle; raises BundleError or EngineError where it is none of this version."""
    try:
        settings = msgspec.json.decode(bundle.read(SETTINGS), type=ModelSettings)
        knowledge = load(bundle.read(KNOWLEDGE))
    except (msgspec.DecodeError, ValueError) as error:
        raise EngineError(f"{bundle.model} is no recommender: {error}") from None
    asked = (*SCORES, *(f"rank of {name}" for name in RANKED))
    if settings.features[: len(asked)] != asked or settings.features[-len(CUSTOMER) :] != CUSTOMER:
        raise EngineError(f"{bundle.model} was trained on other features than this version has; train again")
    ranker = open_part(bundle, RANKER, engine, len(settings.features), threads)
    return Model(bundle.model, knowledge, ranker, settings)
