"""The sentence classifier that is fine-tuned: a BERT encoder, the mean of its tokens, one linear layer.

Written out instead of taken from `transformers` for three reasons: weights are stored as the ONNX graph
multiplies them ([in, out], query, key and value in one matrix), so that every parameter keeps its name in the
exported graph and the torch reference can be rebuilt from the bundle; one int8 quantisation of the input
serves three projections; and the half-precision graph contains exactly the casts that are written here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

MASKED = -10000.0  # added to the score of a padding token; fits half precision


@dataclass(frozen=True)
class Shape:
    """The sizes of a BERT encoder, as its `config.json` names them."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    epsilon: float

    @classmethod
    def of(cls, folder: Path) -> Shape:
        """Read the sizes from a model folder; raises ValueError if it is not a BERT encoder."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") != "bert":
            raise ValueError(
                f"{folder}: model_type is {config.get('model_type')!r}; a BERT encoder is needed"
            )
        return cls(
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            inner=config["intermediate_size"],
            positions=config["max_position_embeddings"],
            epsilon=config["layer_norm_eps"],
        )


class Dropout(nn.Module):
    """Dropout whose masks are windows, at random places, of one long row of drawn bits.

    Drawing fresh bits for every activation is an eighth of a training step on a CPU.
    """

    POOL = 1 << 22

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self._pool: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        if self._pool is None:
            self._pool = (torch.rand(self.POOL) >= self.share).to(torch.bfloat16) / (1 - self.share)
        n = x.numel()
        if n >= self.POOL:
            return functional.dropout(x, self.share)
        start = int(torch.randint(0, self.POOL - n, (1,)))
        return x * self._pool[start : start + n].view(x.shape).to(x.dtype)


class Projection(nn.Module):
    """`x @ weight + bias` with `weight` of shape [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Layer(nn.Module):
    """One transformer layer with normalisation after each residual sum (Devlin et al. 2019)."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.heads = shape.heads
        self.width = shape.hidden // shape.heads
        self.qkv = Projection(shape.hidden, 3 * shape.hidden)
        self.out = Projection(shape.hidden, shape.hidden)
        self.norm_attention = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.up = Projection(shape.hidden, shape.inner)
        self.down = Projection(shape.inner, shape.hidden)
        self.norm_output = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) / self.width**0.5 + bias
        mixed = self.dropout(torch.softmax(scores, dim=-1)) @ v
        mixed = self.out(mixed.permute(0, 2, 1, 3).reshape(n, length, self.heads * self.width))
        x = self.norm_attention(x + self.dropout(mixed))
        x = x + self.dropout(self.down(functional.gelu(self.up(x))))
        normal: Tensor = self.norm_output(x)
        return normal


class Classifier(nn.Module):
    """Token ids and mask, both [n, length], in; logits [n, classes], always float32, out."""

    def __init__(self, shape: Shape, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Parameter(torch.empty(shape.vocabulary, shape.hidden).normal_(std=0.02))
        self.positions = nn.Parameter(torch.empty(shape.positions, shape.hidden).normal_(std=0.02))
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.layers = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.head = Projection(shape.hidden, classes)
        self.dropout = Dropout(dropout)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last layer's tokens, [n, length, hidden]."""
        words = functional.embedding(input_ids, self.words)
        x: Tensor = self.dropout(self.norm(words + self.positions[: input_ids.shape[1]]))
        bias = ((1 - attention_mask).to(x.dtype) * MASKED)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, bias)
        return x

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encode(input_ids, attention_mask)
        weights = attention_mask.to(tokens.dtype)[:, :, None]
        pooled = (tokens * weights).sum(1) / weights.sum(1)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits.float()


def from_bert(folder: Path, classes: int, dropout: float = 0.1) -> Classifier:
    """A classifier with a fresh head on the weights of a BERT folder (`config.json`, `model.safetensors`)."""
    shape = Shape.of(folder)
    model = Classifier(shape, classes, dropout)
    found = load_file(folder / "model.safetensors")
    prefix = "bert." if any(name.startswith("bert.") for name in found) else ""
    source = {name.removeprefix(prefix): tensor.float() for name, tensor in found.items()}
    model.load_state_dict(_renamed(source, shape), strict=False)
    return model


def _renamed(source: dict[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {
        "words": source["embeddings.word_embeddings.weight"],
        # every token is of type 0: its embedding is part of the position's
        "positions": source["embeddings.position_embeddings.weight"]
        + source["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": source["embeddings.LayerNorm.weight"],
        "norm.bias": source["embeddings.LayerNorm.bias"],
    }
    parts = {
        "out": "attention.output.dense",
        "norm_attention": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm_output": "output.LayerNorm",
    }
    for i in range(shape.layers):
        theirs = f"encoder.layer.{i}."
        qkv = [f"{theirs}attention.self.{name}." for name in ("query", "key", "value")]
        ours[f"layers.{i}.qkv.weight"] = torch.cat([source[name + "weight"] for name in qkv]).T.contiguous()
        ours[f"layers.{i}.qkv.bias"] = torch.cat([source[name + "bias"] for name in qkv])
        for name, other in parts.items():
            weight = source[f"{theirs}{other}.weight"]
            ours[f"layers.{i}.{name}.weight"] = weight.T.contiguous() if weight.dim() == 2 else weight
            ours[f"layers.{i}.{name}.bias"] = source[f"{theirs}{other}.bias"]
    return ours
