"""A published embedding and a phrase's head as one streaming network on the agent's features.

What lies between the three is folded into the layers beside it: the file's units of loudness into
the first convolution, the head's mean and deviation into the last. So the last embeddings, which
are a state, are about as large in each of their numbers, and an integer range suits them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from converters.foreign.chain_network import ChainNetwork, Layer
from converters.foreign.embedding import SpeechEmbedding
from converters.foreign.openwake import BANDS, NEW, WIDTH
from converters.wakeword.head_network import WINDOWS, HeadNetwork, windows_of
from edge_sdk.audio.samples import Floats

_STEPS: Final = 250
"""At once."""


class SpeechNetwork(nn.Module):
    """One step of 80 ms: eight frames and the states in, a logit and the states out.

    Args:
        layers: of the embedding.
        hidden: width of the head's layers.
    """

    bias: Tensor

    def __init__(self, layers: Sequence[Layer], hidden: int) -> None:
        super().__init__()
        self.register_buffer("bias", torch.zeros(BANDS))
        self.chain = ChainNetwork(layers, BANDS)
        self.first = nn.Linear(WINDOWS * WIDTH, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self._sizes = [*self.chain.memories, (1, WINDOWS - 1, WIDTH)]

    def states(self, count: int) -> list[Tensor]:
        """Empty ones, for so many streams."""
        return [torch.zeros(count, *shape[1:]) for shape in self._sizes]

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """(N, 8, 32) to (N, 1)."""
        vector, *after = self.chain((x + self.bias)[:, None], *before[:-1])
        last = torch.cat([before[-1], vector.reshape(-1, 1, WIDTH)], 1)
        return (self._logits(last), *after, last[:, 1:])

    @torch.no_grad()
    def scores(self, frames: Floats) -> Floats:
        """Scores (T,), 0 to 1, of frames (8 T, 32): many steps at once, from the beginning."""
        *memories, last = self.states(1)
        found = [np.zeros(0, np.float32)]
        for first in range(0, len(frames), _STEPS * NEW):
            x = torch.from_numpy(frames[first : first + _STEPS * NEW]) + self.bias
            vectors, *memories = self.chain(x[None, None], *memories)
            rows = torch.cat([last, vectors[0, :, :, 0].T[None]], 1)
            last = rows[:, 1 - WINDOWS :]
            found.append(torch.sigmoid(self._logits(windows_of(rows[0])))[:, 0].numpy())
        return np.concatenate(found)

    def _logits(self, windows: Tensor) -> Tensor:
        h = torch.relu(self.first(windows.flatten(1)))
        logits: Tensor = self.score(torch.relu(self.second(h)))
        return logits


@torch.no_grad()
def speech_network(embedding: SpeechEmbedding, head: HeadNetwork) -> SpeechNetwork:
    """Both as one, in evaluation mode.

    Args:
        embedding: on which the head learned.
        head: without what it was told to drop.
    """
    network = SpeechNetwork(embedding.layers, head.second.in_features)
    network.chain = embedding.network()
    units, convolutions = embedding.units, network.chain.convolutions()
    first, last = convolutions[0], convolutions[-1]
    first.weight.mul_(units.gain)
    network.bias.copy_(torch.from_numpy(units.bias / units.gain))
    last.weight.div_(head.deviation[:, None, None, None])
    last.bias.sub_(head.mean).div_(head.deviation)
    for ours, theirs in ((network.first, head.first), (network.second, head.second)):
        ours.load_state_dict(theirs.state_dict())
    network.score.load_state_dict(head.score.state_dict())
    return network.eval()
