"""The sequence model: the present payment attends to its account's last payments. Small, and plain matrix products.

One block of attention with a single query (Vaswani et al. 2017; the query alone is what makes it cheap: cost grows
with the steps, not with their square). Steps that are missing are all zero and are masked: a step that is there has an
hour on the circle.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from models.export import without_traces
from models.train import TrainingError
from streams.payments.features import STEP, STEPS

WIDTH, HEADS, INNER = 24, 3, 48
BATCH, RATE, DECAY = 256, 3e-3, 1e-4
_CIRCLE = [STEP.index("hour_sine"), STEP.index("hour_cosine")]


class Network(nn.Module):
    """`steps` float32 [n, STEPS, len(STEP)] -> log-odds float32 [n, 1]."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: NDArray[Any] | None = None, scale: NDArray[Any] | None = None) -> None:
        super().__init__()
        size = len(STEP)
        self.register_buffer("mean", torch.tensor(np.zeros(size) if mean is None else mean).float())
        self.register_buffer("scale", torch.tensor(np.ones(size) if scale is None else scale).float())
        self.embed = nn.Sequential(nn.Linear(size, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.places = nn.Parameter(torch.zeros(STEPS, WIDTH))
        self.query, self.pair = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.head = nn.Sequential(nn.Linear(2 * WIDTH, INNER), nn.ReLU(), nn.Linear(INNER, 1))

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        steps = steps.to(self.mean.dtype)
        there = (steps[:, :, _CIRCLE].abs().sum(dim=2) > 0.5).unsqueeze(1)  # [n, 1, STEPS]
        hidden = self.embed((steps - self.mean) * self.scale) + self.places
        last = hidden[:, -1]
        key, value = self.pair(hidden).chunk(2, dim=2)
        size = WIDTH // HEADS
        query = self.query(last).reshape(-1, HEADS, 1, size)
        key = key.reshape(-1, STEPS, HEADS, size).permute(0, 2, 3, 1)
        value = value.reshape(-1, STEPS, HEADS, size).permute(0, 2, 1, 3)
        match = (query @ key).squeeze(2) * size**-0.5  # [n, HEADS, STEPS]
        match = torch.where(there, match, torch.full_like(match, -1e4))
        seen = (torch.softmax(match, dim=2).unsqueeze(2) @ value).reshape(-1, WIDTH)
        return self.head(torch.cat([last, seen], dim=1)).float()


def fit(
    steps: NDArray[np.float32], label: NDArray[Any], weight: NDArray[Any], epochs: int, seed: int
) -> Network:
    """A network trained on sequences [n, STEPS, len(STEP)]; weights make up for the negatives that were left out."""
    torch.manual_seed(seed)
    there = np.abs(steps[:, :, _CIRCLE]).sum(axis=2) > 0.5
    known = steps[there]
    mean, spread = known.mean(axis=0), known.std(axis=0)
    network = Network(mean, 1 / np.maximum(spread, 0.05))
    x, y = torch.from_numpy(steps), torch.from_numpy(np.asarray(label, np.float32))
    w = torch.from_numpy(np.asarray(weight, np.float32))
    batches = max(1, len(x) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * batches)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for number in range(batches):
            rows = order[number * BATCH : (number + 1) * BATCH]
            found = network(x[rows])[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(found, y[rows], w[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            pace.step()
    return network.eval()


def score(network: Network, steps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-odds [n]."""
    with torch.no_grad():
        chunks = range(0, len(steps), 8192)
        parts = [network(torch.from_numpy(steps[low : low + 8192]))[:, 0] for low in chunks]
    return torch.cat(parts).double().numpy() if parts else np.zeros(0)


def graph(network: Network, *, half: bool = False) -> onnx.ModelProto:
    """The ONNX graph: `steps` float32 [n, STEPS, len(STEP)] -> `logits` float32 [n, 1]; `half` inside or not."""
    made = Network()
    made.load_state_dict(network.state_dict())
    made = made.half().eval() if half else made.float().eval()
    example = torch.zeros(2, STEPS, len(STEP))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's talk of its own inside
        program = torch.onnx.export(
            made,
            (example,),
            dynamo=True,
            opset_version=20,
            input_names=["steps"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=65536)},),
        )
    if program is None:
        raise TrainingError("torch gave no ONNX program")
    return without_traces(program.model_proto)
