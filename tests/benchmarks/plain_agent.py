"""The rival of `tapewatch bench news`: a plain Faust agent that calls a `transformers` pipeline for each event.

The same weights (put back from the bundle's half-precision graph into transformers' BERT), one thread, one core. Each
line of standard input is a list of texts: they are produced to a topic of its own, and the rate between the first and
the last scored event is printed. Needs the extra `train`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import faust
import onnx
import torch
from aiokafka import AIOKafkaProducer
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, pipeline
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.bert.modeling_bert import BertPreTrainedModel
from transformers.utils import logging as transformers_logging

from engines.bundle import active_folder
from models.encoder import Classifier
from models.export import HALF, reference
from streams.settings import Settings, read_settings
from streams.topics import TopicSpec, create_topics

PARTS = {
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "norm_attention",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm_output",
}


class MeanPooled(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """transformers' BERT with the mean of its tokens and a linear layer."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert: Any = BertModel(config, add_pooling_layer=False)  # type: ignore[no-untyped-call]
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SequenceClassifierOutput:
        """Logits [n, labels]."""
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[:, :, None].to(tokens.dtype)
        return SequenceClassifierOutput(logits=self.classifier((tokens * weights).sum(1) / weights.sum(1)))


def theirs(ours: Classifier) -> Any:
    """The classifier in transformers' form."""
    shape, state = ours.shape, ours.state_dict()
    config = BertConfig(  # type: ignore[call-arg]
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        layer_norm_eps=shape.epsilon,
        num_labels=state["head.weight"].shape[1],
    )
    model: Any = MeanPooled(config)
    put: dict[str, Tensor] = {
        "bert.embeddings.word_embeddings.weight": state["words"],
        "bert.embeddings.position_embeddings.weight": state["positions"],  # holds the token type's as well
        "bert.embeddings.token_type_embeddings.weight": torch.zeros(2, shape.hidden),
        "bert.embeddings.LayerNorm.weight": state["norm.weight"],
        "bert.embeddings.LayerNorm.bias": state["norm.bias"],
        "classifier.weight": state["head.weight"].T,
        "classifier.bias": state["head.bias"],
    }
    for number in range(shape.layers):
        to, of = f"bert.encoder.layer.{number}.", f"layers.{number}."
        for place, name in enumerate(("query", "key", "value")):
            cut = slice(place * shape.hidden, (place + 1) * shape.hidden)
            put[f"{to}attention.self.{name}.weight"] = state[f"{of}qkv.weight"][:, cut].T
            put[f"{to}attention.self.{name}.bias"] = state[f"{of}qkv.bias"][cut]
        for other, name in PARTS.items():
            weight = state[f"{of}{name}.weight"]
            put[f"{to}{other}.weight"] = weight.T if weight.dim() == 2 else weight
            put[f"{to}{other}.bias"] = state[f"{of}{name}.bias"]
    model.load_state_dict(put, strict=True)
    return model.eval()


def classify(settings: Settings) -> Any:
    """The `transformers` pipeline on the active bundle's weights."""
    folder = active_folder(settings.bundles, "news")
    ours = reference(onnx.load(folder / HALF))
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(folder / "tokenizer.json"),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=128,
    )
    return pipeline("text-classification", model=theirs(ours), tokenizer=tokenizer, device="cpu", top_k=None)


def main() -> None:
    """Run the agent; the input is read beside it."""
    transformers_logging.set_verbosity(logging.CRITICAL)
    torch.set_num_threads(1)
    settings, topic = read_settings(), f"plain-{uuid.uuid4().hex[:8]}"
    create_topics(settings.kafka, [TopicSpec(topic), TopicSpec(f"{topic}.scored")], settings.partitions)
    model = classify(settings)
    app = faust.App(
        topic,
        broker=f"aiokafka://{settings.kafka}",
        datadir=Path(tempfile.mkdtemp()),
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        value_serializer="raw",
    )
    source, target = (
        app.topic(topic, value_serializer="json"),
        app.topic(f"{topic}.scored", value_serializer="json"),
    )
    done: list[float] = []

    @app.agent(source)
    async def score(stream: Any) -> None:
        async for event in stream:
            found = model(event["title"], truncation=True)
            await target.send(key=event["id"], value={"id": event["id"], "p": found})
            done.append(time.perf_counter())

    threading.Thread(target=_serve, args=(settings, topic, done), daemon=True).start()
    app.finalize()
    worker = faust.Worker(app, loglevel="error", redirect_stdouts=False, quiet=True)
    worker.execute_from_commandline()


def _serve(settings: Settings, topic: str, done: list[float]) -> None:
    for line in sys.stdin:
        texts = json.loads(line)
        before = len(done)
        asyncio.run(_send(settings, topic, texts))
        while len(done) < before + len(texts):
            time.sleep(0.05)
        mine = done[before:]
        print("rate", (len(mine) - 1) / (mine[-1] - mine[0]) if len(mine) > 1 else 0.0, flush=True)


async def _send(settings: Settings, topic: str, texts: list[str]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, linger_ms=5)
    await producer.start()
    for number, title in enumerate(texts):
        await producer.send(
            topic, json.dumps({"id": str(number), "title": title}).encode(), key=str(number).encode()
        )
    await producer.stop()


if __name__ == "__main__":
    main()
