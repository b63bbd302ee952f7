"""A small network that knows one phrase from the last embeddings of speech.

The file is one of openWakeWord's kind: (1, 16, 96) to (1, 1), a probability. Several networks that
learned from different beginnings are one file: their layers side by side, their logits' mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from converters.foreign.openwake import OPSET, WIDTH, Notes, note
from converters.wakeword.ears import Halves
from converters.wakeword.evaluate import Rule
from edge_sdk.audio.samples import Floats
from edge_sdk.durable import DiskStorage

WINDOWS: Final = 16
"""Embeddings looked at, 1.28 s; each of them has heard three quarters of a second before."""
_IR: Final = 8
_AT_ONCE: Final = 8192


class HeadNetwork(nn.Module):
    """Embeddings (N, windows, 96) to logits (N,).

    Args:
        mean: of the embeddings that it will see, (96,).
        deviation: theirs, (96,).
        hidden: width of both layers.
        dropout: while it learns.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.first = nn.Linear(WINDOWS * WIDTH, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, windows, 96) to (N,)."""
        h = ((x - self.mean) / self.deviation).flatten(1)
        h = self.dropout(torch.relu(self.first(h)))
        h = self.dropout(torch.relu(self.second(h)))
        logits: Tensor = self.score(h)[:, 0]
        return logits


@torch.no_grad()
def joined(networks: Sequence[HeadNetwork]) -> HeadNetwork:
    """One network that answers the mean of their logits."""
    one, count = networks[0], len(networks)
    hidden = one.second.in_features
    found = HeadNetwork(one.mean, one.deviation, count * hidden, 0.0)
    found.second.weight.zero_()
    found.score.bias.zero_()
    for at, network in enumerate(networks):
        own = slice(at * hidden, (at + 1) * hidden)
        found.first.weight[own], found.first.bias[own] = network.first.weight, network.first.bias
        found.second.weight[own, own] = network.second.weight
        found.second.bias[own] = network.second.bias
        found.score.weight[:, own] = network.score.weight / count
        found.score.bias.add_(network.score.bias / count)
    return found.eval()


@torch.no_grad()
def score_embeddings(network: HeadNetwork, stream: Halves) -> Floats:
    """Scores (T,) float32, 0 to 1, of embeddings (T, 96): one stream from its beginning.

    Before it was what is usual, as in a device's states of zero.
    """
    before = np.repeat(network.mean.numpy()[None].astype(np.float16), WINDOWS - 1, 0)
    windows = windows_of(torch.from_numpy(np.concatenate((before, stream))))
    return np.concatenate(
        [
            torch.sigmoid(network(windows[at : at + _AT_ONCE].float())).numpy()
            for at in range(0, len(windows), _AT_ONCE)
        ]
    )


def windows_of(rows: Tensor) -> Tensor:
    """A view (T - windows + 1, windows, 96) of rows (T, 96)."""
    return rows.unfold(0, WINDOWS, 1).transpose(1, 2)


@torch.no_grad()
def write_head(network: HeadNetwork, path: Path, phrase: str, rule: Rule) -> None:
    """The network as a file that openWakeWord, too, can load; how to listen is noted in it.

    Raises:
        StorageError: the folder cannot be written.
    """
    spread = network.deviation.repeat(WINDOWS)
    first = network.first.weight / spread
    constants = {
        "first": first,
        "first_bias": network.first.bias - first @ network.mean.repeat(WINDOWS),
        "second": network.second.weight,
        "second_bias": network.second.bias,
        "last": network.score.weight,
        "last_bias": network.score.bias,
    }
    node = helper.make_node
    nodes = [
        node("Flatten", ["embeddings"], ["row"]),
        node("Gemm", ["row", "first", "first_bias"], ["seen"], transB=1),
        node("Relu", ["seen"], ["bent"]),
        node("Gemm", ["bent", "second", "second_bias"], ["weighed"], transB=1),
        node("Relu", ["weighed"], ["kept"]),
        node("Gemm", ["kept", "last", "last_bias"], ["logit"], transB=1),
        node("Sigmoid", ["logit"], ["score"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "wakeword",
        [info("embeddings", TensorProto.FLOAT, [1, WINDOWS, WIDTH])],
        [info("score", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(value.numpy(), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
    note(model, Notes(phrase, rule.cutoff, rule.window_steps, rule.refractory_s))
    onnx.checker.check_model(model)
    DiskStorage().write(path, model.SerializeToString())
